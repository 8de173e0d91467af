//! Reads a topology file and the files that it names.
//!
//! This module reports files that are missing, unreadable or not UTF-8. The parser reports the other errors.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Exit, Failure};
use crate::{
    inventory::InventoryFile,
    topology::{MAX_FILE_BYTES, Source, Topology},
};

/// Reads and parses a topology file; `-` is stdin.
///
/// Paths in the file are relative to the file's folder. Paths in stdin are relative to the current directory.
pub(super) fn read(path: &Path) -> Result<Topology, Failure> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin { "<stdin>".to_owned() } else { path.display().to_string() };
    let text = if is_stdin { text_of(io::stdin()) } else { open(path) };
    let text = text.map_err(|error| {
        let failure = Failure::new(Exit::File, format!("cannot read {name}: {error}"));
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        if is_missing { failure.hint("print a file to begin with: netemctl new > FILE") } else { failure }
    })?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let source = Source::new(name, text);
    // The file must be valid as a whole, even if this command does not use its inventory.
    let inventory = InventoryFile::of_topology(&source).err();
    let topology = Topology::load(source, |name| open(&folder.join(name)).map_err(|error| error.to_string()));
    match (topology, inventory) {
        (Ok(topology), None) => Ok(topology),
        (Ok(_), Some(rejected)) | (Err(rejected), None) => Err(rejected.into()),
        (Err(rejected), Some(inventory)) => Err(rejected.and(inventory).into()),
    }
}

/// The text of a file.
pub(super) fn open(path: &Path) -> io::Result<String> {
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), "no such file"),
        _ => error,
    });
    text_of(file?)
}

fn text_of(input: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    // One byte over the limit is enough to detect a file that is too large.
    input.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        io::ErrorKind::IsADirectory => io::Error::new(error.kind(), "it is a folder; name a file"),
        _ => error,
    })?;
    if bytes.len() > MAX_FILE_BYTES {
        // The text may end inside a character. The parser rejects the text because of its size.
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })
}
