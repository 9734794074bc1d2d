//! Bodies with a content coding.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// Names of codings, each with a body that has it.
pub fn codings(plain: &[u8]) -> [(&'static str, Vec<u8>); 5] {
    let mut raw = DeflateEncoder::new(Vec::new(), Compression::fast());
    let mut zlib = ZlibEncoder::new(Vec::new(), Compression::fast());
    raw.write_all(plain).and_then(|()| zlib.write_all(plain)).expect("memory is enough");
    [
        ("gzip", gzip(plain)),
        ("deflate", zlib.finish().expect("memory is enough")),
        ("deflate", raw.finish().expect("memory is enough")),
        ("br", brotli(plain)),
        ("zstd", compress_to_vec(plain, CompressionLevel::Fastest)),
    ]
}

pub fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory is enough")
}

/// Brotli without compression (RFC 7932 section 9.2).
fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut coded = vec![0b0000_1100];
    for block in plain.chunks(1 << 16) {
        let head = ((block.len() - 1) as u32) << 3 | 1 << 19;
        coded.extend_from_slice(&head.to_le_bytes()[..3]);
        coded.extend_from_slice(block);
    }
    coded.push(3);
    coded
}
