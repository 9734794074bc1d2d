//! What the log is told of failed checks: why, and again when it is for another reason.

use std::time::{Duration, Instant};

use tracing::warn;

use crate::workers::Worker;

/// Between two lines of one worker, however often its checks fail for another reason.
const QUIET: Duration = Duration::from_secs(10);

/// The failed checks of one worker.
#[derive(Default)]
pub struct Failures {
    /// Why the last check was not passed.
    last: Option<String>,
    /// What was logged since a check was passed.
    logged: Option<String>,
    logged_at: Option<Instant>,
}

impl Failures {
    /// Takes note of a check: why it was not passed.
    pub fn note(&mut self, worker: &Worker, why: Option<&str>, now: Instant) {
        if why != self.last.as_deref() {
            self.last = why.map(Into::into);
            worker.set_check_error(self.last.clone());
        }
        if let Some(why) = self.news(now) {
            warn!(worker = %worker.label, error = %why, "a health check of the worker failed");
        }
    }

    /// What is to be logged.
    fn news(&mut self, now: Instant) -> Option<&str> {
        if self.last.is_none() {
            self.logged = None;
        }
        let is_quiet = self.logged_at.is_some_and(|at| now.saturating_duration_since(at) < QUIET);
        if self.last == self.logged || is_quiet {
            return None;
        }
        (self.logged, self.logged_at) = (self.last.clone(), Some(now));
        self.last.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_logged_once_and_none_too_often() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut seen = Vec::new();
        for (second, why) in [
            (0, Some("refused")),
            (1, Some("refused")),
            (2, Some("500")),
            (9, Some("refused")),
            (11, Some("500")),
            (12, None),
            (13, Some("500")),
            (22, Some("500")),
            (40, Some("500")),
        ] {
            failures.last = why.map(Into::into);
            if let Some(told) = failures.news(start + Duration::from_secs(second)) {
                seen.push((second, told.to_owned()));
            }
        }
        assert_eq!(seen, [(0, "refused".to_owned()), (11, "500".into()), (22, "500".into())]);
    }
}
