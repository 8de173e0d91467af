//! One ssh process, and the agent's HTTP on its stdin and stdout.

use std::{
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use thiserror::Error;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::Child,
    task::JoinHandle,
    time::timeout,
};

use super::{
    Options, Target, command,
    complaint::{Complaint, Ended, complaint},
    push::{self, Parcel},
};
use crate::{
    fleet::{connection::Connection, files::Share},
    wire::GREETING,
};

/// How much is read of what a login shell says before the agent does.
const PREAMBLE_LIMIT: usize = 64 * 1024;

/// How much is kept of what comes on stderr.
const STDERR_LIMIT: usize = 16 * 1024;

/// How long ssh may take to end when its stdout has.
const END_WITHIN: Duration = Duration::from_secs(2);

/// Why there is none.
#[derive(Debug, Error)]
pub(super) enum NotReady<'a> {
    /// What is to be copied there is not there.
    #[error("{}", push::NOT_THERE)]
    Lacks(&'a Parcel),
    /// Anything else.
    #[error("{0}")]
    Failed(Complaint),
}

/// Starts ssh, and waits until the agent on the host is ready.
pub(super) async fn open<'a>(
    options: &Options,
    target: &Target,
    parcel: Option<&'a Parcel>,
    within: Duration,
    share: Share,
) -> Result<Connection<(Process, Share)>, NotReady<'a>> {
    let remote = command::agent(options, target, parcel);
    let ready = timeout(within, start(options, target, &remote, share)).await;
    let failed = match ready {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(failed)) => failed,
        Err(_) => {
            let why = format!("it was not ready within {} s", within.as_secs());
            return Err(NotReady::Failed(Complaint::passing(why)));
        }
    };
    match (failed, parcel) {
        (NotStarted::Ended { code: Some(push::LACKS), .. }, Some(parcel)) => Err(NotReady::Lacks(parcel)),
        (NotStarted::Ended { code, stderr, stdout }, _) => {
            let ended = Ended { code, stderr: &stderr, stdout: &stdout };
            Err(NotReady::Failed(complaint(options, &target.address, &ended)))
        }
        (NotStarted::NoSsh(why), _) => Err(NotReady::Failed(Complaint::lasting(why))),
        (NotStarted::Other(why), _) => Err(NotReady::Failed(Complaint::passing(why))),
    }
}

async fn start(
    options: &Options,
    target: &Target,
    remote: &str,
    share: Share,
) -> Result<Connection<(Process, Share)>, NotStarted> {
    let mut process = Process::start(options, &target.address, remote).map_err(NotStarted::NoSsh)?;
    let (Some(stdin), Some(stdout)) = (process.child.stdin.take(), process.child.stdout.take()) else {
        return Err(NotStarted::Other("ssh has no stdin and stdout".to_owned()));
    };
    let mut stdout = BufReader::new(stdout);
    if let Err(preamble) = greeted(&mut stdout).await {
        // With nothing to read any more, ssh ends.
        drop((stdin, stdout));
        let code = process.ended().await.and_then(|status| status.code());
        return Err(NotStarted::Ended { code, stderr: process.stderr(), stdout: preamble });
    }
    let connected = Connection::over(tokio::io::join(stdout, stdin), (process, share)).await;
    connected.map_err(|error| NotStarted::Other(error.to_string()))
}

enum NotStarted {
    Ended { code: Option<i32>, stderr: String, stdout: String },
    NoSsh(String),
    Other(String),
}

/// Reads up to the greeting. A login shell may say something before (as rsync's users know); what it said is the error
/// if no greeting comes.
async fn greeted(stdout: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> Result<(), String> {
    let mut preamble = Vec::new();
    loop {
        let begin = preamble.len();
        let mut rest = stdout.take((PREAMBLE_LIMIT - begin) as u64);
        let read = rest.read_until(b'\n', &mut preamble).await;
        let line = &preamble[begin..];
        if line.starts_with(GREETING.as_bytes()) {
            return Ok(());
        }
        if !read.is_ok_and(|read| read > 0) {
            return Err(String::from_utf8_lossy(&preamble).into_owned());
        }
    }
}

/// An ssh, which is told to end when this is dropped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    listener: JoinHandle<()>,
}

impl Process {
    pub(super) fn start(options: &Options, address: &crate::plan::SshAddress, remote: &str) -> Result<Self, String> {
        let program = options.program.as_deref().unwrap_or("ssh");
        let started = command::ssh(options, address, remote).spawn();
        let mut child =
            started.map_err(|error| format!("cannot run {program}: {error}; is the ssh client installed?"))?;
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let listener = tokio::spawn(listen(child.stderr.take(), Arc::clone(&stderr)));
        Ok(Self { child, stderr, listener })
    }

    /// How it ended, if it does.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        let status = timeout(END_WITHIN, self.child.wait()).await.ok()?.ok();
        // A control master of the user's own goes on and keeps the pipe open: what is in it by now is all that counts.
        drop(timeout(END_WITHIN / 10, &mut self.listener).await);
        status
    }

    /// What it has said on stderr.
    pub(super) fn stderr(&self) -> String {
        let bytes = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn end(&self) {
        // ssh ends its proxies when it is asked to end. The number is this process's as long as it was not waited for.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        self.listener.abort();
    }
}

async fn listen(stderr: Option<impl AsyncRead + Unpin>, kept: Arc<Mutex<Vec<u8>>>) {
    let Some(mut stderr) = stderr else { return };
    let mut buffer = [0; 1024];
    // It is read to its end, so that it never blocks ssh.
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = STDERR_LIMIT.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_login_shell_says_before_the_greeting_is_passed_over() {
        let text = format!("Welcome to n1\nit says {GREETING}\n{GREETING}0.1.0\nHTTP");
        let mut stdout = BufReader::new(text.as_bytes());
        assert_eq!(greeted(&mut stdout).await, Ok(()));
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "HTTP");
    }

    #[tokio::test]
    async fn without_a_greeting_what_was_said_is_the_error_however_much_it_is() {
        assert_eq!(greeted(&mut BufReader::new(&b"no such\ncommand"[..])).await, Err("no such\ncommand".to_owned()));
        let much = vec![b'x'; 3 * PREAMBLE_LIMIT];
        assert_eq!(greeted(&mut BufReader::new(&much[..])).await.unwrap_err().len(), PREAMBLE_LIMIT);
    }
}
