//! Agents that never answer: every command that talks to agents ends by Ctrl-C and by `--timeout`, and says so.

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

/// Far more than a busy machine needs, and less than twenty logins would take that each hang for 30 s, eight at once.
const IN_TIME: Duration = Duration::from_mins(1);

/// Whom a command talks to.
enum Talks {
    Nobody,
    /// To the fleet, with these arguments; HOSTS stands for where its agents are.
    Fleet(&'static [&'static str]),
    Lab,
}

use Talks::{Fleet, Lab as OfTheLab, Nobody};

/// Every command. One that is not here fails a test.
const TABLE: [(&str, Talks); 25] = [
    ("new", Nobody),
    ("check", Nobody),
    ("show", Nobody),
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

/// Ends a command as Ctrl-C does, again and again until it has ended: a shell has what it starts in the background ignore
/// SIGINT until that has a handler of its own.
const INTERRUPTED: &str = r#"
"$NETEMCTL" "$@" & pid=$!
( while sleep 0.3; do kill -INT $pid || exit; done ) 2>/dev/null & killer=$!
wait $pid; code=$?
kill $killer; exit $code"#;

/// A fleet that hangs.
struct Hanging {
    sandbox: Sandbox,
    /// As words of the command line.
    options: Vec<String>,
    hosts: String,
    _sockets: Vec<UnixListener>,
}

impl Hanging {
    /// Hosts whose ssh neither ends nor says anything.
    fn by_ssh() -> Self {
        let sandbox = Sandbox::new();
        // Its command line has the folder's name, so that it ends with the test.
        sandbox.write("ssh", "exec tail -f /dev/null \"$0\"\n");
        sandbox.write("fleet.toml", "[defaults]\ntransport = 'ssh'\ninterface = 'db0'\n[nodes]\n'n[1-20]' = {}\n");
        let ssh = format!("sh {}/ssh", sandbox.path().display());
        Self::new(sandbox, vec!["--ssh".to_owned(), ssh], "ssh://n[1-20]".to_owned(), Vec::new())
    }

    /// Sockets that take connections and never answer.
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

    /// The words of a command on this fleet.
    fn words<'a>(&'a self, command: &'a str, arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
        let arguments = arguments.iter().map(|word| if *word == "HOSTS" { &*self.hosts } else { *word });
        let options = self.options.iter().map(String::as_str).chain(["--inventory", "fleet.toml"]);
        command.split(' ').chain(arguments).chain(options).chain(more.iter().copied()).collect()
    }

    /// Runs every command that talks to a fleet, all at once.
    fn each(run: impl Fn(&str, &[&'static str]) + Sync) {
        let talking = TABLE.iter().filter_map(|(command, talks)| match talks {
            Fleet(arguments) => Some((command, arguments)),
            Nobody | OfTheLab => None,
        });
        thread::scope(|scope| {
            for (command, arguments) in talking {
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
fn the_lab_is_asked_for_its_status_no_longer_than_the_user_wants() {
    let lab = Lab::up("uniform-3-rtt0");
    let agents = ["n1", "n2", "n3"].map(|node| Pid::from_raw(lab.sandbox.agent(node)));
    for agent in agents {
        kill(agent, Signal::SIGSTOP).expect("one's own process can be stopped");
    }
    let timed_out = in_time("lab status", || lab.run(["lab", "status", "--timeout", "1"]));
    let ended = in_time("lab status", || interrupted(&lab.sandbox, &["lab", "status", "--json"]));
    for agent in agents {
        kill(agent, Signal::SIGCONT).expect("one's own process can go on");
    }
    assert!([6, 124].contains(&timed_out.code()), "{timed_out}");
    assert_eq!(ended.ended(130).json()["exit_code"], 130);
}

/// A pseudo-terminal is stdin, stdout and stderr, as of `ssh -tt` and Ansible's `raw`.
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
