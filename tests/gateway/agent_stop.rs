//! The end of an agent: what is in flight is finished, nothing new is taken, and the exit code is 0.

use crate::support::{Agent, Decision, Event, Files, Frames, Sentinel, Version, eventually, guest};
use std::time::{Duration, Instant};

/// An agent whose module takes so long for a request, and no time for a response.
fn slow(files: &Files, ms: u32) -> Agent {
    let quick = "(param i32 i32) (result i64) (i64.const 0)";
    let file = files.sentinel("slow", &Sentinel::slow(ms).function("on_response_headers", quick));
    Agent::running(&file).arg("--wasm-max-execution-time-ms=20000").arg("--metrics-port=0").start()
}

#[track_caller]
fn wait_until_busy(agent: &Agent, count: f64) {
    eventually(Duration::from_secs(5), || agent.metrics().sum("smg_wasm_instances", &[("state", "busy")]) == count);
}

#[test]
fn what_is_in_flight_is_answered() {
    let files = Files::new();
    for version in Version::BOTH {
        let mut agent = slow(&files, 600);
        let mut proxies: Vec<_> = (0..3).map(|_| agent.connect(version)).collect();
        proxies.iter_mut().for_each(|proxy| proxy.send(&Event::request()));
        wait_until_busy(&agent, 3.0);
        agent.terminate();
        eventually(Duration::from_secs(5), || Frames::connect(&agent.socket).is_err());
        assert!(!agent.socket.exists(), "a successor may have the path");
        for proxy in &mut proxies {
            assert_eq!(proxy.read().decision, Decision::Allow, "{version:?}");
            assert!(proxy.frames.ends_within(Duration::from_secs(5)), "{version:?}");
        }
        assert_eq!(agent.wait_exit(Duration::from_secs(5)).code(), Some(0));
        assert!(agent.log().contains("drained"), "{}", agent.log());
    }
}

#[test]
fn all_events_of_one_connection_are_answered() {
    let files = Files::new();
    let mut agent = slow(&files, 300);
    let mut proxy = agent.connect(Version::V2);
    let ids = ["a", "b", "c"];
    ids.iter().for_each(|id| proxy.send(&Event::request().id(id)));
    wait_until_busy(&agent, 3.0);
    agent.terminate();
    let mut answered = [(); 3].map(|()| proxy.read().id().to_owned());
    answered.sort_unstable();
    assert_eq!(answered, ids);
    assert!(proxy.frames.ends_within(Duration::from_secs(5)));
    assert_eq!(agent.wait_exit(Duration::from_secs(5)).code(), Some(0));
}

#[test]
fn idle_connections_do_not_hold_it_up() {
    let mut agent = Agent::running(&guest("sentinel-hostile")).start();
    let silent = [agent.frames(), agent.frames()];
    let mut used = Version::BOTH.map(|version| agent.connect(version));
    used.iter_mut().for_each(|proxy| assert_eq!(proxy.ask(&Event::request()).decision, Decision::Allow));
    let start = Instant::now();
    agent.terminate();
    assert_eq!(agent.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    drop(silent);
}

#[test]
fn half_a_frame_does_not_hold_it_up() {
    let mut agent = Agent::running(&guest("sentinel-hostile")).start();
    let mut first = agent.frames();
    first.write(&[0, 0, 1, 0, b'{']).expect("the socket takes five bytes");
    let mut later = Version::BOTH.map(|version| agent.connect(version));
    for proxy in &mut later {
        assert_eq!(proxy.ask(&Event::request()).decision, Decision::Allow);
        proxy.frames.write(&[0, 0, 1]).expect("the socket takes three bytes");
    }
    let start = Instant::now();
    agent.terminate();
    assert_eq!(agent.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let files = Files::new();
    let mut agent = slow(&files, 15_000);
    let mut proxy = agent.connect(Version::V1);
    proxy.send(&Event::request());
    wait_until_busy(&agent, 1.0);
    let start = Instant::now();
    agent.terminate();
    agent.wait_for_log("draining");
    assert!(agent.is_running());
    agent.terminate();
    assert_eq!(agent.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(proxy.try_read(), None);
}

#[test]
fn a_proxy_that_never_stops_asking_does_not_keep_it() {
    for version in Version::BOTH {
        let mut agent = Agent::running(&guest("sentinel-hostile")).start();
        let mut proxy = agent.connect(version);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // Asks on as fast as it is answered, until the end of the connection.
                while proxy.frames.try_send(&Event::request().encode(version)).is_ok() && proxy.try_read().is_some() {}
            });
            agent.terminate();
            assert_eq!(agent.wait_exit(Duration::from_secs(5)).code(), Some(0), "{version:?}");
        });
    }
}
