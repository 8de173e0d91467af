//! What a command asks of a lab's keeper while the lab is up: one line of JSON each way, on a socket in its directory.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::UnixListener;

use crate::topology::NodeName;

/// How long the keeper may take: agents have 5 s to end and 30 s to be ready.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// How long a request may take to arrive.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);

/// The longest line: the names of a thousand nodes.
const LONGEST_LINE: u64 = 256 * 1024;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Request {
    /// The agents of these nodes are to be started anew.
    Restart(Vec<NodeName>),
}

/// Why the keeper did not do it.
#[derive(Debug, Error)]
pub enum ControlError {
    /// It does not answer.
    #[error("the lab's keeper does not answer at {0}: {1}")]
    Silent(PathBuf, #[source] io::Error),
    /// It could not.
    #[error("{0}")]
    Failed(String),
}

/// Where the keeper listens.
pub(super) fn socket(directory: &Path) -> PathBuf {
    directory.join("keeper.sock")
}

/// Asks the keeper, and waits until it has done it.
pub(super) fn ask(directory: &Path, request: &Request) -> Result<(), ControlError> {
    let socket = socket(directory);
    let asked = || -> io::Result<Result<(), String>> {
        let mut stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        send(&mut stream, request)?;
        receive(stream)
    };
    asked().map_err(|error| ControlError::Silent(socket.clone(), error))?.map_err(ControlError::Failed)
}

/// Takes one request and answers with what `work` comes to. A caller that says nothing sensible has no answer.
pub(super) async fn answer(listener: &UnixListener, work: impl FnOnce(Request) -> Result<(), String>) {
    let Ok((stream, _)) = listener.accept().await else { return };
    let Ok(mut stream) = stream.into_std() else { return };
    // The socket is in a directory of the user's alone: a caller is the user's own netemctl.
    let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(REQUEST_WITHIN)));
    let request = prepared.and_then(|()| receive(stream.try_clone()?));
    if let Ok(request) = request {
        // The caller may be gone by then.
        drop(send(&mut stream, &work(request)));
    }
}

fn send(stream: &mut UnixStream, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn receive<T: for<'a> Deserialize<'a>>(stream: UnixStream) -> io::Result<T> {
    let mut line = String::new();
    let _length = BufReader::new(stream.take(LONGEST_LINE)).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_str(&line)?)
}
