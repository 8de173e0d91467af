//! The examples in docs/orchestrating.md are identical to the files in docs/examples. `tests/kernel` runs the examples.

use std::{fs, path::Path};

#[test]
fn the_examples_in_the_documentation_are_the_files() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let text = fs::read_to_string(docs.join("orchestrating.md")).expect("the document exists");
    let shown: Vec<&str> = text.split("```python\n").skip(1).filter_map(|rest| rest.split("```\n").next()).collect();
    let files = ["through_the_cli.py", "through_the_api.py"];
    let files = files.map(|file| fs::read_to_string(docs.join("examples").join(file)).expect("the example exists"));
    assert!(shown == files, "the examples in docs/orchestrating.md differ from docs/examples");
}
