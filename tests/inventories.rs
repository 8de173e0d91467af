//! Golden files of inventories. Each TOML file of `tests/inventories/valid/` is a valid inventory, or a topology with
//! an `[inventory]` table. The parser rejects each file of `tests/inventories/invalid/` with the text of its `.stderr`
//! file.
//!
//! A new file is a new case. `NETEMCTL_BLESS=1 cargo test --test inventories` writes the current texts into the golden
//! files. Read the difference before you commit it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use netemctl::{
    inventory::InventoryFile,
    topology::{FileReport, Source, hostlist},
};

/// The terminal width of the golden texts.
const WIDTH: usize = 100;

#[test]
fn valid_files_mean_what_is_written_next_to_them() {
    compare("valid", "meaning", |file, inventory| {
        let inventory = inventory.unwrap_or_else(|rejected| panic!("{}", rejected.render(false, WIDTH)));
        assert!(!inventory.nodes().is_empty(), "{}", file.display());
        meaning(&inventory)
    });
}

#[test]
fn invalid_files_are_refused_with_the_text_next_to_them() {
    compare("invalid", "stderr", |file, inventory| {
        inventory.expect_err(&format!("{} is accepted", file.display())).render(false, WIDTH)
    });
}

#[test]
fn every_golden_text_has_its_file() {
    for golden in files("valid", "meaning").into_iter().chain(files("invalid", "stderr")) {
        assert!(golden.with_extension("toml").exists(), "{} has no TOML file", golden.display());
    }
}

#[test]
fn every_block_of_the_documentation_is_valid() {
    let documentation = include_str!("../docs/inventory.md");
    let blocks: Vec<_> = documentation.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3, "{}", blocks.len());
    for block in blocks {
        let inventory = read(Source::new("inventory.md", block));
        assert!(inventory.is_ok(), "{block}\n{}", inventory.unwrap_err().render(false, WIDTH));
    }
}

#[test]
fn the_example_of_the_readme_is_valid() {
    let readme = include_str!("../README.md").split_once("## Where the nodes are").expect("a chapter").1;
    let example = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let inventory = read(Source::new("README.md", example)).map_err(|rejected| rejected.render(false, WIDTH));
    assert_eq!(inventory.map(|inventory| inventory.nodes().len()), Ok(9));
}

/// Describes an inventory: one line for each node and zone, then the warnings.
fn meaning(inventory: &InventoryFile) -> String {
    let mut text = String::new();
    for (node, entry) in inventory.nodes() {
        let addresses: Vec<_> = entry.addresses.iter().map(ToString::to_string).collect();
        text += &format!(
            "{node}: {} {} [{}] {}\n",
            entry.agent,
            entry.interface,
            addresses.join(" "),
            entry.origin.as_ref().expect("a line")
        );
    }
    for (zone, nodes) in inventory.zones() {
        text += &format!("zone {zone}: {}\n", hostlist::fold(nodes));
    }
    if let Some(tls) = inventory.tls() {
        text += &format!("tls: {} {} {}\n", tls.ca.display(), tls.cert.display(), tls.key.display());
    }
    text + &inventory.warnings().render(false, WIDTH)
}

fn read(source: Source) -> Result<InventoryFile, FileReport> {
    InventoryFile::of_topology(&source)?.map_or_else(|| InventoryFile::parse(source), Ok)
}

fn compare(folder: &str, extension: &str, say: impl Fn(&Path, Result<InventoryFile, FileReport>) -> String) {
    let bless = env::var_os("NETEMCTL_BLESS").is_some();
    let mut differing = Vec::new();
    let inventories = files(folder, "toml");
    assert!(!inventories.is_empty(), "{folder} has no TOML file");
    for file in inventories {
        let name = file.file_name().expect("a file").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("a text file");
        let said = say(&file, read(Source::new(format!("etc/{name}"), text)));
        let golden = file.with_extension(extension);
        if bless {
            fs::write(&golden, &said).expect("the folder can be written");
        } else if fs::read_to_string(&golden).unwrap_or_default() != said {
            differing.push(format!("{} differs from:\n{said}", golden.display()));
        }
    }
    assert!(differing.is_empty(), "{}\nNETEMCTL_BLESS=1 accepts these texts", differing.join("\n"));
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inventories").join(folder);
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}
