//! The worker of the prompt's head on a ring with bounded load: prompts that begin alike share a worker until it has
//! more than its share of the requests, and then spread over the next ones on the ring, in the same order for all.
//! (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads, 2018.) Without a prompt, the least loaded.

use super::ring::Ring;
use super::{Ask, hash, least_load};

/// Bytes of the prompt that are looked at.
const HEAD: usize = 256;

/// A worker takes no more than this many times the mean load.
const BOUND: f64 = 1.25;

pub fn choose(ring: &Ring, ask: &Ask, among: &[usize], load: &impl Fn(usize) -> f64) -> usize {
    let by_head = || {
        let prompt = ask.prompt?.as_bytes();
        let head = hash::bytes(0, &prompt[..prompt.len().min(HEAD)]);
        // The request itself counts, and a part of one is rounded up: otherwise nobody would have room at low load.
        let total: f64 = among.iter().map(|at| load(*at)).sum();
        let room = (BOUND * (total + 1.0) / among.len() as f64).ceil();
        ring.walk(head).find(|at| among.binary_search(at).is_ok() && load(*at) + 1.0 <= room)
    };
    by_head().unwrap_or_else(|| least_load::choose(among, load))
}
