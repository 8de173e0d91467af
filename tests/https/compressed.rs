//! Compressed requests: read like other requests, within the same size limit.

use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use netemctl::agent::Limits;

use super::{
    hostile::{resident, send_and_read, tls},
    site::Site,
};

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Asks for the stamp with a compressed body, and returns the answer.
async fn ask(site: &Site, encoding: &str, body: &[u8]) -> String {
    let head = format!(
        "POST /v1/stamp HTTP/1.1\r\nhost: agent\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    send_and_read(tls(site).await, &[head.as_bytes(), body].concat(), false).await
}

#[tokio::test]
async fn a_compressed_request_is_read_and_a_decompression_bomb_is_refused() {
    let site = Site::up(Limits::default()).await;
    let answer = ask(&site, "gzip", &gzip(b"{ }")).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("digest"), "{answer}");
    let answer = ask(&site, "br", b"{}").await;
    assert!(answer.starts_with("HTTP/1.1 415 ") && answer.contains("bad-request"), "{answer}");
    for invalid in [&b""[..], b"{}", &gzip(b"{}")[..20], &gzip(b"{")] {
        let answer = ask(&site, "gzip", invalid).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{invalid:?}: {answer}");
    }
    let before = resident();
    let large = gzip(&vec![b' '; 17 << 20]);
    let mut dishonest = gzip(&vec![b' '; 256 << 20]);
    let size = dishonest.len();
    dishonest[size - 4..].copy_from_slice(&1_000_u32.to_le_bytes());
    for _ in 0..20 {
        let answer = ask(&site, "gzip", &large).await;
        assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("larger than 16 MiB"), "{answer}");
        let answer = ask(&site, "gzip", &dishonest).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("gzip"), "{answer}");
    }
    assert!(resident() < before + 16 * 1024, "{before} kB before, {} kB after", resident());
    assert!(site.ask().await.is_ok());
}
