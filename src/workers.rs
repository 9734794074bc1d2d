//! Workers: the model servers behind the gateway, what is known of them, and how one is chosen.

pub mod client;
pub mod health;
pub mod link;
mod policy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};

use http::HeaderValue;

use crate::config::{Policy, WorkerUrl};
use crate::metrics::Exposition;

/// One model server. What is known of it outlives every snapshot that names it.
pub struct Worker {
    /// Stable for this URL: 16 hexadecimal digits.
    pub id: String,
    pub url: WorkerUrl,
    /// The URL as text, for logs and metrics.
    pub label: String,
    /// What goes into `Host`.
    pub host: HeaderValue,
    state: AtomicU8,
    in_flight: AtomicUsize,
    pub requests: AtomicU64,
    pub errors: AtomicU64,
}

/// What the health checks say of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// It has not answered yet.
    Pending,
    Healthy,
    Unhealthy,
}

impl Health {
    pub fn label(self) -> &'static str {
        match self {
            Health::Pending => "pending",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        }
    }
}

impl Worker {
    pub fn new(url: WorkerUrl, health: Health) -> Self {
        let host = HeaderValue::from_str(&url.authority()).expect("an authority is a valid header value");
        let label = url.to_string();
        Self {
            id: id_of(&label),
            url,
            label,
            host,
            state: AtomicU8::new(health as u8),
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    pub fn health(&self) -> Health {
        match self.state.load(Relaxed) {
            0 => Health::Pending,
            1 => Health::Healthy,
            _ => Health::Unhealthy,
        }
    }

    pub fn set_health(&self, health: Health) {
        self.state.store(health as u8, Relaxed);
    }

    /// Requests that it has and has not finished answering.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }
}

/// FNV-1a: the id must be the same in every run and on every gateway.
fn id_of(url: &str) -> String {
    let hash = url
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// The workers that can serve a request, with one balancing policy.
pub struct Pool {
    /// All of them, as configured.
    pub all: Vec<Arc<Worker>>,
    /// Positions in `all` of those that are healthy.
    healthy: Vec<usize>,
    policy: Policy,
    /// Where round robin goes on; shared with the pools before and after this one.
    turn: Arc<AtomicUsize>,
}

impl Pool {
    /// The pool as the workers' health is now.
    pub fn new(all: Vec<Arc<Worker>>, policy: Policy, turn: Arc<AtomicUsize>) -> Self {
        let healthy = (0..all.len()).filter(|at| all[*at].health() == Health::Healthy).collect();
        Self { all, healthy, policy, turn }
    }

    pub fn healthy_count(&self) -> usize {
        self.healthy.len()
    }

    pub fn healthy(&self) -> impl Iterator<Item = &Arc<Worker>> {
        self.healthy.iter().map(|at| &self.all[*at])
    }

    /// Picks a healthy worker, none of those at the positions in `avoid` if another is left.
    pub fn pick(&self, avoid: &[usize]) -> Option<Lease> {
        let choice = if avoid.is_empty() {
            policy::choose(self.policy, &self.healthy, &self.turn, |at| self.all[at].in_flight())
        } else {
            let others: Vec<_> = self.healthy.iter().copied().filter(|at| !avoid.contains(at)).collect();
            policy::choose(self.policy, &others, &self.turn, |at| self.all[at].in_flight())
        };
        choice.map(|at| Lease::new(self.all[at].clone(), at))
    }

    pub fn expose(&self, exposition: &mut Exposition) {
        exposition.gauge("smg_worker_pool_size", "Workers that are configured.", &[], self.all.len() as f64);
        for worker in &self.all {
            let labels = [("worker", worker.label.as_str())];
            let up = f64::from(u8::from(worker.health() == Health::Healthy));
            exposition.gauge("smg_worker_health", "1 if the worker is healthy.", &labels, up);
            let active = worker.in_flight() as f64;
            exposition.gauge("smg_worker_requests_active", "Requests in flight at the worker.", &labels, active);
            let requests = worker.requests.load(Relaxed) as f64;
            exposition.counter("smg_worker_requests_total", "Requests sent to the worker.", &labels, requests);
            exposition.counter("smg_worker_selection_total", "Times the worker was picked.", &labels, requests);
            let errors = worker.errors.load(Relaxed) as f64;
            exposition.counter("smg_worker_errors_total", "Requests that the worker failed.", &labels, errors);
        }
    }
}

/// A picked worker. It counts as in flight until the lease is dropped, which is when the body ends.
pub struct Lease {
    pub worker: Arc<Worker>,
    /// Its position in the pool.
    pub position: usize,
}

impl Lease {
    fn new(worker: Arc<Worker>, position: usize) -> Self {
        worker.in_flight.fetch_add(1, Relaxed);
        worker.requests.fetch_add(1, Relaxed);
        Self { worker, position }
    }

    /// The worker failed this request.
    pub fn failed(&self) {
        self.worker.errors.fetch_add(1, Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.worker.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(healths: &[Health], policy: Policy) -> Pool {
        let worker = |(at, health): (usize, &Health)| {
            Arc::new(Worker::new(format!("http://w{at}:1").parse().expect("a URL"), *health))
        };
        Pool::new(healths.iter().enumerate().map(worker).collect(), policy, Arc::default())
    }

    #[test]
    fn only_healthy_workers_are_picked_and_the_lease_counts() {
        let pool = pool(&[Health::Pending, Health::Healthy, Health::Unhealthy], Policy::LeastLoad);
        let lease = pool.pick(&[]).expect("one is healthy");
        assert_eq!((lease.position, pool.all[1].in_flight()), (1, 1));
        drop(lease);
        assert_eq!(pool.all[1].in_flight(), 0);
        assert!(pool.pick(&[1]).is_none());
    }
}
