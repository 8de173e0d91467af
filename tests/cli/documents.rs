//! With `--json` every command prints one document that matches `docs/api/cli.schema.json`, in success and failure.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::{
    change::kernel_can_shape,
    harness::{Answer, Sandbox},
};

/// Commands that print no document on success: `agent` runs until it is stopped, and `lab shell` is interactive.
const WITHOUT_A_DOCUMENT: [&str; 2] = ["agent", "lab shell"];

fn schema() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/cli.schema.json");
    serde_json::from_slice(&fs::read(file).expect("the schema exists")).expect("the schema is JSON")
}

/// Validates the printed document against the schema of the command, or against the schema of failures.
#[track_caller]
fn assert_documented(schema: &Value, command: &str, answer: &Answer) {
    let document = answer.json();
    let what = if document.get("error").is_some() { "a command that failed" } else { command };
    let mut of_command = schema["commands"][what].clone();
    assert!(of_command.is_object(), "{what} is not in the schema");
    of_command["$defs"] = schema["$defs"].clone();
    let validator = jsonschema::draft202012::new(&of_command).expect("a valid JSON Schema");
    let mistakes: Vec<_> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(mistakes.is_empty(), "{command}: {mistakes:?}\n{answer}");
    // The validator accepts keys that the schema does not list, so they are checked here.
    let definition = of_command["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")).expect("a definition");
    let known = &schema["$defs"][definition];
    if let (Some(properties), Some(keys)) = (known["properties"].as_object(), document.as_object()) {
        let has_more = known.get("allOf").is_some() || known.get("$ref").is_some();
        let unknown: Vec<_> = keys.keys().filter(|key| !has_more && !properties.contains_key(*key)).collect();
        assert!(unknown.is_empty(), "{command} prints {unknown:?}, which the schema does not list");
    }
    if document.get("error").is_some() {
        assert_eq!(document["exit_code"], answer.code(), "{answer}");
    }
}

