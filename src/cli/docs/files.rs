//! Tests that every file in a document is valid: a topology, an inventory or an agent's config.
//!
//! The tests complete a fragment of a topology. A fragment without a name gets a name. A fragment without nodes and
//! zones gets the zones of the matrix that it names, or else nine nodes in Z1 to Z3. A fragment that has only keys of a
//! link is tested line by line, on links with a delay and a jitter. A file that a topology names is a block of the same
//! document.

use std::{fmt::Display, fs};

use super::blocks::{Block, blocks, documents};
use crate::{
    agent::Config,
    inventory::InventoryFile,
    topology::{Source, Topology},
};

/// The languages of blocks that are not files: commands, HTML comments, and pictures.
const LANGUAGES: [&str; 4] = ["console", "sh", "html", ""];

/// The nodes for a fragment without nodes.
const NINE: &str = "zones = { Z1 = 'n[1-3]', Z2 = 'n[4-6]', Z3 = 'n[7-9]' }\n";

/// The problem of a block; `None`: the block is valid.
///
/// The block's language selects the check.
fn problem(block: &Block, others: &[Block]) -> Option<String> {
    let text = block.text();
    let why = match block.language.as_str() {
        "toml" => toml_problem(&text, others),
        "csv" => rejected(Topology::load(
            source(&format!("name = 'x'\n{}[links]\nmatrix = 'x.csv'\n", zones(&text))),
            |_| Ok(text.clone()),
        )),
        "dist" => rejected(Topology::load(
            source(&format!(
                "name = 'x'\n{NINE}[links]\ndefault = {{ rtt = '80ms', jitter = '5ms', distribution = {{ table = 'x.dist' }} }}\n"
            )),
            |_| Ok(text.clone()),
        )),
        "json" => rejected(serde_json::from_str::<serde_json::Value>(&text)),
        "ini" => block.lines.iter().find(|line| !line.starts_with(['[', '#']) && !line.contains('=')).cloned(),
        // A Python block is a copy of a file in docs/examples. tests/kernel/orchestrators.rs runs these files.
        "python" => (!is_example(&text)).then(|| "docs/examples has no such file".to_owned()),
        language => (!LANGUAGES.contains(&language)).then(|| "nothing checks a block of this language".to_owned()),
    };
    why.map(|why| format!("{}: {why}", block.place()))
}

fn rejected<T, E: Display>(result: Result<T, E>) -> Option<String> {
    result.err().map(|error| error.to_string())
}

fn source(text: &str) -> Source {
    Source::new("block.toml", text)
}

fn is_example(text: &str) -> bool {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples");
    let mut files = fs::read_dir(folder).expect("docs/examples can be read").flatten();
    files.any(|file| fs::read_to_string(file.path()).is_ok_and(|example| example == text))
}

/// A `zones` table for a matrix, with one node in each zone.
fn zones(matrix: &str) -> String {
    let head = matrix.lines().find(|line| !line.starts_with('#')).unwrap_or_default();
    let zones = head.split(',').skip(1).zip(1..).map(|(zone, number)| format!("{} = 'n{number}'", zone.trim()));
    format!("zones = {{ {} }}\n", zones.collect::<Vec<_>>().join(", "))
}

fn toml_problem(text: &str, others: &[Block]) -> Option<String> {
    let top = ["name", "nodes", "zones", "links", "inventory", "node", "defaults"];
    let is_top =
        |line: &str| line.starts_with('[') || line.split_once('=').is_some_and(|(key, _)| top.contains(&key.trim()));
    if !text.lines().any(is_top) {
        let default = |line: &str| {
            let given = |key: &str| line.starts_with(key);
            let delay = if given("rtt") || given("delay") { "" } else { "rtt = '100ms'\n" };
            let jitter = if given("jitter") { "" } else { "jitter = '1ms'\n" };
            format!("name = 'x'\n{NINE}[links.default]\n{delay}{jitter}{line}\n")
        };
        return text.lines().find_map(|line| topology_problem(&default(line), others));
    }
    let table: toml::Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return Some(error.to_string()),
    };
    let has = |key: &str| table.contains_key(key);
    if has("interfaces") {
        let file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file can be made");
        fs::write(&file, text).expect("a file can be written");
        return rejected(Config::read(file.path()));
    }
    if has("defaults") || table.get("nodes").is_some_and(toml::Value::is_table) {
        return rejected(InventoryFile::parse(source(text)));
    }
    let name = if has("name") { "" } else { "name = 'x'\n" };
    let matrix = table.get("links").and_then(|links| links.get("matrix"));
    let nodes = match matrix.and_then(|_| others.iter().find(|block| block.language == "csv")) {
        _ if has("nodes") || has("zones") => String::new(),
        Some(matrix) => zones(&matrix.text()),
        None => NINE.to_owned(),
    };
    topology_problem(&format!("{name}{nodes}{text}"), others)
}

/// The error that `netemctl check` reports for a topology; `None`: the topology is valid.
fn topology_problem(text: &str, others: &[Block]) -> Option<String> {
    let source = source(text);
    let of_language = |name: &str| {
        let language = name.rsplit('.').next().unwrap_or_default();
        let block = others.iter().find(|block| block.language == language);
        block.map(Block::text).ok_or_else(|| format!("the document has no block of {language}"))
    };
    rejected(InventoryFile::of_topology(&source)).or_else(|| rejected(Topology::load(source, of_language)))
}

#[test]
fn every_file_in_a_document_is_valid() {
    let mut problems = Vec::new();
    for document in documents() {
        let blocks = blocks(&document);
        problems.extend(blocks.iter().filter_map(|block| problem(block, &blocks)));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Shows that the test above finds mistakes: unknown keys in every kind of file, and a matrix without a block.
#[test]
fn a_mistake_in_a_file_of_a_document_is_found() {
    let wrong = [
        "name = 'x'\nnodes = 'n[1-3]'\n[links]\ndefualt = { rtt = '1ms' }\n",
        "[links]\ndefault = { rtt = '1ms', los = '1%' }\n",
        "loss = '1%'\nlos = '1%'\n",
        "[defaults]\nhsot = 'a'\ninterface = 'eth0'\n[nodes]\nn1 = {}\n",
        "node = 'n1'\ninterfaces = ['eno2']\nsocket = '/run/a.sock'\nalow = []\n",
        "[links]\nmatrix = 'regions.csv'\n",
    ];
    for text in wrong {
        assert!(toml_problem(text, &[]).is_some(), "{text}");
    }
}
