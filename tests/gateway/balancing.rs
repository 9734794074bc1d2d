//! Balancing policies end to end: who gets a request, through real pools and several shards.

use crate::support::{Builder, Gate, Gateway, Worker, eventually};
use serde_json::json;
use std::collections::HashSet;
use std::time::Duration;

const NAMES: [&str; 3] = ["0", "1", "2"];

/// Workers that answer with their positions.
fn named() -> [Worker; 3] {
    NAMES.map(|name| Worker::new(move |_, conn| conn.answer(200, name)))
}

fn before(workers: &[Worker; 3], policy: &str) -> Builder {
    let builder = Gateway::builder().workers(workers).args(["--disable-health-check", "--shards=2"]);
    builder.arg(format!("--policy={policy}"))
}

/// Who answers a request with these fields; each on a connection of its own, so that shards take turns.
#[track_caller]
fn who(gateway: &Gateway, fields: &[(&str, &str)]) -> String {
    let answer = gateway.request("POST", "/v1/completions", fields, b"{}");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.text()
}

#[track_caller]
fn who_has(gateway: &Gateway, key: &str) -> String {
    who(gateway, &[("X-SMG-Routing-Key", key)])
}

#[test]
fn requests_with_the_same_key_stay_together() {
    for policy in ["manual", "consistent_hashing"] {
        let workers = named();
        let gateway = before(&workers, policy).start();
        let keys: Vec<_> = (0..20).map(|key| format!("session-{key}")).collect();
        let first: Vec<_> = keys.iter().map(|key| who_has(&gateway, key)).collect();
        for _ in 0..4 {
            let again: Vec<_> = keys.iter().map(|key| who_has(&gateway, key)).collect();
            assert_eq!(again, first, "{policy}");
        }
        assert!(first.iter().collect::<HashSet<_>>().len() > 1, "{policy}: all with one worker");
    }
}

#[test]
fn two_gateways_that_hash_agree_without_talking() {
    let workers = named();
    let gateways = [(); 2].map(|()| before(&workers, "consistent_hashing").start());
    for key in 0..20 {
        let [one, other] = gateways.each_ref().map(|gateway| who_has(gateway, &key.to_string()));
        assert_eq!(one, other, "{key}");
    }
}

#[test]
fn a_client_may_name_its_worker() {
    let workers = named();
    let gateway = before(&workers, "consistent_hashing").start();
    for name in NAMES {
        for key in ["a", "b", "c", "d"] {
            assert_eq!(who(&gateway, &[("X-SMG-Target-Worker", name), ("X-SMG-Routing-Key", key)]), name);
        }
    }
    let by_key = who_has(&gateway, "a");
    for nobody in ["3", "-1", "x", "99999999999999999999"] {
        assert_eq!(who(&gateway, &[("X-SMG-Target-Worker", nobody), ("X-SMG-Routing-Key", "a")]), by_key, "{nobody}");
    }
}

#[test]
fn a_key_whose_worker_is_out_moves_and_only_hashing_moves_it_back() {
    for (policy, returns) in [("manual", false), ("consistent_hashing", true)] {
        let workers = named();
        let builder = Gateway::builder().workers(&workers).arg(format!("--policy={policy}")).arg("--slow-start-secs=0");
        let thresholds = ["--health-failure-threshold=1", "--health-success-threshold=1"];
        let gateway = builder.arg("--health-check-interval-secs=0.1").args(thresholds).start_unready();
        let healthy = |count: u64| gateway.get("/readiness").json()["healthy_workers"] == count;
        eventually(Duration::from_secs(8), || healthy(3));
        let home = who_has(&gateway, "key");
        let worker = &workers[home.parse::<usize>().expect("a position")];
        worker.set_health(503);
        eventually(Duration::from_secs(8), || healthy(2));
        let refuge = who_has(&gateway, "key");
        assert_ne!(refuge, home, "{policy}");
        worker.set_health(200);
        eventually(Duration::from_secs(8), || healthy(3));
        assert_eq!(who_has(&gateway, "key") == home, returns, "{policy}");
    }
}

#[test]
fn a_conversation_that_goes_on_stays_with_the_worker_that_has_read_it() {
    for policy in ["cache_aware", "prefix_hash"] {
        let workers = named();
        let gateway = before(&workers, policy).start();
        let mut homes = HashSet::new();
        for user in 0..14 {
            let question = format!("I am user {user}. {}", format!("Story {user}. ").repeat(60));
            let mut messages = vec![json!({"role": "user", "content": question})];
            let mut ask = || {
                let answer = gateway.post_json("/v1/chat/completions", &json!({"model": "m", "messages": messages}));
                assert_eq!(answer.status, 200);
                messages.push(json!({"role": "assistant", "content": format!("Answer {}", messages.len()).repeat(20)}));
                messages.push(json!({"role": "user", "content": "And then?"}));
                answer.text()
            };
            let home = ask();
            (0..4).for_each(|_| assert_eq!(ask(), home, "{policy}: user {user}"));
            homes.insert(home);
        }
        assert!(homes.len() > 1, "{policy}: strangers are shared out");
    }
}

// A worker is busy until the last byte of its answer.
#[test]
fn the_busy_worker_is_avoided_until_its_stream_ends() {
    for policy in ["least_load", "power_of_two", "cache_aware"] {
        let finish = Gate::new();
        let workers = [(); 2].map(|()| Worker::streaming(&finish));
        let flags = ["--disable-health-check", "--shards=2"];
        let gateway = Gateway::builder().workers(&workers).args(flags).arg(format!("--policy={policy}")).start();
        let mut stream = gateway.connect();
        stream.begin_stream(&[]);
        let busy = workers.iter().find(|worker| !worker.requests().is_empty()).expect("one of them has it");
        (0..20).for_each(|_| assert_eq!(gateway.get("/").status, 200));
        assert_eq!(busy.requests().len(), 1, "{policy}");
        finish.open();
        stream.end_stream();
        eventually(Duration::from_secs(5), || {
            gateway.get("/");
            busy.requests().len() > 1
        });
    }
}
