//! Workers with a base path can't be asked for every target: which requests they get, alone and beside other workers.

use crate::support::{ConfigFile, Conn, Gateway, Module, ReceivedRequest, Response, Worker, guest};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Answers with its name and the target.
fn named(name: &'static str) -> Worker {
    Worker::new(move |request, conn| conn.answer(200, format!("{name} {}", request.target)))
}

/// Requests that the gateway says it has sent to this worker.
fn sent_to(gateway: &Gateway, url: &str) -> f64 {
    gateway.metrics().sum("smg_worker_requests_total", &[("worker", url)])
}

/// Requests to a worker with a base path for something else than `/v1/z` and, as health checks do, its models.
fn others(worker: &Worker) -> usize {
    let is_other = |target: &str| !target.ends_with("/v1/z") && !target.ends_with("/v1/models");
    worker.requests().iter().filter(|request| is_other(&request.target)).count()
}

/// A plain worker and one below `base`, which take turns.
fn mixed(plain: &Worker, hosted: &Worker, base: &str) -> (Gateway, String) {
    let url = format!("{}{base}", hosted.url());
    let gateway = Gateway::builder().worker_url(url.clone()).worker(plain).arg("--policy=round_robin").start();
    gateway.wait_for_workers(2);
    (gateway, url)
}

#[test]
fn a_base_path_with_a_version_gives_no_path_a_second_name() {
    let worker = Worker::new(|request, conn| conn.answer(200, &request.target)).bare();
    let text = format!(
        "worker_urls: ['{}/v1']\nenable_wasm: true\nroutes:\n- {{path: /v1/small, max_payload_size: 1}}\n",
        worker.url()
    );
    let gateway = ConfigFile::new(text).gateway().start();
    assert_eq!(gateway.request("POST", "/v1/small", &[], b"12").status, 413);
    gateway.add(&Module::new("auth", &guest("auth")).set("match", json!({"paths": ["/v1/*"]})));
    assert_eq!(gateway.request("POST", "/v1/chat/completions", &[], b"{}").status, 401);
    for path in ["/chat/completions", "/chat/completions?x=/v1/", "/small", "/", "//v1/x", "/V1/x", "/v11/x"] {
        gateway.request("POST", path, &[], b"{}").assert_error(404, "not_found");
    }
    assert!(worker.requests().iter().all(|request| request.target == "/v1/models"), "{:?}", worker.requests());
}

#[test]
fn what_one_worker_can_not_be_asked_for_goes_to_the_others_each_time() {
    let long = format!("/v1/{}", "x".repeat(65_000));
    let longest_base = format!("/{}", "b".repeat(1000));
    for (base, path) in [
        ("/v1", "/tokenize?a=b"),
        ("/v1", "/v1/x/../y"),
        ("/x", "/v1/%2e%2e/y"),
        ("/x", "/..;/y"),
        (longest_base.as_str(), long.as_str()),
    ] {
        let (mut plain, hosted) = (named("plain"), named("hosted"));
        let (gateway, url) = mixed(&plain, &hosted, base);
        for _ in 0..10 {
            assert_eq!(gateway.request("POST", path, &[], b"{}").text(), format!("plain {path}"), "{base}");
        }
        assert_eq!((sent_to(&gateway, &url), sent_to(&gateway, &plain.url())), (0.0, 10.0), "{base} {path}");
        let answers: Vec<_> = (0..4).map(|_| gateway.get("/v1/z").text()).collect();
        assert!(answers.iter().any(|answer| answer.starts_with("hosted")), "{answers:?}");
        // The only one that it could be sent to may come back.
        plain.stop();
        for _ in 0..4 {
            let refused = gateway.request("POST", path, &[], b"{}");
            assert!(matches!(refused.status, 502 | 503), "{base} {path}: {}", refused.status);
        }
        assert_eq!(others(&hosted), 0, "{base} {path}");
    }
}

#[test]
fn another_attempt_goes_to_a_worker_that_can_be_asked_too() {
    let asked = AtomicUsize::new(0);
    let plain = Worker::new(move |request, conn| match asked.fetch_add(1, Ordering::SeqCst) % 3 {
        2 => conn.answer(200, &request.target),
        _ => conn.answer(503, ""),
    });
    let hosted = named("hosted");
    let (gateway, url) = mixed(&plain, &hosted, "/v1");
    for path in ["/tokenize", "/v1/../x", "/v1/%2e/x"] {
        let answer = gateway.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, path));
    }
    assert_eq!((sent_to(&gateway, &url), plain.requests().len()), (0.0, 9));
    assert_eq!(others(&hosted), 0);
}

#[test]
fn a_request_without_a_model_goes_to_a_pool_that_can_take_it() {
    let (hosted, local) = (named("hosted"), named("local"));
    let text = format!(
        "pools:\n- {{model: h, workers: [{{url: '{}/v1'}}]}}\n- {{model: l, workers: [{{url: '{}'}}]}}\n",
        hosted.url(),
        local.url()
    );
    let gateway = ConfigFile::new(text).gateway().start();
    gateway.wait_for_workers(2);
    for (path, wanted) in [("/v1/x", "hosted /v1/x"), ("/info", "local /info"), ("/v1/..", "local /v1/..")] {
        assert_eq!(gateway.get(path).text(), wanted);
    }
    let post = |path: &str, model: &str| gateway.post_json(path, &json!({ "model": model }));
    assert_eq!(post("/tokenize", "l").text(), "local /tokenize");
    post("/tokenize", "h").assert_error(404, "not_found");
    post("/v1/../x", "h").assert_error(400, "invalid_request");
    assert_eq!(sent_to(&gateway, &format!("{}/v1", hosted.url())), 1.0);
}

/// Makes an object whose id begins with `name`, and has those whose ids do.
fn store(name: &'static str) -> impl Fn(&ReceivedRequest, &mut Conn) + Send + Sync {
    move |request, conn| match request.method.as_str() {
        "POST" => conn.answer_json(&json!({"id": format!("{name}_1")})),
        _ if request.target.contains(&format!("/{name}_")) => conn.answer(200, name),
        _ => conn.answer(404, "unknown"),
    }
}

#[test]
fn only_workers_that_can_be_asked_are_searched_for_an_object() {
    let (hosted, a, b) = (Worker::new(store("h")), Worker::new(store("a")), Worker::new(store("b")));
    let url = format!("{}/x", hosted.url());
    let gateway = Gateway::builder().worker_url(url.clone()).worker(&a).worker(&b).arg("--policy=passthrough").start();
    gateway.wait_for_workers(3);
    let get = |path: &str| -> Response { gateway.get(&format!("/v1/responses/{path}")) };
    assert_eq!(gateway.post_json("/v1/responses", &json!({})).text(), r#"{"id":"h_1"}"#);
    // The worker that has it can't be asked in this way, and it is no other worker's.
    get("h_1/../x").assert_error(400, "invalid_request");
    assert_eq!((get("h_1").text(), get("h_1/input_items").text()), ("h".to_owned(), "h".to_owned()));
    assert_eq!(sent_to(&gateway, &url), 3.0);
    for path in ["b_7/./x", "a_7/%2e%2e/x"] {
        assert_eq!(get(path).text(), path[..1]);
    }
    assert_eq!((get("z_7/./x").status, get("z_8/..").status), (404, 404));
    assert_eq!(sent_to(&gateway, &url), 3.0);
    assert_eq!(get("h_2").text(), "h");
    assert!(hosted.requests().iter().all(|request| !request.target.contains("/.") && !request.target.contains("%2e")));
}