#[test]
fn every_command_prints_one_document_as_the_schema_has_it_whether_it_succeeds_or_fails() {
    let schema = schema();
    let sandbox = Sandbox::new();
    let topology = &*sandbox.topology("uniform-3-rtt100");
    let _file = sandbox.topology("hierarchical-9");
    sandbox.write("bad.toml", "name = 'bad'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '10' }\nx = 1\n");
    sandbox.write("agent.toml", "node = 'n1'\ninterface = 'eno2'\n");
    sandbox.write("right.toml", "node = 'n1'\ninterfaces = ['lo', 'none7']\nsocket = 'agent.sock'\n");
    sandbox.write("listens.toml", "node = 'n1'\ninterfaces = ['lo']\nlisten = '[::1]:20094'\njournal = 'n1.json'\n");
    // A kernel that cannot shape refuses every change (exit code 7).
    let changed = if kernel_can_shape() { 0 } else { 7 };
    let table: &[(&str, &[&str], i32)] = &[
        ("new", &["--zones", "3"], 0),
        ("new", &["--zones", "10"], 2),
        ("check", &[topology], 0),
        ("check", &["bad.toml"], 3),
        ("check", &["none.toml"], 3),
        ("show", &["hierarchical-9.toml"], 0),
        ("show", &["bad.toml"], 3),
        ("lab down", &[], 0),
        ("status", &[], 6),
        ("lab status", &[], 6),
        ("plan", &[topology, "--as-tc"], 0),
        ("apply", &[topology], 6),
        ("set", &["n1", "n2", "delay=5"], 2),
        ("lab up", &[topology], 0),
        ("lab up", &[topology], 9),
        ("lab status", &[], 0),
        ("status", &[], 0),
        ("doctor", &["--all", "--topology", topology], changed),
        ("doctor", &["--topology", "bad.toml"], 3),
        ("plan", &[topology], changed),
        ("plan", &["--offline", topology], 0),
        ("plan", &["hierarchical-9.toml"], 2),
        ("plan", &[topology, "--node", "n9"], 2),
        ("apply", &[topology], changed),
        ("apply", &["bad.toml"], 3),
        ("set", &["n1", "n2", "loss=1%", "--for", "100s"], changed),
        ("set", &["n1", "n7", "loss=1%"], 2),
        ("partition", &["n3", "--port", "tcp/26257"], changed),
        ("partition", &["--halves", "--flap", "5s/10s", "--for", "100s", "--name", "storm"], changed),
        ("partition", &["n7"], 2),
        ("status", &[], 0),
        ("unset", &[], 0),
        ("heal", &["no-such"], 2),
        ("heal", &[], 0),
        ("verify", &["--count", "3", "--tolerance", "100"], 0),
        ("verify", &["--tolerance", "lots"], 2),
        ("clear", &[], 0),
        ("lab exec", &["n1", "--", "true"], 0),
        ("lab exec", &["n1", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], 3),
        ("lab exec", &["n1", "--", "sh", "-c", "kill -TERM $$"], 143),
        ("lab exec", &["n1", "--", "no-such-program"], 127),
        ("lab exec", &["n1", "--", "/etc/passwd"], 126),
        ("lab exec", &["n7", "--", "true"], 2),
        ("lab exec", &["n[1-2]", "--", "sh", "-c", "echo out; exit 3"], 3),
        ("lab exec", &["--detach", "n[1-2]", "--", "sleep", "300"], 0),
        ("lab exec", &["--detach", "n[1-2]", "--", "/etc/passwd"], 126),
        ("lab ps", &[], 0),
        ("lab shell", &["n1"], 2),
        ("lab restart", &["n1"], 0),
        ("lab restart", &["n7"], 2),
        ("lab down", &["--if-idle"], 5),
        ("agent", &["--config", "agent.toml"], 3),
        ("agent --check", &["--config", "agent.toml"], 3),
        ("agent --check", &["--config", "right.toml"], 0),
        ("agent --check", &["--config", "listens.toml"], 0),
        ("agent", &["--config", "agent.toml", "--timeout", "5"], 2),
        ("lab down", &[], 0),
    ];
    for (command, arguments, code) in table {
        let words: Vec<&str> = command.split(' ').chain(["--json"]).chain(arguments.iter().copied()).collect();
        let answer = sandbox.run_words(&words).ended(*code);
        assert_documented(&schema, command, &answer);
    }
    let ok: BTreeSet<&str> = table.iter().filter(|(.., code)| [0, changed].contains(code)).map(|row| row.0).collect();
    let commands = commands(&sandbox, "").into_iter().filter(|command| !WITHOUT_A_DOCUMENT.contains(&&**command));
    for command in commands {
        assert!(schema["commands"].get(&command).is_some(), "{command} is not in src/cli/schema.rs");
        let elsewhere = ["inventory", "pki"].iter().any(|verb| command.starts_with(verb));
        assert!(elsewhere || ok.contains(&*command), "{command} is not in the table above");
    }
}

#[test]
fn every_command_answers_a_usage_error_and_a_call_for_help_with_one_document() {
    let schema = schema();
    let sandbox = Sandbox::new();
    let commands = commands(&sandbox, "");
    assert!(commands.len() > 15, "{commands:?}");
    for command in commands {
        let words = |last| -> Vec<&str> { command.split(' ').chain(["--json", last]).collect() };
        let unknown = sandbox.run_words(&words("--no-such-option")).ended(2);
        assert_documented(&schema, &command, &unknown);
        assert_documented(&schema, "--help", &sandbox.run_words(&words("--help")).ended(0));
    }
    let version = sandbox.run(["--json", "--version"]).ended(0);
    assert_documented(&schema, "--version", &version);
    assert_eq!(version.json()["version"], env!("CARGO_PKG_VERSION"));
}

/// All commands without subcommands, such as `lab up`, taken from the help texts.
pub(crate) fn commands(sandbox: &Sandbox, above: &str) -> Vec<String> {
    let words: Vec<&str> = above.split_whitespace().chain(["--help"]).collect();
    let help = sandbox.run_words(&words).ended(0).stdout;
    let Some((_, listed)) = help.split_once("\nCommands:\n") else { return vec![above.to_owned()] };
    let lines = listed.lines().take_while(|line| line.starts_with("  "));
    let names = lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    let below = |name: &str| commands(sandbox, format!("{above} {name}").trim_start());
    names.filter(|name| *name != "help").flat_map(below).collect()
}
