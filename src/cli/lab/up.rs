//! `netemctl lab up`: starts the keeper of a lab, and waits until the lab is up.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{fd::OwnedFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::unix::pipe,
};

use crate::{
    agent::lacks_shaping,
    cli::{Context, Exit, Failure, OrFail, context::allow_many_files, log, render::count, topology_file},
    kernel::as_root_of_user_namespace,
    lab::{Family, LabDirectory, Layout, keep},
};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Up<'a> {
    topology: &'a str,
    nodes: usize,
    directory: PathBuf,
    /// The reason why this kernel cannot shape; absent: it can, or the user may not try it.
    #[serde(skip_serializing_if = "Option::is_none")]
    cannot_shape: Option<String>,
    #[serde(rename = "took_s")]
    seconds: f64,
}

/// The arguments of `lab up`.
#[derive(Debug, clap::Args)]
pub(super) struct UpArgs {
    /// The topology file, or - for stdin
    #[arg(value_name = "TOPOLOGY")]
    file: PathBuf,
    /// Add a host `controller` to the management network: netemctl lab exec controller -- PROGRAM
    #[arg(long)]
    controller: bool,
    /// Agents also listen on the management network, with TLS and certificates of the lab; implies --controller
    #[arg(long)]
    tls: bool,
    /// Address family that names resolve to first
    ///
    /// The GNU C library follows this order. Programs with their own resolver, such as Go programs, prefer IPv4 always.
    #[arg(long, value_name = "FAMILY", default_value = "ipv4", value_parser = ["ipv4", "ipv6"])]
    prefer: String,
}

pub(super) fn up(context: &Context, asked: &UpArgs) -> Result<Exit, Failure> {
    let start = Instant::now();
    let mut layout = Layout::of(&topology_file::read(&asked.file)?)?;
    if asked.controller || asked.tls {
        layout = layout.with_controller()?;
    }
    layout.tls = asked.tls;
    layout.prefer = if asked.prefer == "ipv6" { Family::Ipv6 } else { Family::Ipv4 };
    let directory = context.lab_directory()?;
    let exclusive = directory.prepare()?;
    directory.plan(&layout)?;

    let mut keeper = start_keeper(&directory)?;
    let said = keeper.stdout.take().map(OwnedFd::from);
    let what = format!("bringing up {}", count(layout.members.len(), "node"));
    let said = context.act(Some(&what), "taking the lab down", async |interrupt| {
        tokio::select! {
            said = first_line(said) => Ok(Some(said)),
            () = interrupt.cancelled() => Ok(None),
        }
    })?;
    let Some(said) = said else {
        // When the keeper ends, the kernel removes the namespaces, and the agents end.
        keeper.kill().and_then(|()| keeper.wait()).or_fail(Exit::Failed, CANNOT_START)?;
        drop(exclusive);
        end(&directory)?;
        return Err(Failure::new(Exit::Interrupted, "interrupted; the lab was removed"));
    };
    if said != READY {
        let exit = Exit::of_netemctl(keeper.wait().or_fail(Exit::Failed, CANNOT_START)?);
        let log = fs::read_to_string(directory.log()).unwrap_or_default();
        let Failure { message, hints, .. } = Failure::from_log(exit, &log, log.trim());
        return Err(Failure { hints, ..Failure::new(exit, format!("the lab did not come up: {message}")) });
    }
    let up = Up {
        topology: &layout.topology,
        nodes: layout.members.len(),
        directory: directory.path().to_owned(),
        seconds: start.elapsed().as_secs_f64(),
        cannot_shape: lacks_shaping(),
    };
    if let Some(why) = &up.cannot_shape {
        context.warn_of(&format!("{why}; see netemctl doctor"));
    }
    context.answer(&up, || {
        let nodes = count(up.nodes, "node");
        format!("lab {} is up: {nodes}, each with an agent, in {:.1} s", up.topology, up.seconds)
    })
}

/// The beginning of the message about system calls that fail.
const CANNOT_START: &str = "cannot start the lab";

/// The time in which agents must end after their keeper.
const AGENTS_END_WITHIN: Duration = Duration::from_secs(5);

/// Removes the directory of a lab that did not come up. Retries, because an agent may still be creating its socket.
fn end(directory: &LabDirectory) -> Result<(), Failure> {
    let deadline = Instant::now() + AGENTS_END_WITHIN;
    while let Err(error) = directory.end(false) {
        if Instant::now() > deadline {
            return Err(error.into());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The keeper's first line: [`READY`], or an empty text if the keeper ends earlier.
async fn first_line(stdout: Option<OwnedFd>) -> String {
    let mut line = String::new();
    if let Some(pipe) = stdout.and_then(|stdout| pipe::Receiver::from_owned_fd(stdout).ok()) {
        // After a read error, the keeper's exit code and log have the reason.
        drop(BufReader::new(pipe).read_line(&mut line).await);
    }
    line.trim_end().to_owned()
}

/// The keeper's line on stdout when the lab is up.
const READY: &str = "ready";

#[expect(clippy::disallowed_methods, reason = "the keeper is a process of its own, which outlives this one")]
fn start_keeper(directory: &LabDirectory) -> Result<Child, Failure> {
    let at = |path: &Path| format!("{CANNOT_START}: {}", path.display());
    let program = std::env::current_exe().or_fail(Exit::Failed, at(Path::new("/proc/self/exe")))?;
    let log = directory.log();
    let stderr = File::create(&log).or_fail(Exit::Failed, at(&log))?;
    let mut keeper = Command::new(&program);
    keeper.arg("--lab-dir").arg(directory.path()).args(["lab", "keep"]);
    keeper.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(stderr);
    keeper.spawn().or_fail(Exit::Failed, at(&program))
}

/// Runs the keeper. The process has one thread until its namespaces are made.
#[expect(
    clippy::disallowed_methods,
    reason = "the user may access the namespaces of the process only after a new exec"
)]
pub(super) fn run_keeper(context: &Context) -> Result<Exit, Failure> {
    // Ctrl-C and the end of the terminal must not reach the lab. After the second exec, setsid(2) fails.
    let _already = nix::unistd::setsid();
    let in_user_namespace = as_root_of_user_namespace().map_err(|error| {
        Failure::new(Exit::Permission, format!("the kernel allows this user no user namespace: {error}"))
            .hint("run as root, or raise the sysctls user.max_user_namespaces and kernel.unprivileged_userns_clone")
    })?;
    if in_user_namespace {
        let again = Command::new("/proc/self/exe").args(std::env::args_os().skip(1)).exec();
        return Err(Failure::new(Exit::Failed, format!("cannot run /proc/self/exe again: {again}")));
    }
    log::to_stderr();
    allow_many_files();
    let directory = context.lab_directory()?;
    let layout = directory.planned()?;
    keep(&directory, &layout, || writeln!(io::stdout(), "{READY}"))?;
    Ok(Exit::Ok)
}
