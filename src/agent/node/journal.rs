//! What an agent must not forget: one file, from which the next one goes on.
//!
//! It has the document that the node has, the times of what is in it, and the transaction that led there, with what was
//! before. It is replaced as a whole ([`write`]): before the first write of a commit to the kernel, with the transaction
//! not done, and once the controller has confirmed it, with the transaction done. So whenever the agent is killed, the
//! next one knows which of the two documents holds: a change that was not confirmed never was, as the controller tells
//! all other nodes. What the kernel has is not written down; it is asked.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::transactions::{Record, Recorded, RollbackPoint, Tickets, chain};
use crate::{
    agent::{Config, Now, time::Timeline},
    plan::{IfName, Wanted},
    topology::NodeName,
};

/// The version of the file's format. In the first three, times and the shapes of partitions
/// were written in another way; entries without any are read all the same.
const VERSION: u32 = 4;

/// A document and the times of what is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    pub(super) document: Wanted,
    pub(super) timeline: Timeline,
    /// The addresses that the node's interface had and its place in the document did not name, when it was put there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) left_out: BTreeSet<IpAddr>,
}

/// What is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalRecord {
    /// Whose journal it is.
    pub(super) node: NodeName,
    /// The boot in which it was written, to which the uptimes in it belong.
    pub(super) boot: String,
    /// What the transaction leads to.
    pub(super) held: Held,
    /// How it came to be; `None`: there is nothing to go back to.
    pub(super) transaction: Option<Recorded<Held>>,
    /// Earlier transactions that all nodes keep.
    #[serde(default, rename = "superseded", skip_serializing_if = "Tickets::is_empty")]
    pub(super) finished: Tickets,
}

impl JournalRecord {
    /// The entry of a node in a boot.
    pub(super) fn new(node: NodeName, boot: String, record: Record<Held>) -> Self {
        let Record { held, transaction, finished } = record;
        Self { node, boot, held, transaction, finished }
    }

    /// What it says of the node's transactions.
    pub(super) fn record(self) -> Record<Held> {
        let Self { held, transaction, finished, .. } = self;
        Record { held, transaction, finished }
    }

    /// The entry, if it is that of this agent, and of a document that the agent would take.
    pub(super) fn of(self, config: &Config) -> Result<Self, JournalError> {
        let Some(path) = &config.journal else { return Ok(self) };
        if self.node != config.node {
            return Err(JournalError::Another { path: path.clone(), node: self.node });
        }
        let before = self.transaction.iter().map(|transaction| &transaction.before);
        let below = self
            .transaction
            .iter()
            .flat_map(|transaction| chain(transaction.below.as_deref()))
            .map(|point| &point.before);
        let unfit = [&self.held].into_iter().chain(before).chain(below).find_map(|held| held.document.check().err());
        match unfit {
            Some(unfit) => Err(JournalError::Malformed { path: path.clone(), why: unfit.to_string() }),
            None => Ok(self),
        }
    }

    /// Whether nothing is in force, and nothing was about to be.
    pub(crate) fn is_clear(&self) -> bool {
        self.held.document.is_clear() && self.transaction.as_ref().is_none_or(|transaction| transaction.is_done)
    }

    /// The entry with times that hold in this boot. In the one in which it was written they do; since another one, only
    /// the wall clock knows how much time has passed.
    pub(super) fn in_boot(self, boot: &str, now: Now) -> Self {
        if self.boot == boot && !boot.is_empty() {
            return self;
        }
        let again = |held: Held| Held { timeline: held.timeline.after_boot(now), ..held };
        let before = |transaction: Recorded<Held>| Recorded {
            before: again(transaction.before),
            until: Duration::ZERO,
            below: RollbackPoint::map_chain(transaction.below, &|made| RollbackPoint {
                before: again(made.before),
                until: Duration::ZERO,
                ..made
            }),
            ..transaction
        };
        Self { boot: boot.to_owned(), held: again(self.held), transaction: self.transaction.map(before), ..self }
    }
}

/// A line of its own before the entry, so that a later format need not be understood to be told apart.
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
}

