//! The states of a breaker as one word of 64 bits: two bits of kind, 22 bits of counts, 40 bits of
//! milliseconds since the breaker was made (34 years).

use std::time::Duration;

use super::{BreakerSettings, Change, Outcome, Ticket};

/// What 22 bits can count.
pub const MOST_FAILURES: u32 = (1 << 22) - 1;
/// What 11 bits can count.
pub const MOST_TRIALS: u32 = (1 << 11) - 1;

const TIME_BITS: u32 = 40;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// As many as the word has room for.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(TIME).min(TIME)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// `failures` in a row, the first of them at `since`.
    Closed {
        failures: u32,
        since: u64,
    },
    Open {
        until: u64,
        cause: Cause,
    },
    /// `trials` are on their way and `successes` have come back. `since` names the round of trials: rounds
    /// that follow each other begin at different times.
    HalfOpen {
        since: u64,
        trials: u32,
        successes: u32,
    },
}

/// The failure that opened a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Failed,
    Unreachable,
}

impl Phase {
    pub const CLOSED: Self = Phase::Closed { failures: 0, since: 0 };

    pub fn encode(self) -> u64 {
        let (kind, counts, time) = match self {
            Phase::Closed { failures, since } => (0, failures, since),
            Phase::Open { until, cause } => (1, u32::from(cause == Cause::Unreachable), until),
            Phase::HalfOpen { since, trials, successes } => (2, (trials << 11) | successes, since),
        };
        (kind << 62) | (u64::from(counts) << TIME_BITS) | time
    }

    pub fn decode(word: u64) -> Self {
        let (counts, time) = (((word >> TIME_BITS) as u32) & MOST_FAILURES, word & TIME);
        match word >> 62 {
            0 => Phase::Closed { failures: counts, since: time },
            1 => Phase::Open { until: time, cause: if counts == 0 { Cause::Failed } else { Cause::Unreachable } },
            _ => Phase::HalfOpen { since: time, trials: counts >> 11, successes: counts & MOST_TRIALS },
        }
    }

    /// One more trial, and its round; `None` if there is no place for one, or nothing to try.
    pub fn with_trial(self, now: u64, settings: &BreakerSettings) -> Option<(Self, u64)> {
        match self {
            Phase::Closed { .. } => None,
            Phase::Open { until, .. } if now < until => None,
            Phase::Open { .. } => Some((Phase::HalfOpen { since: now, trials: 1, successes: 0 }, now)),
            Phase::HalfOpen { since, trials, successes } if trials < settings.success_threshold => {
                Some((Phase::HalfOpen { since, trials: trials + 1, successes }, since))
            }
            // The worker may have swallowed them all; without a new round it would never be tried again.
            Phase::HalfOpen { since, successes, .. } if now - since.min(now) > milliseconds(settings.timeout) => {
                Some((Phase::HalfOpen { since: now, trials: 1, successes }, now))
            }
            Phase::HalfOpen { .. } => None,
        }
    }

    pub fn after(self, ticket: Ticket, outcome: Outcome, now: u64, settings: &BreakerSettings) -> Self {
        match (self, ticket) {
            (Phase::Closed { failures, since }, _) => match outcome {
                Outcome::Succeeded => Phase::CLOSED,
                Outcome::Unknown => self,
                Outcome::Failed | Outcome::Unreachable => {
                    let is_stale = now - since.min(now) > milliseconds(settings.window);
                    let (failures, since) = if failures == 0 || is_stale { (1, now) } else { (failures + 1, since) };
                    let opens = failures >= settings.failure_threshold;
                    if opens { Self::opened(outcome, now, settings) } else { Phase::Closed { failures, since } }
                }
            },
            // Sent before the breaker opened: it tells nothing new.
            (Phase::Open { .. }, _) | (Phase::HalfOpen { .. }, Ticket::Normal) => self,
            (Phase::HalfOpen { since, trials, successes }, Ticket::Trial(round)) => {
                let is_current = round == since;
                let trials = if is_current { trials.saturating_sub(1) } else { trials };
                match outcome {
                    // It came back now, whenever it was sent.
                    Outcome::Succeeded if successes + 1 >= settings.success_threshold => Phase::CLOSED,
                    Outcome::Succeeded => Phase::HalfOpen { since, trials, successes: successes + 1 },
                    Outcome::Failed | Outcome::Unreachable if is_current => Self::opened(outcome, now, settings),
                    _ => Phase::HalfOpen { since, trials, successes },
                }
            }
        }
    }

    pub fn after_check(self, now: u64) -> Self {
        match self {
            Phase::Open { cause: Cause::Unreachable, .. } => Phase::HalfOpen { since: now, trials: 0, successes: 0 },
            _ => self,
        }
    }

    /// Open no longer than until then.
    pub fn no_longer_than(self, end: u64) -> Self {
        match self {
            Phase::Open { until, cause } => Phase::Open { until: until.min(end), cause },
            _ => self,
        }
    }

    pub fn change_to(self, after: Self) -> Option<Change> {
        match (self, after) {
            (Phase::Closed { .. }, Phase::Closed { .. })
            | (Phase::Open { .. }, Phase::Open { .. })
            | (Phase::HalfOpen { .. }, Phase::HalfOpen { .. }) => None,
            (_, Phase::Closed { .. }) => Some(Change::Closed),
            (_, Phase::Open { .. }) => Some(Change::Opened),
            (_, Phase::HalfOpen { .. }) => Some(Change::HalfOpened),
        }
    }

    fn opened(outcome: Outcome, now: u64, settings: &BreakerSettings) -> Self {
        let cause = if outcome == Outcome::Unreachable { Cause::Unreachable } else { Cause::Failed };
        Phase::Open { until: (now + milliseconds(settings.timeout).max(1)).min(TIME), cause }
    }
}
