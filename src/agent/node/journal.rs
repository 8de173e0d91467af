//! Reads and writes the journal: the file from which a restarted agent continues.
//!
//! The journal has the node's document, the document's timeline, and the transactions that may be rolled back, each
//! with the document before it, as an edit of the document after it. The state of the kernel is not in the journal,
//! because the agent reads it from the kernel.
//!
//! [`write`] replaces the file atomically. Before a commit writes to the kernel, the agent writes the journal with the
//! transaction marked as not done. At the confirmation, the agent writes the journal with the transaction marked as
//! done. The agent may therefore be killed at any time. The next agent rolls back a transaction that is not done. The
//! other nodes roll back this transaction too: the controller tells them, or their leases expire.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    mem,
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::shared::Shared;
use super::transactions::{Last, Record, Recorded, RollbackPoint, Tickets, chain};
use crate::{
    agent::{Config, Now, time::Timeline},
    files::if_exists,
    plan::{Delta, DeltaError, IfName},
    topology::NodeName,
};

/// The version of the format. The agent also reads a journal of version 4 to 6, and of version 1 to 3 that has no timed
/// change and no partition.
const VERSION: u32 = 7;

/// A document and its timeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    pub(super) document: Shared,
    pub(super) timeline: Timeline,
    /// Addresses of the interface that the document does not name and that are no drift. See `Node::left_out`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) left_out: BTreeSet<IpAddr>,
}

/// A [`Held`] before a transaction, as the file has it.
#[derive(Serialize, Deserialize)]
struct Earlier {
    #[serde(flatten)]
    document: Form,
    timeline: Timeline,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    left_out: BTreeSet<IpAddr>,
}

/// The document before a transaction.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// The edit of the document after the transaction: a document of 10,000 nodes has a megabyte.
    Edit(Box<Delta>),
    /// The whole document: the document after the transaction is clear, or the journal has version 6 or lower.
    Document(Shared),
}

impl Earlier {
    fn of(Held { document, timeline, left_out }: Held, after: &Shared) -> Self {
        let edit = Delta::to_stamp(after, &document, || document.stamp());
        Self { document: edit.map_or(Form::Document(document), |edit| Form::Edit(edit.into())), timeline, left_out }
    }

    fn held(self, after: &Shared) -> Result<Held, DeltaError> {
        let Self { document, timeline, left_out } = self;
        let document = match document {
            Form::Edit(edit) => edit.applied_to(after)?.into(),
            Form::Document(document) => document,
        };
        Ok(Held { document, timeline, left_out })
    }
}

/// The content of a journal. `E`: the documents before the transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalRecord<E = Held> {
    /// The node that owns the journal.
    pub(super) node: NodeName,
    /// The id of the boot in which the journal was written. The journal's uptimes count from this boot.
    pub(super) boot: String,
    /// The document after the transaction.
    pub(super) held: Held,
    /// The last transaction; `None`: there is nothing to roll back.
    pub(super) transaction: Option<Recorded<E>>,
    /// Tickets of earlier transactions that can no longer be rolled back.
    #[serde(default, rename = "superseded", skip_serializing_if = "Tickets::is_empty")]
    pub(super) finished: Tickets,
}

impl JournalRecord {
    /// The journal of a node, with the id of the present boot.
    pub(super) fn new(node: NodeName, boot: String, record: Record<Held>) -> Self {
        let Record { held, transaction, finished } = record;
        Self { node, boot, held, transaction, finished }
    }

    /// The transactions of the journal.
    pub(super) fn record(self) -> Record<Held> {
        let Self { held, transaction, finished, .. } = self;
        Record { held, transaction, finished }
    }

    /// Checks that the journal belongs to this agent's node, and that the journal's documents are valid.
    pub(super) fn of(self, config: &Config) -> Result<Self, JournalError> {
        let Some(path) = &config.journal else { return Ok(self) };
        if self.node != config.node {
            return Err(JournalError::Another(path.clone(), self.node));
        }
        let before = self.transaction.iter().map(|transaction| &transaction.before);
        let below = self
            .transaction
            .iter()
            .flat_map(|transaction| chain(transaction.below.as_deref()))
            .map(|point| &point.before);
        let error = [&self.held].into_iter().chain(before).chain(below).find_map(|held| held.document.check().err());
        match error {
            Some(error) => Err(JournalError::Malformed(path.clone(), error.to_string())),
            None => Ok(self),
        }
    }

