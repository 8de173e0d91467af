//! The commands in README.md and docs/*.md are run as written, and must print the output that the documents show.
//!
//! Each document has its own folder, with links to this project's files, an empty home and one shell. So files,
//! `export` and `cd` last until the end of the document. Blocks run in the document's order. A comment before a block
//! says where it runs ([`blocks::WORLDS`]). [`console::is_as_shown`] compares the output.
//!
//! To save time, the controller host reaches three hosts only. There, `n[1-9]` is replaced by `n[1-3]`, and the
//! topology of nine nodes by a topology of three nodes.

#[path = "../docs/blocks.rs"]
mod blocks;
#[path = "../docs/console.rs"]
mod console;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use tempfile::TempDir;

use self::{
    blocks::{Block, WORLDS, blocks, documents},
    console::{Step, is_as_shown, steps},
};
use crate::{
    lab::{Ran, shipped},
    sshd::{Hosts, kill_process, strip},
};

/// The time limit of a command.
const TIME_LIMIT: Duration = Duration::from_mins(3);

/// Text of the documents about nine hosts, and its replacement for three hosts.
const REPLACEMENTS: [(&str, &str); 2] =
    [("n[1-9]", "n[1-3]"), ("topologies/hierarchical-9.toml", "topologies/uniform-3-rtt100.toml")];

/// The number of measurements after which a difference counts as a mistake. The machine may be busy.
const MEASUREMENTS: usize = 4;

/// A shell in a folder with links to this project's files.
struct Shell {
    folder: TempDir,
    bash: Child,
    input: ChildStdin,
    /// The exit codes of the commands.
    codes: Receiver<String>,
}

impl Shell {
    /// Starts the shell with `command`. The folder `bin` is first in its `PATH`.
    fn start(mut command: Command, bin: &Path) -> Self {
        let folder = tempfile::Builder::new().prefix("netemctl-docs-").tempdir_in("/tmp").unwrap();
        for entry in fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap().flatten() {
            if entry.file_name() != "target" {
                symlink(entry.path(), folder.path().join(entry.file_name())).unwrap();
            }
        }
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        for built in ["target/debug", "target/x86_64-unknown-linux-musl/dist"] {
            fs::create_dir_all(folder.path().join(built)).unwrap();
            symlink(bin.join("netemctl"), folder.path().join(built).join("netemctl")).unwrap();
        }
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", bin.display())).env("HOME", home).env("NO_COLOR", "1");
        command.current_dir(folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut bash = command.spawn().unwrap();
        let (input, output) = (bash.stdin.take().unwrap(), bash.stdout.take().unwrap());
        let (sender, codes) = channel();
        // This thread ends with the shell.
        drop(thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                drop(sender.send(line));
            }
        }));
        let mut shell = Self { folder, bash, input, codes };
        drop(shell.run("for name in ${!NETEMCTL_*}; do unset $name; done").expect(0));
        shell
    }

    fn run(&mut self, command: &str) -> Ran {
        let [out, err] = ["out", "err"].map(|name| self.folder.path().join("home").join(name));
        let [stdout, stderr] = [&out, &err].map(|file| file.display().to_string());
        writeln!(self.input, "{{\n{command}\n}} </dev/null >{stdout} 2>{stderr}\necho $?").unwrap();
        let code = self.codes.recv_timeout(TIME_LIMIT).unwrap_or_else(|_| panic!("timeout: {command}"));
        let text = |file| String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned();
        Ran { code: code.parse().ok(), stdout: text(out), stderr: text(err) }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.bash.kill());
        drop(self.bash.wait());
    }
}

/// The difference between a step and its result, if any. The output of a failed command includes stderr.
fn mistake(step: &Step, ran: &Ran) -> Option<String> {
    let fails = ran.code != Some(0);
    let printed = if fails { format!("{}{}", ran.stdout, ran.stderr) } else { ran.stdout.clone() };
    if fails != step.fails() {
        return Some(format!("ends with {:?}\n{}{}", ran.code, ran.stdout, ran.stderr));
    }
    let is_wrong = !step.shown.is_empty() && !is_as_shown(&step.shown, &printed);
    is_wrong.then(|| format!("prints\n{printed}"))
}

/// Runs a block. Returns its mistakes.
fn run(shell: &mut Shell, block: &Block) -> Vec<String> {
    for command in &block.first {
        let ran = shell.run(command);
        assert_eq!(ran.code, Some(0), "{}: {command}\n{}{}", block.place(), ran.stdout, ran.stderr);
    }
    let run = |step: Step| {
        let is_measured = step.command.contains("netemctl verify");
        let mut ran = shell.run(&step.command);
        for _ in 1..MEASUREMENTS {
            if is_measured && mistake(&step, &ran).is_some() {
                ran = shell.run(&step.command);
            }
        }
        // The documents say that `verify` may end like this on a busy machine.
        let is_too_busy = is_measured && ran.stdout.contains(" not judged: a machine is busy (");
        mistake(&step, &ran)
            .filter(|_| !is_too_busy)
            .map(|mistake| format!("{}:{}: {}: {mistake}", block.document, step.line, step.command))
    };
    steps(block).into_iter().filter_map(run).collect()
}

