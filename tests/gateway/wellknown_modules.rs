//! The three well-known example modules do what their authors document.

use crate::support::{Gateway, Module, Worker, guest, obliging};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

const KEY: &str = "secret-api-key-12345";

fn with(name: &str, worker: &Worker) -> Gateway {
    let gateway = Gateway::with_modules(worker).start();
    gateway.add(&Module::new(name, &guest(name)));
    gateway
}

#[test]
fn auth_asks_for_the_key_under_api_and_v1() {
    let worker = Worker::echo();
    let gateway = with("auth", &worker);
    let (bearer, api_key) = (format!("Bearer {KEY}"), format!("ApiKey {KEY}"));
    for path in ["/v1/chat/completions", "/v1", "/api/x", "/api", "/v1?x", "/v1/models"] {
        for headers in [
            &[][..],
            &[("X-Api-Key", "wrong")],
            &[("Authorization", "Bearer wrong")],
            &[("Authorization", KEY)],
            &[("Authorization", "Basic x")],
        ] {
            let answer = gateway.request("GET", path, headers, b"");
            assert_eq!((answer.status, answer.text().as_str()), (401, ""), "{path} {headers:?}");
        }
        assert!(worker.requests().is_empty(), "{path}");
    }
    for path in ["/v1/chat/completions", "/api/x"] {
        for header in [("Authorization", &*bearer), ("Authorization", &api_key), ("x-api-key", KEY)] {
            assert_eq!(gateway.request("POST", path, &[header], b"{}").status, 200, "{path} {header:?}");
            assert_eq!(worker.wait_for_request().headers.get(header.0), Some(header.1), "and passes it on");
        }
    }
    for path in ["/", "/health/x", "/v2/x", "/apis"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
}

#[test]
fn logging_marks_a_request_for_the_worker() {
    let worker = Worker::echo();
    let gateway = with("logging", &worker);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    for (path, route) in [("/v1/x", Some("true")), ("/api", Some("true")), ("/other", None)] {
        let before = now();
        let answer = gateway.request("GET", path, &[("X-Request-Id", "r-1")], b"");
        assert_eq!(answer.status, 200);
        let seen = worker.wait_for_request().headers;
        assert_eq!((seen.get("x-request-id"), seen.get("x-wasm-processed")), (Some("r-1"), Some("true")), "{path}");
        let at: u128 = seen.get("x-processed-at").expect("a time").parse().expect("milliseconds");
        assert!((before..=now()).contains(&at), "{before} {at}");
        assert_eq!(seen.get("x-api-route"), route, "{path}");
    }
}

#[test]
fn logging_makes_a_500_of_a_worker_a_503_and_leaves_all_else() {
    let worker = obliging();
    let gateway = with("logging", &worker);
    for (status, wanted) in [("200", 200), ("404", 404), ("500", 503), ("501", 501), ("502", 502), ("503", 503)] {
        let answer = gateway.request("GET", "/x", &[("X-Answer-Status", status)], b"");
        assert_eq!((answer.status, answer.json()["target"].as_str()), (wanted, Some("/x")), "{status}");
    }
}

#[test]
fn ratelimit_lets_sixty_pass_and_refuses_the_sixty_first() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=2").start();
    gateway.add(&Module::new("ratelimit", &guest("ratelimit")).set("instance", json!({ "mode": "single" })));
    let ask = |headers: &[(&str, &str)]| gateway.request("GET", "/v1/x", headers, b"").status;
    // On a connection each, so on both shards.
    let passed = (0..60).filter(|_| ask(&[("Authorization", "Bearer one")]) == 200).count();
    assert_eq!(passed, 60);
    assert_eq!(ask(&[("Authorization", "Bearer one")]), 429);
    assert_eq!(ask(&[("X-Api-Key", "one")]), 429, "the same key in another form");
    assert_eq!(ask(&[("Authorization", "Bearer two")]), 200, "another key is unaffected");
    let forwarded = [("X-Forwarded-For", "10.0.0.1")];
    assert_eq!((0..61).filter(|_| ask(&forwarded) == 200).count(), 60);
    assert_eq!((ask(&forwarded), ask(&[("X-Forwarded-For", "10.0.0.2")])), (429, 200));
    assert_eq!(worker.requests().len(), 60 + 1 + 60 + 1, "what was refused never reached the worker");
}

#[test]
fn ratelimit_counts_exactly_when_many_ask_at_once() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--shards=2").start();
    gateway.add(&Module::new("ratelimit", &guest("ratelimit")).set("instance", json!({ "mode": "single" })));
    let passed: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..10)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = gateway.connect();
                    let mut ask = || {
                        client.send_request("GET", "/", &[("X-Api-Key", "k")], b"");
                        client.read_response().status
                    };
                    (0..12).filter(|_| ask() == 200).count()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("no assertion failed")).sum()
    });
    assert_eq!(passed, 60, "of 120");
}

#[test]
fn the_three_work_together() {
    let worker = obliging();
    let gateway = Gateway::with_modules(&worker).start();
    for name in ["auth", "logging"] {
        gateway.add(&Module::new(name, &guest(name)));
    }
    gateway.add(&Module::new("ratelimit", &guest("ratelimit")).set("instance", json!({ "mode": "single" })));
    assert_eq!(gateway.get("/v1/x").status, 401);
    let headers = [("X-Api-Key", KEY), ("X-Answer-Status", "500")];
    let statuses: Vec<u16> = (0..61).map(|_| gateway.request("GET", "/v1/x", &headers, b"").status).collect();
    assert_eq!(statuses, [vec![503; 60], vec![429]].concat());
    assert_eq!(worker.wait_for_request().headers.get("x-api-route"), Some("true"));
}
