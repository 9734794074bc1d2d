//! Balancing policies: which of the candidates takes the next request.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::config::Policy;

/// Chooses one of `candidates`; `load` says how many requests one has in flight. `None` without candidates.
pub fn choose(
    policy: Policy,
    candidates: &[usize],
    turn: &AtomicUsize,
    load: impl Fn(usize) -> usize,
) -> Option<usize> {
    match candidates {
        [] => None,
        [only] => Some(*only),
        _ => Some(match policy {
            Policy::RoundRobin => candidates[turn.fetch_add(1, Relaxed) % candidates.len()],
            Policy::Random => candidates[fastrand::usize(..candidates.len())],
            Policy::PowerOfTwo => power_of_two(candidates, load),
            Policy::LeastLoad => least_load(candidates, load),
        }),
    }
}

/// The less loaded of two different random candidates; of equals, either.
fn power_of_two(candidates: &[usize], load: impl Fn(usize) -> usize) -> usize {
    let first = fastrand::usize(..candidates.len());
    let second = (first + fastrand::usize(1..candidates.len())) % candidates.len();
    let (first, second) = (candidates[first], candidates[second]);
    if load(second) < load(first) { second } else { first }
}

/// The least loaded candidate; of equals, any with the same chance, so that idle workers share the work.
fn least_load(candidates: &[usize], load: impl Fn(usize) -> usize) -> usize {
    let (mut least, mut equals, mut chosen) = (usize::MAX, 0, candidates[0]);
    for candidate in candidates {
        let load = load(*candidate);
        if load < least {
            (least, equals) = (load, 0);
        }
        if load == least {
            equals += 1;
            if fastrand::usize(..equals) == 0 {
                chosen = *candidate;
            }
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(policy: Policy, loads: &[usize]) -> Vec<usize> {
        let (turn, candidates) = (AtomicUsize::new(0), (0..loads.len()).collect::<Vec<_>>());
        let mut counts = vec![0; loads.len()];
        for _ in 0..3000 {
            counts[choose(policy, &candidates, &turn, |at| loads[at]).expect("candidates")] += 1;
        }
        counts
    }

    #[test]
    fn round_robin_is_exact() {
        assert_eq!(counts(Policy::RoundRobin, &[9, 0, 0]), [1000, 1000, 1000]);
    }

    #[test]
    fn random_reaches_everyone_whatever_the_load() {
        assert!(counts(Policy::Random, &[9, 0, 0]).iter().all(|count| (800..1200).contains(count)));
    }

    #[test]
    fn power_of_two_never_takes_the_most_loaded_of_three() {
        let counts = counts(Policy::PowerOfTwo, &[9, 0, 5]);
        assert_eq!(counts[0], 0);
        assert!(counts[1] > counts[2] && counts[2] > 500, "{counts:?}");
    }

    #[test]
    fn least_load_takes_the_least_and_shares_among_equals() {
        let counts = counts(Policy::LeastLoad, &[1, 0, 0]);
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|count| (1200..1800).contains(count)), "{counts:?}");
    }

    #[test]
    fn nobody_is_chosen_from_nobody() {
        assert_eq!(choose(Policy::Random, &[], &AtomicUsize::new(0), |_| 0), None);
    }
}
