//! Tests of README.md and the files in docs/: every command parses, every file is valid, every link has a target.
//!
//! `tests/kernel/docs.rs` runs the commands.

#[path = "../../../tests/docs/blocks.rs"]
mod blocks;
mod commands;
#[path = "../../../tests/docs/console.rs"]
mod console;
mod files;
mod messages;
mod places;
mod prose;
mod words;

use self::{
    blocks::{WORLDS, blocks, documents},
    console::{is_as_shown, steps},
};

const DOCUMENT: &str = "\
# A document

<!-- run first: touch a.toml
     and this too -->

```console
$ netemctl check a.toml \\
    --json
a.toml: topology a, 3 nodes: ok
$ true
```

- an item

      of a list

<!-- run on: a controller host -->

A sentence.

<!-- not run: it ends the machine -->

    reboot    # now

    true

The end.
";

#[test]
fn blocks_are_found_with_their_annotations() {
    let blocks = blocks(&("docs/a.md".to_owned(), DOCUMENT.to_owned()));
    let [console, indented] = blocks.as_slice() else { panic!("{blocks:?}") };
    assert_eq!((console.place().as_str(), console.language.as_str()), ("docs/a.md:7", "console"));
    assert_eq!((console.not_run.as_deref(), console.world), (None, WORLDS[0]));
    assert_eq!(console.first, ["touch a.toml\n     and this too"]);
    let steps_of_console = steps(console);
    let [check, nothing] = steps_of_console.as_slice() else { panic!("{steps_of_console:?}") };
    assert_eq!((check.line, check.command.as_str()), (7, "netemctl check a.toml \\\n    --json"));
    assert_eq!(check.shown, ["a.toml: topology a, 3 nodes: ok"]);
    assert_eq!((nothing.line, nothing.command.as_str(), nothing.shown.len()), (10, "true", 0));
    assert_eq!((indented.line, indented.language.as_str()), (23, "sh"));
    assert_eq!((indented.not_run.as_deref(), indented.world), (Some("it ends the machine"), WORLDS[1]));
    assert_eq!(steps(indented).len(), 2);
    assert!(!check.fails());
}

#[test]
fn output_may_differ_from_a_document_in_numbers_and_in_omitted_text() {
    let is_as = |shown: &str, printed: &str| is_as_shown(&[shown.to_owned()], printed);
    assert!(is_as("n1  20.2 ms  +0.25 ms  0/20", "n12     1,120 ms -1.5 ms 3/20\n"));
    assert!(is_as("all 72 pairs, in 3.8 s.", "all 6 pairs, in 12 s."));
    assert!(is_as("first\n...\nlast", "first\n2\n3\nlast\n"));
    assert!(is_as(
        "{\"digest\":\"eb2341d12adfac1ed4641e3fc8318ba9\"}",
        "{\"digest\":\"1b2341d12adfac1ed4641e3fc8318baf\"}"
    ));
    assert!(is_as("{...}", "{\"a\":1}"));
    assert!(!is_as("all 72 pairs OK", "all 72 pairs as wanted"));
    assert!(!is_as("n1 20.2 ms", "n1 cut"));
    assert!(!is_as("first\n...\nlast", "first\n2\nlast\n3"));
    assert!(!is_as("one line", "one line\nand another"));
    assert!(!is_as("a...b...c", "a b"));
}

#[test]
fn a_block_that_is_not_run_has_a_reason() {
    let blocks = documents().into_iter().flat_map(|document| blocks(&document));
    for block in blocks.filter(|block| block.not_run.is_some()) {
        let reason = block.not_run.as_deref().unwrap_or_default();
        assert!(reason.split(' ').count() > 2, "{}: {reason}", block.place());
    }
}
