//! Golden files of topologies. Each TOML file of `topologies/` and `tests/topologies/valid/` is a valid topology. A
//! `.stderr` file beside it has its warnings, if it has any. The parser rejects each file of
//! `tests/topologies/invalid/` with the text of its `.stderr` file. Matrices and distribution tables are in the same
//! folders.
//!
//! A new file is a new case. `NETEMCTL_BLESS=1 cargo test --test topologies` writes the current texts into the
//! `.stderr` files. Read the difference before you commit it.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use netemctl::topology::{FileReport, Source, Topology};

/// The terminal width of the golden texts.
const WIDTH: usize = 100;

#[test]
fn shipped_topologies_are_valid_and_named_like_their_files() {
    for file in toml_files("topologies") {
        let topology = parse(&file).unwrap_or_else(|rejected| panic!("{}", rejected.render(false, WIDTH)));
        assert_eq!(Some(topology.name()), file.file_stem().and_then(|stem| stem.to_str()));
        assert_eq!(topology.warnings().render(false, WIDTH), "");
    }
}

#[test]
fn valid_files_are_topologies_with_the_warnings_next_to_them() {
    let mut golden = Golden::default();
    for file in toml_files("tests/topologies/valid") {
        let topology = parse(&file).unwrap_or_else(|rejected| panic!("{}", rejected.render(false, WIDTH)));
        for from in topology.nodes() {
            assert_eq!(topology.links_from(from).count(), topology.nodes().len() - 1, "{}", file.display());
        }
        golden.compare(&file, &topology.warnings().render(false, WIDTH));
    }
    golden.end();
}

#[test]
fn invalid_files_are_refused_with_the_text_next_to_them() {
    let mut golden = Golden::default();
    for file in toml_files("tests/topologies/invalid") {
        let rejected = parse(&file).expect_err(&format!("{} is accepted", file.display()));
        golden.compare(&file, &rejected.render(false, WIDTH));
    }
    golden.end();
}

#[test]
fn every_golden_text_has_its_file() {
    let folders = ["tests/topologies/invalid", "tests/topologies/valid"];
    for golden in folders.into_iter().flat_map(|folder| files(folder, "stderr")) {
        assert!(golden.with_extension("toml").exists(), "{} has no TOML file", golden.display());
    }
}

#[test]
fn the_example_of_the_readme_is_valid() {
    let readme = include_str!("../README.md");
    let text = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let example = Topology::parse(Source::new("README.md", text));
    assert!(example.is_ok(), "{}", example.unwrap_err().render(false, WIDTH));
}

#[test]
fn every_block_of_the_documentation_is_valid() {
    let documentation = include_str!("../docs/links.md");
    let blocks = documentation.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let mut count = 0;
    for block in blocks {
        // A block has all rules of a file, or one parameter on each line.
        let files = if block.starts_with("[links]") {
            vec![format!("zones = {{ Z1 = 'n[1-2]', Z2 = 'n[3-4]', Z3 = 'n[5-6]' }}\n{block}")]
        } else {
            let rule = "nodes = 'n[1-2]'\n[links.default]\ndelay = '50ms'\njitter = '5ms'";
            block.lines().map(|line| format!("{rule}\n{line}\n")).collect()
        };
        for file in files {
            let topology = Topology::parse(Source::new("links.md", format!("name = 'links'\n{file}")));
            assert!(topology.is_ok(), "{}", topology.unwrap_err().render(false, WIDTH));
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

/// Compares texts with golden files. It collects a message for each file that differs.
#[derive(Default)]
struct Golden(Vec<String>);

impl Golden {
    /// Compares the shown text with the `.stderr` file beside `file`. An empty text has no `.stderr` file.
    fn compare(&mut self, file: &Path, shown: &str) {
        let golden = file.with_extension("stderr");
        let known = fs::read_to_string(&golden).unwrap_or_default();
        if env::var_os("NETEMCTL_BLESS").is_none() {
            let differs = known != shown;
            self.0.extend(differs.then(|| format!("{} differs from:\n{shown}", golden.display())));
        } else if !shown.is_empty() {
            fs::write(&golden, shown).expect("the folder can be written");
        } else if !known.is_empty() {
            fs::remove_file(&golden).expect("the folder can be written");
        }
    }

    fn end(self) {
        assert!(self.0.is_empty(), "{}\nNETEMCTL_BLESS=1 accepts these texts", self.0.join("\n"));
    }
}

fn parse(file: &Path) -> Result<Topology, FileReport> {
    let path = file.file_name().expect("a file").to_string_lossy().into_owned();
    let text = fs::read_to_string(file).expect("a text file");
    let folder = file.parent().expect("a folder");
    Topology::load(Source::new(path, text), |name| {
        fs::read_to_string(folder.join(name)).map_err(|_| "no such file".to_owned())
    })
}

fn toml_files(folder: &str) -> Vec<PathBuf> {
    let files = files(folder, "toml");
    assert!(!files.is_empty(), "{folder} has no TOML file");
    files
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}
