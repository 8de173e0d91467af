//! One HTTP/1.1 exchange (RFC 9112) on a stream of bytes: a `POST`, and an answer with its length.
//!
//! A commit waits on the connections of all nodes at the same time. `hyper`'s client has a task and about 20 kB of
//! buffers for each connection. An exchange of this module has no buffer while it waits.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Poll, ready},
};

use hyper::body::Buf;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::{body::Body, slots::Slot};

/// The size limit of an answer's body, in bytes. A document of 10,000 nodes is about 1 MB.
const BODY_LIMIT: usize = 16 * 1024 * 1024;

/// The size limit of an answer's head, in bytes.
const HEAD_LIMIT: usize = 32 * 1024;

/// The largest number of headers.
const HEADERS: usize = 64;

/// The bytes of one read.
const READ_SIZE: usize = 4 * 1024;

/// A stream to an agent.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// The answer to a request.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The `server` header.
    pub(super) server: Option<String>,
    /// True if the agent keeps the connection open.
    pub(super) is_kept: bool,
    pub(super) body: Vec<u8>,
}

/// The reason why there is no answer.
#[derive(Debug)]
pub(super) enum ExchangeError {
    /// The connection closed before the answer was complete, or the answer is not HTTP.
    Broken(io::Error),
    /// The answer is too large, or its length is unknown.
    Unexpected(&'static str),
}

impl From<io::Error> for ExchangeError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// Sends a request and reads the answer. Frees the slot when the request is sent.
pub(super) async fn exchange(
    stream: &mut impl Stream,
    path: &str,
    body: Body,
    slot: Slot,
) -> Result<Answer, ExchangeError> {
    let sent = send(stream, path, body).await;
    slot.free();
    let answer = receive(stream).await;
    // An agent may answer, and close the connection, before it has read the whole request.
    match (sent, answer) {
        (Err(error), Err(_)) => Err(error.into()),
        (_, answer) => answer,
    }
}

/// True if an idle connection is still open and has no unread bytes.
pub(super) async fn is_open(stream: &mut impl Stream) -> bool {
    poll_fn(|context| {
        let mut byte = [0];
        Poll::Ready(Pin::new(&mut *stream).poll_read(context, &mut ReadBuf::new(&mut byte)).is_pending())
    })
    .await
}

async fn send(stream: &mut impl Stream, path: &str, body: Body) -> io::Result<()> {
    let encoding = body.encoding().map(|encoding| format!("content-encoding: {encoding}\r\n")).unwrap_or_default();
    let body = body.bytes();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\n{encoding}content-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all_buf(&mut head.as_bytes().chain(&body[..])).await?;
    stream.flush().await
}

async fn receive(stream: &mut impl Stream) -> Result<Answer, ExchangeError> {
    let mut bytes = Vec::new();
    let (start, length, mut answer) = loop {
        read(stream, &mut bytes).await?;
        if let Some(head) = head(&bytes)? {
            break head;
        }
        if bytes.len() > HEAD_LIMIT {
            return Err(ExchangeError::Unexpected("its head is too long"));
        }
    };
    if length > BODY_LIMIT {
        return Err(ExchangeError::Unexpected("length limit exceeded"));
    }
    let mut body = bytes.split_off(start);
    while body.len() < length {
        read(stream, &mut body).await?;
    }
    answer.is_kept &= body.len() == length;
    body.truncate(length);
    Ok(Answer { body, ..answer })
}

/// Reads the next bytes, and appends them.
async fn read(stream: &mut impl Stream, bytes: &mut Vec<u8>) -> io::Result<()> {
    poll_fn(|context| {
        let mut buffer = [0; READ_SIZE];
        let mut buffer = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
        if buffer.filled().is_empty() {
            let message = "connection closed before message completed";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, message)));
        }
        bytes.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(()))
    })
    .await
}

/// The length of the head, the length of the body, and the answer without its body; `None`: the head is incomplete.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize, Answer)>, ExchangeError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let parsed = head.parse(bytes).map_err(|error| io::Error::other(format!("no HTTP: {error}")))?;
    let httparse::Status::Complete(start) = parsed else { return Ok(None) };
    let value = |name: &str| {
        let header = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok()
    };
    let length = value("content-length").and_then(|length| length.parse().ok());
    let length = length.ok_or(ExchangeError::Unexpected("no content-length"))?;
    let is_kept = head.version == Some(1) && !value("connection").is_some_and(|way| way.eq_ignore_ascii_case("close"));
    let server = value("server").map(str::to_owned);
    Ok(Some((start, length, Answer { status: head.code.unwrap_or_default(), server, is_kept, body: Vec::new() })))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::{fleet::slots::Slots, wire::GetStamp};

    /// The result of an exchange with an agent that sends `answer` in pieces of `size` bytes, and then closes.
    async fn asked(answer: &str, size: usize) -> (Result<Answer, ExchangeError>, bool) {
        let (mut ours, mut theirs) = duplex(1 << 16);
        let agent = async {
            let mut request = [0; 1024];
            let length = theirs.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"POST /v1/stamp HTTP/1.1\r\nhost: agent\r\n"));
            assert!(request[..length].ends_with(b"content-length: 2\r\n\r\n{}"));
            for piece in answer.as_bytes().chunks(size) {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            theirs
        };
        let slot = Slots::new().take().await;
        let (answer, theirs) = tokio::join!(exchange(&mut ours, "/v1/stamp", Body::of(&GetStamp {}), slot), agent);
        let was_open = is_open(&mut ours).await;
        drop(theirs);
        assert!(!is_open(&mut ours).await);
        (answer, was_open)
    }

    #[tokio::test]
    async fn an_answer_in_pieces_is_read_to_its_length() {
        for size in [1, 7, 1000] {
            let text = "HTTP/1.1 409 Conflict\r\nServer: netemctl/1\r\nContent-Length: 4\r\n\r\nbody";
            let (answer, is_open) = asked(text, size).await;
            let Answer { status, server, is_kept, body } = answer.unwrap();
            assert_eq!((status, server.as_deref(), is_kept, &body[..]), (409, Some("netemctl/1"), true, &b"body"[..]));
            assert!(is_open);
        }
    }

    #[tokio::test]
    async fn a_connection_is_not_kept_if_the_agent_closes_it_or_sends_more_than_one_answer() {
        for (header, body) in [("connection: close\r\n", "{}"), ("", "{}{}")] {
            let text = format!("HTTP/1.1 200 OK\r\n{header}content-length: 2\r\n\r\n{body}");
            let answer = asked(&text, 1000).await.0.unwrap();
            assert_eq!((answer.is_kept, &answer.body[..]), (false, &b"{}"[..]));
        }
    }

    #[tokio::test]
    async fn no_answer_is_made_from_text_that_is_not_http_or_has_no_valid_length() {
        let long = format!("HTTP/1.1 200 OK\r\na: {}", "b".repeat(HEAD_LIMIT));
        for text in [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            long.as_str(),
        ] {
            assert!(matches!(asked(text, 1 << 16).await.0, Err(ExchangeError::Unexpected(_))), "{text}");
        }
        assert!(matches!(asked("SSH-2.0-OpenSSH\r\n\r\n", 1000).await.0, Err(ExchangeError::Broken(_))));
    }
}
