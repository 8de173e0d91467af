//! Sends and answers requests to the keeper of a running lab, on a socket in the lab's directory.
//!
//! A request is a JSON list of the nodes whose agents restart. The answer is a JSON `Result<(), String>`. After its
//! value, each side closes its half of the connection.

use std::{
    io::{self, BufReader, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;
use tokio::net::UnixListener;

use crate::topology::NodeName;

/// The timeout for the answer: agents have 5 s to end and 30 s to be ready.
const ANSWER_WITHIN: Duration = Duration::from_mins(1);

/// The timeout for a request.
const REQUEST_WITHIN: Duration = Duration::from_secs(2);

/// The longest request or answer, in bytes: the names of a thousand nodes.
const LONGEST: u64 = 256 * 1024;

/// The error of a request to the keeper.
#[derive(Debug, Error)]
pub enum ControlError {
    /// The keeper does not answer.
    #[error("the lab's keeper does not answer at {0}: {1}")]
    Silent(PathBuf, #[source] io::Error),
    /// The keeper answers with an error.
    #[error("{0}")]
    Failed(String),
}

/// The path of the keeper's socket.
pub(super) fn socket(directory: &Path) -> PathBuf {
    directory.join("keeper.sock")
}

/// Asks the keeper to restart the agents of these nodes, and waits for the answer.
pub(super) fn restart(directory: &Path, nodes: &[NodeName]) -> Result<(), ControlError> {
    let socket = socket(directory);
    let ask = || -> io::Result<Result<(), String>> {
        let stream = UnixStream::connect(&socket)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        send(&stream, &nodes)?;
        receive(&stream)
    };
    ask().map_err(|error| ControlError::Silent(socket.clone(), error))?.map_err(ControlError::Failed)
}

/// Accepts one request and answers with the result of `restart`. An invalid request gets no answer.
pub(super) async fn answer(listener: &UnixListener, restart: impl FnOnce(&[NodeName]) -> Result<(), String>) {
    let Ok((stream, _)) = listener.accept().await else { return };
    let Ok(stream) = stream.into_std() else { return };
    // Only the user can enter the directory of the socket, so the client belongs to the user.
    let prepared = stream.set_nonblocking(false).and_then(|()| stream.set_read_timeout(Some(REQUEST_WITHIN)));
    if let Ok(nodes) = prepared.and_then(|()| receive::<Vec<NodeName>>(&stream)) {
        // The client may have ended.
        drop(send(&stream, &restart(&nodes)));
    }
}

fn send(mut stream: &UnixStream, value: &impl Serialize) -> io::Result<()> {
    stream.write_all(&serde_json::to_vec(value)?)?;
    stream.shutdown(Shutdown::Write)
}

fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    Ok(serde_json::from_reader(BufReader::new(stream.take(LONGEST)))?)
}
