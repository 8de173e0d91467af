//! Running the user's program inside a node of the lab.

use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    os::unix::process::ExitStatusExt,
    process::{Command, Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::Serialize;
use tokio::time::timeout;

use super::{Context, Exit, Failure};
use crate::kernel::Namespaces;

/// How long a program that is told to end may take over it.
const GRACE: Duration = Duration::from_secs(2);

/// What a program came to.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Ran<'a> {
    node: &'a str,
    /// 128 and the signal's number if a signal ended it, as shells have it; the command ends with the same.
    exit_code: u8,
    /// What it printed on stdout; what is not UTF-8 is replaced by U+FFFD.
    stdout: String,
    /// What it printed on stderr.
    stderr: String,
}

/// Replaces this process by the program: it has the terminal, and all signals reach it.
pub(super) fn become_it(
    context: &Context,
    namespaces: &Namespaces,
    node: &str,
    program: &[OsString],
) -> Result<Exit, Failure> {
    let error = namespaces.exec(&mut command(context, node, program)?);
    Err(cannot_run(node, program, &error))
}

/// Runs the program in a process group of its own, which ends when this is interrupted or its time is up. For a program,
/// what it printed becomes one document.
pub(super) fn supervise(
    context: &Context,
    namespaces: &Namespaces,
    node: &str,
    program: &[OsString],
) -> Result<Exit, Failure> {
    let mut command = command(context, node, program)?;
    if io::stdin().is_terminal() {
        // A group in the background cannot read from a terminal.
        command.stdin(Stdio::null());
    }
    if context.is_json() {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    let failed = |error: io::Error| cannot_run(node, program, &error);
    let Output { status, stdout, stderr } = context.block_on(async |interrupt| {
        namespaces.enter().map_err(failed)?;
        let child = tokio::process::Command::from(command).process_group(0).spawn().map_err(failed)?;
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
    let signalled = || status.signal().map(|signal| 128 + signal);
    let exit_code = status.code().or_else(signalled).and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
    if context.is_json() {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let ran = Ran { node, exit_code, stdout: text(stdout), stderr: text(stderr) };
        context.answer(&ran, String::new)?;
    }
    Ok(Exit::OfProgram(exit_code))
}

#[expect(clippy::disallowed_methods, reason = "running the user's program is what this is for")]
fn command(context: &Context, node: &str, program: &[OsString]) -> Result<Command, Failure> {
    let (name, arguments) = program.split_first().ok_or_else(|| Failure::new(Exit::Usage, "no program is given"))?;
    let mut command = Command::new(name);
    // The lab is the same in there, however it was named here.
    command.args(arguments).env("NETEMCTL_NODE", node).env("NETEMCTL_LAB_DIR", context.lab_directory()?.path());
    Ok(command)
}

fn cannot_run(node: &str, program: &[OsString], error: &io::Error) -> Failure {
    // As env(1) and shells have it, so that nobody takes these for the program's own.
    let exit = if error.kind() == io::ErrorKind::NotFound { Exit::NoProgram } else { Exit::CannotRun };
    let name = program.first().map(|name| name.display().to_string()).unwrap_or_default();
    Failure::new(exit, format!("cannot run {name} in {node}: {error}"))
}
