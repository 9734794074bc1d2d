//! Active health checks: a worker joins when it answers, leaves when it stops, and comes back when it
//! answers again.

mod check;
mod failures;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use self::check::CheckError;
use self::failures::Failures;
use super::connector::Connector;
use super::{Health, Worker, models};
use crate::config::{Config, Workers};

/// Between two checks while it matters most: of a worker that has never answered, of one that has just gone out, and
/// while a change of its health is being confirmed.
const QUICK: Duration = Duration::from_secs(1);
/// The least time between a check and one that requests ask for, and the time between two checks of a worker that refuses
/// connections while it may be restarting.
const RECHECK_GAP: Duration = Duration::from_millis(250);
/// How long a worker that refuses connections is checked that often.
const RESTART: Duration = Duration::from_secs(5);

/// Checks one worker for ever, with the settings that are in force, and at once when `renewed` says that they are
/// others or a request could not reach the worker; calls `changed` after its health did. While the settings want no
/// checks, it waits for others.
pub async fn watch(
    worker: Arc<Worker>,
    settings: impl Fn() -> (Arc<Config>, Arc<Connector>),
    renewed: watch::Receiver<()>,
    changed: impl Fn(),
) {
    tokio::join!(
        check_repeatedly(&worker, &settings, renewed, &changed),
        // Beside the checks: neither waits for the other.
        models::answer_wants(&worker, || settings().1, &changed),
    );
}

async fn check_repeatedly(
    worker: &Worker,
    settings: impl Fn() -> (Arc<Config>, Arc<Connector>),
    mut renewed: watch::Receiver<()>,
    changed: impl Fn(),
) {
    let (mut streak, mut failures) = (Streak::default(), Failures::default());
    let mut pauses = Pauses::default();
    loop {
        let (config, connector) = settings();
        let config = &config.workers;
        let checked = async {
            if config.disable_health_check {
                return std::future::pending().await;
            }
            let is_asked = worker.recheck.take();
            let checked = check::check(&connector, worker, config).await;
            let result = CheckResult::of(&checked, is_asked);
            let why = checked.err().map(|error| error.told());
            failures.note(worker, why.as_deref(), Instant::now());
            let is_serving = worker.health() == Health::Healthy;
            let (mut is_read, mut lists_others) = (false, false);
            match result {
                // Before it joins: its first request must be one for its models.
                CheckResult::Passed if worker.listing.is_due() && !(is_serving && worker.listing.is_followed()) => {
                    (is_read, lists_others) = (true, models::learn(&connector, worker).await);
                }
                // One that serves may take its time over the list: its checks go on meanwhile.
                CheckResult::Passed if worker.listing.is_due() => worker.listing.want(),
                CheckResult::Passed | CheckResult::Unknown => {}
                CheckResult::Failed | CheckResult::NotConnected { .. } => worker.listing.forget(),
            }
            if streak.judge(worker, result, why.as_deref(), config) || lists_others {
                changed();
            }
            if is_read {
                models::settled(worker);
            }
            let earliest = tokio::time::Instant::now() + RECHECK_GAP;
            let asked = async {
                worker.recheck.asked().await;
                tokio::time::sleep_until(earliest).await;
            };
            tokio::select! {
                () = tokio::time::sleep(pauses.after(&streak, worker, config)) => {}
                () = asked => {}
            }
        };
        tokio::select! {
            biased;
            Ok(()) = renewed.changed() => {}
            () = checked => {}
        }
    }
}

/// What a check shows of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CheckResult {
    Passed,
    /// It takes connections, but the answer is bad or late.
    Failed,
    /// It takes no connection. `is_certain` says that a request has found the same, and there is nothing left to confirm.
    NotConnected {
        health: Health,
        is_certain: bool,
    },
    /// The check failed for want of something on this machine.
    Unknown,
}