    /// True if the node is clear and no change is under way.
    pub(crate) fn is_clear(&self) -> bool {
        self.held.document.is_clear() && self.transaction.as_ref().is_none_or(|transaction| transaction.is_done)
    }

    /// If the journal is of another or an unknown boot: continues the timelines by the wall clock, because uptimes
    /// restart at a boot. The node then also accepts changes that leave out nodes of an unfinished transaction.
    pub(super) fn in_boot(mut self, boot: &str, now: Now) -> Self {
        if self.boot == boot && !boot.is_empty() {
            return self;
        }
        boot.clone_into(&mut self.boot);
        self.held.timeline.restart(now);
        if let Some(Recorded { before, until, below, .. }) = &mut self.transaction {
            before.timeline.restart(now);
            *until = Duration::ZERO;
            let mut next = below.as_deref_mut();
            while let Some(RollbackPoint { before, until, below, .. }) = next {
                before.timeline.restart(now);
                *until = Duration::ZERO;
                next = below.as_deref_mut();
            }
        }
        self
    }
}

impl<E> JournalRecord<E> {
    /// The record with other forms of the documents before the transactions. `convert` gets the newest one first.
    fn map<F>(self, mut convert: impl FnMut(E) -> Result<F, DeltaError>) -> Result<JournalRecord<F>, DeltaError> {
        let Self { node, boot, held, transaction, finished } = self;
        let transaction = match transaction {
            Some(Recorded { ticket, before, is_done, until, below }) => {
                let before = convert(before)?;
                Some(Recorded { ticket, before, is_done, until, below: map_points(below, &mut convert)? })
            }
            None => None,
        };
        Ok(JournalRecord { node, boot, held, transaction, finished })
    }
}

fn map_points<E, F>(
    last: Last<E>,
    convert: &mut impl FnMut(E) -> Result<F, DeltaError>,
) -> Result<Last<F>, DeltaError> {
    let Some(point) = last else { return Ok(None) };
    let RollbackPoint { ticket, before, until, must_roll_back, below } = *point;
    let before = convert(before)?;
    let below = map_points(below, convert)?;
    Ok(Some(Box::new(RollbackPoint { ticket, before, until, must_roll_back, below })))
}

/// The first line of the file. Every version of netemctl can read this line.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
}

/// The error of an unusable journal or claim. With this error, a starting agent exits and changes nothing. A running
/// agent refuses the requested change, or retries the journal write later.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The file cannot be read.
    #[error("cannot read the journal {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// The file cannot be written.
    #[error("cannot write the journal {path}: {1}", path = .0.display())]
    Unwritable(PathBuf, #[source] io::Error),
    /// The content is truncated, or another program wrote the file.
    #[error("the journal {path} is invalid: {1}", path = .0.display())]
    Malformed(PathBuf, String),
    /// An older netemctl wrote the journal, in a format that this version cannot convert.
    #[error("the journal {path} has version {1}, in a format that this netemctl cannot read", path = .0.display())]
    Older(PathBuf, u32),
    /// A newer netemctl wrote the journal.
    #[error("the journal {path} has version {1}, and this netemctl reads versions up to {VERSION}", path = .0.display())]
    Newer(PathBuf, u32),
    /// Another agent runs with this journal.
    #[error("another agent uses the journal {path}", path = .0.display())]
    InUse(PathBuf),
    /// Another agent runs with this interface.
    #[error("another agent uses interface {0}")]
    InterfaceInUse(IfName),
    /// The agent could not claim the interface.
    #[error("cannot claim interface {0}: {1}")]
    Unclaimed(IfName, #[source] io::Error),
    /// The journal belongs to another node.
    #[error("the journal {path} belongs to node {1}", path = .0.display())]
    Another(PathBuf, NodeName),
}

impl JournalError {
    /// The remedy.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable(..) | Self::Unwritable(..) => {
                "the folder must exist, and the agent needs read and write access to it and to the file"
            }
            Self::InUse(_) | Self::InterfaceInUse(_) => {
                "stop the other agent first; two agents of one interface would undo each other's changes"
            }
            Self::Unclaimed(..) => "the agent binds a Unix socket to keep other agents from its interface",
            Self::Older(..) => {
                "start the version of netemctl that wrote it and run netemctl clear; or remove the file and run netemctl \
                 apply or clear"
            }
            Self::Newer(..) => "start the version of netemctl that wrote it",
            Self::Another(..) => "give each agent a `journal` of its own in its config",
            Self::Malformed(..) => {
                "restore it, or remove it: the agent then starts clear, and netemctl apply or clear brings the node in \
                 line"
            }
        }
    }
}

