//! `netemctl check`: is this file a topology?

use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Exit, Failure, render::count, topology_file};

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
}

impl Check {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let (nodes, zones) = (topology.nodes().len(), topology.zones().count());
        let checked = Checked { file: &topology.source().path, topology: topology.name(), nodes, zones };
        context.answer(&checked, || {
            let (nodes, zones) = (count(nodes, "node"), count(zones, "zone"));
            format!("{}: topology {}, {nodes} in {zones}: ok", checked.file, checked.topology)
        })?;
        Ok(Exit::Ok)
    }
}
