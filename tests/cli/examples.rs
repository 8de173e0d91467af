//! The examples of docs/orchestrating.md are the files in docs/examples. (That they work is tested in `tests/kernel`.)

use std::{fs, path::Path};

#[test]
fn the_examples_in_the_documentation_are_the_files() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let text = fs::read_to_string(docs.join("orchestrating.md")).expect("the documentation is there");
    let shown: Vec<&str> = text.split("```python\n").skip(1).filter_map(|rest| rest.split("```\n").next()).collect();
    let files = ["through_the_cli.py", "through_the_api.py"];
    let files = files.map(|file| fs::read_to_string(docs.join("examples").join(file)).expect("the example is there"));
    assert!(shown == files, "docs/orchestrating.md shows other examples than docs/examples has");
}
