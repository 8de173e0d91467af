//! `netemctl lab`: the nodes of a topology as network namespaces on this machine.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use super::{
    Context, Exit, Failure, agent,
    context::{Agents, talk},
    program,
    render::{count, table},
    topology_file,
};
use crate::{
    fleet::part,
    kernel::as_root_of_user_namespace,
    lab::{LabDirectory, Layout, keep},
    plan::is_link_local,
    topology::NodeName,
    wire::GetStatus,
};

/// Run the nodes of a topology as network namespaces on this machine, an agent in each
///
/// Nothing of it appears on the host's network. Each node has an interface for the database, db0, and one for everything
/// else, mgmt0; inside, the name of a node is its database address, and NODE.mgmt the other. Ordinary users can do this
/// where the kernel allows them user namespaces.
#[derive(Debug, clap::Args)]
pub(super) struct LabArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Bring the nodes of a topology up; the links between them are a plain LAN until you apply it
    Up {
        /// The topology file, or - for stdin
        #[arg(value_name = "TOPOLOGY")]
        file: PathBuf,
        /// Add a host that is no node, on the management network alone: netemctl lab exec controller -- PROGRAM
        #[arg(long)]
        controller: bool,
        /// Have the agents listen on the management network too, by TLS with certificates of the lab's own; includes
        /// --controller
        #[arg(long)]
        tls: bool,
    },
    /// Show the nodes, their addresses and whether their agents answer
    Status,
    /// Run a program inside a node; its exit code is that of the command
    ///
    /// Exit code 127 means that there is no such program, 126 that it cannot be run. With --json the document has its
    /// exit code and what it printed. With --timeout it and what it started are ended when the time is over. Example:
    /// netemctl lab exec n1 -- ping -c 3 n4
    Exec {
        /// The node, or `controller`
        node: String,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, value_name = "PROGRAM")]
        program: Vec<OsString>,
    },
    /// Open a shell inside a node
    Shell {
        /// The node, or `controller`
        node: String,
    },
    /// Take everything down; also what a lab that was killed left behind
    Down,
    /// Hold a lab open (what `up` starts)
    #[command(hide = true)]
    Keep,
}

impl LabArgs {
    /// Whether it moves the process into other namespaces, which only one that has a single thread can.
    pub(super) fn enters_namespaces(&self) -> bool {
        matches!(self.verb, Verb::Exec { .. } | Verb::Shell { .. } | Verb::Keep)
    }

    /// Whether it takes the lab down.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.verb, Verb::Down)
    }

    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        match self.verb {
            Verb::Up { file, controller, tls } => up(context, &file, controller, tls),
            Verb::Status => status(context),
            Verb::Exec { node, program } => exec(context, &node, &program),
            Verb::Shell { node } => shell(context, &node),
            Verb::Down => down(context),
            Verb::Keep => hold(context),
        }
    }
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Up<'a> {
    topology: &'a str,
    nodes: usize,
    directory: PathBuf,
    seconds: f64,
}

