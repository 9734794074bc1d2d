//! `routes`: what is different for some paths.

use crate::support::{ConfigFile, Gateway, H2, Last, Module, StreamEnd, Worker, eventually, guest, obliging};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn with_routes(worker: &Worker, routes: &str) -> Gateway {
    ConfigFile::new(format!("worker_urls: [{}]\nroutes:\n{routes}", worker.url())).gateway().start()
}

#[test]
fn a_route_has_times_of_its_own() {
    let worker = Worker::new(|request, conn| {
        if request.target.ends_with("/body") {
            conn.start_events();
        }
        std::thread::sleep(Duration::from_millis(700));
        match request.target.ends_with("/body") {
            true => conn.chunk(""),
            false => conn.answer(200, "late"),
        }
    });
    let routes = "- {path: /whole/*, request_timeout_secs: 0.2}\n- {path: /first/*, first_byte_timeout_secs: 0.2}\n";
    let gateway = with_routes(&worker, routes);
    gateway.get("/whole/head").assert_error(504, "upstream_timeout");
    gateway.get("/first/head").assert_error(504, "upstream_first_byte_timeout");
    for path in ["/first/body", "/other/head", "/whole", "/first"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
}

#[test]
fn a_route_may_give_more_time_than_others_have() {
    let worker = Worker::new(|request, conn| {
        if request.target.ends_with("/body") {
            conn.start_events();
        }
        conn.wait_peer_closed(Duration::from_secs(2));
        match request.target.ends_with("/body") {
            true => conn.chunk(""),
            false => conn.answer(200, "late"),
        }
    });
    let text = format!(
        "worker_urls: [{}]\nrequest_timeout_secs: 0.2\nroutes:\n- {{path: /long/*, request_timeout_secs: 20}}\n",
        worker.url()
    );
    let gateway = ConfigFile::new(text).gateway().start();
    let (mut client, mut other) = (gateway.connect(), H2::connect(&gateway));
    let streams = ["/long/head", "/long/body"].map(|path| other.start("GET", path, &[], Last::Yes));
    assert_eq!(other.get("/short").status, 504);
    for (path, stream) in ["/long/head", "/long/body"].into_iter().zip(streams) {
        assert_eq!(client.get(path).status, 200, "{path}");
        let answer = other.wait(stream);
        assert_eq!((answer.status, answer.end), (200, StreamEnd::Clean), "{path}");
    }
    assert_eq!(client.get("/short").status, 504);
}

#[test]
fn a_route_may_forbid_retries() {
    let turn = AtomicUsize::new(0);
    let worker = Worker::new(move |_, conn| {
        let is_first = turn.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        conn.answer(if is_first { 503 } else { 200 }, "");
    });
    let gateway = with_routes(&worker, "- {path: /once, retries: false}\n- {path: /again, retries: true}\n");
    for (path, status, requests) in [("/again", 200, 2), ("/other", 200, 2), ("/once", 503, 1)] {
        let before = worker.requests().len();
        assert_eq!(gateway.get(path).status, status, "{path}");
        assert_eq!(worker.requests().len() - before, requests, "{path}");
    }
}

#[test]
fn a_route_has_a_rate_and_a_largest_body_of_its_own() {
    let worker = Worker::echo();
    let routes = "- {path: /few, rate_limit_tokens_per_second: 0.01}\n- {path: /small, max_payload_size: 3}\n";
    let gateway = with_routes(&worker, routes);
    assert_eq!(gateway.get("/few").status, 200);
    let refused = gateway.get("/few");
    refused.assert_error(429, "rate_limit_exceeded");
    let wait: u64 = refused.headers.get("retry-after").and_then(|wait| wait.parse().ok()).expect("a number");
    assert!((1..=100).contains(&wait), "{wait}");
    for _ in 0..5 {
        assert_eq!(gateway.get("/few/x").status, 200, "another path");
    }
    assert_eq!(gateway.request("POST", "/small", &[], b"123").status, 200);
    assert_eq!(gateway.request("POST", "/small", &[], b"1234").status, 413);
    assert_eq!(gateway.request("POST", "/large", &[], b"1234").status, 200);
}

#[test]
fn a_route_names_the_pool_for_its_methods_whatever_the_body_says() {
    let named = |name: &'static str| Worker::new(move |_, conn| conn.answer(200, name));
    let (one, other) = (named("one"), named("other"));
    let file = ConfigFile::new(format!(
        "pools:\n- {{model: one, workers: [{}]}}\n- {{model: other, workers: [{}]}}\n\
         routes:\n- {{path: /fixed, methods: [POST, PUT], pool: other}}\n",
        one.url(),
        other.url()
    ));
    let gateway = file.gateway().start();
    gateway.wait_for_workers(2);
    let body = json!({ "model": "one" }).to_string();
    let ask = |method: &str, path: &str, body: &str| {
        gateway.request(method, path, &[("Content-Type", "application/json")], body.as_bytes()).text()
    };
    assert_eq!(ask("POST", "/fixed", &body), "other");
    assert_eq!(ask("PUT", "/fixed", "no JSON"), "other");
    assert_eq!(ask("PATCH", "/fixed", &body), "one");
    assert_eq!(ask("POST", "/fixed/x", &body), "one");
}

#[test]
fn a_route_says_which_modules_see_its_requests() {
    let worker = obliging();
    let file = ConfigFile::new(format!(
        "worker_urls: [{}]\nenable_wasm: true\nroutes:\n- {{path: /none/*, modules: none}}\n\
         - {{path: /named/*, modules: [hostile]}}\n- {{path: /others/*, modules: [other]}}\n\
         - {{path: /all/*, modules: all}}\n",
        worker.url()
    ));
    let gateway = file.gateway().start();
    gateway.add(&Module::hostile());
    let rejects = |path: &str| gateway.request("GET", path, &[("X-Hostile", "reject:418")], b"").status == 418;
    let answers = |path: &str| {
        let answer = ("X-Answer", "X-Hostile-Response: status:418");
        gateway.request("GET", path, &[answer], b"").status == 418
    };
    for (path, seen) in [("/none/", false), ("/named/", true), ("/others/", false), ("/all/", true), ("/", true)] {
        assert_eq!((rejects(path), answers(path)), (seen, seen), "{path}");
    }
}

// A module may come later by the admin API; most often its name is misspelt, and the route is open.
#[test]
fn a_route_that_names_a_module_which_is_not_deployed_is_warned_of() {
    let worker = Worker::echo();
    let text = |name: &str| {
        let module = format!("enable_wasm: true\nmodules: [{{name: auth, file: {}}}]\n", guest("auth"));
        format!("worker_urls: [{}]\n{module}routes: [{{path: /v1/*, modules: [{name}]}}]\n", worker.url())
    };
    let says = "a route names a module that is not deployed";
    let file = ConfigFile::new(text("atuh"));
    let gateway = file.gateway().start();
    let line = gateway.wait_for_log(says);
    assert!(line.contains("WARN") && ["/v1/*", "atuh", "\"auth\""].iter().all(|word| line.contains(word)), "{line}");
    file.rewrite(text("auth"));
    gateway.reload();
    assert_eq!(gateway.get("/v1/x").status, 401);
    file.rewrite(text("other"));
    gateway.reload();
    eventually(Duration::from_secs(5), || gateway.log().contains("other"));
    assert_eq!(gateway.log().matches(says).count(), 2, "not where the name is right: {}", gateway.log());
}

// The section `modules`: what is deployed at start, in its order.
#[test]
fn the_modules_of_the_file_are_deployed_at_start_or_there_is_no_start() {
    let worker = Worker::echo();
    let text = |file: &str| {
        let url = worker.url();
        format!(
            "worker_urls: [{url}]\nenable_wasm: true\nmodules:\n- {{name: auth, file: {file}, order: 3, match: {{paths: [/v1/*]}}}}\n"
        )
    };
    let file = ConfigFile::new(text(&guest("auth")));
    let gateway = file.gateway().start();
    assert_eq!((gateway.get("/v1/models").status, gateway.get("/api/x").status), (401, 200), "only below /v1");
    let listed = gateway.modules();
    let module = &listed["modules"][0];
    assert_eq!(listed["modules"].as_array().map(Vec::len), Some(1), "{listed}");
    assert!(module.to_string().contains("\"auth\""), "{module}");
    file.rewrite(text("/nowhere.wasm"));
    let ran = crate::support::run(&["--port=0", "--config", &file.path], &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("auth") && ran.stderr.contains("/nowhere.wasm"), "{}", ran.stderr);
}