impl CheckResult {
    /// `is_asked` says that a request could not reach the worker either.
    fn of(checked: &Result<(), CheckError>, is_asked: bool) -> Self {
        match checked {
            Ok(()) => Self::Passed,
            Err(error) if error.is_local() => Self::Unknown,
            Err(error) if error.is_unreachable() => Self::NotConnected {
                health: if error.is_refused_at_once() { Health::Refusing } else { Health::Unreachable },
                is_certain: is_asked && error.is_refused(),
            },
            Err(_) => Self::Failed,
        }
    }
}

/// The time between two checks.
#[derive(Default)]
struct Pauses {
    /// Since the worker was added, until it has answered; then since it went out.
    waited: Duration,
    has_answered: bool,
    is_late: bool,
}

impl Pauses {
    fn after(&mut self, streak: &Streak, worker: &Worker, config: &Workers) -> Duration {
        let interval = config.health_check_interval_secs;
        match worker.health() {
            Health::Pending => self.startup(worker, config),
            Health::Healthy => {
                (self.has_answered, self.waited) = (true, Duration::ZERO);
                if streak.failed > 0 { QUICK.min(interval) } else { interval }
            }
            Health::Refusing if self.waited < RESTART => {
                self.waited += RECHECK_GAP;
                RECHECK_GAP.min(interval)
            }
            Health::Failing | Health::Unreachable if streak.passed > 0 => QUICK.min(interval),
            Health::Failing | Health::Refusing | Health::Unreachable => self.longer(interval),
        }
    }

    /// The wait for a worker that has never answered: it may be loading its model.
    fn startup(&mut self, worker: &Worker, config: &Workers) -> Duration {
        let pause = self.longer(config.worker_startup_check_interval.min(config.health_check_interval_secs));
        let is_late = !self.has_answered && self.waited >= config.worker_startup_timeout_secs;
        if is_late && !std::mem::replace(&mut self.is_late, true) {
            tracing::error!(worker = %worker.label, "the worker has not answered since it was added");
        }
        pause
    }

