use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use http::header::HeaderMap;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use super::*;

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory is enough")
}

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory is enough")
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("memory is enough")
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    compress_to_vec(plain, CompressionLevel::Fastest)
}

/// Encodes without compression (RFC 7932 section 9.2), in blocks of at most 2^16 bytes.
fn brotli(plain: &[u8]) -> Vec<u8> {
    // One bit for a window of 2^16 precedes the first block, which is empty, so that the others begin on a byte.
    let mut coded = vec![0b0000_1100];
    for block in plain.chunks(1 << 16) {
        let length = (block.len() - 1) as u32;
        // ISLAST, MNIBBLES, MLEN - 1, ISUNCOMPRESSED
        coded.extend_from_slice(&(length << 3 | 1 << 19).to_le_bytes()[..3]);
        coded.extend_from_slice(block);
    }
    coded.push(3);
    coded
}

/// The decoded bytes, and the step that ended decoding.
fn decoded(coding: Coding, pieces: &[Bytes]) -> (Vec<u8>, Step) {
    let (mut decoder, mut all, mut buffer) = (coding.decoder(pieces), Vec::new(), [0; 1000]);
    loop {
        match decoder.step(&mut buffer) {
            Step::Bytes(count) => all.extend_from_slice(&buffer[..count]),
            Step::Nothing => {}
            end => return (all, end),
        }
    }
}

fn pieces(coded: &[u8], size: usize) -> Vec<Bytes> {
    coded.chunks(size).map(Bytes::copy_from_slice).collect()
}

type Encode = fn(&[u8]) -> Vec<u8>;

fn codings() -> [(Coding, Encode); 5] {
    [
        (Coding::Gzip, gzip),
        (Coding::Deflate, zlib),
        (Coding::Deflate, deflate),
        (Coding::Brotli, brotli),
        (Coding::Zstd, zstd),
    ]
}

#[test]
fn every_coding_is_undone_whatever_the_pieces_are() {
    let text: Vec<u8> = (0..100_000_u32).flat_map(|n| (n % 977).to_string().into_bytes()).collect();
    for (coding, encode) in codings() {
        for plain in [&text[..], b"{}", &[0; 300_000]] {
            let coded = encode(plain);
            for size in [1, 7, 4096, coded.len()] {
                let (found, end) = decoded(coding, &pieces(&coded, size));
                assert!(found == plain && end == Step::End, "{coding:?} in pieces of {size}: {end:?}");
            }
        }
    }
}

// The fixture was made by Python's `brotli`.
#[test]
fn brotli_as_its_own_encoder_makes_it_is_undone() {
    let coded = include_bytes!("fixtures/body.br");
    let (found, end) = decoded(Coding::Brotli, &pieces(coded, 5));
    let text = format!("{{\"model\": \"b\", \"messages\": [\"{}\"]}}", "ab".repeat(500));
    assert_eq!((String::from_utf8_lossy(&found), end), (text.into(), Step::End));
}

#[test]
fn several_members_and_frames_are_one_body() {
    for (coding, encode) in [(Coding::Gzip, gzip as Encode), (Coding::Zstd, zstd)] {
        let mut coded = [encode(b"{\"model\":"), encode(b""), encode(b"\"b\"}")].concat();
        if coding == Coding::Zstd {
            coded.splice(0..0, [0x50, 0x2A, 0x4D, 0x18, 3, 0, 0, 0, 1, 2, 3]);
        }
        assert_eq!(decoded(coding, &pieces(&coded, 3)), (b"{\"model\":\"b\"}".to_vec(), Step::End), "{coding:?}");
        let nothing = pieces(&encode(b"").repeat(20_000), 60_000);
        assert_eq!(decoded(coding, &nothing), (Vec::new(), Step::End), "{coding:?}");
    }
}

#[test]
fn what_is_broken_ends_and_what_came_before_it_is_there() {
    let plain: Vec<u8> = (0..50_000_u32).flat_map(|n| (n * 7919).to_le_bytes()).collect();
    for (coding, encode) in codings() {
        let coded = encode(&plain);
        let (found, end) = decoded(coding, &pieces(&coded[..coded.len() / 2], 999));
        // The Zstandard decoder returns nothing before its window is full.
        let has_some = !found.is_empty() || coding == Coding::Zstd;
        assert!(plain.starts_with(&found) && has_some && end == Step::Broken, "{coding:?}: {end:?}");
    }
    for (coding, coded) in [(Coding::Gzip, &b"{\"model\":\"a\"}"[..]), (Coding::Zstd, b"{\"model\":\"a\"}")] {
        assert_eq!(decoded(coding, &pieces(coded, 4)), (Vec::new(), Step::Broken), "{coding:?}");
    }
    // A window of 16 MiB.
    let wide = [0x28, 0xB5, 0x2F, 0xFD, 0, 14 << 3, 1, 0, 0];
    assert_eq!(decoded(Coding::Zstd, &pieces(&wide, 9)), (Vec::new(), Step::Broken));
    let mut random = fastrand::Rng::with_seed(12);
    for _ in 0..200 {
        for (coding, encode) in codings() {
            let mut coded = encode(b"{\"model\":\"a\",\"prompt\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}");
            for _ in 0..random.usize(1..8) {
                let at = random.usize(..coded.len());
                coded[at] = random.u8(..);
            }
            let (coded, mut steps) = ([Bytes::from(coded)], 0);
            let (mut decoder, mut buffer) = (coding.decoder(&coded), [0; 4096]);
            // The result may be very long, but it is finite.
            while let Step::Bytes(_) | Step::Nothing = decoder.step(&mut buffer) {
                steps += 1;
                if steps > 2000 {
                    break;
                }
            }
        }
    }
}

#[test]
fn what_the_header_says_is_one_coding_or_none() {
    let of = |values: &[&'static str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_ENCODING, HeaderValue::from_static(value));
        }
        Coding::of(&headers)
    };
    for (values, coding) in [
        (&[][..], None),
        (&["identity"], None),
        (&["GZIP"], Some(Coding::Gzip)),
        (&["x-gzip, identity"], Some(Coding::Gzip)),
        (&["deflate"], Some(Coding::Deflate)),
        (&["identity", "br"], Some(Coding::Brotli)),
        (&[" zstd "], Some(Coding::Zstd)),
    ] {
        assert_eq!(of(values), Ok(coding), "{values:?}");
    }
    for values in [&["compress"][..], &["gzip, br"], &["gzip", "gzip"], &["gzip;q=1"], &["aws-chunked"]] {
        assert_eq!(of(values), Err(UnknownCoding), "{values:?}");
    }
}

#[test]
fn what_follows_a_stream_is_no_part_of_it() {
    for (coding, encode) in codings() {
        let coded = [&encode(b"model=a")[..], b"&model=b"].concat();
        for length in [3, coded.len()] {
            let (found, end) = decoded(coding, &pieces(&coded, length));
            assert!(found == b"model=a" || found.is_empty(), "{coding:?}");
            assert_eq!(end, Step::Broken, "{coding:?}");
        }
    }
}
