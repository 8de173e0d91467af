//! Running the user's program inside one node of the lab.

use std::{
    ffi::OsString,
    io::{self, IsTerminal, Write},
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

use super::exec::Executed;
use crate::{
    cli::{Context, Exit, Failure},
    kernel::Namespaces,
    topology::NodeName,
};

/// How long a program that is told to end may take over it.
pub(super) const GRACE: Duration = Duration::from_secs(2);

/// What a program came to.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::cli) struct Ran {
    node: NodeName,
    /// 128 and the signal's number if a signal ended it, as shells have it; the command ends with the same.
    exit_code: u8,
    /// What it printed on stdout; what is not UTF-8 is replaced by U+FFFD.
    stdout: String,
    /// What it printed on stderr.
    stderr: String,
}

/// Why a program could not be run, for the process that waits for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusal {
    pub(super) exit_code: u8,
    pub(super) message: String,
}

/// Replaces this process by the program: it has the terminal, and all signals reach it.
pub(super) fn become_it(context: &Context, node: &NodeName, program: &[OsString]) -> Result<Exit, Failure> {
    let (_entry, namespaces) = enter(context, node)?;
    let error = namespaces.exec(&mut command(context, node, program)?);
    Err(cannot_run(node, program, &error))
}

/// The same for one of several nodes, or in the background: without a stdin and a terminal, in a session of its own. Why
/// the program cannot be run goes to stdin, which is a socket; nothing there means that the program runs.
pub(super) fn apart(context: &Context, node: &str, program: &[OsString]) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::Failed, format!("stdin: {error}"));
    // Closed when the program begins.
    let report = io::stdin().as_fd().try_clone_to_owned().map_err(failed)?;
    // Its process group is its own already if it is one of several.
    let _already = nix::unistd::setsid();
    let run = || -> Result<Exit, Failure> {
        let node = node.parse().map_err(|error| Failure::new(Exit::Usage, error))?;
        let (_entry, namespaces) = enter(context, &node)?;
        let mut command = command(context, &node, program)?;
        let error = namespaces.exec(command.stdin(Stdio::null()));
        let (exit, message) = why(program, &error);
        Err(Failure::new(exit, message))
    };
    run().or_else(|failure| {
        let refusal = Refusal { exit_code: failure.exit.code(), message: failure.message };
        let line = serde_json::to_vec(&refusal).map_err(|error| failed(error.into()))?;
        std::fs::File::from(report).write_all(&line).map_err(failed)?;
        Ok(failure.exit)
    })
}

/// Runs the program in a process group of its own, which ends when this is interrupted or its time is up. For a program,
/// what it printed becomes one document.
pub(super) fn supervise(context: &Context, node: &NodeName, program: &[OsString]) -> Result<Exit, Failure> {
    let (entry, namespaces) = enter(context, node)?;
    let mut command = command(context, node, program)?;
    if io::stdin().is_terminal() {
        // A group in the background cannot read from a terminal.
        command.stdin(Stdio::null());
    }
    if context.is_json() {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let failed = |error: io::Error| cannot_run(node, program, &error);
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
        for signal in [Signal::SIGTERM, Signal::SIGKILL] {
            // A group that has just ended needs no signal.
            let _gone = group.map(|group| killpg(group, signal));
            if timeout(GRACE, &mut ends).await.is_ok() {
                break;
            }
        }
        Err(Failure::new(Exit::Interrupted, "interrupted; the program was ended"))
    })?;
    let exit_code = exit_code(status);
    if context.is_json() {
        let ran = Ran { node: node.clone(), exit_code, stdout: text(&stdout), stderr: text(&stderr) };
        context.answer(&Executed::Single(ran), String::new)?;
    }
    Ok(Exit::OfProgram(exit_code))
}

/// The namespaces of a node, and the right to start a program there.
fn enter(context: &Context, node: &NodeName) -> Result<(impl Drop, Namespaces), Failure> {
    let entry = context.lab_directory()?.enter()?;
    Ok((entry, context.lab()?.namespaces(node)?))
}

/// What the command ends with if the program ended so.
pub(super) fn exit_code(status: ExitStatus) -> u8 {
    let signalled = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// What a program printed.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[expect(clippy::disallowed_methods, reason = "running the user's program is what this is for")]
fn command(context: &Context, node: &NodeName, program: &[OsString]) -> Result<Command, Failure> {
    let (name, arguments) = program.split_first().ok_or_else(|| Failure::new(Exit::Usage, "no program is given"))?;
    let mut command = Command::new(name);
    // The lab is the same in there, however it was named here.
    command.args(arguments).env("NETEMCTL_NODE", node.as_str());
    command.env("NETEMCTL_LAB_DIR", context.lab_directory()?.path());
    Ok(command)
}

fn cannot_run(node: &NodeName, program: &[OsString], error: &io::Error) -> Failure {
    let (exit, message) = why(program, error);
    Failure::new(exit, message.replacen(": ", &format!(" in {node}: "), 1))
}

fn why(program: &[OsString], error: &io::Error) -> (Exit, String) {
    // As env(1) and shells have it, so that nobody takes these for the program's own.
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NoProgram } else { Exit::CannotRun };
    let name = program.first().map(|name| name.display().to_string()).unwrap_or_default();
    (exit, format!("cannot run {name}: {error}"))
}
