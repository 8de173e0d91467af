//! `netemctl check`: is this file a topology?

use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Exit, Failure, render::count, topology_file};
use crate::topology::Problem;

/// Check a topology file: every error of it, each with its line and what would be right
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Checked<'a> {
    file: &'a str,
    topology: &'a str,
    nodes: usize,
    zones: usize,
    /// What is probably not meant, although the file is right.
    warnings: &'a [Problem],
}

impl Check {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let (nodes, zones) = (topology.nodes().len(), topology.zones().count());
        let warnings = topology.warnings();
        let (file, name) = (&topology.source().path, topology.name());
        let checked = Checked { file, topology: name, nodes, zones, warnings: warnings.problems() };
        context.warn(&warnings);
        context.answer(&checked, || {
            let (nodes, zones) = (count(nodes, "node"), count(zones, "zone"));
            let warnings = match checked.warnings.len() {
                0 => String::new(),
                number => format!(", {}", count(number, "warning")),
            };
            format!("{file}: topology {name}, {nodes} in {zones}: ok{warnings}")
        })?;
        Ok(Exit::Ok)
    }
}
