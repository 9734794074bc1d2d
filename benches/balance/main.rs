//! The balancing policies side by side on simulated model servers: `cargo bench --bench balance` prints the tables of
//! `docs/balancing.md`, the same in every run.
//!
//! What is simulated is what the policies differ in: whose cache has a prompt's beginning, and who waits for whom.
//! `trace.rs` makes the requests and `worker.rs` serves them; here time passes. A policy sees what it would see in the
//! gateway: the routing key, the prompt, and the requests in flight.

mod trace;
mod worker;

use std::collections::BinaryHeap;
use std::time::Duration;

use clap::ValueEnum;
use smg::config::Policy;
use smg::workers::policy::{Ask, Balancer, PolicySettings};

use self::trace::{Session, Shape, Trace};
use self::worker::Worker;

const WORKERS: usize = 8;
/// Seconds of arrivals, and how many of them only warm the caches up.
const LENGTH: f64 = 1500.0;
const WARM_UP: f64 = 300.0;

const CHATS: Shape = Shape { sessions_per_second: 2.5, applications: 40, system: 4000.0, turns: 5.5 };
const SHAPES: [(&str, Shape); 4] = [
    ("Chats, quiet", Shape { sessions_per_second: 1.0, ..CHATS }),
    ("Chats", CHATS),
    ("Chats, crowded", Shape { sessions_per_second: 4.0, ..CHATS }),
    ("Single questions", Shape { sessions_per_second: 35.0, system: 16_000.0, turns: 1.0, ..CHATS }),
];

fn main() {
    // `cargo test --benches` runs this, too, and wants no measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    for (name, shape) in SHAPES {
        println!("\n{name}: {} new conversations a second\n", shape.sessions_per_second);
        println!("| policy | hit rate | mean TTFT | p99 TTFT | busiest/mean | in flight, p99, highest/mean |");
        println!("|---|---:|---:|---:|---:|---:|");
        for policy in Policy::value_variants() {
            let name = policy.to_possible_value().expect("no variant is hidden");
            println!("| {} | {} |", name.get_name(), Simulation::new(*policy, shape).run());
        }
    }
}

/// A turn of a conversation is asked, or its answer ends.
struct Event {
    at: f64,
    session: usize,
    served_by: Option<usize>,
}

/// The earliest comes out of the heap first.
impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.total_cmp(&self.at).then(other.session.cmp(&self.session))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Event {}

struct Simulation {
    balancer: Balancer,
    workers: Vec<Worker>,
    sessions: Vec<Session>,
    events: BinaryHeap<Event>,
    seen: Seen,
}

/// What is measured, after the warm-up.
#[derive(Default)]
struct Seen {
    tokens: usize,
    hits: usize,
    first_tokens: Vec<f64>,
    /// Of each worker, at each request.
    in_flight: [Vec<usize>; WORKERS],
}

impl Simulation {
    fn new(policy: Policy, shape: Shape) -> Self {
        // The policies draw from this thread's generator.
        fastrand::seed(7);
        let keys: Vec<_> = (0..WORKERS as u64).map(|n| (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
        let (sessions, starts) = Trace::new(shape).sessions(LENGTH);
        let begin = |(session, at)| Event { at, session, served_by: None };
        Self {
            balancer: Balancer::new(policy, &PolicySettings::default()).over(&keys),
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            sessions,
            events: starts.into_iter().enumerate().map(begin).collect(),
            seen: Seen::default(),
        }
    }

    fn run(mut self) -> String {
        while let Some(event) = self.events.pop().filter(|event| event.at < LENGTH) {
            match event.served_by {
                None => self.ask(&event),
                Some(worker) => self.answered(&event, worker),
            }
        }
        self.seen.report(&self.workers)
    }

    fn ask(&mut self, event: &Event) {
        let session = &self.sessions[event.session];
        let key = event.session.to_le_bytes();
        let ask = Ask {
            routing_key: Some(&key),
            prompt: Some(&session.text),
            now: Duration::from_secs_f64(event.at),
            target: None,
        };
        let all: [usize; WORKERS] = std::array::from_fn(|at| at);
        let at = self.balancer.choose(&ask, &all, |at| self.workers[at].in_flight as f64).expect("eight candidates");
        if event.at >= WARM_UP {
            self.workers.iter().zip(&mut self.seen.in_flight).for_each(|(worker, seen)| seen.push(worker.in_flight));
        }
        let served = self.workers[at].serve(event.at, session);
        if event.at >= WARM_UP {
            self.seen.tokens += session.tokens();
            self.seen.hits += served.hits;
            self.seen.first_tokens.push(served.first_token - event.at);
            self.workers[at].busy += served.busy;
        }
        self.events.push(Event { at: served.end, session: event.session, served_by: Some(at) });
    }

    fn answered(&mut self, event: &Event, worker: usize) {
        let session = &mut self.sessions[event.session];
        session.answer();
        self.workers[worker].finish(session);
        if let Some(pause) = session.ask() {
            self.events.push(Event { at: event.at + pause, session: event.session, served_by: None });
        }
    }
}

impl Seen {
    fn report(mut self, workers: &[Worker]) -> String {
        self.first_tokens.sort_unstable_by(f64::total_cmp);
        let (count, worst) = (self.first_tokens.len(), self.first_tokens[self.first_tokens.len() * 99 / 100]);
        let p99 = |seen: &mut Vec<usize>| *seen.select_nth_unstable(count * 99 / 100).1 as f64;
        format!(
            "{:.1} % | {:.0} ms | {:.0} ms | {:.2} | {:.2}",
            100.0 * self.hits as f64 / self.tokens as f64,
            1e3 * self.first_tokens.iter().sum::<f64>() / count as f64,
            1e3 * worst,
            highest_over_mean(workers.iter().map(|worker| worker.busy)),
            highest_over_mean(self.in_flight.iter_mut().map(p99)),
        )
    }
}

fn highest_over_mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    let (highest, total) = values.fold((0.0_f64, 0.0), |(highest, total), value| (highest.max(value), total + value));
    highest / (total / count)
}
