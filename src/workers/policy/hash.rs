//! The hash of keys, points and blocks: folded multiplication, as wyhash does it.
//!
//! It is our own because the ring needs what a crate for hash maps does not promise: the same value in every version
//! and on every machine, so that gateways side by side send a key to the same worker. FxHash would not do either, for
//! its low bits are weak and near inputs get near outputs, which bunches a ring's points. Not for secrets: who knows it
//! can find two inputs with one hash, and gains a worker that he could have asked for anyway.

const A: u64 = 0x9e37_79b9_7f4a_7c15;
const B: u64 = 0xd1b5_4a32_d192_ed03;

/// Two numbers become one that looks random.
pub const fn pair(a: u64, b: u64) -> u64 {
    finish(finish(a ^ A).wrapping_add(b))
}

/// The hash of `bytes` after what `seed` stands for.
pub fn bytes(seed: u64, bytes: &[u8]) -> u64 {
    let (pieces, rest) = bytes.as_chunks::<16>();
    let mut last = [0; 16];
    last[..rest.len()].copy_from_slice(rest);
    let state = pieces.iter().fold(seed ^ A, step);
    pair(step(state, &last), bytes.len() as u64)
}

/// Both halves of a 128-bit product, one over the other. The state comes in twice, or a factor of 0 would wipe out what
/// was before.
fn step(state: u64, piece: &[u8; 16]) -> u64 {
    let both = u128::from_le_bytes(*piece);
    let product = u128::from(both as u64 ^ state) * u128::from((both >> 64) as u64 ^ B);
    product as u64 ^ (product >> 64) as u64 ^ state.rotate_left(23)
}

/// The finaliser of MurmurHash3: different inputs keep different outputs.
const fn finish(mut x: u64) -> u64 {
    x = (x ^ x >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ x >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ x >> 33
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_never_change_because_gateways_of_two_versions_share_workers() {
        assert_eq!(bytes(0, b""), 13060579950541089336);
        assert_eq!(bytes(7, b"the quick brown fox jumps over the lazy dog"), 792411481781954269);
    }

    #[test]
    fn every_bit_of_the_input_moves_about_half_of_the_output() {
        let base = [0u8; 40];
        for bit in 0..320 {
            let mut other = base;
            other[bit / 8] ^= 1 << (bit % 8);
            let moved = (bytes(0, &base) ^ bytes(0, &other)).count_ones();
            assert!((12..=52).contains(&moved), "bit {bit} moves {moved}");
        }
        for (near, far) in (0..1000).map(|at| (pair(1, at), pair(1, at + 1))) {
            assert!((near ^ far).count_ones() > 10);
        }
    }

    #[test]
    fn length_order_and_seed_count() {
        let all = [
            bytes(0, b"a"),
            bytes(0, b"a\0"),
            bytes(1, b"a"),
            bytes(0, &[0; 16]),
            bytes(0, &[0; 32]),
            pair(1, 2),
            pair(2, 1),
        ];
        let distinct: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
