//! Runs the user's program inside one node of the lab.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    os::{fd::AsFd, unix::process::ExitStatusExt},
    process::{Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::{
    cli::{Context, Exit, Failure, OrFail},
    kernel::Namespaces,
    topology::NodeName,
};

/// The time from SIGTERM to SIGKILL.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// The exit code and the output of a program.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Ran {
    node: NodeName,
    /// 128 plus the signal's number if a signal ended the program, as in shells.
    ///
    /// The command returns the same code.
    exit_code: u8,
    /// Bytes that are not UTF-8 are replaced by U+FFFD.
    stdout: String,
    stderr: String,
}

/// The reason why a program could not be started, for the parent netemctl.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StartError {
    pub(super) exit_code: u8,
    pub(super) message: String,
}

/// Replaces this process by the program.
///
/// The program then has the terminal and gets all signals.
pub(super) fn replace_process(context: &Context, node: &NodeName, program: &[OsString]) -> Result<Exit, Failure> {
    let (_entry, namespaces) = enter(context, node)?;
    let error = namespaces.exec(&mut command(context, node, program)?);
    Err(cannot_run(program, &format!(" in {node}"), &error))
}

/// Replaces this process, the child of another netemctl, by the program.
///
/// The program has its own session and no terminal. Stdin is a socket to the parent. If the program cannot be started,
/// the socket carries a [`StartError`].
pub(super) fn run_for_parent(context: &Context, node: &str, program: &[OsString]) -> Result<Exit, Failure> {
    // The duplicate is close-on-exec: the parent reads the end of the stream when the program starts.
    let report = io::stdin().as_fd().try_clone_to_owned().or_fail(Exit::Failed, "stdin")?;
    // setsid(2) fails in a process that already leads a group, as the children of `many::run` do.
    let _already = nix::unistd::setsid();
    let run = || -> Result<Exit, Failure> {
        let node = node.parse().or_misused()?;
        let (_entry, namespaces) = enter(context, &node)?;
        let mut command = command(context, &node, program)?;
        let error = namespaces.exec(command.stdin(Stdio::null()));
        Err(cannot_run(program, "", &error))
    };
    run().or_else(|failure| {
        let error = StartError { exit_code: failure.exit.code(), message: failure.message };
        serde_json::to_writer(std::fs::File::from(report), &error).or_fail(Exit::Failed, "stdin")?;
        Ok(failure.exit)
    })
}

/// Runs the program in its own process group.
///
/// An interrupt or the timeout ends the group. With `--json`, the output is captured.
pub(super) fn supervise(context: &Context, node: &NodeName, program: &[OsString]) -> Result<Exit, Failure> {
    let (entry, namespaces) = enter(context, node)?;
    let mut command = command(context, node, program)?;
    if io::stdin().is_terminal() {
        // The kernel stops a background process group that reads from the terminal.
        command.stdin(Stdio::null());
    }
    if context.is_json() {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let failed = |error: io::Error| cannot_run(program, &format!(" in {node}"), &error);
    let Output { status, stdout, stderr } = context.act(None, "ending the program", async |interrupt| {
        namespaces.enter().map_err(failed)?;
        let child = tokio::process::Command::from(command).process_group(0).spawn().map_err(failed)?;
        drop(entry);
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let mut ends = Box::pin(child.wait_with_output());
        tokio::select! {
            biased;
            ended = &mut ends => return ended.map_err(failed),
            () = interrupt.cancelled() => {}
        }
        end_groups(group.as_slice(), &mut ends).await;
        Err(Failure::new(Exit::Interrupted, "interrupted; the program was ended"))
    })?;
    let exit_code = exit_code(status);
    if context.is_json() {
        let ran = Ran { node: node.clone(), exit_code, stdout: text(&stdout), stderr: text(&stderr) };
        context.answer(&ran, String::new)?;
    }
    Ok(Exit::OfProgram(exit_code))
}

/// Sends SIGTERM to process groups, and SIGKILL after [`GRACE`], until `ended` is ready.
pub(super) async fn end_groups(groups: &[Pid], ended: &mut (impl Future + Unpin)) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for group in groups {
            // The group may have ended already.
            let _gone = killpg(*group, signal);
        }
        if timeout(GRACE, &mut *ended).await.is_ok() {
            return;
        }
    }
}

/// The namespaces of a node, and a shared lock.
///
/// Until the lock is dropped, the lab stays up and its nodes do not restart.
fn enter(context: &Context, node: &NodeName) -> Result<(impl Drop, Namespaces), Failure> {
    let entry = context.lab_directory()?.enter()?;
    Ok((entry, context.lab()?.namespaces(node)?))
}

/// The exit code of the command for a program's status.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let signalled = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "running the user's program is what this is for")]
fn command(context: &Context, node: &NodeName, program: &[OsString]) -> Result<Command, Failure> {
    let (name, arguments) = program.split_first().ok_or_else(|| Failure::new(Exit::Usage, "no program is given"))?;
    let mut command = Command::new(name);
    // netemctl in the node uses the same lab, even if --lab-dir selected the lab here.
    command.args(arguments).env("NETEMCTL_NODE", node.as_str());
    command.env("NETEMCTL_LAB_DIR", context.lab_directory()?.path());
    Ok(command)
}

/// The failure of a program that cannot be started; `place` follows the program's name.
fn cannot_run(program: &[OsString], place: &str, error: &io::Error) -> Failure {
    // 127 and 126, as env(1) and shells return.
    let name = program.first().map(|name| name.display().to_string()).unwrap_or_default();
    match error.kind() {
        io::ErrorKind::NotFound => Failure::new(Exit::NoProgram, format!("no program {name}{place}")),
        _ => Failure::new(Exit::CannotRun, format!("cannot run {name}{place}: {error}")),
    }
}
