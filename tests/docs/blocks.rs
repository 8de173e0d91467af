//! The code blocks of README.md and docs/*.md, with the annotations in the comments before each block.
//!
//! A block is fenced, or it is indented by four spaces and contains commands. Three comments can annotate a block:
//!
//! ```text
//! <!-- not run: REASON -->       the next block is not run (its commands must still parse)
//! <!-- run first: COMMAND -->    a command to run before the next block; readers do not see it
//! <!-- run on: WORLD -->         the environment of this block and the following ones: one of WORLDS
//! ```

use std::{fs, path::Path};

/// The environments of blocks: a copy of this folder with an empty home, or a host that reaches the nodes by ssh. Each
/// document begins in the first.
pub(crate) const WORLDS: [&str; 2] = ["this machine", "a controller host"];

/// A code block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The document's path in this project: `docs/ssh.md`.
    pub(crate) document: String,
    /// The number of the block's first line.
    pub(crate) line: usize,
    /// The language of the fence; `sh` for an indented block, empty for a picture.
    pub(crate) language: String,
    /// The lines, without the indentation of the block.
    pub(crate) lines: Vec<String>,
    /// The reason why the block is not run, if it is not.
    pub(crate) not_run: Option<String>,
    /// The commands to run before the block.
    pub(crate) first: Vec<String>,
    /// One of [`WORLDS`].
    pub(crate) world: &'static str,
}

impl Block {
    /// `docs/ssh.md:5`
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.document, self.line)
    }

    pub(crate) fn text(&self) -> String {
        self.lines.join("\n") + "\n"
    }
}

/// A document's path in this project, and its text.
pub(crate) type Document = (String, String);

/// README.md, docs/*.md, CONTRIBUTING.md and SECURITY.md, in this order.
pub(crate) fn documents() -> Vec<Document> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(project.join("docs")).expect("docs can be read").flatten();
    let mut names: Vec<String> = docs.map(|entry| format!("docs/{}", entry.file_name().display())).collect();
    names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "md"));
    names.sort();
    names.insert(0, "README.md".to_owned());
    names.extend(["CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned));
    let read = |name: String| {
        let text = fs::read_to_string(project.join(&name)).expect("a document can be read");
        (name, text)
    };
    names.into_iter().map(read).collect()
}

/// The blocks of a document, in document order.
///
/// # Panics
///
/// If a comment is not one of the three annotations, or if no block follows it.
pub(crate) fn blocks((document, text): &Document) -> Vec<Block> {
    let lines = text.lines().collect();
    let mut reader = Reader {
        document,
        lines,
        at: 0,
        is_in_list: false,
        world: WORLDS[0],
        annotations: Annotations::default(),
        blocks: Vec::new(),
    };
    while let Some(line) = reader.lines.get(reader.at) {
        reader.element(line);
    }
    reader.expect_no_annotations();
    reader.blocks
}

/// The annotations of the next block.
#[derive(Default)]
struct Annotations {
    not_run: Option<String>,
    first: Vec<String>,
}

struct Reader<'t> {
    document: &'t str,
    lines: Vec<&'t str>,
    /// The index of the next line.
    at: usize,
    is_in_list: bool,
    world: &'static str,
    annotations: Annotations,
    blocks: Vec<Block>,
}

impl<'t> Reader<'t> {
    fn element(&mut self, line: &'t str) {
        if let Some(language) = line.strip_prefix("```") {
            self.at += 1;
            let first = self.at;
            let lines = self.take_while(|line| line != "```");
            self.at += 1;
            self.add(first, language, lines);
        } else if line.starts_with("<!--") {
            let mut comment = self.take_while(|line| !line.contains("-->"));
            comment.extend(self.lines.get(self.at));
            self.at += 1;
            self.note(&comment.join("\n"));
        } else if line.starts_with("    ") && !self.is_in_list {
            let before = self.at.checked_sub(1).map_or("", |before| self.lines[before]);
            assert!(before.is_empty() || before.ends_with("-->"), "{}: an empty line is missing above", self.place());
            let first = self.at;
            let mut lines = self.take_while(|line| line.is_empty() || line.starts_with("    "));
            while lines.last().is_some_and(|line| line.is_empty()) {
                lines.pop();
            }
            let lines = lines.into_iter().map(|line| line.strip_prefix("    ").unwrap_or_default()).collect();
            self.add(first, "sh", lines);
        } else {
            assert!(!line.trim_start().starts_with("```"), "{}: the fence is indented", self.place());
            if !line.is_empty() {
                self.expect_no_annotations();
                if !line.starts_with(' ') {
                    let item = line.trim_start_matches(|first: char| first.is_ascii_digit());
                    self.is_in_list = item.starts_with("- ") || (item.starts_with(". ") && item != line);
                }
            }
            self.at += 1;
        }
    }

    fn take_while(&mut self, is_part: impl Fn(&str) -> bool) -> Vec<&'t str> {
        let lines: Vec<&str> = self.lines[self.at..].iter().copied().take_while(|line| is_part(line)).collect();
        self.at += lines.len();
        lines
    }

    fn add(&mut self, first: usize, language: &str, lines: Vec<&str>) {
        let Annotations { not_run, first: commands } = std::mem::take(&mut self.annotations);
        self.blocks.push(Block {
            document: self.document.to_owned(),
            line: first + 1,
            language: language.to_owned(),
            lines: lines.into_iter().map(str::to_owned).collect(),
            not_run,
            first: commands,
            world: self.world,
        });
    }

    fn note(&mut self, comment: &str) {
        let inner = comment.trim_start_matches("<!--").trim_end().trim_end_matches("-->").trim();
        match inner.split_once(": ") {
            Some(("not run", reason)) => self.annotations.not_run = Some(reason.to_owned()),
            Some(("run first", command)) => self.annotations.first.push(command.to_owned()),
            Some(("run on", world)) => {
                let known = WORLDS.into_iter().find(|known| *known == world);
                self.world = known.unwrap_or_else(|| panic!("{}: one of {WORLDS:?}", self.place()));
            }
            // scripts/bench writes the lines between these two.
            Some(("begin of figures" | "end of figures", _)) => {}
            _ => panic!("{}: an unknown comment: {comment}", self.place()),
        }
    }

    fn expect_no_annotations(&self) {
        let has_annotations = self.annotations.not_run.is_some() || !self.annotations.first.is_empty();
        assert!(!has_annotations, "{}: no block follows the comment above", self.place());
    }

    /// The document and the number of the last line read.
    fn place(&self) -> String {
        format!("{}:{}", self.document, self.at)
    }
}
