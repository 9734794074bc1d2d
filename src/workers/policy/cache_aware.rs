//! The worker that has read most of the prompt before, for its cache still has that and need not read it again, weighed
//! against how busy it is.
//!
//! What a worker has read is what it was given: a [`Table`] has the workers of each of a prompt's [`Blocks`], and when
//! they were last given it. The table is smaller than all that was ever read and forgets what was unused for longest,
//! as the workers' caches do. It is a guess: a wrong one costs a worker the reading of a prompt, nothing else.

use super::blocks::Blocks;
use super::least_load::Survey;
use super::roster::{Number, Roster};
use super::spill::Spill;
use super::table::{Seconds, Table};
use super::{Ask, PolicySettings};

/// Workers that are compared for one prompt.
const HOLDERS: usize = 32;

/// What load takes from a claim: being above the least loaded worker by as much as the others have in the mean
/// outweighs this share of the prompt. With 0, one application's prompts crowd a worker until they spill; with 1,
/// conversations are torn apart by differences that would be gone in a moment. Between 0.2 and 0.6 the simulation of
/// `docs/balancing.md` hardly tells values apart.
const LOAD_WEIGHT: f64 = 0.25;

pub struct CacheAware {
    read: Table,
    threshold: f64,
    spill: Spill,
}

impl CacheAware {
    pub fn new(settings: &PolicySettings) -> Self {
        Self {
            read: Table::new(settings.cache_bytes),
            threshold: settings.cache_threshold,
            spill: Spill::new(settings),
        }
    }

    /// A prompt shorter than a block goes to the least loaded worker, and is not remembered.
    pub fn choose(&self, roster: &Roster, ask: &Ask, among: &[usize], load: &impl Fn(usize) -> f64) -> usize {
        let survey = Survey::of(among, load);
        let blocks = Blocks::of(ask.prompt.unwrap_or_default());
        let at = self.best(&blocks, roster, among, load, &survey);
        if let Some(number) = roster.number(at) {
            let now = Seconds::at(ask.now);
            blocks.as_slice().iter().for_each(|block| self.read.add(block.hash, number, now));
        }
        at
    }

    /// The candidate with the best claim; the least loaded one has a claim of 0 at least.
    fn best(
        &self,
        blocks: &Blocks,
        roster: &Roster,
        among: &[usize],
        load: &impl Fn(usize) -> f64,
        survey: &Survey,
    ) -> usize {
        let (mut best, mut best_load, mut best_claim) = (survey.least, survey.least_load, 0.0);
        self.holders(blocks, |number, known| {
            let share = known as f64 / blocks.len() as f64;
            let Some(at) = roster.candidate(number, among).filter(|_| share >= self.threshold) else { return };
            let load = load(at);
            // The one more keeps small numbers of requests from looking like large differences.
            let lead = (load - survey.least_load) / (survey.mean_of_others(load) + 1.0);
            let claim = share - LOAD_WEIGHT * lead;
            if claim > best_claim {
                (best, best_load, best_claim) = (at, load, claim);
            }
        });
        self.spill.relieve(best, best_load, survey)
    }

    /// Each worker that has read something of the prompt, with how many bytes, the most first. A block in the middle
    /// may have been forgotten: what counts is the last that is known, for caches forget from the end.
    fn holders(&self, blocks: &Blocks, mut each: impl FnMut(Number, usize)) {
        let (mut seen, mut count) = ([0; HOLDERS], 0);
        for block in blocks.as_slice().iter().rev() {
            for number in self.read.holders(block.hash) {
                if count < HOLDERS && !seen[..count].contains(&number) {
                    seen[count] = number;
                    count += 1;
                    each(number, block.end);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [usize; 3] = [0, 1, 2];

    struct Case {
        cache: CacheAware,
        roster: Roster,
    }

    impl Case {
        fn new() -> Self {
            let roster = std::sync::Arc::into_inner(Roster::renewed(&Default::default(), &[10, 20, 30]));
            Self { cache: CacheAware::new(&PolicySettings::default()), roster: roster.expect("the only one") }
        }

        fn choose(&self, prompt: &str, among: &[usize], loads: [f64; 3]) -> usize {
            let ask = Ask { prompt: Some(prompt), ..Ask::default() };
            self.cache.choose(&self.roster, &ask, among, &|at| loads[at])
        }
    }

    fn text(seed: u64, length: usize) -> String {
        let mut rng = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| rng.alphanumeric()).take(length).collect()
    }

    #[test]
    fn a_conversation_stays_and_a_stranger_goes_to_the_least_loaded() {
        let (case, prompt) = (Case::new(), text(1, 2000));
        assert_eq!(case.choose(&prompt, &ALL, [5.0, 4.0, 6.0]), 1);
        let longer = prompt.clone() + &text(2, 1500);
        assert_eq!(case.choose(&longer, &ALL, [5.0, 6.0, 5.0]), 1);
        assert_eq!(case.choose(&text(3, 2000), &ALL, [5.0, 6.0, 4.0]), 2);
        // Three tenths are known, then less.
        assert_eq!(case.choose(&(text(1, 2000) + &text(4, 4300)), &ALL, [5.0, 5.1, 5.0]), 1);
        assert_ne!(case.choose(&(text(1, 2000) + &text(5, 9000)), &ALL, [5.0, 5.1, 5.0]), 1);
    }

    #[test]
    fn load_outweighs_what_is_known() {
        let (case, prompt) = (Case::new(), text(1, 4000));
        assert_eq!(case.choose(&prompt, &ALL, [0.0, 9.0, 9.0]), 0);
        assert_eq!(case.choose(&prompt, &ALL, [24.0, 9.0, 10.0]), 0);
        assert_eq!(case.choose(&prompt, &ALL, [90.0, 9.0, 10.0]), 1);
        // Both have read it now.
        assert_eq!(case.choose(&prompt, &ALL, [20.0, 15.0, 14.0]), 1);
        // Beyond both thresholds what is known no longer counts, whatever the claim.
        let settings = PolicySettings { balance_abs_threshold: 3.0, balance_rel_threshold: 1.2, ..Default::default() };
        let case = Case { cache: CacheAware { spill: Spill::new(&settings), ..case.cache }, ..case };
        assert_eq!(case.choose(&prompt, &ALL, [10.0, 10.0, 3.0]), 0);
        assert_eq!(case.choose(&prompt, &ALL, [14.0, 14.0, 3.0]), 2);
    }

    #[test]
    fn who_is_no_candidate_is_not_chosen_and_its_prompts_move() {
        let (case, prompt) = (Case::new(), text(1, 2000));
        assert_eq!(case.choose(&prompt, &ALL, [0.0, 1.0, 2.0]), 0);
        assert_eq!(case.choose(&prompt, &[1, 2], [0.0, 2.0, 1.0]), 2);
        assert_eq!(case.choose(&prompt, &[1, 2], [0.0, 1.0, 2.0]), 2);
        for short in ["", "short"] {
            assert_eq!(case.choose(short, &ALL, [1.0, 0.0, 1.0]), 1);
        }
    }
}
