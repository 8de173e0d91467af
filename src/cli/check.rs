//! `netemctl check`: checks topology files and prints their errors.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Context, Exit, Failure, render::count, topology_file};
use crate::{inventory::InventoryFile, topology::Problem};

/// Check topology files
///
/// Prints errors with their lines and corrections. Some errors of overrides show only after others are corrected.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Topology files, or - for stdin
    #[arg(value_name = "TOPOLOGY", required = true)]
    files: Vec<PathBuf>,
}

/// The document of `check`: the result for one file, or for several files.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Check"))]
#[serde(untagged)]
pub(super) enum Answer {
    One(Checked),
    Several {
        /// The results, in the order of the command line.
        files: Vec<File>,
    },
}

/// The result for one of several files.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "CheckFile"))]
#[serde(untagged)]
pub(super) enum File {
    Right(Checked),
    Wrong { file: String, error: Box<Failure> },
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Checked {
    file: String,
    topology: String,
    nodes: usize,
    zones: usize,
    /// Warnings about the valid file and its inventory.
    warnings: Vec<Problem>,
}

impl Check {
    pub(super) fn run(&self, context: &Context) -> Result<Exit, Failure> {
        if let [file] = &self.files[..] {
            let answer = Answer::One(Checked::of(context, file)?);
            return context.answer(&answer, || answer.draw());
        }
        let mut exit = Exit::Ok;
        let files = self.files.iter().map(|path| match Checked::of(context, path) {
            Ok(checked) => File::Right(checked),
            Err(failure) => {
                // Every failure here is about a file, so all failures have the same exit code.
                exit = failure.exit;
                context.complain(&failure);
                File::Wrong { file: path.display().to_string(), error: Box::new(failure) }
            }
        });
        let answer = Answer::Several { files: files.collect() };
        context.answer(&answer, || answer.draw())?;
        Ok(exit)
    }
}

impl Checked {
    /// Checks a file, and prints its warnings.
    fn of(context: &Context, path: &Path) -> Result<Self, Failure> {
        let topology = topology_file::read(path)?;
        // An inventory with errors fails earlier, in `topology_file::read`.
        let inventory = InventoryFile::of_topology(topology.source()).ok().flatten();
        let of_inventory = inventory.map(|inventory| inventory.warnings().clone()).unwrap_or_default();
        let warnings = topology.warnings().and(of_inventory);
        context.warn(&warnings);
        Ok(Self {
            file: topology.source().path.clone(),
            topology: topology.name().to_owned(),
            nodes: topology.nodes().len(),
            zones: topology.zones().count(),
            warnings: warnings.problems().to_vec(),
        })
    }

    fn draw(&self) -> String {
        let Self { file, topology, nodes, zones, warnings } = self;
        let (nodes, zones) =
            (count(*nodes, "node"), if *zones == 0 { "no zones".to_owned() } else { count(*zones, "zone") });
        let warnings = match warnings.len() {
            0 => String::new(),
            number => format!(", {}", count(number, "warning")),
        };
        format!("{file}: topology {topology}, {nodes}, {zones}: ok{warnings}\n")
    }
}

impl Answer {
    fn draw(&self) -> String {
        match self {
            Self::One(checked) => checked.draw(),
            Self::Several { files } => {
                let line = |file: &File| match file {
                    File::Right(checked) => checked.draw(),
                    File::Wrong { file, .. } => format!("{file}: invalid\n"),
                };
                files.iter().map(line).collect()
            }
        }
    }
}
