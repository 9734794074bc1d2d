//! Workers: the model servers behind the gateway, what is known of them, and how one is chosen.

pub mod addresses;
pub mod answer;
pub mod breaker;
pub mod client;
pub mod connector;
pub mod credentials;
pub mod dial;
pub mod guard;
pub mod health;
pub mod http2;
pub mod idle;
pub mod link;
pub mod models;
pub mod names;
pub mod policy;
pub mod pool;
mod recheck;
pub mod retry;
mod warmup;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use http::HeaderValue;

use self::addresses::Addresses;
use self::breaker::{Breaker, BreakerSettings, Change, Outcome, State, Ticket};
use self::credentials::Credentials;
use self::models::Listing;
use self::recheck::Recheck;
use self::retry::RetrySettings;
use self::warmup::Warmup;
use crate::config::{Breakers, Config, Retries, WorkerUrl};
use crate::metrics::Exposition;

pub use self::pool::Pool;

/// One model server. What is known of it outlives every snapshot that names it.
pub struct Worker {
    /// Stable for this URL: 16 hexadecimal digits.
    pub id: String,
    /// The same as a number.
    pub key: u64,
    pub url: WorkerUrl,
    /// The URL as text, for logs and metrics.
    pub label: String,
    /// What goes into `Host`.
    pub host: HeaderValue,
    pub addresses: Addresses,
    state: AtomicU8,
    /// Why the last health check was not passed.
    check_error: ArcSwapOption<String>,
    /// What it lists itself.
    pub listing: Listing,
    credentials: ArcSwap<Credentials>,
    /// It is sent requests as they are: its URL has no path, and it has no key of its own.
    takes_as_is: AtomicBool,
    in_flight: AtomicUsize,
    breaker: Breaker,
    recheck: Recheck,
    warmup: Warmup,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
    /// Requests that were sent here after another attempt had failed.
    pub retries: AtomicU64,
}

/// What the health checks say of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// It has not answered yet.
    Pending,
    Healthy,
    /// Its checks fail, but it takes connections: it is used where no worker of its pool is healthy.
    Failing,
    /// It refuses connections at once: trying it costs a request no time, and it may just be restarting. It is used where
    /// no worker of its pool takes connections.
    Refusing,
    /// It takes no connections, and a request would wait for that.
    Unreachable,
}

impl Health {
    /// It was healthy, and has failed its checks since.
    pub fn is_out(self) -> bool {
        matches!(self, Self::Failing | Self::Refusing | Self::Unreachable)
    }
}

