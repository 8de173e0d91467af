//! Agents that never answer. Every command that calls agents ends at Ctrl-C and at its `--timeout`, with an error.

use std::{
    os::unix::net::UnixListener,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    documents::commands,
    harness::{Answer, Lab, Sandbox},
};

/// The limit for a command on a busy machine. Twenty logins, eight at once, that each hang for 30 s would take longer.
const IN_TIME: Duration = Duration::from_mins(1);

/// The agents that a command calls.
enum Calls {
    Nobody,
    /// The fleet. The command has these arguments; `HOSTS` stands for the hosts of the agents.
    Fleet(&'static [&'static str]),
    /// The agents of the lab.
    Lab,
}

use Calls::{Fleet, Lab as OfTheLab, Nobody};

/// All commands. A test fails if a command is missing.
const TABLE: [(&str, Calls); 26] = [
    ("new", Nobody),
    ("check", Nobody),
    ("show", Nobody),
    ("doctor", Fleet(&["--topology", "uniform-3-rtt100.toml"])),
    ("plan", Fleet(&["uniform-3-rtt100.toml"])),
    ("apply", Fleet(&["uniform-3-rtt100.toml"])),
    ("verify", Fleet(&[])),
    ("status", Fleet(&["--counters"])),
    ("set", Fleet(&["n1", "n2", "loss=1%"])),
    ("unset", Fleet(&[])),
    ("partition", Fleet(&["n1"])),
    ("heal", Fleet(&[])),
    ("clear", Fleet(&["--wait", "100s"])),
    ("inventory init", Fleet(&["HOSTS"])),
    ("inventory check", Fleet(&[])),
    ("inventory show", Nobody),
    ("lab up", Nobody),
    ("lab status", OfTheLab),
    ("lab ps", Nobody),
    ("lab exec", Nobody),
    ("lab shell", Nobody),
    ("lab restart", Nobody),
    ("lab down", Nobody),
    ("pki init", Nobody),
    ("pki issue", Nobody),
    ("pki show", Nobody),
];

/// Sends SIGINT to a command until it has ended. A shell starts background commands with SIGINT ignored, so the first
/// signals have no effect until the command has installed its handler.
const INTERRUPTED: &str = r#"
"$NETEMCTL" "$@" & pid=$!
( while sleep 0.3; do kill -INT $pid || exit; done ) 2>/dev/null & killer=$!
wait $pid; code=$?
kill $killer; exit $code"#;

/// A fleet whose agents never answer.
struct Hanging {
    sandbox: Sandbox,
    /// The options for this fleet.
    options: Vec<String>,
    hosts: String,
    _sockets: Vec<UnixListener>,
}

impl Hanging {
    /// Hosts whose ssh neither ends nor prints anything.
    fn by_ssh() -> Self {
        let sandbox = Sandbox::new();
        // Its command line has the sandbox's folder, so the sandbox kills it at the end of the test.
        sandbox.write("ssh", "exec tail -f /dev/null \"$0\"\n");
        sandbox.write("fleet.toml", "[defaults]\ntransport = 'ssh'\ninterface = 'db0'\n[nodes]\n'n[1-20]' = {}\n");
        let ssh = format!("sh {}/ssh", sandbox.path().display());
        Self::new(sandbox, vec!["--ssh".to_owned(), ssh], "ssh://n[1-20]".to_owned(), Vec::new())
    }

    /// Unix sockets that accept connections and never answer.
    fn by_sockets() -> Self {
        let sandbox = Sandbox::new();
        let path = |node: &str| sandbox.path().join(format!("{node}.sock")).display().to_string();
        let nodes = ["n1", "n2", "n3"];
        let entry = |node: &str| format!("{node} = {{ transport = 'unix', socket = '{}' }}\n", path(node));
        let entries: String = nodes.map(entry).concat();
        sandbox.write("fleet.toml", format!("[defaults]\ninterface = 'db0'\n[nodes]\n{entries}"));
        let sockets = nodes.map(|node| UnixListener::bind(path(node)).expect("the sandbox can be written"));
        let hosts = format!("unix:{}", path("n1"));
        Self::new(sandbox, Vec::new(), hosts, sockets.into())
    }

    fn new(sandbox: Sandbox, options: Vec<String>, hosts: String, sockets: Vec<UnixListener>) -> Self {
        let _file = sandbox.topology("uniform-3-rtt100");
        Self { sandbox, options, hosts, _sockets: sockets }
    }

