//! Prompts of about the same length go to the same worker, so that short ones do not wait behind long ones.
//!
//! The lengths seen lately, each with the work it makes, are a line from the shortest to the longest; the candidates
//! divide it into equal parts, in the order of the pool. So each gets the same share of the work, whatever the lengths
//! are, and the bounds move with them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::least_load::{self, Survey};
use super::spill::Spill;
use super::{Ask, PolicySettings};

/// Classes of lengths: four to an octave, the last from 2^20 bytes on.
const CLASSES: usize = 81;
/// What a request costs however short its prompt is, mostly its answer, in bytes of prompt.
const ANSWER: u64 = 2048;
/// After so many requests, what was seen counts half.
const HALF_LIFE: u64 = 8192;

pub struct Bucket {
    work: [AtomicU64; CLASSES],
    requests: AtomicU64,
    spill: Spill,
}

impl Bucket {
    pub fn new(settings: &PolicySettings) -> Self {
        Self { work: [const { AtomicU64::new(0) }; CLASSES], requests: AtomicU64::new(0), spill: Spill::new(settings) }
    }

    pub fn choose(&self, ask: &Ask, among: &[usize], load: &impl Fn(usize) -> f64) -> usize {
        let Some(prompt) = ask.prompt else { return least_load::choose(among, load) };
        let class = class(prompt.len());
        self.learn(class, prompt.len() as u64 + ANSWER);
        let at = among[self.part(class, among.len(), fastrand::f64())];
        self.spill.relieve(at, load(at), &Survey::of(among, load))
    }

    fn learn(&self, class: usize, work: u64) {
        self.work[class].fetch_add(work, Relaxed);
        if self.requests.fetch_add(1, Relaxed) % HALF_LIFE == HALF_LIFE - 1 {
            for class in &self.work {
                // What others add meanwhile stays.
                class.fetch_sub(class.load(Relaxed) / 2, Relaxed);
            }
        }
    }

    /// In which of `parts` the class lies. A class may be wider than a part, such as when all prompts have one length:
    /// `within` it, 0 to 1, is where this request stands.
    fn part(&self, class: usize, parts: usize, within: f64) -> usize {
        let (mut before, mut total) = (0, 0);
        for (at, work) in self.work.iter().enumerate() {
            let work = work.load(Relaxed);
            before += if at < class { work } else { 0 };
            total += work;
        }
        let own = self.work[class].load(Relaxed) as f64;
        let place = (before as f64 + own * within) / total.max(1) as f64;
        ((place * parts as f64) as usize).min(parts - 1)
    }
}

/// The octave and the two bits after its leading one.
fn class(length: usize) -> usize {
    let length = length.max(4);
    let octave = length.ilog2() as usize;
    (octave * 4 + (length >> (octave - 2)) % 4).min(CLASSES - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_grow_with_the_length() {
        assert_eq!([0, 4, 5, 7, 8, 10, 1 << 20, usize::MAX].map(class), [8, 8, 9, 11, 12, 13, 80, 80]);
        assert!((1..5000).all(|length| class(length) >= class(length - 1)));
    }

    #[test]
    fn each_gets_the_same_work_and_the_shortest_go_first() {
        let (bucket, all, mut work) = (Bucket::new(&PolicySettings::default()), [0, 1, 2, 3], [0; 4]);
        let mut longest = [0; 4];
        let mut random = fastrand::Rng::with_seed(1);
        for turn in 0..40_000 {
            let length = 1 << random.u32(4..15);
            let prompt = "x".repeat(length);
            let at = bucket.choose(&Ask { prompt: Some(&prompt), ..Ask::default() }, &all, &|_| 0.0);
            if turn > 10_000 {
                work[at] += length + ANSWER as usize;
                longest[at] = longest[at].max(length);
            }
        }
        let mean = work.iter().sum::<usize>() / 4;
        assert!(work.iter().all(|work| work.abs_diff(mean) < mean / 20), "{work:?}");
        assert!(longest.is_sorted() && longest[0] < 4096, "{longest:?}");
    }

    #[test]
    fn who_is_overloaded_is_relieved() {
        let bucket = Bucket::new(&PolicySettings::default());
        let ask = Ask { prompt: Some("one"), ..Ask::default() };
        let loads = [0.0, 300.0, 0.0];
        (0..200).for_each(|_| assert_ne!(bucket.choose(&ask, &[0, 1, 2], &|at| loads[at]), 1));
    }
}
