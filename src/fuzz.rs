//! Fuzz targets: functions that pass arbitrary bytes to the parsers of input from outside. Not a part of the program.
//!
//! `fuzz/` runs the targets with bytes from libFuzzer. The tests run the targets with the bytes in `fuzz/corpus`. A
//! target must not panic. If the parser accepts the bytes, the target asserts properties of the result.

#![expect(clippy::missing_panics_doc, reason = "fuzzing searches for panics")]

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    agent,
    inventory::InventoryFile,
    kernel,
    plan::LineRate,
    topology::{FileReport, LinkChange, NodeName, Source, Topology, hostlist},
    wire::{
        Call, Commit, Confirm, GetCounters, GetFacts, GetHost, GetReady, GetStamp, GetStatus, GetWanted, Plan, Prepare,
        Probe, Rollback,
    },
};

/// A fuzz target: takes arbitrary bytes.
pub type Target = fn(&[u8]);

/// All targets with their names. A target's file in `fuzz/fuzz_targets` and folder in `fuzz/corpus` have the same name.
pub const TARGETS: [(&str, Target); 9] = [
    ("topology", topology),
    ("inventory", inventory),
    ("hostlist", hostlist),
    ("link_change", link_change),
    ("journal", journal),
    ("config", config),
    ("request", request),
    ("route", route),
    ("sample", sample),
];

/// The start of a separator line between a topology file and each file that the topology refers to. The file's name
/// follows.
const NEXT_FILE: &str = "\n=== ";

/// Loads a topology file with its matrices and tables.
pub fn topology(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut parts = text.split(NEXT_FILE);
    let text = parts.next().unwrap_or_default();
    let files: BTreeMap<&str, &str> = parts.filter_map(|part| part.split_once('\n')).collect();
    let source = Source::new("fuzz.toml", text);
    match Topology::load(source, |name| {
        files.get(name).map(ToString::to_string).ok_or_else(|| "no such file".to_owned())
    }) {
        Ok(topology) => {
            survives_the_wire(&topology);
            for node in topology.nodes().iter().take(10) {
                assert!(topology.contains(node));
                assert_eq!(topology.links_from(node).take(100).filter(|(to, _)| *to == node).count(), 0);
            }
            if topology.nodes().len() < 100 {
                drop(topology.distinct_links());
            }
        }
        Err(rejected) => refused(&rejected),
    }
}

/// Reads an inventory from its own file or from a topology file.
pub fn inventory(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Source::new("fuzz.toml", text);
    let read = InventoryFile::of_topology(&source);
    match read.and_then(|file| file.map_or_else(|| InventoryFile::parse(source), Ok)) {
        Ok(file) => {
            for contact in file.agents().values() {
                assert_eq!(
                    contact.agent.to_string().parse().as_ref(),
                    Ok(&contact.agent),
                    "an accepted address can be written and parsed again"
                );
            }
            let resolved = file.resolve(&BTreeMap::new(), &BTreeMap::new());
            for (node, entry) in file.nodes() {
                let is_placed = resolved.inventory.nodes.contains_key(node);
                assert_ne!(is_placed, resolved.mismatches.contains_key(node), "{node} has a location or a mismatch");
                assert!(!is_placed || entry.is_complete(), "{node} has a location that the file does not have");
            }
            survives_the_wire(&resolved.inventory);
        }
        Err(rejected) => refused(&rejected),
    }
}

/// Asserts that an accepted value is the same after a conversion to JSON and back. Nodes receive values as JSON.
fn survives_the_wire<T: Serialize + DeserializeOwned + PartialEq + Debug>(here: &T) {
    let json = serde_json::to_vec(here).expect("an accepted value is JSON");
    let there: T = serde_json::from_slice(&json).expect("the JSON of an accepted value can be read");
    assert_eq!(there, *here);
}

/// Asserts that a rejected file has a problem, and that the problems can be printed in every format.
fn refused(rejected: &FileReport) {
    assert!(!rejected.problems().is_empty(), "a rejected file has at least one problem");
    drop((rejected.render(false, 100), rejected.render(true, 40), rejected.summary()));
}

/// Expands a hostlist.
pub fn hostlist(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match hostlist::expand(text) {
        Ok(names) => {
            let Ok(nodes) = names.iter().map(|name| name.parse::<NodeName>()).collect::<Result<Vec<_>, _>>() else {
                return;
            };
            if nodes.len() < 1_000 {
                let mut again = hostlist::expand(&hostlist::fold(&nodes)).expect("a folded list is a hostlist");
                let mut names = names;
                again.sort_unstable();
                names.sort_unstable();
                assert_eq!(again, names, "folding and expanding gives the same names");
            }
        }
        Err(error) => drop((error.to_string(), error.help())),
    }
}

/// Parses the link parameters of `netemctl set`.
pub fn link_change(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for both_ways in [true, false] {
        match LinkChange::parse(Source::new(Source::COMMAND_LINE, text), both_ways) {
            Ok(change) => drop(change.over(crate::topology::Link::default()).notation()),
            Err(rejected) => drop(rejected.render(false, 100)),
        }
    }
}

