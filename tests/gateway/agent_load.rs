//! Guests that never end, and the events beside them.

use crate::support::{Agent, Decision, Event, Proxy, Timings, Version, eventually, guest};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn hostile() -> Agent {
    Agent::running(&guest("sentinel-hostile")).arg("--metrics-port=0").start()
}

fn busy(agent: &Agent) -> f64 {
    agent.metrics().sum("smg_wasm_instances", &[("state", "busy")])
}

/// Keeps `count` events of `behaviour` going, each on a connection of its own, while `work` is done.
fn beside(agent: &Agent, version: Version, count: usize, behaviour: &str, work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut proxy = agent.connect(version);
                while !done.load(Ordering::SeqCst) {
                    let reply = proxy.ask(&Event::request().doing(behaviour));
                    assert!([Decision::failed(), Decision::Allow].contains(&reply.decision), "{reply:?}");
                }
            });
        }
        let work = || {
            eventually(Duration::from_secs(5), || busy(agent) >= count as f64);
            work();
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

/// How long each of so many events took.
#[track_caller]
fn timed(proxy: &mut Proxy, count: usize) -> Timings {
    let event = Event::request().replying(&json!({ "decision": "block", "status": 418 }));
    Timings::of(count, || assert_eq!(proxy.ask(&event).decision, Decision::block(418, None, &[])))
}

#[test]
fn ten_endless_loops_leave_the_events_of_other_connections_quick() {
    for version in Version::BOTH {
        let agent = hostile();
        beside(&agent, version, 10, "loop", || {
            let timings = timed(&mut agent.connect(version), 50);
            println!("agent {version:?}, beside ten loops: {timings}");
            assert!(timings.usual() < Duration::from_millis(250), "{version:?}: {timings}");
        });
        let timings = timed(&mut agent.connect(version), 50);
        println!("agent {version:?}, after them: {timings}");
    }
}

#[test]
fn loops_on_a_connection_leave_its_other_events_quick() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    (0..10).for_each(|n| proxy.send(&Event::request().id(&format!("slow-{n}")).doing("loop")));
    eventually(Duration::from_secs(5), || busy(&agent) == 10.0);
    // For less time than the loops have.
    let timings = timed(&mut proxy, 10);
    assert!(timings.usual() < Duration::from_millis(250), "{timings}");
    (0..10).for_each(|_| assert_eq!(proxy.read().decision, Decision::failed()));
}

#[test]
fn a_hundred_leaks_of_64_mebibytes_leave_the_memory_as_it_was() {
    let agent = hostile();
    let mut proxy = agent.connect(Version::V2);
    let leak = |proxy: &mut Proxy| {
        assert_eq!(proxy.ask(&Event::request().doing("leak")).decision, Decision::failed());
        assert_eq!(proxy.ask(&Event::request().doing("leak-50")).decision, Decision::Allow);
    };
    (0..5).for_each(|_| leak(&mut proxy));
    let before = agent.memory();
    (0..20).for_each(|_| leak(&mut proxy));
    eventually(Duration::from_secs(5), || agent.memory() < before + (64 << 20));
}

#[test]
fn four_connections_of_mixed_events_all_get_their_own_answers() {
    let agent = hostile();
    std::thread::scope(|scope| {
        for version in [Version::V1, Version::V2, Version::V2, Version::V2] {
            let agent = &agent;
            scope.spawn(move || {
                let mut proxy = agent.connect(version);
                for n in 0..300_u16 {
                    let id = format!("c-{n}");
                    let status = 400 + n % 100;
                    let [request, response] = Event::both().map(|event| event.id(&id));
                    let event = if n % 3 == 0 { response } else { request };
                    let reply = proxy.ask(&event.replying(&json!({ "decision": "block", "status": status })));
                    assert_eq!(reply.decision, Decision::block(status, None, &[]));
                }
            });
        }
    });
}
