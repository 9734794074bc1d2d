//! Active health checks: a worker joins when it answers, leaves when it stops, and comes back when it
//! answers again.

mod check;
mod failures;

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use self::failures::Failures;
use super::connector::Connector;
use super::models::Lessons;
use super::{Health, Worker};
use crate::config::{Config, Workers};

/// The first pauses between checks of a worker that has never answered.
const JOIN_INTERVAL: Duration = Duration::from_secs(1);

/// Checks one worker for ever, with the settings that are in force, and at once when `renewed` says that they are
/// others; calls `changed` after its health did. While the settings want no checks, it waits for others.
pub async fn watch(
    worker: Arc<Worker>,
    settings: impl Fn() -> (Arc<Config>, Arc<Connector>),
    mut renewed: watch::Receiver<()>,
    changed: impl Fn(),
) {
    let (mut streak, mut failures) = (Streak::default(), Failures::default());
    let (mut startup, mut lessons) = (Startup::default(), Lessons::default());
    loop {
        let (config, connector) = settings();
        let config = &config.workers;
        let checked = async {
            if config.disable_health_check {
                return pending().await;
            }
            let why = check::check(&connector, &worker, config).await.err().map(|error| error.told());
            failures.note(&worker, why.as_deref(), Instant::now());
            // Before it joins: its first request must be one for its models.
            let lists_others = why.is_none() && lessons.learn(&connector, &worker).await;
            if why.is_some() {
                lessons.forget();
            }
            if streak.judge(&worker, why.as_deref(), config) || lists_others {
                changed();
            }
            let pause = match worker.health() {
                Health::Pending => startup.pause(&worker, config),
                Health::Healthy | Health::Unhealthy => config.health_check_interval_secs,
            };
            tokio::time::sleep(pause).await;
        };
        tokio::select! {
            biased;
            Ok(()) = renewed.changed() => {}
            () = checked => {}
        }
    }
}

/// The wait for a worker that has never answered: it may be loading its model.
#[derive(Default)]
struct Startup {
    waited: Duration,
    is_late: bool,
}

impl Startup {
    /// The pause to the next check: a second at first, more and more later.
    fn pause(&mut self, worker: &Worker, config: &Workers) -> Duration {
        let longest = config.worker_startup_check_interval;
        let pause = (self.waited / 8).max(JOIN_INTERVAL).min(longest).min(config.health_check_interval_secs);
        self.waited += pause;
        if self.waited >= config.worker_startup_timeout_secs && !std::mem::replace(&mut self.is_late, true) {
            tracing::error!(worker = %worker.label, "the worker has not answered since it was added");
        }
        pause
    }
}

/// Checks in a row with the same result.
#[derive(Default)]
struct Streak {
    passed: u32,
    failed: u32,
}

impl Streak {
    /// What a check says of the worker's health, with why it was not passed, and whether that is something else than
    /// before.
    fn judge(&mut self, worker: &Worker, why: Option<&str>, config: &Workers) -> bool {
        let passed = why.is_none();
        if passed {
            worker.check_passed();
        }
        let next = self.after(worker.health(), passed, config);
        if next == worker.health() {
            return false;
        }
        worker.set_health(next);
        match next {
            Health::Healthy => info!(worker = %worker.label, "the worker is healthy"),
            Health::Pending | Health::Unhealthy => {
                let error = why.unwrap_or_default();
                warn!(worker = %worker.label, %error, "the worker is unhealthy");
            }
        }
        true
    }

    fn after(&mut self, health: Health, passed: bool, config: &Workers) -> Health {
        (self.passed, self.failed) = if passed { (self.passed + 1, 0) } else { (0, self.failed + 1) };
        match health {
            Health::Pending if passed => Health::Healthy,
            Health::Unhealthy if self.passed >= config.health_success_threshold => Health::Healthy,
            Health::Healthy if self.failed >= config.health_failure_threshold => Health::Unhealthy,
            unchanged => unchanged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_joins_at_once_leaves_after_three_and_returns_after_two() {
        let config = Config::of(&[]).workers;
        let mut streak = Streak::default();
        let mut health = Health::Pending;
        let mut seen = Vec::new();
        for passed in [false, true, false, false, true, false, false, false, true, true] {
            health = streak.after(health, passed, &config);
            seen.push(health);
        }
        use Health::{Healthy as H, Pending as P, Unhealthy as U};
        assert_eq!(seen, [P, H, H, H, H, H, H, U, U, H]);
    }
}