/// Reads an agent's journal.
pub fn journal(bytes: &[u8]) {
    agent::journal::check(bytes);
}

/// Parses an agent's configuration file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = agent::Config::parse(Source::new("agent.toml", text)) {
        drop(error.to_string());
    }
}

/// Reads a request to an agent. The bytes are the path, a line break and the body.
pub fn request(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (path, body) = (&bytes[..end], &bytes[end + 1..]);
    let read = [
        read::<GetHost>,
        read::<GetFacts>,
        read::<GetStatus>,
        read::<GetCounters>,
        read::<GetReady>,
        read::<GetStamp>,
        read::<GetWanted>,
        read::<Commit>,
        read::<Confirm>,
        read::<Rollback>,
        read::<Probe>,
        read::<Plan>,
        read::<Prepare>,
    ];
    for read in read {
        read(path, body);
    }
    if path == Prepare::PATH.as_bytes()
        && let Ok(Prepare { wanted: Some(wanted), .. }) = serde_json::from_slice(body)
    {
        // Agents call these functions with every received document.
        drop((wanted.stamp(), wanted.zones(), wanted.is_clear()));
        for node in wanted.inventory.nodes.keys().take(3) {
            drop((wanted.shaping(node, LineRate::from_mbit(10_000)), wanted.incoherent_link(node)));
        }
        let committed = crate::plan::Moment::from_nanos(1 << 60);
        for (_, timing) in wanted.timings(committed) {
            for later in [Duration::ZERO, Duration::from_millis(1), Duration::from_hours(1_000_000)] {
                let _phase = timing.phase(later);
            }
        }
    }
}

/// Reads a body as the request `C` if the path is that of `C`. Asserts that the request survives writing and reading.
fn read<C: Call>(path: &[u8], body: &[u8]) -> Option<()> {
    let request: C = serde_json::from_slice(body).ok().filter(|_| path == C::PATH.as_bytes())?;
    let value = |request: &C| -> Value { serde_json::to_value(request).expect("a request is JSON") };
    let first = value(&request);
    let again: C = serde_json::from_value(first.clone()).expect("a written request can be read");
    assert_eq!(value(&again), first);
    Some(())
}

/// Decodes the kernel's messages about qdiscs, classes, filters, links, addresses and routes.
pub fn route(bytes: &[u8]) {
    kernel::fuzz::route(bytes);
}

/// Decodes the kernel's messages with sampled packets.
pub fn sample(bytes: &[u8]) {
    kernel::fuzz::sample(bytes);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::plan::Dice;

    /// Changes, removes or repeats a few random bytes.
    fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
        for _ in 0..=dice.throw() % 4 {
            let mut place = || usize::try_from(dice.throw()).unwrap_or_default() % bytes.len().max(1);
            let (a, b) = (place(), place());
            let (from, to) = (a.min(b), a.max(b).min(a.min(b) + 40));
            let byte = dice.throw().to_le_bytes()[0];
            match (dice.throw() % 5, bytes.get_mut(a)) {
                (0, Some(changed)) => *changed = byte,
                (1, Some(changed)) => *changed ^= 1 << (byte % 8),
                (2, Some(changed)) => *changed = [0, 1, 0x7f, 0x80, 0xff, b'9', b'"', b'\n'][usize::from(byte % 8)],
                (3, Some(_)) => drop(bytes.drain(from..to)),
                (4, Some(_)) => bytes.extend_from_within(from..to),
                _ => bytes.push(byte),
            }
        }
    }

    /// Runs without libFuzzer, which needs a nightly compiler. `NETEMCTL_MUTATIONS=3000` runs more mutations.
    #[test]
    fn no_target_panics_with_mutated_inputs_of_the_corpus() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let times = std::env::var("NETEMCTL_MUTATIONS").ok().and_then(|times| times.parse().ok()).unwrap_or(20);
        for (name, target) in TARGETS {
            let mut inputs: Vec<_> =
                fs::read_dir(corpus.join(name)).unwrap().map(|input| input.unwrap().path()).collect();
            inputs.sort();
            for (input, seed) in inputs.into_iter().zip(0..) {
                let mut dice = Dice::new(seed);
                let original = fs::read(input).unwrap();
                for _ in 0..times {
                    let mut bytes = original.clone();
                    mutate(&mut bytes, &mut dice);
                    let result = std::panic::catch_unwind(|| target(&bytes));
                    assert!(result.is_ok(), "{name} panics with {:?}", String::from_utf8_lossy(&bytes));
                }
            }
        }
    }

    /// The corpus includes every input that once made a target panic.
    #[test]
    fn no_target_panics_with_inputs_of_the_corpus() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, target) in TARGETS {
            let corpus: Vec<_> = fs::read_dir(fuzz.join("corpus").join(name)).unwrap().map(Result::unwrap).collect();
            assert!(corpus.len() > 3, "the corpus of {name} has too few inputs");
            for input in corpus {
                target(&fs::read(input.path()).unwrap());
            }
            assert!(fuzz.join("fuzz_targets").join(format!("{name}.rs")).exists(), "{name} has no target file");
        }
        assert_eq!(fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count(), TARGETS.len());
    }
}
