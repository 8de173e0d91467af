//! Starts and ends ssh processes: [`Process`].

use std::{
    io,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStdin, ChildStdout},
    task::JoinHandle,
    time::timeout,
};

use super::{Options, command, failure::lasting};
use crate::plan::SshAddress;

/// The number of bytes of stderr that are kept, from its start.
const STDERR_LIMIT: usize = 16 * 1024;

/// The time limit for ssh to exit after its stdout has ended.
const END_WITHIN: Duration = Duration::from_secs(2);

/// An ssh process. Dropping this value sends SIGTERM to ssh.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    stderr: Arc<Mutex<Vec<u8>>>,
    stderr_reader: JoinHandle<()>,
}

impl Process {
    /// Starts the command `remote` on a host by ssh. Also returns the stdin and stdout of ssh.
    pub(super) fn start(
        options: &Options,
        address: &SshAddress,
        remote: &str,
    ) -> io::Result<(Self, ChildStdin, ChildStdout)> {
        let program = options.program.as_deref().unwrap_or("ssh");
        let cannot_run = |error| lasting(format!("cannot run {program}: {error}; is the ssh client installed?"));
        let mut child = command::ssh(options, address, remote).spawn().map_err(cannot_run)?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let stderr = Arc::new(Mutex::new(Vec::new()));
        let stderr_reader = tokio::spawn(read_stderr(child.stderr.take(), Arc::clone(&stderr)));
        let process = Self { child, stderr, stderr_reader };
        let (stdin, stdout) = pipes.ok_or_else(|| io::Error::other("ssh has no stdin and stdout"))?;
        Ok((process, stdin, stdout))
    }

    /// Waits until ssh exits. `None`: ssh does not exit in time, or the exit status cannot be read.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        let status = timeout(END_WITHIN, self.child.wait()).await.ok()?.ok();
        // The user's control master (ssh_config(5)) may keep stderr open, so this wait has a limit.
        drop(timeout(END_WITHIN / 10, &mut self.stderr_reader).await);
        status
    }

    /// The text on stderr so far, up to [`STDERR_LIMIT`] bytes.
    pub(super) fn stderr(&self) -> String {
        let bytes = self.stderr.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // On SIGTERM, ssh also ends its proxy processes. After the exit status is read, `id` is `None`, so the signal
        // cannot reach another process that has got the same pid.
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _gone = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        self.stderr_reader.abort();
    }
}

async fn read_stderr(stderr: Option<impl AsyncRead + Unpin>, kept: Arc<Mutex<Vec<u8>>>) {
    let Some(mut stderr) = stderr else { return };
    let mut buffer = [0; 1024];
    // Reads to the end, so that a full pipe never blocks ssh.
    while let Ok(read @ 1..) = stderr.read(&mut buffer).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = STDERR_LIMIT.saturating_sub(kept.len());
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}
