//! Decodes Zstandard (RFC 8878) block by block.

use std::io::{self, ErrorKind, Read};

use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::Pieces;

/// The largest window that HTTP allows for the coding `zstd` (RFC 9659 section 3).
const LARGEST_WINDOW: u64 = 8 << 20;
/// The magic number of skippable frames (RFC 8878 section 3.1.2); the lowest 4 bits are arbitrary.
const SKIPPABLE: u32 = 0x184D_2A50;

/// Reader of decoded bytes.
pub struct Zstd<'a> {
    pieces: Whole<'a>,
    decoder: FrameDecoder,
}

impl<'a> Zstd<'a> {
    pub fn new(pieces: Pieces<'a>) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(LARGEST_WINDOW);
        Self { pieces: Whole(pieces), decoder }
    }

    /// Begins the next frame, or skips a skippable one. Returns false at the end of the body.
    fn begin_frame(&mut self) -> io::Result<bool> {
        let mut head = [0; 8];
        let known = self.pieces.0.peek(&mut head);
        let [a, b, c, d, length @ ..] = head;
        if known == head.len() && u32::from_le_bytes([a, b, c, d]) & !15 == SKIPPABLE {
            let length = head.len() as u64 + u64::from(u32::from_le_bytes(length));
            let passed = io::copy(&mut (&mut self.pieces).take(length), &mut io::sink())?;
            return if passed == length { Ok(true) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        if known > 0 {
            self.decoder.reset(&mut self.pieces).map_err(io::Error::other)?;
        }
        Ok(known > 0)
    }
}

impl Read for Zstd<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.decoder.can_collect() > 0 {
            return self.decoder.read(into);
        }
        if self.decoder.is_finished() {
            if !self.begin_frame()? {
                return Ok(0);
            }
        } else {
            let one = BlockDecodingStrategy::UptoBlocks(1);
            self.decoder.decode_blocks(&mut self.pieces, one).map_err(io::Error::other)?;
        }
        Err(ErrorKind::WouldBlock.into())
    }
}

/// Pieces that never return `WouldBlock`: blocks and frame headers are short, and must be read whole.
struct Whole<'a>(Pieces<'a>);

impl Read for Whole<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.0.left = usize::MAX;
        self.0.read(into)
    }
}
