//! Short numbers for workers, which tables keep instead of keys.

use std::sync::Arc;

use super::hash;

/// A worker's number. 0 is nobody.
pub type Number = u16;

/// A pool's workers and their numbers. A worker keeps its number while it is in the pool, and all but always gets it
/// again when it comes back, because the number follows from its key.
#[derive(Default)]
pub struct Roster {
    keys: Vec<u64>,
    /// By position; 0 for those past the 65,535th.
    numbers: Vec<Number>,
    /// In ascending order.
    positions: Vec<(Number, usize)>,
}

impl Roster {
    /// `roster` itself if it is of these workers.
    pub fn renewed(roster: &Arc<Self>, keys: &[u64]) -> Arc<Self> {
        if roster.keys == keys { roster.clone() } else { Arc::new(roster.next(keys)) }
    }

    fn next(&self, keys: &[u64]) -> Self {
        let mut taken = vec![false; 1 << Number::BITS];
        taken[0] = true;
        self.numbers.iter().for_each(|number| taken[usize::from(*number)] = true);
        let known: std::collections::HashMap<_, _> = self.keys.iter().zip(&self.numbers).collect();
        let number = |key: &u64| {
            known.get(key).map(|number| **number).unwrap_or_else(|| {
                let home = hash::pair(*key, 0) as Number;
                let free = (0..=Number::MAX).map(|n| home.wrapping_add(n)).find(|n| !taken[usize::from(*n)]);
                free.inspect(|number| taken[usize::from(*number)] = true).unwrap_or(0)
            })
        };
        let numbers: Vec<_> = keys.iter().map(number).collect();
        let mut positions: Vec<_> = numbers.iter().copied().zip(0..).filter(|(number, _)| *number != 0).collect();
        positions.sort_unstable();
        Self { keys: keys.to_vec(), numbers, positions }
    }

    /// The number of the worker at a position.
    pub fn number(&self, at: usize) -> Option<Number> {
        self.numbers.get(at).copied().filter(|number| *number != 0)
    }

    /// Where the worker with a number is, if it is one of `among`.
    pub fn candidate(&self, number: Number, among: &[usize]) -> Option<usize> {
        let index = self.positions.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        let (_, at) = self.positions[index];
        among.binary_search(&at).ok().map(|_| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_distinct_and_stay_when_the_pool_changes() {
        let keys: Vec<u64> = (0..2000).collect();
        let first = Roster::renewed(&Arc::default(), &keys);
        let distinct: std::collections::HashSet<_> = (0..2000).map(|at| first.number(at)).collect();
        assert_eq!(distinct.len(), 2000);
        let fewer = Roster::renewed(&first, &keys[1000..]);
        let again = Roster::renewed(&fewer, &(1000..3000).collect::<Vec<_>>());
        for at in 0..1000 {
            assert_eq!(fewer.number(at), first.number(at + 1000));
            assert_eq!(again.number(at), first.number(at + 1000));
            let number = again.number(at).expect("a number");
            assert_eq!(again.candidate(number, &[at]), Some(at));
            assert_eq!(again.candidate(number, &[at + 1]), None);
        }
        assert_eq!((again.number(2000), again.candidate(0, &[0])), (None, None));
        assert!(Arc::ptr_eq(&again, &Roster::renewed(&again, &(1000..3000).collect::<Vec<_>>())));
    }
}
