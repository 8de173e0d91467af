//! `netemctl check`: is this file a topology?

use std::path::PathBuf;

use serde::Serialize;

use super::{Context, Exit, Failure, topology_file};

/// Check topology files: every error of a file, each with its line and what would be right
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,
}

#[derive(Serialize)]
struct Checked<'a> {
    file: &'a PathBuf,
    topology: &'a str,
    nodes: usize,
    zones: usize,
}

impl Check {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let topology = topology_file::read(&self.file)?;
        let (nodes, zones) = (topology.nodes().len(), topology.zones().count());
        let checked = Checked { file: &self.file, topology: topology.name(), nodes, zones };
        context.answer(&checked, || {
            format!("{}: topology {}, {nodes} nodes in {zones} zones: ok", self.file.display(), topology.name())
        })?;
        Ok(Exit::Ok)
    }
}