impl Worker {
    pub fn new(url: WorkerUrl, health: Health, config: &Config) -> Self {
        let host = HeaderValue::from_str(&url.authority()).expect("an authority is a valid header value");
        let label = url.to_string();
        let key = key_of(&label);
        Self {
            id: format!("{key:016x}"),
            key,
            addresses: Addresses::of(&url),
            takes_as_is: AtomicBool::new(!url.has_base_path()),
            url,
            label,
            host,
            state: AtomicU8::new(health as u8),
            check_error: ArcSwapOption::empty(),
            listing: Listing::default(),
            credentials: ArcSwap::default(),
            in_flight: AtomicUsize::new(0),
            breaker: Breaker::new(config.breakers.settings()),
            recheck: Recheck::default(),
            warmup: Warmup::new(),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    pub fn health(&self) -> Health {
        match self.state.load(Relaxed) {
            0 => Health::Pending,
            1 => Health::Healthy,
            2 => Health::Failing,
            3 => Health::Refusing,
            _ => Health::Unreachable,
        }
    }

    /// A worker that comes back is not given all its requests at once.
    pub fn set_health(&self, health: Health) {
        if self.health().is_out() && health == Health::Healthy {
            self.warmup.start(Instant::now());
        }
        self.state.store(health as u8, Relaxed);
    }

    /// Why the last health check was not passed; `None` if it was, or there was none. One line of bounded length.
    pub fn check_error(&self) -> Option<Arc<String>> {
        self.check_error.load_full()
    }

    fn set_check_error(&self, why: Option<String>) {
        self.check_error.store(why.map(Arc::new));
    }

    /// The models that it lists, in order; none if it has listed none.
    pub fn models(&self) -> Arc<Vec<String>> {
        self.listing.names()
    }

    /// Whether requests are sent to it with the target and the header that they have.
    pub fn takes_as_is(&self) -> bool {
        self.takes_as_is.load(Relaxed)
    }

    pub fn credentials(&self) -> Arc<Credentials> {
        self.credentials.load_full()
    }

    /// Sends other credentials from now on. With others the worker may say more of itself, so it is asked again.
    pub fn set_credentials(&self, credentials: Credentials) {
        if **self.credentials.load() != credentials {
            self.takes_as_is.store(!self.url.has_base_path() && !credentials.replace_callers(), Relaxed);
            self.credentials.store(Arc::new(credentials));
            self.listing.forget();
            self.listing.want();
        }
    }

    /// Requests that it has and has not finished answering.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub fn breaker_state(&self) -> State {
        self.breaker.state(Instant::now())
    }

    /// Whether its breaker keeps requests away for now.
    pub fn is_left_alone(&self) -> bool {
        self.breaker_state() == State::Open
    }

    /// Whether it takes requests now: its checks pass, and its breaker lets requests through.
    pub fn is_available(&self) -> bool {
        self.health() == Health::Healthy && !self.is_left_alone()
    }

    /// Other settings for its breaker, from now on.
    pub fn renew(&self, breakers: &Breakers) {
        self.breaker.renew(breakers.settings(), Instant::now());
    }

    /// A health check has passed: a worker that could not be reached is tried again.
    pub fn check_passed(&self) {
        self.note(self.breaker.check_passed(Instant::now()));
    }

    /// A request could not connect to it: it is checked at once, whenever the next check would be.
    pub fn not_connected(&self) {
        self.recheck.ask();
    }

    pub fn expose(&self, exposition: &mut Exposition) {
        let labels = [("worker", self.label.as_str())];
        let mut gauge = |name, help, value| exposition.gauge(name, help, &labels, value);
        let up = f64::from(u8::from(self.is_available()));
        gauge("smg_worker_health", "1 if the worker passes its checks and its breaker is not open.", up);
        gauge("smg_worker_requests_active", "Requests in flight at the worker.", self.in_flight() as f64);
        let state = f64::from(self.breaker_state().number());
        gauge("smg_worker_cb_state", "Its breaker: 0 closed, 1 open, 2 half open.", state);
        let mut counter = |name, help, value| exposition.counter(name, help, &labels, value);
        let requests = self.requests.load(Relaxed) as f64;
        counter("smg_worker_requests_total", "Requests sent to the worker.", requests);
        counter("smg_worker_selection_total", "Times the worker was picked.", requests);
        counter("smg_worker_errors_total", "Requests that the worker failed.", self.errors.load(Relaxed) as f64);
        let retries = self.retries.load(Relaxed) as f64;
        counter("smg_worker_retries_total", "Requests sent to the worker after another attempt.", retries);
    }

    fn note(&self, change: Option<Change>) {
        match change {
            None => {}
            Some(Change::Opened) => tracing::warn!(worker = %self.label, "the worker fails and is left alone"),
            Some(Change::HalfOpened) => tracing::info!(worker = %self.label, "the worker is tried again"),
            Some(Change::Closed) => {
                self.warmup.start(Instant::now());
                tracing::info!(worker = %self.label, "the worker serves again");
            }
        }
    }
}

/// FNV-1a: the id must be the same in every run and on every gateway.
fn key_of(url: &str) -> u64 {
    url.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl Breakers {
    fn settings(&self) -> Option<BreakerSettings> {
        (!self.disable_circuit_breaker).then_some(BreakerSettings {
            failure_threshold: self.cb_failure_threshold,
            success_threshold: self.cb_success_threshold,
            timeout: self.cb_timeout_duration_secs,
            window: self.cb_window_duration_secs,
        })
    }
}

impl Retries {
    pub fn settings(&self) -> RetrySettings {
        RetrySettings {
            max_attempts: if self.disable_retries { 1 } else { self.retry_max_retries },
            initial: self.retry_initial_backoff_ms,
            max: self.retry_max_backoff_ms,
            multiplier: self.retry_backoff_multiplier,
            jitter: self.retry_jitter_factor,
        }
    }
}

/// A picked worker. It counts as in flight until the lease is dropped, which is when the body ends.
pub struct Lease {
    pub worker: Arc<Worker>,
    /// Its position in the pool.
    pub position: usize,
    /// Until it has been said what became of the request.
    ticket: Option<Ticket>,
}

impl Lease {
    /// `None` if the worker is left alone.
    fn take(worker: &Arc<Worker>, position: usize, now: Instant) -> Option<Self> {
        let ticket = worker.breaker.admit(now)?;
        worker.in_flight.fetch_add(1, Relaxed);
        worker.requests.fetch_add(1, Relaxed);
        Some(Self { worker: worker.clone(), position, ticket: Some(ticket) })
    }

    /// The head of an answer is here. A trial is decided by it; otherwise a good one is good once its body has ended.
    pub fn begun(&mut self, outcome: Outcome) {
        if outcome != Outcome::Succeeded || matches!(self.ticket, Some(Ticket::Trial(_))) {
            self.ended(outcome);
        }
    }

    /// What became of the request; only the first report counts.
    pub fn ended(&mut self, outcome: Outcome) {
        if matches!(outcome, Outcome::Failed | Outcome::Unreachable) {
            self.worker.errors.fetch_add(1, Relaxed);
        }
        if let Some(ticket) = self.ticket.take()
            && !(outcome == Outcome::Succeeded && self.worker.breaker.is_calm())
        {
            self.worker.note(self.worker.breaker.report(ticket, outcome, Instant::now()));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.ended(Outcome::Unknown);
        self.worker.in_flight.fetch_sub(1, Relaxed);
    }
}
