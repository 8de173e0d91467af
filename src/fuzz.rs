//! Everything that comes from outside, made up: what `fuzz/` runs with bytes that libFuzzer thinks of, and the tests
//! with those that are kept in `fuzz/corpus`. Not a part of the program.
//!
//! Each takes any bytes, must not panic, and asserts what holds of whatever was accepted.

#![expect(clippy::missing_panics_doc, reason = "a panic is what is looked for")]

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    agent,
    inventory::InventoryFile,
    kernel,
    plan::LineRate,
    topology::{LinkChange, NodeName, Rejected, Source, Topology, hostlist},
    wire::{
        Call, Commit, Confirm, GetCounters, GetHost, GetStamp, GetStatus, GetWanted, Plan, Prepare, Probe, Rollback,
    },
};

/// Does something with any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its file in `fuzz/fuzz_targets` and of its folder in `fuzz/corpus`.
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

/// Parts a topology file from the files that it refers to: a line of this and the name.
const NEXT_FILE: &str = "\n=== ";

/// A topology file, with matrices and tables.
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

/// An inventory file, also as a part of a topology.
pub fn inventory(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let source = Source::new("fuzz.toml", text);
    let read = if InventoryFile::is_in_topology(text) {
        InventoryFile::of_topology(&source).map(|file| file.expect("it has an inventory"))
    } else {
        InventoryFile::parse(source)
    };
    match read {
        Ok(file) => {
            for contact in file.agents().values() {
                assert_eq!(
                    contact.agent.to_string().parse().as_ref(),
                    Ok(&contact.agent),
                    "an accepted address round-trips"
                );
            }
            let silent = file.resolve(&BTreeMap::new(), &BTreeMap::new());
            for (node, entry) in file.nodes() {
                let is_placed = silent.inventory.nodes.contains_key(node);
                assert_ne!(is_placed, silent.mismatches.contains_key(node), "{node} has a place, or lacks something");
                assert!(!is_placed || entry.is_complete(), "nobody said where {node} is");
            }
            survives_the_wire(&silent.inventory);
        }
        Err(rejected) => refused(&rejected),
    }
}

/// What was accepted is the same on every node.
fn survives_the_wire<T: Serialize + DeserializeOwned + PartialEq + Debug>(here: &T) {
    let json = serde_json::to_vec(here).expect("it is JSON");
    let there: T = serde_json::from_slice(&json).expect("what one node accepts all accept");
    assert_eq!(there, *here);
}

/// A file is rejected for something, which can be drawn in every way.
fn refused(rejected: &Rejected) {
    assert!(!rejected.problems().is_empty(), "a file is rejected for something");
    drop((rejected.render(false, 100), rejected.render(true, 40), rejected.summary()));
}

/// A hostlist.
pub fn hostlist(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match hostlist::expand(text) {
        Ok(names) => {
            let Ok(nodes) = names.iter().map(|name| name.parse::<NodeName>()).collect::<Result<Vec<_>, _>>() else {
                return;
            };
            if nodes.len() < 1_000 {
                let mut again = hostlist::expand(&hostlist::fold(&nodes)).expect("what is folded is a hostlist");
                let mut names = names;
                again.sort_unstable();
                names.sort_unstable();
                assert_eq!(again, names, "folded and expanded, it is the same");
            }
        }
        Err(error) => drop((error.to_string(), error.help())),
    }
}

/// What `set` lays over a link.
pub fn link_change(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for both_ways in [true, false] {
        match LinkChange::parse(Source::new("<set>", text), both_ways) {
            Ok(change) => drop(change.over(crate::topology::Link::LAN).notation()),
            Err(rejected) => drop(rejected.render(false, 100)),
        }
    }
}

/// An agent's journal.
pub fn journal(bytes: &[u8]) {
    agent::journal::check(bytes);
}

/// An agent's configuration file.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = agent::Config::parse(Source::new("agent.toml", text)) {
        drop(error.to_string());
    }
}

/// A request to an agent: its path, a line break, its body.
pub fn request(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (path, body) = (&bytes[..end], &bytes[end + 1..]);
    let read = [
        read::<GetHost>,
        read::<GetStatus>,
        read::<GetCounters>,
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
        && let Ok(Prepare { wanted, .. }) = serde_json::from_slice(body)
    {
        // What every agent does with a document, whatever is in it.
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

/// Reads a body as the request of that path, if it is the one; what is read is written again as the same.
fn read<C: Call>(path: &[u8], body: &[u8]) -> Option<()> {
    let request: C = serde_json::from_slice(body).ok().filter(|_| path == C::PATH.as_bytes())?;
    let value = |request: &C| -> Value { serde_json::to_value(request).expect("a request is JSON") };
    let first = value(&request);
    let again: C = serde_json::from_value(first.clone()).expect("what is written can be read");
    assert_eq!(value(&again), first);
    Some(())
}

/// What the kernel says of qdiscs, classes, filters, links, addresses and routes.
pub fn route(bytes: &[u8]) {
    kernel::fuzz::route(bytes);
}

/// What the kernel says of packets that it has sampled.
pub fn sample(bytes: &[u8]) {
    kernel::fuzz::sample(bytes);
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;
    use crate::plan::Dice;

    /// A few bytes changed, cut out, or put in twice.
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

    /// What libFuzzer does better, but not on every compiler; for longer with `NETEMCTL_MUTATIONS=3000`.
    #[test]
    fn every_target_stands_what_is_nearly_what_is_kept_of_it() {
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
                    let stood = std::panic::catch_unwind(|| target(&bytes));
                    assert!(stood.is_ok(), "{name} does not stand {:?}", String::from_utf8_lossy(&bytes));
                }
            }
        }
    }

    /// Whatever once was found is in there as well.
    #[test]
    fn every_target_stands_what_is_kept_of_it() {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        for (name, target) in TARGETS {
            let corpus: Vec<_> = fs::read_dir(fuzz.join("corpus").join(name)).unwrap().map(Result::unwrap).collect();
            assert!(corpus.len() > 3, "{name} has something to start from");
            for input in corpus {
                target(&fs::read(input.path()).unwrap());
            }
            assert!(fuzz.join("fuzz_targets").join(format!("{name}.rs")).exists(), "{name} is fuzzed");
        }
        assert_eq!(fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count(), TARGETS.len());
    }
}
