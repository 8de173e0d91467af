//! The body of a request: JSON that is serialized once for all nodes, and compressed if it is large.

use std::{
    convert::Infallible,
    io::Write as _,
    pin::Pin,
    task::{Context, Poll},
};

use flate2::{Compression, write::GzEncoder};
use http_body_util::Full;
use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};

use super::slots::Slot;
use crate::wire::Call;

/// The smallest JSON that is compressed, in bytes. Smaller bodies take about as many packets without compression.
const COMPRESSED_FROM: usize = 4 * 1024;

/// The body of a request. Clones share the bytes.
#[derive(Clone, Debug)]
pub(super) struct Body {
    bytes: Bytes,
    is_compressed: bool,
}

impl Body {
    /// The body of a request. Requests are plain structs, which serialize without errors.
    pub(super) fn of(request: &impl Call) -> Self {
        let json = serde_json::to_vec(request).unwrap_or_default();
        match compressed(&json) {
            Some(bytes) => Self { bytes: bytes.into(), is_compressed: true },
            None => Self { bytes: json.into(), is_compressed: false },
        }
    }

    /// The value of the `content-encoding` header.
    pub(super) fn encoding(&self) -> Option<&'static str> {
        self.is_compressed.then_some("gzip")
    }

    /// The body as `hyper` sends it. Frees the slot when the whole body is sent.
    pub(super) fn sent_in(self, slot: Slot) -> SentBody {
        SentBody { bytes: Full::new(self.bytes), slot }
    }
}

/// The JSON in gzip; `None`: too small. Writing to memory does not fail.
fn compressed(json: &[u8]) -> Option<Vec<u8>> {
    if json.len() < COMPRESSED_FROM {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(json).ok()?;
    encoder.finish().ok()
}

/// A body on its way to an agent.
#[derive(Debug)]
pub(super) struct SentBody {
    bytes: Full<Bytes>,
    slot: Slot,
}

impl HttpBody for SentBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.bytes).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.bytes.size_hint()
    }
}

impl Drop for SentBody {
    fn drop(&mut self) {
        self.slot.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_large_body_is_compressed() {
        assert_eq!(compressed(&[b' '; COMPRESSED_FROM - 1]), None);
        let large = compressed(&[b' '; COMPRESSED_FROM]).unwrap();
        assert!(large.len() < 100, "{}", large.len());
    }
}
