//! Every file in a document is valid: as a topology, an inventory or an agent's config, by what it has.
//!
//! A piece of a topology is completed. Where it has no name it gets one. Where it has neither nodes nor zones it gets Z1 to
//! Z3 with nine nodes, or the zones of the matrix that it names. Lines with nothing but keys of a link are tried one by one,
//! each on links with a delay and a jitter. A file that a topology names is a block of the same document.

use std::{fmt::Display, fs};

use super::blocks::{Block, blocks, documents};
use crate::{
    agent::Config,
    inventory::InventoryFile,
    topology::{Source, Topology},
};

/// The languages of blocks that are no files: commands, comments of a document's source, and pictures.
const LANGUAGES: [&str; 4] = ["console", "sh", "html", ""];

/// The nodes of a piece that says none.
const NINE: &str = "zones = { Z1 = 'n[1-3]', Z2 = 'n[4-6]', Z3 = 'n[7-9]' }\n";

/// What is wrong with a block, by its language.
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
        // docs/examples; tests/kernel/orchestrators.rs runs them.
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

/// The zones of a matrix, of a node each.
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

/// The same as `netemctl check` reports.
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

/// The test above finds something: a key that does not exist, in a file of each kind and in a piece of one.
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