fn up(context: &Context, file: &std::path::Path, controller: bool, tls: bool) -> Result<Exit, Failure> {
    let start = Instant::now();
    let mut layout = Layout::of(&topology_file::read(file)?)?;
    if controller || tls {
        layout = layout.with_controller()?;
    }
    layout.tls = tls;
    let directory = context.lab_directory()?;
    let exclusive = directory.prepare()?;
    let failed = |error: io::Error| Failure::new(Exit::Failed, format!("cannot start the lab: {error}"));
    directory.plan(&layout)?;

    let mut keeper = start_keeper(&directory).map_err(failed)?;
    let said = keeper.stdout.take().map(OwnedFd::from);
    let came = context.block_on(async |interrupt| {
        let what = format!("bringing up {}", count(layout.members.len(), "node"));
        tokio::select! {
            said = Context::meanwhile(&what, first_line(said)) => Ok(Came { up: said == READY, interrupted: false }),
            () = interrupt.cancelled() => Ok(Came { up: false, interrupted: true }),
        }
    })?;
    if !came.up {
        if came.interrupted {
            // Its namespaces end with it, and so do its agents.
            keeper.kill().map_err(failed)?;
        }
        let exit = keeper.wait().map_err(failed)?.code();
        if came.interrupted {
            drop(exclusive);
            end(&directory)?;
            return Err(Failure::new(Exit::Interrupted, "interrupted; nothing of the lab is left"));
        }
        let exit = Exit::ALL.into_iter().find(|known| Some(i32::from(known.code())) == exit);
        return Err(why_not(&directory, exit.unwrap_or(Exit::Failed)));
    }
    let up = Up {
        topology: &layout.topology,
        nodes: layout.members.len(),
        directory: directory.path().to_owned(),
        seconds: start.elapsed().as_secs_f64(),
    };
    context.answer(&up, || {
        let nodes = count(up.nodes, "node");
        format!("lab {} is up: {nodes}, each with an agent, in {:.1} s", up.topology, up.seconds)
    })?;
    Ok(Exit::Ok)
}

/// How long agents may take to end whose keeper is gone.
const AGENTS_END_WITHIN: Duration = Duration::from_secs(5);

