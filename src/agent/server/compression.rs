//! Decompresses request bodies within a size limit.

use std::io::{self, Read as _};

use axum::http::{HeaderMap, HeaderValue, header};
use flate2::read::GzDecoder;

/// The compression of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
}

impl Compression {
    /// The compression that the headers name; `None`: another one.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
        match (encodings.next().map(HeaderValue::as_bytes), encodings.next()) {
            (None, _) | (Some(b"identity"), None) => Some(Self::None),
            (Some(b"gzip"), None) => Some(Self::Gzip),
            _ => None,
        }
    }
}

/// The size of the content, in bytes, as a gzip body gives it in its last four bytes (RFC 1952, section 2.3.1).
pub(super) fn stated_size(gzip: &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*gzip.last_chunk()?)).ok()
}

/// The content of a gzip body. An error if the content does not have the stated size: the decompression ends as soon as
/// the content is larger.
pub(super) fn decompressed(gzip: &[u8], stated_size: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::with_capacity(stated_size);
    let limit = u64::try_from(stated_size).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(gzip).take(limit).read_to_end(&mut content)?;
    if content.len() == stated_size {
        return Ok(content);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the content has another size than the gzip trailer says"))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_body_is_decompressed_to_its_stated_size() {
        for content in [&b""[..], b"{}", &vec![b' '; 100_000]] {
            let gzip = gzip(content);
            assert_eq!(stated_size(&gzip), Some(content.len()));
            assert_eq!(decompressed(&gzip, content.len()).unwrap(), content);
        }
    }

    #[test]
    fn a_bomb_that_states_a_small_size_is_not_decompressed() {
        let mut bomb = gzip(&vec![0; 64 << 20]);
        let size = bomb.len();
        bomb[size - 4..].copy_from_slice(&1_000_u32.to_le_bytes());
        let stated = stated_size(&bomb).unwrap();
        assert_eq!(stated, 1_000);
        assert_eq!(decompressed(&bomb, stated).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_truncated_or_changed_body_is_an_error() {
        let whole = gzip(b"{\"a\": [1, 2, 3]}");
        for length in 0..whole.len() {
            assert!(decompressed(&whole[..length], 16).is_err());
        }
        for place in 10..whole.len() {
            let mut changed = whole.clone();
            changed[place] ^= 1;
            assert!(decompressed(&changed, stated_size(&changed).unwrap().min(1_000)).is_err(), "{place}");
        }
    }
}
