//! `verify --report`: the files, and the content of a report.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::Permissions,
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tempfile::NamedTempFile;

use super::{
    Exit, Failure,
    overlays::word_for,
    partitions::sentence,
    render::escape::{escaped, on_one_line},
};
use crate::{
    plan::{Moment, Overlay, Wanted},
    probe::Report,
    report::{Document, Format, Zone},
    topology::{NodeName, Topology, hostlist},
};

/// A file that a report is written to.
#[derive(Clone, Debug)]
pub(super) struct ReportFile {
    path: PathBuf,
    format: Format,
}

impl ReportFile {
    /// Reads the argument of `--report`. The ending of the file says its format.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let format = path.extension().and_then(|ending| Format::of_ending(ending.to_str()?));
        let format = format.ok_or("the name must end in .html, .svg, .md, .csv or .json")?;
        Ok(Self { path, format })
    }

    /// Fails if the file cannot be written.
    pub(super) fn check(&self) -> Result<(), Failure> {
        let cannot = |why: String| {
            let failure = Failure::new(Exit::Usage, format!("cannot write {}: {why}", self.path.display()));
            failure.hint("choose a file in a folder that you can write to")
        };
        if self.path.is_dir() {
            return Err(cannot("it is a folder".to_owned()));
        }
        self.beside().map(drop).map_err(|error| cannot(reason(&error)))
    }

    /// Writes the file as a whole: a reader sees the earlier file or the new one.
    pub(super) fn write(&self, document: &Document<'_>) -> Result<(), Failure> {
        let written = self.beside().and_then(|mut file| {
            file.write_all(document.render(self.format).as_bytes())?;
            Ok(file.persist(&self.path).map(drop)?)
        });
        let cannot = |error| {
            let message = format!("cannot write {}: {}", self.path.display(), reason(&error));
            Failure::new(Exit::Unwritten, message)
        };
        written.map_err(cannot)
    }

    /// A new file in the same folder.
    fn beside(&self) -> io::Result<NamedTempFile> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut builder = tempfile::Builder::new();
        // The umask takes away what the user does not want.
        builder.prefix(".netemctl-").permissions(Permissions::from_mode(0o666));
        builder.tempfile_in(folder.unwrap_or_else(|| Path::new(".")))
    }
}

/// The reason of an error, without the name of the file beside.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such folder".to_owned(),
        kind => kind.to_string(),
    }
}

/// The content of a report. `whole`: the document with the sides of inactive partitions.
pub(super) fn document<'a>(
    (wanted, whole): (&Wanted, &Wanted),
    report: &'a Report,
    kernels: &BTreeMap<String, BTreeSet<NodeName>>,
    texts: Texts,
) -> Document<'a> {
    let overlay = |overlay: &Overlay| {
        let arrow = if overlay.both_ways { "↔" } else { "→" };
        let (from, to) = (word_for(wanted, &overlay.from), word_for(wanted, &overlay.to));
        format!("{}: {from} {arrow} {to} {}", overlay.name, on_one_line(&overlay.change.source().text))
    };
    let partitions = wanted.partitions.iter().map(|partition| {
        let named = whole.partitions.iter().find(|other| other.name == partition.name);
        sentence(whole, named.unwrap_or(partition), partition.is_inactive())
    });
    Document {
        version: env!("CARGO_PKG_VERSION"),
        date: Moment::from(SystemTime::now()).to_string(),
        command: command(std::env::args_os().skip(1), std::env::vars_os()),
        topology: wanted.topology.as_ref().map(|topology| escaped(topology.name())),
        source: wanted.topology.as_ref().map(|topology| escaped(&topology.source().text)),
        selection: texts.selection,
        generation: wanted.generation,
        digest: wanted.stamp().digest.to_string(),
        overlays: wanted.overlays.iter().map(overlay).collect(),
        partitions: partitions.map(|partition| escaped(&partition)).collect(),
        kernels: kernels.iter().map(|(kernel, nodes)| (escaped(kernel), hostlist::fold(nodes))).collect(),
        zones: zones(wanted.topology.as_ref(), report),
        report,
        warnings: texts
            .warnings
            .iter()
            .map(|warning| warning.trim_start_matches("warning: ").trim_end().to_owned())
            .collect(),
        unjudged: texts.unjudged,
        json: texts.json,
    }
}

/// The texts of a report that are also in the answer on stdout.
pub(super) struct Texts {
    pub(super) selection: String,
    pub(super) warnings: Vec<String>,
    pub(super) unjudged: String,
    pub(super) json: String,
}

/// The zones with their nodes, then the other nodes.
fn zones(topology: Option<&Topology>, report: &Report) -> Vec<Zone> {
    let measured: BTreeSet<&NodeName> = report.pairs.iter().flat_map(|pair| [&pair.from, &pair.to]).collect();
    let mut zones: Vec<Zone> = (topology.into_iter().flat_map(Topology::zones))
        .map(|(zone, nodes)| Zone { name: Some(zone.to_string()), nodes: nodes.to_vec() })
        .collect();
    let named: BTreeSet<&NodeName> = zones.iter().flat_map(|zone| &zone.nodes).collect();
    let others: Vec<NodeName> = (measured.into_iter()).filter(|node| !named.contains(node)).cloned().collect();
    if !others.is_empty() {
        zones.push(Zone { name: None, nodes: others });
    }
    zones
}

/// The command of this process, for a shell: with the variables that netemctl reads.
fn command(arguments: impl Iterator<Item = OsString>, variables: impl Iterator<Item = (OsString, OsString)>) -> String {
    let quoted = |word: &str| shlex::try_quote(&escaped(word)).map_or_else(|_| word.to_owned(), Cow::into_owned);
    let variables = variables.filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| name.starts_with("NETEMCTL_"))?.to_owned();
        Some(format!("{name}={}", quoted(&value.to_string_lossy())))
    });
    let mut variables: Vec<String> = variables.collect();
    variables.sort();
    let arguments = arguments.map(|argument| quoted(&argument.to_string_lossy()));
    variables.into_iter().chain(["netemctl".to_owned()]).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_quoted_words_and_the_variables_that_netemctl_reads() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>().into_iter();
        let variables = [("HOME", "/root"), ("NETEMCTL_LAB_DIR", "/tmp/a b")];
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        let said = command(words(&["verify", "--report", "<b>\u{1b}it's.html"]), variables);
        assert_eq!(said, r#"NETEMCTL_LAB_DIR='/tmp/a b' netemctl verify --report "<b>\\u{1b}it's.html""#);
    }
}