/// Removes what is left of a lab that did not come up, where an agent may still be about to make its socket.
fn end(directory: &LabDirectory) -> Result<(), Failure> {
    let deadline = Instant::now() + AGENTS_END_WITHIN;
    while let Err(error) = directory.end() {
        if Instant::now() > deadline {
            return Err(error.into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// How waiting for a lab ended.
struct Came {
    up: bool,
    interrupted: bool,
}

/// What the keeper says first: [`READY`], or nothing before it ends.
async fn first_line(stdout: Option<OwnedFd>) -> String {
    let mut line = String::new();
    if let Some(pipe) = stdout.and_then(|stdout| pipe::Receiver::from_owned_fd(stdout).ok()) {
        // An error is as good as an end: the keeper's exit code and log say why.
        drop(BufReader::new(pipe).read_line(&mut line).await);
    }
    line.trim_end().to_owned()
}

/// What the keeper says on stdout once the lab is up.
const READY: &str = "ready";

/// What the keeper said before it ended, in its own words.
fn why_not(directory: &LabDirectory, exit: Exit) -> Failure {
    let log = fs::read_to_string(directory.log()).unwrap_or_default();
    let said = |prefix: &'static str| log.lines().filter_map(move |line| line.strip_prefix(prefix));
    let message = said("error: ").next_back().unwrap_or_else(|| log.trim());
    let failure = Failure::new(exit, format!("the lab did not come up: {message}"));
    said("hint: ").fold(failure, Failure::hint)
}

#[expect(clippy::disallowed_methods, reason = "the keeper is a process of its own, which outlives this one")]
fn start_keeper(directory: &LabDirectory) -> io::Result<std::process::Child> {
    Command::new(std::env::current_exe()?)
        .arg("--lab-dir")
        .arg(directory.path())
        .args(["lab", "keep"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(directory.log())?)
        .spawn()
}

/// The keeper's process. It has one thread until its namespaces are made.
#[expect(clippy::disallowed_methods, reason = "to be seen by its user, a root of a user namespace must start anew")]
fn hold(context: &Context) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, error);
    // A session of its own: the terminal's Ctrl-C and its end are not the lab's. The second start has one already.
    let _already = nix::unistd::setsid();
    let in_user_namespace = as_root_of_user_namespace().map_err(|error| {
        Failure::new(Exit::Permission, format!("the kernel allows this user no user namespace: {error}"))
            .hint("run as root, or raise the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone")
    })?;
    if in_user_namespace {
        let again = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
        return Err(failed(again));
    }
    agent::start_log();
    let directory = context.lab_directory()?;
    let layout = directory.planned()?;
    keep(&directory, layout, || writeln!(io::stdout(), "{READY}"))?;
    Ok(Exit::Ok)
}

/// The state of an agent that answers.
const UP: &str = "up";

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct LabStatus {
    ok: bool,
    topology: String,
    directory: PathBuf,
    nodes: BTreeMap<NodeName, MemberStatus>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct MemberStatus {
    database: Vec<String>,
    management: Vec<String>,
    /// `up`, or why it is not.
    agent: String,
}

fn status(context: &Context) -> Result<Exit, Failure> {
    let lab = context.lab()?;
    let fleet = context.fleet_of(Agents::Placed(lab.inventory()), None)?;
    let (_, down) = context.block_on(async |_| Ok(part(fleet.call(context.patience(), |_| GetStatus {}).await)))?;
    let texts = |networks: &[ipnetwork::IpNetwork]| {
        let global = networks.iter().map(ipnetwork::IpNetwork::ip).filter(|address| !is_link_local(address));
        global.map(|address| address.to_string()).collect()
    };
    let layout = &lab.state.layout;
    let member = |member: &crate::lab::Member| {
        let agent = down.get(&member.node).map_or_else(|| UP.to_owned(), ToString::to_string);
        let status = MemberStatus { database: texts(&member.database), management: texts(&member.management), agent };
        (member.node.clone(), status)
    };
    let directory = context.lab_directory()?.path().to_owned();
    let ok = down.is_empty();
    let status = LabStatus {
        ok,
        topology: layout.topology.clone(),
        directory,
        nodes: layout.members.iter().map(member).collect(),
    };
    context.answer(&status, || {
        let rows = status.nodes.iter().map(|(node, member)| {
            let agent = if member.agent == UP { UP } else { "dead" };
            vec![node.to_string(), member.database.join(" "), member.management.join(" "), agent.to_owned()]
        });
        let header = ["NODE", "DATABASE (db0)", "MANAGEMENT (mgmt0)", "AGENT"];
        let nodes = table(Context::is_styled(&io::stdout()), &header, rows.collect());
        let dead = status.nodes.iter().filter(|(_, member)| member.agent != UP);
        let details: Vec<String> = dead.map(|(node, member)| format!("{node}: {}\n", member.agent)).collect();
        let note = "what a dead agent had put in force stays in force; start anew: netemctl lab down, then lab up\n";
        format!(
            "lab {}\n\n{nodes}{}",
            status.topology,
            if ok { String::new() } else { format!("\n{}{note}", details.concat()) }
        )
    })?;
    Ok(if ok { Exit::Ok } else { Exit::Unreachable })
}

fn exec(context: &Context, node: &str, program: &[OsString]) -> Result<Exit, Failure> {
    let namespaces = context.lab()?.namespaces(node)?;
    if context.is_json() || context.is_limited() {
        program::supervise(context, &namespaces, node, program)
    } else {
        program::become_it(context, &namespaces, node, program)
    }
}

fn shell(context: &Context, node: &str) -> Result<Exit, Failure> {
    if context.is_json() || context.is_limited() {
        return Err(Failure::new(Exit::Usage, "a shell is for people, and has neither --json nor --timeout")
            .hint("run a program: netemctl lab exec NODE -- PROGRAM"));
    }
    let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
    let namespaces = context.lab()?.namespaces(node)?;
    talk(&format!("a shell in {node}; other nodes are reached by their names; leave it with exit\n"));
    program::become_it(context, &namespaces, node, &[shell])
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Down {
    /// Whether there was a lab to take down.
    was_up: bool,
}

fn down(context: &Context) -> Result<Exit, Failure> {
    let was_up = context.lab_directory()?.end()?;
    context.answer(&Down { was_up }, || {
        (if was_up { "the lab is down; nothing of it is left" } else { "no lab is up" }).to_owned()
    })?;
    Ok(Exit::Ok)
}