/// Reads a journal; `None`: the file does not exist.
pub(crate) fn read(path: &Path) -> Result<Option<JournalRecord>, JournalError> {
    let bytes = if_exists(fs::read(path)).map_err(|error| JournalError::Unreadable(path.into(), error))?;
    bytes.map(|bytes| decode(path, &bytes)).transpose()
}

/// Replaces a journal atomically: after a crash the file is the old journal or the new one.
///
/// The new file has a fixed name, unlike a file of the crate `tempfile`. A killed agent thus leaves at most one file.
/// The config check refuses a config that uses this name for another file.
pub(super) fn write(path: &Path, record: &JournalRecord) -> Result<(), JournalError> {
    let replace = |new: &Path| -> io::Result<()> {
        // A killed agent may have left a file.
        if_exists(fs::remove_file(new))?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        let mut file = BufWriter::new(file);
        encode(record, &mut file)?;
        file.into_inner()?.sync_all()?;
        fs::rename(new, path)?;
        // Without this sync, a crash may undo the rename.
        File::open(folder(path))?.sync_all()
    };
    let new = beside(path, "new");
    replace(&new).map_err(|error| {
        drop(fs::remove_file(&new));
        JournalError::Unwritable(path.into(), error)
    })
}

/// The path of a file beside the journal.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn encode(record: &JournalRecord, file: &mut impl Write) -> io::Result<()> {
    let mut after = record.held.document.clone();
    let record = record.clone().map(|before| {
        let document = before.document.clone();
        Ok(Earlier::of(before, &mem::replace(&mut after, document)))
    });
    serde_json::to_writer(&mut *file, &Head { version: VERSION })?;
    file.write_all(b"\n")?;
    serde_json::to_writer(&mut *file, &record.map_err(io::Error::other)?)?;
    file.write_all(b"\n")
}

fn decode(path: &Path, bytes: &[u8]) -> Result<JournalRecord, JournalError> {
    let malformed = |why: String| JournalError::Malformed(path.into(), why);
    if bytes.is_empty() {
        return Err(malformed("it is empty (was the disk full?)".to_owned()));
    }
    let head = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| malformed("it is truncated".to_owned()))?;
    let (head, record) = bytes.split_at(head);
    let Head { version } = serde_json::from_slice(head).map_err(|error| malformed(error.to_string()))?;
    match version {
        1..=VERSION => {}
        0 => return Err(malformed(format!("there is no version {version}"))),
        _ => return Err(JournalError::Newer(path.into(), version)),
    }
    // The final line break shows that the file is not truncated.
    let record = record.strip_suffix(b"\n").filter(|record| !record.is_empty());
    let record = record.ok_or_else(|| malformed("it is truncated".to_owned()))?;
    let record: JournalRecord<Earlier> = serde_json::from_slice(record).map_err(|error| match version {
        VERSION => malformed(error.to_string()),
        _ => JournalError::Older(path.into(), version),
    })?;
    let mut after = record.held.document.clone();
    let record = record.map(|before| {
        let before = before.held(&after)?;
        after = before.document.clone();
        Ok(before)
    });
    record.map_err(|error| malformed(error.to_string()))
}

#[cfg(any(test, fuzzing))]
fn encoded(record: &JournalRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(encode(record, &mut bytes));
    bytes
}

