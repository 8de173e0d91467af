//! Reading a topology from a file, with what can go wrong before the language is concerned.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{Exit, Failure};
use crate::topology::{MAX_FILE_BYTES, Source, Topology};

/// Reads and parses a topology file; `-` is stdin.
pub(super) fn read(path: &Path) -> Result<Topology, Failure> {
    let name = if path == Path::new("-") { "<stdin>".to_owned() } else { path.display().to_string() };
    let unreadable = |error: &dyn std::fmt::Display| Failure::new(Exit::File, format!("cannot read {name}: {error}"));
    let mut bytes = Vec::new();
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                unreadable(&"no such file").hint("the project's own topologies are in topologies/")
            }
            _ => unreadable(&error),
        })?)
    };
    // One byte more than is allowed tells a file that is too large, however large it is.
    let read = input.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        unreadable(&format!("line {line} is not UTF-8 text"))
    })?;
    Ok(Topology::parse(Source::new(name, text))?)
}
