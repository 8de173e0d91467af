//! Answers of agents and hosts with terminal control sequences, data of a newer version, or invalid data.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use super::harness::{Answer, Sandbox};

/// A text that clears the screen in two ways, sets the title, reverses the writing direction and fakes a hint.
const EVIL: &str = "\u{1b}[2J\u{9b}2J\u{1b}]0;evil\u{7}\u{202e}live\r\nhint: evil";

/// Starts a fake agent of n1 and writes `fleet.toml`. `answer` returns status and body for a path.
fn agent(sandbox: &Sandbox, answer: impl Fn(&str) -> (u16, Value) + Send + 'static) {
    let socket = UnixListener::bind(sandbox.path().join("n1.sock")).expect("the sandbox can be written");
    sandbox.write(
        "fleet.toml",
        format!(
            "[nodes]\nn1 = {{ transport = 'unix', socket = '{}', interface = 'db0', addresses = '10.0.0.1' }}\n",
            sandbox.path().join("n1.sock").display()
        ),
    );
    thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            // The failure of one client does not affect the next one.
            let _result = serve(stream, &answer);
        }
    });
}

fn serve(stream: UnixStream, answer: &impl Fn(&str) -> (u16, Value)) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let (mut request, mut length) = (String::new(), 0);
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().to_ascii_lowercase().split_once(": ") {
            Some(("content-length", number)) => length = number.parse().expect("a number"),
            Some(_) => {}
            None => break,
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    let (status, body) = answer(request.split(' ').nth(1).unwrap_or_default());
    let body = body.to_string();
    let head = format!(
        "HTTP/1.1 {status} x\r\nserver: netemctl/99.9\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    reader.get_mut().write_all((head + &body).as_bytes())
}

/// The example answer of a call in docs/api/openapi.json.
fn example(path: &str) -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/api/openapi.json");
    let api: Value =
        serde_json::from_slice(&fs::read(file).expect("the description exists")).expect("the description is JSON");
    api["paths"][path]["post"]["responses"]["200"]["content"]["application/json"]["example"].clone()
}

/// Checks that the output has the agent's text without terminal control characters.
#[track_caller]
fn assert_harmless(answer: &Answer) {
    let text = format!("{}{}", answer.stdout, answer.stderr);
    let is_control = |c: char| c.is_control() && c != '\n' && c != '\t' || c == '\u{202e}';
    assert!(!text.contains(is_control), "{text:?}");
    assert!(text.contains("evil"), "{answer}");
    assert!(!answer.stderr.contains("\nhint: evil"), "{answer}");
}

#[test]
fn the_error_of_an_agent_cannot_repaint_the_terminal() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    agent(&sandbox, |_| (403, json!({ "code": "refused", "message": EVIL })));
    for command in [&["status"][..], &["clear"], &["verify"], &["inventory", "check"], &["plan", &file]] {
        let words = |more: &'static [&'static str]| [command, &["--inventory", "fleet.toml"], more].concat();
        assert_harmless(&sandbox.run_words(&words(&[])));
        let document = sandbox.run_words(&words(&["--json"]));
        assert_harmless(&document);
        assert!(document.json().to_string().contains("\\u001b[2J"), "{document}");
    }
}

#[test]
fn the_answer_of_an_agent_cannot_repaint_the_terminal() {
    let sandbox = Sandbox::new();
    agent(&sandbox, |path| {
        let mut answer = example(path);
        if path == "/v1/status" {
            answer["topology"] = EVIL.into();
            answer["drift"] = json!([EVIL]);
            answer["watch"]["incidents"] = json!([{ "at": "2026-11-22T10:46:00Z", "what": EVIL }]);
        }
        if path == "/v1/host" {
            answer["kernel"] = EVIL.into();
            answer["interfaces"][0]["mac"] = EVIL.into();
        }
        (200, answer)
    });
    assert_harmless(&sandbox.run(["status", "--inventory", "fleet.toml"]).ended(4));
    assert_harmless(&sandbox.run(["status", "--json", "--inventory", "fleet.toml"]).ended(4));
    assert_harmless(&sandbox.run(["inventory", "check", "--json", "fleet.toml"]));
}

#[test]
fn output_of_ssh_and_the_host_cannot_repaint_the_terminal() {
    let sandbox = Sandbox::new();
    sandbox.write("fleet.toml", "[nodes]\nn1 = { transport = 'ssh', interface = 'db0', addresses = '10.0.0.1' }\n");
    sandbox.write("evil", format!("{EVIL}\n{EVIL}"));
    for script in ["cat evil >&2; exit 255", "cat evil; exit 3", "printf 'error: '>&2; cat evil >&2; exit 8"] {
        sandbox.write("ssh", format!("cd \"${{0%/*}}\"; {script}\n"));
        let ssh = format!("sh {}/ssh", sandbox.path().display());
        assert_harmless(&sandbox.run(["status", "--inventory", "fleet.toml", "--ssh", &ssh]).ended(6));
        assert_harmless(&sandbox.run(["clear", "--inventory", "fleet.toml", "--ssh", &ssh]).ended(6));
    }
}

#[test]
fn an_error_that_only_a_newer_version_knows_keeps_its_sentence_and_its_kind() {
    for (status, code) in [(409, 9), (403, 5), (501, 7), (500, 1)] {
        let sandbox = Sandbox::new();
        agent(&sandbox, move |path| match path {
            "/v1/stamp" => (status, json!({ "code": "of-tomorrow", "message": "the moon is in the way", "more": 1 })),
            path => (200, example(path)),
        });
        let answer = sandbox.run(["clear", "--inventory", "fleet.toml"]).ended(code);
        assert!(answer.stderr.contains("  n1: the moon is in the way\n"), "{answer}");
    }
}

#[test]
fn a_document_that_only_a_newer_version_understands_names_both_versions() {
    let sandbox = Sandbox::new();
    agent(&sandbox, |path| {
        let mut answer = example(path);
        if path == "/v1/wanted" {
            answer["wanted"]["of-tomorrow"] = 1.into();
        }
        (200, answer)
    });
    let answer = sandbox.run(["clear", "--inventory", "fleet.toml"]).ended(1);
    let versions =
        "; the agent runs netemctl 99.9, and this command is netemctl [VERSION]: install the same version on both";
    assert!(answer.stderr.contains(versions), "{answer}");
}

#[test]
fn an_unexpected_answer_is_not_asked_for_again() {
    let sandbox = Sandbox::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    agent(&sandbox, move |path| match path {
        "/v1/stamp" => (200, json!({ "nonsense": count.fetch_add(1, Ordering::Relaxed) })),
        path => (200, example(path)),
    });
    let answer = sandbox.run(["clear", "--inventory", "fleet.toml", "--wait", "100s"]).ended(1);
    assert!(answer.stderr.contains("unexpected answer from"), "{answer}");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
