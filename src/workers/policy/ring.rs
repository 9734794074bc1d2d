//! A consistent-hash ring over a pool's workers. It covers all of them, candidates or not: who looks a key up walks on
//! past those that are not, so a worker's illness moves only its own keys, and builds nothing.

use std::sync::Arc;

use super::hash;

/// Points of each worker: shares differ by about 1/√256, six in a hundred.
const POINTS: u64 = 256;

/// Points in ascending order, and whose each is.
#[derive(Default)]
pub struct Ring {
    keys: Vec<u64>,
    points: Vec<u64>,
    owners: Vec<u32>,
}

impl Ring {
    pub fn new(keys: &[u64]) -> Self {
        let positions = (0..).zip(keys);
        let of_worker = |(at, key): (u32, &u64)| {
            let key = *key;
            (0..POINTS).map(move |n| (hash::pair(key, n), at))
        };
        let mut all: Vec<_> = positions.flat_map(of_worker).collect();
        all.sort_unstable();
        let (points, owners) = all.into_iter().unzip();
        Self { keys: keys.to_vec(), points, owners }
    }

    /// `ring` itself if it is of these workers.
    pub fn renewed(ring: &Arc<Self>, keys: &[u64]) -> Arc<Self> {
        if ring.keys == keys { ring.clone() } else { Arc::new(Self::new(keys)) }
    }

    /// Positions of workers from `hash` on, once round; a worker comes up many times.
    pub fn walk(&self, hash: u64) -> impl Iterator<Item = usize> {
        let start = self.points.partition_point(|point| *point < hash);
        let (before, after) = self.owners.split_at(start);
        after.iter().chain(before).map(|at| *at as usize)
    }

    /// The candidate for `hash`; `None` if no candidate is on the ring.
    pub fn find(&self, hash: u64, among: &[usize]) -> Option<usize> {
        self.walk(hash).find(|at| among.binary_search(at).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u64) -> Vec<u64> {
        (0..count).map(|n| hash::bytes(0, format!("http://w{n}:8000").as_bytes())).collect()
    }

    #[test]
    fn shares_are_even() {
        let (ring, all) = (Ring::new(&keys(10)), (0..10).collect::<Vec<_>>());
        let mut counts = [0; 10];
        (0..100_000).for_each(|n| counts[ring.find(hash::pair(9, n), &all).expect("candidates")] += 1);
        assert!(counts.iter().all(|count| (8_000..12_000).contains(count)), "{counts:?}");
    }

    #[test]
    fn a_worker_that_joins_takes_its_share_and_nothing_else_moves() {
        // The new one comes first, so that every position changes, too.
        let (old, mut joined) = (keys(10), keys(11));
        joined.rotate_right(1);
        let (before, after) = (Ring::new(&old), Ring::new(&joined));
        let (mut moved, mut elsewhere) = (0, 0);
        for n in 0..100_000 {
            let key = hash::pair(9, n);
            let was = before.find(key, &(0..10).collect::<Vec<_>>()).expect("candidates");
            let is = after.find(key, &(0..11).collect::<Vec<_>>()).expect("candidates");
            moved += usize::from(is == 0);
            elsewhere += usize::from(is != 0 && is != was + 1);
        }
        assert_eq!(elsewhere, 0);
        assert!((7_500..11_000).contains(&moved), "{moved}");
    }

    #[test]
    fn who_is_no_candidate_is_skipped_and_the_others_keep_their_keys() {
        let (ring, some) = (Ring::new(&keys(10)), [0, 1, 2, 3, 4, 6, 7, 8, 9]);
        let all: Vec<_> = (0..10).collect();
        for n in 0..1000 {
            let key = hash::pair(9, n);
            let (of_all, of_some) = (ring.find(key, &all), ring.find(key, &some).expect("candidates"));
            assert!(of_some != 5 && (of_all == Some(of_some) || of_all == Some(5)));
        }
        assert_eq!(ring.find(0, &[]), None);
        assert_eq!(Ring::default().find(0, &all), None);
    }
}