    /// A second at first, more and more later.
    fn longer(&mut self, longest: Duration) -> Duration {
        let pause = (self.waited / 8).max(QUICK).min(longest);
        self.waited += pause;
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
    fn judge(&mut self, worker: &Worker, result: CheckResult, why: Option<&str>, config: &Workers) -> bool {
        if result == CheckResult::Passed {
            worker.check_passed();
        }
        let before = worker.health();
        let next = self.after(before, result, config);
        if next == before {
            return false;
        }
        worker.set_health(next);
        match next {
            Health::Healthy => info!(worker = %worker.label, "the worker is healthy"),
            // Out it was already.
            _ if before.is_out() => {}
            _ => {
                let error = why.unwrap_or_default();
                warn!(worker = %worker.label, %error, "the worker is unhealthy");
            }
        }
        true
    }

    fn after(&mut self, health: Health, result: CheckResult, config: &Workers) -> Health {
        let (out, is_certain) = match result {
            CheckResult::Passed => {
                (self.passed, self.failed) = (self.passed + 1, 0);
                let is_enough = match health {
                    // It was away and not sick.
                    Health::Pending | Health::Refusing => true,
                    _ => self.passed >= config.health_success_threshold,
                };
                return if is_enough { Health::Healthy } else { health };
            }
            CheckResult::Unknown => return health,
            CheckResult::Failed => (Health::Failing, false),
            CheckResult::NotConnected { health, is_certain } => (health, is_certain),
        };
        (self.passed, self.failed) = (0, self.failed + 1);
        match health {
            Health::Healthy if is_certain || self.failed >= config.health_failure_threshold => out,
            Health::Pending | Health::Healthy => health,
            Health::Failing | Health::Refusing | Health::Unreachable => out,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workers::client;
    use crate::workers::dial::DialError;

    use CheckResult::{Failed, Passed, Unknown};

    const REFUSED: CheckResult = CheckResult::NotConnected { health: Health::Refusing, is_certain: false };
    const GONE: CheckResult = CheckResult::NotConnected { health: Health::Refusing, is_certain: true };
    const SILENT: CheckResult = CheckResult::NotConnected { health: Health::Unreachable, is_certain: false };

    /// The initial of each health after a check with these results.
    fn course(results: &[CheckResult]) -> String {
        let config = Config::of(&[]).workers;
        let (mut streak, mut health) = (Streak::default(), Health::Pending);
        let mut seen = String::new();
        for result in results {
            health = streak.after(health, *result, &config);
            seen += &format!("{health:?}")[..1];
        }
        seen
    }

    #[test]
    fn it_joins_at_once_leaves_after_three_and_returns_after_two() {
        let course = course(&[Failed, Passed, Failed, Failed, Passed, Failed, Failed, Failed, Passed, Passed]);
        assert_eq!(course, "PHHHHHHFFH");
    }

    #[test]
    fn one_that_requests_and_a_check_find_gone_is_out_at_once_and_any_other_is_not() {
        assert_eq!(course(&[GONE, Passed, GONE, Passed, REFUSED, REFUSED, REFUSED]), "PHRHHHR");
        assert_eq!(course(&[Passed, SILENT, SILENT, SILENT, Passed, Passed]), "HHHUUH");
    }

    #[test]
    fn whether_it_takes_connections_is_noted_while_it_is_out() {
        assert_eq!(course(&[Passed, Failed, Failed, Failed, SILENT, Failed, Passed, Passed]), "HHHFUFFH");
        assert_eq!(course(&[Passed, GONE, REFUSED, SILENT, REFUSED, Failed, Passed, Passed]), "HRRURFFH");
    }

    #[test]
    fn a_shortage_of_this_machine_is_no_result() {
        assert_eq!(course(&[Unknown, Passed, Failed, Failed, Unknown, Unknown, Failed, Unknown]), "PHHHHHFF");
        assert_eq!(course(&[Passed, GONE, Unknown, Passed]), "HRRH");
        let local = |errno: rustix::io::Errno| {
            let error = client::FetchError::Connect(DialError::Io(errno.into()).into());
            CheckResult::of(&Err(error.into()), true)
        };
        assert_eq!(local(rustix::io::Errno::MFILE), Unknown);
        assert_eq!(local(rustix::io::Errno::ADDRNOTAVAIL), Unknown);
        assert_eq!(local(rustix::io::Errno::CONNREFUSED), GONE);
    }

    #[test]
    fn checks_come_quickly_until_it_is_known_what_has_become_of_the_worker() {
        let config = Config::of(&[]);
        let worker = Worker::new("http://w:1".parse().expect("a URL"), Health::Pending, &config);
        let (mut streak, mut pauses, config) = (Streak::default(), Pauses::default(), config.workers);
        let mut pause = |result| {
            worker.set_health(streak.after(worker.health(), result, &config));
            pauses.after(&streak, &worker, &config).as_secs()
        };
        assert_eq!([pause(Passed), pause(Passed)], [60, 60]);
        assert_eq!([Failed, Failed, SILENT].map(&mut pause), [1, 1, 1]);
        let while_out: Vec<_> = (0..60).map(|_| pause(SILENT)).collect();
        assert_eq!((while_out[0], while_out[10]), (1, 1));
        assert!(while_out.is_sorted() && while_out[59] == 60, "{while_out:?}");
        assert_eq!([Passed, Passed].map(&mut pause), [1, 60]);
    }

    #[test]
    fn a_worker_that_refuses_connections_is_checked_often_at_first() {
        let config = Config::of(&[]);
        let worker = Worker::new("http://w:1".parse().expect("a URL"), Health::Refusing, &config);
        let (streak, mut pauses) = (Streak::default(), Pauses::default());
        let while_out: Vec<_> = (0..90).map(|_| pauses.after(&streak, &worker, &config.workers)).collect();
        let often = while_out.iter().take_while(|pause| **pause == RECHECK_GAP).count();
        assert_eq!((often, while_out[often]), (20, QUICK));
        assert!(while_out.is_sorted() && while_out[89] == Duration::from_secs(60), "{while_out:?}");
    }
}