    /// The command line of a command on this fleet.
    fn words<'a>(&'a self, command: &'a str, arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
        let arguments = arguments.iter().map(|word| if *word == "HOSTS" { &*self.hosts } else { *word });
        let options = self.options.iter().map(String::as_str).chain(["--inventory", "fleet.toml"]);
        command.split(' ').chain(arguments).chain(options).chain(more.iter().copied()).collect()
    }

    /// Runs all commands that call a fleet, at the same time.
    fn each(run: impl Fn(&str, &[&'static str]) + Sync) {
        let calling = TABLE.iter().filter_map(|(command, calls)| match calls {
            Fleet(arguments) => Some((command, arguments)),
            Nobody | OfTheLab => None,
        });
        thread::scope(|scope| {
            for (command, arguments) in calling {
                scope.spawn(|| run(command, arguments));
            }
        });
    }
}

#[track_caller]
fn in_time(what: &str, run: impl FnOnce() -> Answer) -> Answer {
    let began = Instant::now();
    let answer = run();
    assert!(began.elapsed() < IN_TIME, "{what} took {:?}\n{answer}", began.elapsed());
    answer
}

fn interrupted(sandbox: &Sandbox, words: &[&str]) -> Answer {
    sandbox.run_other_words("sh", &[&["-c", INTERRUPTED, "sh"], words].concat())
}

#[test]
fn every_command_is_in_the_table_of_those_that_may_hang() {
    let mut known: Vec<String> = TABLE.iter().map(|(command, _)| (*command).to_owned()).collect();
    known.push("agent".to_owned());
    let mut all = commands(&Sandbox::new(), "");
    known.sort();
    all.sort();
    assert_eq!(known, all);
}

#[test]
fn no_command_outlives_its_timeout_where_agents_never_answer() {
    for fleet in [Hanging::by_ssh(), Hanging::by_sockets()] {
        Hanging::each(|command, arguments| {
            let words = fleet.words(command, arguments, &["--timeout", "1"]);
            let answer = in_time(command, || fleet.sandbox.run_words(&words));
            assert!([6, 124].contains(&answer.code()), "{command}\n{answer}");
        });
    }
}

#[test]
fn no_command_outlives_ctrl_c_where_agents_never_answer() {
    for fleet in [Hanging::by_ssh(), Hanging::by_sockets()] {
        Hanging::each(|command, arguments| {
            let words = fleet.words(command, arguments, &["--json"]);
            let answer = in_time(command, || interrupted(&fleet.sandbox, &words)).ended(130);
            assert_eq!(answer.json()["exit_code"], 130, "{command}");
        });
    }
}

#[test]
fn lab_status_ends_at_its_timeout_and_at_ctrl_c() {
    let lab = Lab::up("uniform-3-rtt0");
    let agents = ["n1", "n2", "n3"].map(|node| Pid::from_raw(lab.sandbox.agent(node)));
    for agent in agents {
        kill(agent, Signal::SIGSTOP).expect("an own process can be stopped");
    }
    let timed_out = in_time("lab status", || lab.run(["lab", "status", "--timeout", "1"]));
    let ended = in_time("lab status", || interrupted(&lab.sandbox, &["lab", "status", "--json"]));
    for agent in agents {
        kill(agent, Signal::SIGCONT).expect("an own process can be continued");
    }
    assert!([6, 124].contains(&timed_out.code()), "{timed_out}");
    assert_eq!(ended.ended(130).json()["exit_code"], 130);
}

/// Runs a shell command with a pseudo-terminal as stdin, stdout and stderr, as `ssh -tt` and Ansible's `raw` do.
fn on_terminal(sandbox: &Sandbox, command: &str) -> Answer {
    let answer = sandbox.run_other("script", ["-qec", command, "/dev/null"]);
    Answer { stdout: answer.stdout.replace("\r\n", "\n"), ..answer }
}

#[test]
fn on_a_terminal_json_is_nothing_but_the_document_however_long_it_takes() {
    let fleet = Hanging::by_sockets();
    let status = "\"$NETEMCTL\" status --inventory fleet.toml --timeout 3";
    let drawn = on_terminal(&fleet.sandbox, status).ended(6);
    assert!(drawn.stdout.contains("\rreading the nodes … "), "{drawn}");
    let document = on_terminal(&fleet.sandbox, &format!("{status} --json")).ended(6);
    assert_eq!(document.json()["nodes"]["n1"]["state"], "unreachable");
    let clear = "\"$NETEMCTL\" clear --inventory fleet.toml --timeout 3 --json";
    let failed = on_terminal(&fleet.sandbox, clear);
    assert_eq!(failed.json()["exit_code"], failed.code());
}

#[test]
fn a_document_is_on_one_line_if_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    let pretty = sandbox.run(["check", &file, "--json"]).ended(0);
    assert_eq!(sandbox.run(["check", &file, "--json=pretty"]).ended(0).stdout, pretty.stdout);
    let commands: [(&[&str], i32); 4] = [
        (&["check", &file, "--json=lines"], 0),
        (&["--json=lines", "check", "none.toml"], 3),
        (&["check", "--json=lines"], 2),
        (&["--json=lines", "--help"], 0),
    ];
    for (words, code) in commands {
        let answer = sandbox.run_words(words).ended(code);
        assert_eq!((answer.stdout.lines().count(), answer.stdout.ends_with('\n')), (1, true), "{answer}");
        let _document = answer.json();
    }
    let bad = sandbox.run(["check", &file, "--json=xml"]).ended(2);
    assert!(bad.json()["error"]["message"].as_str().is_some_and(|said| said.contains("xml")), "{bad}");
}
