//! Decodes content codings (RFC 9110 section 8.4.1), so that the gateway can look into a body.
//!
//! A decoder needs at most 16 MiB of memory for any input. A few coded bytes can decode to very many, and many can
//! decode to none. Decoding therefore runs in steps, and no step takes long.

mod zstd;

use std::io::{self, BufRead, ErrorKind, Read};

use brotli_decompressor::Decompressor;
use bytes::Bytes;
use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::header::{self, HeaderMap, HeaderValue};

use self::zstd::Zstd;

/// The supported codings, as a value of `Accept-Encoding`.
pub const KNOWN: HeaderValue = HeaderValue::from_static("gzip, deflate, br, zstd");

/// Largest number of coded bytes that a step reads.
const AT_ONCE: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// The coding is not supported, or there is more than one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownCoding;

impl Coding {
    /// The coding that `Content-Encoding` names.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, UnknownCoding> {
        let fields = headers.get_all(header::CONTENT_ENCODING).iter();
        let names = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
        let mut found = None;
        for name in names {
            let coding = match name.to_ascii_lowercase().as_slice() {
                b"" | b"identity" => continue,
                b"gzip" | b"x-gzip" => Self::Gzip,
                b"deflate" => Self::Deflate,
                b"br" => Self::Brotli,
                b"zstd" => Self::Zstd,
                _ => return Err(UnknownCoding),
            };
            if found.replace(coding).is_some() {
                return Err(UnknownCoding);
            }
        }
        Ok(found)
    }

    /// A decoder for a body in pieces.
    pub fn decoder<'a>(self, pieces: &'a [Bytes]) -> Decoder<'a> {
        let pieces = Pieces { current: &[], rest: pieces, left: AT_ONCE };
        match self {
            Self::Gzip => Decoder::Gzip(Box::new(MultiGzDecoder::new(pieces))),
            Self::Deflate if pieces.begin_zlib() => Decoder::Zlib(Box::new(ZlibDecoder::new(pieces))),
            // Some say `deflate` and mean it, without the wrapper that the standard asks for.
            Self::Deflate => Decoder::Deflate(Box::new(DeflateDecoder::new(pieces))),
            Self::Brotli => Decoder::Brotli(Box::new(Decompressor::new(pieces, AT_ONCE))),
            Self::Zstd => Decoder::Zstd(Box::new(Zstd::new(pieces))),
        }
    }
}

/// See the module's documentation.
pub enum Decoder<'a> {
    Gzip(Box<MultiGzDecoder<Pieces<'a>>>),
    Zlib(Box<ZlibDecoder<Pieces<'a>>>),
    Deflate(Box<DeflateDecoder<Pieces<'a>>>),
    Brotli(Box<Decompressor<Pieces<'a>>>),
    Zstd(Box<Zstd<'a>>),
}

/// The result of a decoder's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// This many decoded bytes.
    Bytes(usize),
    /// No decoded bytes yet.
    Nothing,
    End,
    /// The body is malformed. Decoding ends here.
    Broken,
}

impl Decoder<'_> {
    /// Decodes the next bytes, as many as fit into `into`.
    pub fn step(&mut self, into: &mut [u8]) -> Step {
        match self.reader().read(into) {
            Ok(0) if self.is_at_end() => Step::End,
            Ok(0) => Step::Broken,
            Ok(count) => Step::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Step::Nothing,
            Err(_) => Step::Broken,
        }
    }

    fn reader(&mut self) -> &mut dyn Read {
        match self {
            Self::Gzip(gzip) => gzip,
            Self::Zlib(zlib) => zlib,
            Self::Deflate(deflate) => deflate,
            Self::Brotli(brotli) => brotli,
            Self::Zstd(zstd) => zstd,
        }
    }

    /// Whether nothing follows what was decoded.
    fn is_at_end(&mut self) -> bool {
        match self {
            // They go on with what follows, or say that they can't.
            Self::Gzip(_) | Self::Zstd(_) => true,
            Self::Zlib(zlib) => zlib.get_ref().is_empty(),
            Self::Deflate(deflate) => deflate.get_ref().is_empty(),
            // It says it when it is read again.
            Self::Brotli(brotli) => matches!(brotli.read(&mut [0]), Ok(0)) && brotli.get_ref().is_empty(),
        }
    }
}

/// The pieces of a body, one behind the other. After every [`AT_ONCE`] bytes it would block once, which ends a step.
pub struct Pieces<'a> {
    current: &'a [u8],
    rest: &'a [Bytes],
    /// Bytes until the next `WouldBlock`.
    left: usize,
}

impl Pieces<'_> {
    fn is_empty(&self) -> bool {
        self.current.is_empty() && self.rest.iter().all(Bytes::is_empty)
    }

    /// The next bytes, up to as many as fit; they stay.
    fn peek(&self, into: &mut [u8]) -> usize {
        let all = self.current.iter().chain(self.rest.iter().flatten());
        into.iter_mut().zip(all).map(|(into, byte)| *into = *byte).count()
    }

    /// Whether the next bytes look like the head of a zlib stream (RFC 1950 section 2.2).
    fn begin_zlib(&self) -> bool {
        let mut head = [0; 2];
        self.peek(&mut head) == 2 && head[0] & 15 == 8 && u16::from_be_bytes(head) % 31 == 0
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let from = self.fill_buf()?;
        let count = from.len().min(into.len());
        into[..count].copy_from_slice(&from[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            self.left = AT_ONCE;
            return Err(ErrorKind::WouldBlock.into());
        }
        while self.current.is_empty()
            && let Some((next, rest)) = self.rest.split_first()
        {
            (self.current, self.rest) = (next, rest);
        }
        Ok(&self.current[..self.current.len().min(self.left)])
    }

    fn consume(&mut self, count: usize) {
        self.current = &self.current[count..];
        self.left -= count;
    }
}

#[cfg(test)]
mod tests;
