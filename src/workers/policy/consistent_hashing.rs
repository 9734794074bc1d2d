//! The worker that `X-SMG-Target-Worker` names, or else the routing key's on a ring. Without either, the least loaded.

use super::ring::Ring;
use super::{Ask, hash, least_load};

pub fn choose(ring: &Ring, ask: &Ask, among: &[usize], load: &impl Fn(usize) -> f64) -> usize {
    let target = ask.target.filter(|at| among.binary_search(at).is_ok());
    let by_key = || ring.find(hash::bytes(0, ask.routing_key?), among);
    target.or_else(by_key).unwrap_or_else(|| least_load::choose(among, load))
}
