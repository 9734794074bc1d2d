//! A prompt as blocks, each named by the hash of itself and everything before it: prompts that begin alike begin with
//! the same names, as far as they are alike.

use super::hash;

/// Bytes of a prompt's first blocks.
const SMALLEST: usize = 128;
/// After so many, blocks are twice as long. So where two prompts part is known to within 1/32 of the way, and a prompt
/// of a mebibyte is 256 blocks and not 8192. Where a block ends depends on where it begins, never on the prompt's
/// length, or prompts would not be prefixes of their continuations.
const OF_A_SIZE: usize = 32;
/// The blocks of the first 1,044,480 bytes.
const MOST: usize = 256;

/// A prefix of the prompt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Block {
    pub hash: u64,
    /// The prefix's length in bytes.
    pub end: usize,
}

/// A prompt's prefixes, the shortest first.
pub struct Blocks {
    all: [Block; MOST],
    count: usize,
}

impl Blocks {
    /// What is past the last whole block is not looked at.
    pub fn of(prompt: &str) -> Self {
        let mut blocks = Self { all: [Block::default(); MOST], count: 0 };
        let (mut rest, mut before) = (prompt.as_bytes(), Block::default());
        for block in &mut blocks.all {
            let size = SMALLEST << (blocks.count / OF_A_SIZE);
            let Some((these, others)) = rest.split_at_checked(size) else { break };
            *block = Block { hash: hash::bytes(before.hash, these), end: before.end + size };
            (rest, before) = (others, *block);
            blocks.count += 1;
        }
        blocks
    }

    pub fn as_slice(&self) -> &[Block] {
        &self.all[..self.count]
    }

    /// Bytes in all blocks.
    pub fn len(&self) -> usize {
        self.as_slice().last().map_or(0, |last| last.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_s_blocks_are_the_first_of_its_continuation_s() {
        let text: String = ('a'..='z').cycle().take(9_000).collect();
        let (short, long) = (Blocks::of(&text[..5_000]), Blocks::of(&text));
        let ends: Vec<_> = short.as_slice().iter().map(|block| block.end).collect();
        assert_eq!((ends[0], ends[31], ends[32], ends.len(), short.len()), (128, 4096, 4352, 35, 4864));
        assert!(long.as_slice().starts_with(short.as_slice()));
        let other = text.replacen("abc", "abd", 1);
        assert!(Blocks::of(&other).as_slice().iter().zip(long.as_slice()).all(|(a, b)| a.hash != b.hash));
    }

    #[test]
    fn short_and_huge_prompts_are_bounded() {
        assert_eq!(Blocks::of(&"x".repeat(127)).len(), 0);
        let huge = Blocks::of(&"x".repeat(3 << 20));
        assert_eq!((huge.as_slice().len(), huge.len()), (MOST, 1_044_480));
    }
}
