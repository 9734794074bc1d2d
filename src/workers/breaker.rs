//! A worker's circuit breaker: after many failures in a row the worker is left alone for a while, then a few
//! requests try it, and it is back once they succeed.
//!
//! The time it is left alone doesn't grow from one opening to the next. A handful of trials a minute costs
//! little, and the operator's `--cb-timeout-duration-secs` says how long to wait; a worker whose process was
//! gone is tried as soon as a health check passes ([`Breaker::check_passed`]).
//!
//! The whole state is one atomic word, so that every change is one compare-and-swap and no two parts of it can
//! disagree. While the breaker is closed and the worker doesn't fail, requests only read it.

mod phase;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use http::StatusCode;

use self::phase::{Phase, milliseconds};

#[derive(Debug, Clone, Copy)]
pub struct BreakerSettings {
    /// Failures in a row that open it; 1 to 4,194,303.
    pub failure_threshold: u32,
    /// Successful trials that close it, and most trials at a time; 1 to 2,047.
    pub success_threshold: u32,
    /// Time for which it stays open.
    pub timeout: Duration,
    /// A row of failures that began longer ago begins anew.
    pub window: Duration,
}

impl BreakerSettings {
    /// With what a breaker can count to.
    fn clamped(self) -> Arc<Self> {
        Arc::new(Self {
            failure_threshold: self.failure_threshold.clamp(1, phase::MOST_FAILURES),
            success_threshold: self.success_threshold.clamp(1, phase::MOST_TRIALS),
            ..self
        })
    }
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failure_threshold: 10,
            success_threshold: 3,
            timeout: Duration::from_secs(60),
            window: Duration::from_secs(120),
        }
    }
}

/// What became of a request, as far as it speaks for or against its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    /// It answered with a failure, or not in time.
    Failed,
    /// It took no connection, or broke one off. A passed health check is evidence against this one.
    Unreachable,
    /// Nothing can be said: the client left, or the worker was busy.
    Unknown,
}

/// What an answer's status says of the worker: 408, 500, 502, 503 and 504 are failures, 429 and 529 are a matter of
/// capacity, and any other answer is one of a worker that works.
pub fn verdict_of_status(status: StatusCode) -> Outcome {
    match status.as_u16() {
        408 | 500 | 502 | 503 | 504 => Outcome::Failed,
        429 | 529 => Outcome::Unknown,
        _ => Outcome::Succeeded,
    }
}

/// The right to send one request. Each is reported exactly once, with [`Outcome::Unknown`] when nothing
/// else is known: a trial takes its place until then, or until the breaker's timeout has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a trial that is not reported keeps its place"]
pub enum Ticket {
    Normal,
    /// A trial, and which round of trials it belongs to.
    Trial(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

impl State {
    pub fn label(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::Open => "open",
            State::HalfOpen => "half_open",
        }
    }

    /// The value of `smg_worker_cb_state`.
    pub fn number(self) -> u8 {
        match self {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
        }
    }
}

/// A change of state, for the log and for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Opened,
    HalfOpened,
    Closed,
}

/// The breaker of one worker, shared by all shards.
#[derive(Debug)]
pub struct Breaker {
    /// Without any it admits everything and never opens. Looked at only when the worker fails, or has.
    settings: ArcSwapOption<BreakerSettings>,
    base: Instant,
    word: AtomicU64,
}

impl Breaker {
    /// Without settings it admits everything and never opens.
    pub fn new(settings: Option<BreakerSettings>) -> Self {
        let settings = ArcSwapOption::new(settings.map(BreakerSettings::clamped));
        Self { settings, base: Instant::now(), word: AtomicU64::new(Phase::CLOSED.encode()) }
    }

    /// Goes by other settings from now on. What it has counted stays, unless it did not count, and a worker that is
    /// left alone is so no longer than the new settings would leave it.
    pub fn renew(&self, settings: Option<BreakerSettings>, now: Instant) {
        let timeout = settings.map_or(Duration::ZERO, |settings| settings.timeout);
        let before = self.settings.swap(settings.map(BreakerSettings::clamped));
        self.change(|phase| match (&before, settings) {
            (Some(_), Some(_)) => phase.no_longer_than(self.ms(now + timeout)),
            _ => Phase::CLOSED,
        });
    }

    pub fn state(&self, now: Instant) -> State {
        match self.phase() {
            _ if self.settings.load().is_none() => State::Closed,
            Phase::Closed { .. } => State::Closed,
            Phase::Open { until, .. } if self.ms(now) < until => State::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// Whether [`Breaker::admit`] would give a ticket now. Reserves nothing: for listing candidates.
    pub fn could_admit(&self, now: Instant) -> bool {
        let phase = self.phase();
        if let Phase::Closed { .. } = phase {
            return true;
        }
        let settings = self.settings.load();
        settings.as_ref().is_none_or(|settings| phase.with_trial(self.ms(now), settings).is_some())
    }

    /// Asks to send one request.
    pub fn admit(&self, now: Instant) -> Option<Ticket> {
        let mut word = self.word.load(Relaxed);
        loop {
            let phase = Phase::decode(word);
            if let Phase::Closed { .. } = phase {
                return Some(Ticket::Normal);
            }
            let settings = self.settings.load();
            let Some(settings) = settings.as_ref() else { return Some(Ticket::Normal) };
            let (next, round) = phase.with_trial(self.ms(now), settings)?;
            match self.word.compare_exchange_weak(word, next.encode(), Relaxed, Relaxed) {
                Ok(_) => return Some(Ticket::Trial(round)),
                Err(newer) => word = newer,
            }
        }
    }

    /// Whether it is closed and counts no failure, so that a success tells it nothing.
    pub fn is_calm(&self) -> bool {
        self.phase() == Phase::CLOSED
    }

    /// Says what became of a request.
    pub fn report(&self, ticket: Ticket, outcome: Outcome, now: Instant) -> Option<Change> {
        let settings = self.settings.load();
        let settings = settings.as_ref()?;
        self.change(|phase| phase.after(ticket, outcome, self.ms(now), settings))
    }

    /// An active health check passed. If the worker was not reachable, trials begin at once. They begin and
    /// don't end there: the check shows a process that answers, not one that serves requests. A worker that
    /// answers its checks and fails its requests stays out for the whole timeout.
    pub fn check_passed(&self, now: Instant) -> Option<Change> {
        self.change(|phase| phase.after_check(self.ms(now)))
    }

    fn change(&self, step: impl Fn(Phase) -> Phase) -> Option<Change> {
        let mut word = self.word.load(Relaxed);
        loop {
            let before = Phase::decode(word);
            let after = step(before);
            if after == before {
                return None;
            }
            match self.word.compare_exchange_weak(word, after.encode(), Relaxed, Relaxed) {
                Ok(_) => return before.change_to(after),
                Err(newer) => word = newer,
            }
        }
    }

    fn phase(&self) -> Phase {
        Phase::decode(self.word.load(Relaxed))
    }

    fn ms(&self, now: Instant) -> u64 {
        milliseconds(now.saturating_duration_since(self.base))
    }
}

#[cfg(test)]
mod tests;