/// Why a journal is of no use. The agent ends then and changes nothing: what it does not know it must not roll back.
#[derive(Debug, Error)]
pub enum JournalError {
    /// It cannot be read.
    #[error("cannot read the journal {path}: {1}", path = .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    /// It cannot be written.
    #[error("cannot write the journal {path}: {1}", path = .0.display())]
    Unwritable(PathBuf, #[source] io::Error),
    /// Something else wrote it, or its disk has lost some of it.
    #[error("the journal {path} makes no sense: {why}", path = .path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// In which way.
        why: String,
    },
    /// A later netemctl wrote it.
    #[error("the journal {path} is of version {version}, and this netemctl reads version {VERSION}", path = .path.display())]
    Older {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A later netemctl wrote it.
    #[error("the journal {path} is of version {version}, and this netemctl knows versions up to {VERSION}", path = .path.display())]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// Another agent has it.
    #[error("another agent keeps the journal {path}", path = .0.display())]
    InUse(PathBuf),
    /// Another agent has an interface.
    #[error("another agent has interface {0}")]
    InterfaceInUse(IfName),
    /// Nobody knows whether another agent has an interface.
    #[error("cannot claim interface {0}: {1}")]
    Unclaimed(IfName, #[source] io::Error),
    /// Another agent's journal.
    #[error("the journal {path} is that of node {node}", path = .path.display())]
    Another {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        node: NodeName,
    },
}

impl JournalError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unreadable(..) | Self::Unwritable(..) => {
                "the agent needs to read and write that file and its folder, which must be there"
            }
            Self::InUse(_) | Self::InterfaceInUse(_) => {
                "end that one first; two that change one interface would roll back each other's work"
            }
            Self::Unclaimed(..) => "the agent makes a Unix socket to keep others from its interface",
            Self::Older { .. } => {
                "start the version of netemctl that wrote it, and netemctl clear; or remove it, and netemctl apply or clear \
                 brings the node in line"
            }
            Self::Newer { .. } => "start the version of netemctl that wrote it",
            Self::Another { .. } => "give each agent a `journal` of its own in its config",
            Self::Malformed { .. } => {
                "if it cannot be brought back, remove it: the agent then starts as if nothing were in force, and \
                 netemctl apply or clear brings the node in line"
            }
        }
    }
}

