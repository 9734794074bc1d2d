//! A model server: reads prompts one after the other, skipping what its cache has, and writes answers side by side.

use std::collections::{HashMap, VecDeque};

use super::trace::{BLOCK, Session};

/// Tokens that the cache holds, as beside the weights of a large model.
const CACHE: usize = 200_000;
/// Tokens of a prompt that are read in a second.
const PREFILL: f64 = 8_000.0;
/// Seconds before the first token, whatever the prompt is.
const OVERHEAD: f64 = 0.015;
/// Seconds to write a token, alone, and more for each other request.
const DECODE: f64 = 0.010;
const DECODE_OF_OTHERS: f64 = 0.000_2;
/// Seconds of a worker's work in a token that is written with others.
const DECODE_BUSY: f64 = 0.000_5;

#[derive(Default)]
pub struct Worker {
    cache: Cache,
    /// When the prompts that it has are read.
    idle_at: f64,
    pub in_flight: usize,
    /// Seconds of work.
    pub busy: f64,
}

pub struct Served {
    /// Tokens of the prompt that were found.
    pub hits: usize,
    pub first_token: f64,
    pub end: f64,
    pub busy: f64,
}

impl Worker {
    pub fn serve(&mut self, now: f64, session: &Session) -> Served {
        let hits = self.cache.hits(&session.blocks) * BLOCK;
        self.cache.insert(&session.blocks);
        let prefill = OVERHEAD + (session.tokens() - hits) as f64 / PREFILL;
        self.idle_at = self.idle_at.max(now) + prefill;
        let token = DECODE + DECODE_OF_OTHERS * self.in_flight as f64;
        self.in_flight += 1;
        Served {
            hits,
            first_token: self.idle_at,
            end: self.idle_at + session.answer_tokens() * token,
            busy: prefill + session.answer_tokens() * DECODE_BUSY,
        }
    }

    /// The answer stays in the cache, too.
    pub fn finish(&mut self, session: &Session) {
        self.in_flight -= 1;
        self.cache.insert(&session.blocks);
    }
}

/// Blocks, the one that was used longest ago dropped first, of a prompt the last one.
#[derive(Default)]
struct Cache {
    used: HashMap<u64, u64>,
    /// Uses in their order, with those that a later use has made void.
    uses: VecDeque<(u64, u64)>,
    clock: u64,
}

impl Cache {
    fn hits(&self, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.used.contains_key(block)).count()
    }

    fn insert(&mut self, blocks: &[u64]) {
        for block in blocks.iter().rev() {
            self.clock += 1;
            self.used.insert(*block, self.clock);
            self.uses.push_back((*block, self.clock));
        }
        while self.used.len() > CACHE / BLOCK {
            let Some((block, at)) = self.uses.pop_front() else { return };
            if self.used.get(&block) == Some(&at) {
                self.used.remove(&block);
            }
        }
    }
}
