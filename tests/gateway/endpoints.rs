//! The gateway's own endpoints; everything else is the workers'.

use crate::support::{Gate, Gateway, Worker, eventually};
use serde_json::{Value, json};
use std::time::Duration;

fn serving_models(models: &[&str]) -> Worker {
    let data: Vec<Value> =
        models.iter().map(|id| json!({"id": id, "object": "model", "created": 1700000000, "owned_by": "me"})).collect();
    let list = json!({"object": "list", "data": data});
    Worker::new(move |request, conn| match request.target.as_str() {
        "/v1/models" => conn.answer_json(&list),
        _ => conn.answer(404, "no"),
    })
}

#[test]
fn health_and_liveness_need_no_worker() {
    let gateway = Gateway::builder().start_unready();
    let health = gateway.get("/health");
    assert_eq!((health.status, health.text().as_str()), (200, "OK"));
    assert_eq!(gateway.get("/liveness").status, 200);
}

#[test]
fn readiness_counts_the_workers() {
    let (first, second) = (Worker::echo(), Worker::echo());
    let gateway = Gateway::builder().worker(&first).start();
    let answer = gateway.get("/readiness");
    assert_eq!(answer.json(), json!({"status": "ready", "healthy_workers": 1, "total_workers": 1}));
    assert_eq!(answer.headers.get("content-type"), Some("application/json"));
    second.set_health(503);
    let gateway = Gateway::builder().worker(&first).worker(&second).start();
    assert_eq!(gateway.get("/readiness").json(), json!({"status": "ready", "healthy_workers": 1, "total_workers": 2}));
}

#[test]
fn readiness_without_workers_is_503_with_a_reason() {
    let gateway = Gateway::builder().start_unready();
    let answer = gateway.get("/readiness");
    assert_eq!(answer.status, 503);
    assert_eq!(answer.json()["status"], "not ready");
    assert!(answer.json()["reason"].as_str().is_some_and(|r| !r.is_empty()), "{}", answer.text());
}

#[test]
fn models_are_the_union_of_the_workers_lists() {
    let (first, second) = (serving_models(&["llama", "qwen"]), serving_models(&["qwen", "mistral"]));
    let gateway = Gateway::builder().worker(&first).worker(&second).start();
    gateway.wait_for_workers(2);
    let answer = gateway.get("/v1/models");
    assert_eq!((answer.status, &answer.json()["object"]), (200, &json!("list")));
    let body = answer.json();
    let models = body["data"].as_array().expect("a list");
    let mut ids: Vec<&str> = models.iter().map(|m| m["id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["llama", "mistral", "qwen"]);
    for model in models {
        assert_eq!(
            (&model["object"], &model["created"], &model["owned_by"]),
            (&json!("model"), &json!(1700000000), &json!("me"))
        );
    }
}

#[test]
fn a_worker_that_lists_no_models_does_not_hide_the_others() {
    let (first, second) = (serving_models(&["llama"]), Worker::fixed("HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n"));
    let gateway = Gateway::builder().worker(&first).worker(&second).start();
    gateway.wait_for_workers(2);
    let answer = gateway.get("/v1/models");
    assert_eq!((answer.status, &answer.json()["data"][0]["id"]), (200, &json!("llama")));
}

#[test]
fn a_worker_that_is_slow_to_list_its_models_shuts_nobody_out_and_is_asked_once() {
    let (asked, go_on) = (Gate::new(), Gate::new());
    let (says_asked, wait) = (asked.clone(), go_on.clone());
    let worker = Worker::new(move |_, conn| {
        says_asked.open();
        wait.wait();
        conn.answer_json(&json!({"object": "list", "data": [{"id": "slow", "object": "model"}]}));
    });
    let gateway = Gateway::before(&worker);
    let ask = |_| {
        let mut client = gateway.connect();
        client.send_request("GET", "/v1/models", &[], b"");
        client
    };
    let mut first = ask(0);
    asked.wait();
    let mut clients: Vec<_> = (0..400).map(ask).collect();
    eventually(Duration::from_secs(3), || gateway.metrics().sum("smg_admission_inflight", &[]) == 401.0);
    assert_eq!(gateway.get("/workers").status, 200);
    go_on.open();
    assert_eq!(first.read_response().json()["data"][0]["id"], "slow");
    assert!(clients.iter_mut().all(|client| client.read_response().status == 200));
    assert_eq!(worker.requests().len(), 1);
}

#[test]
fn models_without_workers_are_a_503() {
    Gateway::builder().start_unready().get("/v1/models").assert_error(503, "no_available_workers");
}

#[test]
fn server_and_model_info_are_a_workers_own_answers() {
    let worker = Worker::new(|request, conn| conn.answer_json(&json!({"asked": request.target})));
    let gateway = Gateway::before(&worker);
    for path in ["/get_server_info", "/get_model_info"] {
        assert_eq!(gateway.get(path).json(), json!({"asked": path}));
    }
}

#[test]
fn the_list_of_workers_has_the_known_shape() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let answer = gateway.get("/workers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!(body["total"], 1);
    assert!(body["stats"].is_object(), "{body}");
    let listed = &body["workers"][0];
    assert_eq!(listed["url"], worker.url());
    assert_eq!(listed["is_healthy"], true);
    assert_eq!(listed["load"], 0);
    assert!(listed["id"].as_str().is_some_and(|id| !id.is_empty()), "{body}");
    for field in ["model_id", "status", "priority", "cost"] {
        assert!(listed.get(field).is_some(), "no {field} in {body}");
    }
}

#[test]
fn any_other_path_and_method_is_proxied() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "FOO"] {
        for path in ["/", "/v1/chat/completions", "/v1/models/", "/anything?x=y"] {
            let answer = gateway.request(method, path, &[], b"").json();
            assert_eq!((&answer["method"], &answer["path"]), (&json!(method), &json!(path)));
        }
    }
}

#[test]
fn metrics_are_served_on_the_main_port() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    gateway.get("/counted");
    let answer = gateway.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.headers.get("content-type").is_some_and(|t| t.starts_with("text/plain")), "{:?}", answer.headers);
    for name in [
        "smg_http_requests_total",
        "smg_http_responses_total",
        "smg_http_request_duration_seconds",
        "smg_worker_pool_size",
    ] {
        assert!(answer.text().contains(name), "no {name} in {}", answer.text());
    }
}

#[test]
fn metrics_are_also_served_on_a_port_of_their_own_when_asked() {
    let worker = Worker::echo();
    let gateway =
        Gateway::builder().worker(&worker).arg("--prometheus-host=127.0.0.1").arg("--prometheus-port=0").start();
    let get = |path| crate::support::Client::connect(gateway.metrics_address()).get(path);
    let answer = get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("smg_worker_pool_size"));
    assert_eq!(get("/other").status, 404, "only metrics are served there");
    assert!(worker.requests().is_empty());
}