/// Reads a journal; `None`: there is none yet.
pub(crate) fn read(path: &Path) -> Result<Option<JournalRecord>, JournalError> {
    match fs::read(path) {
        Ok(bytes) => decode(path, &bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(JournalError::Unreadable(path.into(), error)),
    }
}

/// Replaces a journal, so that whenever the machine stops there is the old one or the new one, whole.
pub(super) fn write(path: &Path, entry: &JournalRecord) -> Result<(), JournalError> {
    let replace = |new: &Path| -> io::Result<()> {
        write_new(new, &encode(entry)?)?;
        fs::rename(new, path)?;
        // Without this, the machine may forget the new name, although not what is in the file.
        File::open(folder(path))?.sync_all()
    };
    let new = beside(path, "new");
    replace(&new).map_err(|error| {
        drop(fs::remove_file(&new));
        JournalError::Unwritable(path.into(), error)
    })
}

/// Finds out whether the disk would take an entry, and leaves nothing of it.
pub(super) fn check_write(path: &Path, entry: &JournalRecord) -> Result<(), JournalError> {
    let new = beside(path, "new");
    let tried = encode(entry).and_then(|bytes| write_new(&new, &bytes));
    drop(fs::remove_file(&new));
    tried.map_err(|error| JournalError::Unwritable(path.into(), error))
}

/// Writes a file that is not there, or is left over from an agent that was killed at this: there is only one at a time.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A file of the journal's own, beside it.
pub(crate) fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    name.into()
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn encode(entry: &JournalRecord) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(&Head { version: VERSION })?;
    bytes.push(b'\n');
    serde_json::to_writer(&mut bytes, entry)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<JournalRecord, JournalError> {
    let malformed = |why: String| JournalError::Malformed { path: path.into(), why };
    if bytes.is_empty() {
        return Err(malformed("it is empty, as a disk that was full may leave a file".to_owned()));
    }
    let head = bytes.iter().position(|byte| *byte == b'\n').ok_or_else(|| malformed("it is cut short".to_owned()))?;
    let (head, entry) = bytes.split_at(head);
    let Head { version } = serde_json::from_slice(head).map_err(|error| malformed(error.to_string()))?;
    match version {
        1..=VERSION => {}
        0 => return Err(malformed(format!("there is no version {version}"))),
        _ => return Err(JournalError::Newer { path: path.into(), version }),
    }
    // An entry ends with a line break, so that one that is cut short is always seen to be.
    let entry = entry.strip_suffix(b"\n").filter(|entry| !entry.is_empty());
    let entry = entry.ok_or_else(|| malformed("it is cut short".to_owned()))?;
    serde_json::from_slice(entry).map_err(|error| match version {
        VERSION => malformed(error.to_string()),
        _ => JournalError::Older { path: path.into(), version },
    })
}

/// For fuzzing: what is read comes back as it would be written, and its times hold in another boot.
#[cfg(any(test, fuzzing))]
pub(crate) fn check(bytes: &[u8]) {
    let Ok(entry) = decode(Path::new("journal"), bytes) else { return };
    let again = encode(&entry).map(|bytes| decode(Path::new("journal"), &bytes).ok());
    assert_eq!(again.ok().flatten().as_ref(), Some(&entry), "an entry comes back");
    let now = Now { uptime: Duration::from_mins(1), wall: crate::plan::Moment::from_nanos(1 << 60) };
    drop(entry.in_boot("another boot", now));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Ticket;

    fn entry() -> JournalRecord {
        let before = Held { document: Wanted { generation: 1, ..Wanted::default() }, ..Held::default() };
        let held = Held { document: Wanted { generation: 2, ..Wanted::default() }, ..Held::default() };
        let (until, is_unwanted) = (Duration::from_secs(1), true);
        let last =
            RollbackPoint { ticket: Ticket("a".into()), before: Held::default(), until, is_unwanted, below: None };
        let below = Some(Box::new(RollbackPoint {
            ticket: Ticket("b".into()),
            is_unwanted: false,
            below: None,
            ..last.clone()
        }));
        let below = Some(Box::new(RollbackPoint { below, ..last }));
        let transaction = Recorded { ticket: Ticket("c".into()), before, is_done: false, until, below };
        let record = Record { held, transaction: Some(transaction), finished: Tickets::default() };
        JournalRecord::new("n1".parse().unwrap(), "b".into(), record)
    }

    #[test]
    fn an_entry_is_read_as_it_was_written_and_its_version_is_told_first() {
        let bytes = encode(&entry()).unwrap();
        assert!(bytes.starts_with(b"{\"version\":4}\n"));
        assert_eq!(decode(Path::new("j"), &bytes).unwrap(), entry());
    }

    #[test]
    fn half_an_entry_another_version_and_what_is_none_are_errors() {
        let bytes = encode(&entry()).unwrap();
        for length in 0..bytes.len() {
            assert!(matches!(decode(Path::new("j"), &bytes[..length]), Err(JournalError::Malformed { .. })));
        }
        let newer = decode(Path::new("j"), b"{\"version\":7}\nnobody knows");
        assert!(matches!(newer, Err(JournalError::Newer { version: 7, .. })));
        for text in ["\n\n", "{}\n{}\n", "{\"version\":0}\n{}\n", "{\"version\":4}\n{\"node\":\"n1\"}\n", "\0\0\0\n"] {
            let decoded = decode(Path::new("j"), text.as_bytes());
            assert!(matches!(decoded, Err(JournalError::Malformed { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_journal_is_replaced_as_a_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n1.json");
        assert!(read(&path).unwrap().is_none());
        for generation in 0..3 {
            let mut entry = entry();
            entry.held.document.generation = generation;
            write(&path, &entry).unwrap();
            assert_eq!(read(&path).unwrap(), Some(entry));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
