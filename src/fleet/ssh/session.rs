//! Opens a stream to an agent by ssh. The agent's HTTP runs on the stdin and stdout of the ssh process.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader, Join, ReadBuf},
    process::{ChildStdin, ChildStdout},
    time::timeout,
};

use super::{
    Options, Target, command,
    failure::{Ended, failure},
    process::Process,
};
use crate::wire::GREETING;

/// The time limit from the start of ssh until the agent is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The largest text, in bytes, that a login shell may print before the agent's greeting ([`GREETING`]).
const PREAMBLE_LIMIT: usize = 64 * 1024;

/// The stream of bytes to and from an agent.
pub(in crate::fleet) type Session = Join<Output, ChildStdin>;

/// The stdout of ssh. Dropping this value ends ssh.
#[derive(Debug)]
pub(in crate::fleet) struct Output {
    pipe: BufReader<ChildStdout>,
    _process: Process,
}

impl AsyncRead for Output {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_read(context, buf)
    }
}

/// The error of opening a session.
pub(super) struct NotReady {
    /// The exit code of ssh; `None`: ssh did not start, did not exit in time, or was ended by a signal.
    pub(super) code: Option<i32>,
    pub(super) error: io::Error,
}

impl From<io::Error> for NotReady {
    fn from(error: io::Error) -> Self {
        Self { code: None, error }
    }
}

/// Starts ssh, and waits until the agent on the host is ready. `find` is a shell script that sets `$netemctl` to the
/// path of the binary.
pub(super) async fn open(options: &Options, target: &Target, find: &str) -> Result<Session, NotReady> {
    let too_late = |_| {
        let why = format!("not ready within {} s", READY_WITHIN.as_secs());
        Err(io::Error::other(why).into())
    };
    timeout(READY_WITHIN, start(options, target, find)).await.unwrap_or_else(too_late)
}

async fn start(options: &Options, target: &Target, find: &str) -> Result<Session, NotReady> {
    let remote = command::agent(options, target, find);
    let (mut process, stdin, stdout) = Process::start(options, &target.address, &remote)?;
    let mut pipe = BufReader::new(stdout);
    if let Err(preamble) = greeted(&mut pipe).await {
        // ssh ends when its pipes are closed.
        drop((stdin, pipe));
        let code = process.ended().await.and_then(|status| status.code());
        let ended = Ended { code, stderr: &process.stderr(), stdout: &preamble };
        return Err(NotReady { code, error: failure(options, &target.address, &ended) });
    }
    Ok(tokio::io::join(Output { pipe, _process: process }, stdin))
}

/// Reads stdout up to the agent's greeting. A login shell may print text before the greeting. If stdout ends or the
/// limit is reached before a greeting, the error is the text so far.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_text_of_a_login_shell_before_the_greeting_is_skipped() {
        let text = format!("Welcome to n1\nit says {GREETING}\n{GREETING}0.1.0\nHTTP");
        let mut stdout = BufReader::new(text.as_bytes());
        assert_eq!(greeted(&mut stdout).await, Ok(()));
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "HTTP");
    }

    #[tokio::test]
    async fn without_a_greeting_the_error_is_the_text_up_to_the_limit() {
        assert_eq!(greeted(&mut BufReader::new(&b"no such\ncommand"[..])).await, Err("no such\ncommand".to_owned()));
        let much = vec![b'x'; 3 * PREAMBLE_LIMIT];
        assert_eq!(greeted(&mut BufReader::new(&much[..])).await.unwrap_err().len(), PREAMBLE_LIMIT);
    }
}