/// For fuzzing: checks that a valid journal, written and read again, is the same record, and that its use after a
/// reboot does not panic.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(bytes: &[u8]) {
    let Ok(record) = decode(Path::new("journal"), bytes) else { return };
    let again = decode(Path::new("journal"), &encoded(&record)).ok();
    assert_eq!(again.as_ref(), Some(&record), "a valid journal is written as it was read");
    let now = Now { uptime: Duration::from_mins(1), wall: crate::plan::Moment::from_nanos(1 << 60) };
    drop(record.in_boot("another boot", now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        plan::{Shape, Wanted},
        wire::Ticket,
    };

    fn entry() -> JournalRecord {
        let before = Held { document: Wanted { generation: 1, ..Wanted::default() }.into(), ..Held::default() };
        let held = Held { document: Wanted { generation: 2, ..Wanted::default() }.into(), ..Held::default() };
        let (until, must_roll_back) = (Duration::from_secs(1), true);
        let last =
            RollbackPoint { ticket: Ticket("a".into()), before: Held::default(), until, must_roll_back, below: None };
        let below = Some(Box::new(RollbackPoint {
            ticket: Ticket("b".into()),
            must_roll_back: false,
            below: None,
            ..last.clone()
        }));
        let below = Some(Box::new(RollbackPoint { below, ..last }));
        let transaction = Recorded { ticket: Ticket("c".into()), before, is_done: false, until, below };
        let record = Record { held, transaction: Some(transaction), finished: Tickets::default() };
        JournalRecord::new("n1".parse().unwrap(), "b".into(), record)
    }

    #[test]
    fn a_written_journal_starts_with_its_version_and_reads_back_the_same() {
        let bytes = encoded(&entry());
        assert!(bytes.starts_with(b"{\"version\":7}\n"));
        assert_eq!(decode(Path::new("j"), &bytes).unwrap(), entry());
    }

    #[test]
    fn a_journal_of_version_4_has_lists_of_nodes_instead_of_hostlists() {
        let sides = vec![["n1", "n2"].map(|name| name.parse().unwrap()).into()];
        let partition = serde_json::json!({ "name": "p", "shape": { "kind": "sides", "sides": ["n[1-2]"] } });
        let mut entry = entry();
        let mut document = Wanted::clone(&entry.held.document);
        document.partitions.push(serde_json::from_value(partition).unwrap());
        entry.held.document = document.into();
        assert_eq!(entry.held.document.partitions[0].shape, Shape::Sides { sides });
        let text = String::from_utf8(encoded(&entry)).unwrap();
        let older = text.replace("\"n[1-2]\"", "[\"n1\",\"n2\"]").replace("{\"version\":7}", "{\"version\":4}");
        assert!(older.contains("[[\"n1\",\"n2\"]]"), "{older}");
        assert_eq!(decode(Path::new("j"), older.as_bytes()).unwrap(), entry);
    }

    #[test]
    fn a_truncated_or_newer_or_invalid_journal_is_an_error() {
        let bytes = encoded(&entry());
        for length in 0..bytes.len() {
            assert!(matches!(decode(Path::new("j"), &bytes[..length]), Err(JournalError::Malformed(..))));
        }
        let newer = decode(Path::new("j"), b"{\"version\":8}\nnobody knows");
        assert!(matches!(newer, Err(JournalError::Newer(_, 8))));
        for text in ["\n\n", "{}\n{}\n", "{\"version\":0}\n{}\n", "{\"version\":7}\n{\"node\":\"n1\"}\n", "\0\0\0\n"] {
            let decoded = decode(Path::new("j"), text.as_bytes());
            assert!(matches!(decoded, Err(JournalError::Malformed(..))), "{text:?}");
        }
    }

    #[test]
    fn a_written_journal_replaces_the_old_one_and_leaves_no_other_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.json");
        assert!(read(&path).unwrap().is_none());
        for generation in 0..3 {
            let mut entry = entry();
            entry.held.document = Wanted { generation, ..Wanted::clone(&entry.held.document) }.into();
            write(&path, &entry).unwrap();
            assert_eq!(read(&path).unwrap(), Some(entry));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