/// The name of the file that the block shows. Such a block has the comment `# NAME` alone on its first line.
fn file_name(block: &Block) -> Option<&str> {
    let name = block.lines.first()?.strip_prefix("# ")?;
    (!name.contains(' ') && name.contains('.')).then_some(name)
}

/// Runs the blocks of all documents that belong to one world. Each document has its own shell, and `end` runs after it.
fn run_documents(world: &str, read: impl Fn(String) -> String, shell: impl Fn() -> Shell, end: impl Fn(&mut Shell)) {
    let mut mistakes = Vec::new();
    for (name, text) in documents() {
        let document = (name, read(text));
        let blocks: Vec<Block> = blocks(&document).into_iter().filter(|block| block.world == world).collect();
        let runs: Vec<&Block> = blocks.iter().filter(|block| is_run(block)).collect();
        if runs.is_empty() {
            continue;
        }
        let mut shell = shell();
        for (name, block) in blocks.iter().filter_map(|block| Some((file_name(block)?, block))) {
            fs::write(shell.folder.path().join(name), block.text()).unwrap();
        }
        mistakes.extend(runs.into_iter().flat_map(|block| run(&mut shell, block)));
        end(&mut shell);
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n\n"));
}

fn is_run(block: &Block) -> bool {
    matches!(&*block.language, "console" | "sh") && block.not_run.is_none()
}

/// A folder with a stripped netemctl, which is fast to copy.
fn bin() -> TempDir {
    let bin = tempfile::Builder::new().prefix("netemctl-bin-").tempdir_in("/tmp").unwrap();
    strip(env!("CARGO_BIN_EXE_netemctl"), &bin.path().join("netemctl"));
    bin
}

#[test]
fn what_the_documents_show_on_this_machine_is_so() {
    let bin = bin();
    #[expect(clippy::disallowed_methods, reason = "the documents' commands are for a shell")]
    let bash = || Command::new("bash");
    let end = |shell: &mut Shell| {
        // A document may end while the lab is up.
        if shell.run("netemctl lab status").code == Some(0) {
            drop(shell.run("netemctl lab down").expect(0));
        }
    };
    run_documents(WORLDS[0], |text| text, || Shell::start(bash(), bin.path()), end);
}

/// The hosts are nodes of a lab without agents. Programs on the controller host reach the first as n1 and
/// n1.example.org. The other hosts reach it as 10.20.0.1.
#[test]
fn what_the_documents_show_on_a_controller_host_is_so() {
    let hosts = Hosts::up(&shipped("uniform-3-rtt100.toml"), false);
    let nodes: Vec<String> = (1..=3).map(|number| format!("n{number}")).collect();
    let (mut config, mut names) = (String::new(), "127.0.0.1 localhost\n".to_owned());
    for (node, number) in nodes.iter().zip(1..) {
        config += &format!("Host {node} {node}.example.org\n HostName 10.77.0.{number}\n");
        names += &format!("10.77.0.{number} {node} {node}.example.org\n");
        hosts.lab.exec(node, &format!("ip address add 10.20.0.{number}/16 dev db0"));
    }
    hosts.rewrite("config", |others| others + &config);
    hosts.rewrite("names", |_| names);
    let bin = bin();
    for program in ["ssh", "scp"] {
        let script = format!("#!/bin/sh\nexec /usr/bin/{program} -F {} \"$@\"\n", hosts.path("config").display());
        let file = bin.path().join(program);
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let start_agents = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/docs/start-agents");
    symlink(start_agents, bin.path().join("start-agents")).unwrap();
    let before = hosts.lab.tc();
    let bash = || {
        let script = format!("mount --bind {} /etc/hosts && exec bash", hosts.path("names").display());
        hosts.lab.command(["lab", "exec", "controller", "--", "unshare", "-m", "sh", "-c", &script])
    };
    let end = |_: &mut Shell| {
        for node in &nodes {
            hosts.processes(node).into_keys().for_each(kill_process);
            // Files of `tests/docs/start-agents`, if the document has run it.
            for file in ["/etc/netemctl/agent.toml", "/usr/local/bin/netemctl"] {
                drop(fs::remove_file(hosts.on(node, file)));
            }
        }
        assert_eq!(hosts.lab.tc(), before);
    };
    let read = |text| REPLACEMENTS.iter().fold(text, |text: String, (nine, three)| text.replace(nine, three));
    run_documents(WORLDS[1], read, || Shell::start(bash(), bin.path()), end);
}
