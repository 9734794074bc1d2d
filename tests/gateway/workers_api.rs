//! `/workers`: adding, reading, changing and removing workers; what is refused, and who of two comes too late.

use crate::support::{Gateway, Response, Worker, eventually, holds_for};
use serde_json::{Value, json};
use std::time::Duration;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const LIMIT: Duration = Duration::from_secs(5);

fn empty() -> Gateway {
    Gateway::builder().args(["--health-check-interval-secs=0.2", "--health-check-timeout-secs=0.3"]).start_unready()
}

#[track_caller]
fn added(gateway: &Gateway, said: &Value) -> (String, Response) {
    let answer = gateway.post_json("/workers", said);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let id = answer.json()["worker_id"].as_str().expect("an id").to_owned();
    (format!("/workers/{id}"), answer)
}

fn change(gateway: &Gateway, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Response {
    gateway.request(method, path, &[&[JSON], fields].concat(), body.as_bytes())
}

fn tag(answer: &Response) -> &str {
    answer.headers.get("etag").unwrap_or_else(|| panic!("no tag: {}", answer.text()))
}

#[test]
fn a_worker_is_added_shown_and_serves_once_it_answers() {
    let (gateway, worker) = (empty(), Worker::echo());
    gateway.get("/").assert_error(503, "no_available_workers");
    let (path, answer) = added(&gateway, &json!({"url": worker.url(), "priority": 7, "cost": 0.5, "model_id": "m"}));
    assert_eq!(answer.headers.get("location"), Some(path.as_str()));
    assert_eq!(answer.json()["status"], "accepted");
    eventually(LIMIT, || gateway.get(&path).json()["is_healthy"] == true);
    assert_eq!(gateway.get("/served").json()["path"], "/served");
    let one = gateway.get(&path).json();
    let shown =
        ["url", "model_id", "priority", "cost", "status", "load", "circuit_breaker"].map(|name| one[name].clone());
    let expected = json!([worker.url(), "m", 7, 0.5, "ready", 0, "closed"]);
    assert_eq!(json!(shown), expected);
    let list = gateway.get("/workers").json();
    assert_eq!((&list["total"], &list["workers"][0]["id"]), (&json!(1), &one["id"]));
    assert_eq!(list["stats"]["healthy_workers"], 1);
    assert_eq!(gateway.get("/readiness").json()["total_workers"], 1);
}

#[test]
fn put_says_everything_and_patch_what_changes() {
    let (gateway, worker) = (empty(), Worker::echo());
    let (path, _) = added(&gateway, &json!({"url": worker.url(), "priority": 7, "cost": 2.0, "model_id": "m"}));
    let about = || ["priority", "cost", "model_id"].map(|name| gateway.get(&path).json()[name].clone());
    assert_eq!(change(&gateway, "PATCH", &path, &[], "{\"cost\":3.0}").status, 202);
    assert_eq!(json!(about()), json!([7, 3.0, "m"]));
    let same = format!("{{\"url\":\"{}/\",\"priority\":9}}", worker.url());
    assert_eq!(change(&gateway, "PUT", &path, &[], &same).status, 202);
    assert_eq!(json!(about()), json!([9, 1.0, "unknown"]));
    let moved = change(&gateway, "PATCH", &path, &[], "{\"url\":\"http://127.0.0.1:1\"}");
    assert_eq!((moved.status, &moved.json()["error"]["code"]), (400, &json!("invalid_worker")));
}

#[test]
fn what_is_there_already_and_what_is_not_there() {
    let (gateway, worker) = (empty(), Worker::echo());
    let (path, _) = added(&gateway, &json!({"url": worker.url()}));
    for same in [worker.url(), format!("{}/", worker.url()), worker.url().replace("http", "HTTP")] {
        let again = gateway.post_json("/workers", &json!({"url": same, "model_id": "m"}));
        assert_eq!((again.status, &again.json()["error"]["code"]), (409, &json!("worker_exists")), "{same}");
    }
    assert_eq!(gateway.get("/workers").json()["total"], 1);
    let nobody = "/workers/0123456789abcdef";
    for (method, body) in [("GET", ""), ("PUT", "{}"), ("PATCH", "{}"), ("DELETE", "")] {
        let answer = change(&gateway, method, nobody, &[], body);
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!("worker_not_found")), "{method}");
    }
    for (method, path, allowed) in [
        ("DELETE", "/workers", "GET, POST"),
        ("POST", &path, "GET, PUT, PATCH, DELETE"),
        ("PUT", "/workers", "GET, POST"),
    ] {
        let answer = change(&gateway, method, path, &[], "{}");
        assert_eq!((answer.status, answer.headers.get("allow")), (405, Some(allowed)), "{method}");
    }
}

#[test]
fn what_is_said_badly_changes_nothing() {
    let (gateway, worker) = (empty(), Worker::echo());
    let (path, _) = added(&gateway, &json!({"url": worker.url(), "priority": 7}));
    eventually(LIMIT, || gateway.get(&path).json()["is_healthy"] == true);
    let before = gateway.get(&path).json();
    for (body, status) in [
        ("", 400),
        ("{", 400),
        ("{} {}", 400),
        ("[]", 422),
        ("{\"priority\":\"high\"}", 422),
        ("{\"priority\":-1}", 422),
        ("{\"prio\":1}", 422),
        ("{\"url\":1}", 422),
        ("{\"cost\":-1}", 400),
        ("{\"model_id\":\"\"}", 400),
    ] {
        for (method, path) in [("POST", "/workers"), ("PUT", &path), ("PATCH", &path)] {
            let answer = change(&gateway, method, path, &[], body);
            assert_eq!(answer.status, status, "{method} {body:?}: {}", answer.text());
        }
    }
    let missing = gateway.post_json("/workers", &json!({"model_id": "m"}));
    assert_eq!(missing.status, 422);
    assert!(missing.text().contains("url"), "{}", missing.text());
    let wrong = gateway.post_json("/workers", &json!({"url": worker.url(), "priority": "x"}));
    assert!(wrong.text().contains("priority"), "the path of the field: {}", wrong.text());
    for kind in [&[][..], &[("Content-Type", "text/plain")], &[("Content-Type", "application/x-www-form-urlencoded")]] {
        for (method, path) in [("POST", "/workers"), ("PUT", &path), ("PATCH", &path)] {
            assert_eq!(gateway.request(method, path, kind, b"{}").status, 415, "{method} {kind:?}");
        }
    }
    assert_eq!(gateway.get("/workers").json()["workers"], json!([before]));
}

// What scripts for Shepherd Model Gateway send, and wait for.
#[test]
fn labels_and_runtime_are_kept_and_shown_and_the_status_is_that_of_its_kind() {
    let (gateway, worker) = (empty(), Worker::echo());
    let said = json!({
        "url": worker.url(), "worker_type": "regular", "labels": {"zone": "a", "": "x"}, "runtime_type": "vllm",
    });
    assert_eq!(gateway.post_json("/workers", &said).status, 400, "a label has a name");
    worker.set_health(503);
    let said = json!({"url": worker.url(), "worker_type": "regular", "labels": {"zone": "a"}, "runtime_type": "vllm"});
    let (path, _) = added(&gateway, &said);
    let shown =
        || ["status", "worker_type", "runtime_type", "labels"].map(|name| gateway.get(&path).json()[name].clone());
    assert_eq!(json!(shown()), json!(["pending", "regular", "vllm", {"zone": "a"}]));
    worker.set_health(200);
    eventually(LIMIT, || shown()[0] == "ready");
    worker.set_health(503);
    eventually(LIMIT, || shown()[0] == "not_ready");
    assert_eq!(change(&gateway, "PATCH", &path, &[], "{\"labels\":{\"rack\":\"7\"}}").status, 202);
    assert_eq!(json!(shown()), json!(["not_ready", "regular", "vllm", {"rack": "7"}]));
    assert_eq!(change(&gateway, "PUT", &path, &[], "{}").status, 202);
    assert_eq!(json!(shown()), json!(["not_ready", "regular", "unspecified", {}]));
}

#[test]
fn what_others_offer_for_a_worker_is_refused_by_name() {
    let (gateway, worker) = (empty(), Worker::echo());
    let many: serde_json::Map<_, _> = (0..33).map(|i| (i.to_string(), json!("x"))).collect();
    for (field, value, status) in [
        ("worker_type", json!("prefill"), 422),
        ("api_key", json!(["s3cret"]), 422),
        ("api_key", json!("s3cret s3cret"), 422),
        ("api_key_env", json!("PATH"), 422),
        ("api_key_env", json!("SMG_API_KEY"), 422),
        ("api_key_env", json!("SMG_NOT_SET_API_KEY"), 422),
        ("api_key_file", json!("/s3cret"), 422),
        ("disable_health_check", json!(true), 422),
        ("health", json!({"check_interval_secs": 1}), 422),
        ("bootstrap_port", json!(9000), 422),
        ("bootstrap_host", json!("a"), 422),
        ("labels", json!({"a": 1}), 422),
        ("labels", json!({"a": "x".repeat(257)}), 400),
        ("labels", json!(many), 400),
        ("runtime_type", json!("x".repeat(65)), 400),
    ] {
        let answer = gateway.post_json("/workers", &json!({"url": worker.url(), field: value}));
        assert_eq!(answer.status, status, "{field}: {}", answer.text());
        let text = answer.text();
        assert!(text.contains(field) && !text.contains("s3cret"), "{text}");
    }
    assert_eq!(gateway.get("/workers").json()["total"], 0);
}

// Section 3, case 46.
#[test]
fn urls_that_are_none_and_places_where_no_worker_must_be_are_refused() {
    let gateway = Gateway::builder().args(["--prometheus-host=127.0.0.1", "--prometheus-port=0"]).start_unready();
    let own = gateway.address.port();
    let mapped = format!("http://[::ffff:127.0.0.1]:{own}");
    let metrics = format!("http://{}", gateway.metrics_address());
    for url in [
        "",
        "worker:8000",
        "file:///etc/passwd",
        "gopher://127.0.0.1:70",
        "http://user:password@127.0.0.1:8000",
        "http://127.0.0.1:8000@evil.example",
        "http://127.0.0.1:8000\r\nX-Evil: 1",
        "http://127.0.0.1:8000 ",
        "http://127.0.0.1:8000/v1/..",
        "http://127.0.0.1:8000/v1/%2e%2e",
        "http://127.0.0.1:8000//v1",
        "http://127.0.0.1:8000/v1?x",
        "http://user@127.0.0.1:8000/v1",
        "http://169.254.169.254/latest",
        "http://127.0.0.1:8000?x",
        "http://127.0.0.1:0",
        "http://169.254.169.254",
        "http://[::ffff:169.254.169.254]",
        "http://[fe80::1]:80",
        "http://[fd00:ec2::254]",
        "http://100.100.100.200",
        "http://168.63.129.16",
        "http://0.0.0.0:8000",
        "http://[::]:8000",
        "http://255.255.255.255:8000",
        "http://224.0.0.1:8000",
        // Spellings that some resolvers take for an address: 169.254.169.254, 0.0.0.0, 127.0.0.1.
        "http://2852039166",
        "http://0xa9fea9fe",
        "http://0XA9FEA9FE.",
        "http://025177524776",
        "http://0251.0376.0251.0376",
        "http://0xa9.0xfe.0xa9.0xfe:8000",
        "http://169.254.43518",
        "http://169.16689662",
        "http://169.254.169.0376",
        "http://169.254.169.254.",
        "http://169.254.169.254.:8000",
        "http://0",
        "http://0x",
        "http://0.0:8000",
        "http://127.1:8000",
        "http://1.2.3.4.5",
        "http://999999999999",
        "http://worker.0x7f",
        "http://localhost.:8000",
        "http://worker.example.:8000",
        &format!("http://127.0.0.1:{own}"),
        &mapped,
        &metrics,
    ] {
        let answer = gateway.post_json("/workers", &json!({ "url": url }));
        let code = answer.json()["error"]["code"].clone();
        assert_eq!((answer.status, code), (400, json!("invalid_worker")), "{url:?}");
    }
    assert_eq!(gateway.get("/workers").json()["total"], 0);
}

// Section 3, case 46: a name is judged by what it stands for.
#[test]
fn a_name_that_stands_for_the_gateway_itself_never_becomes_a_worker() {
    let gateway = empty();
    let (path, _) = added(&gateway, &json!({"url": format!("http://localhost:{}", gateway.address.port())}));
    holds_for(Duration::from_millis(600), || gateway.get(&path).json()["is_healthy"] == false);
    gateway.get("/").assert_error(503, "no_available_workers");
}

#[test]
fn of_two_who_change_the_same_worker_one_is_told() {
    let (gateway, worker) = (empty(), Worker::echo());
    let (path, answer) = added(&gateway, &json!({"url": worker.url()}));
    let first = tag(&answer).to_owned();
    assert_eq!(tag(&gateway.get(&path)), first);
    let unchanged = gateway.request("GET", &path, &[("If-None-Match", &first)], b"");
    assert_eq!((unchanged.status, tag(&unchanged), unchanged.body.len()), (304, first.as_str(), 0));
    let winner = change(&gateway, "PATCH", &path, &[("If-Match", &first)], "{\"priority\":1}");
    assert_eq!(winner.status, 202);
    let second = tag(&winner).to_owned();
    assert_ne!(first, second);
    for (method, body) in [("PATCH", "{\"priority\":2}"), ("PUT", "{\"priority\":2}"), ("DELETE", "")] {
        let loser = change(&gateway, method, &path, &[("If-Match", &first)], body);
        assert_eq!((loser.status, &loser.json()["error"]["code"]), (412, &json!("precondition_failed")), "{method}");
    }
    let shown = gateway.request("GET", &path, &[("If-None-Match", &first)], b"");
    assert_eq!((shown.status, &shown.json()["priority"], tag(&shown)), (200, &json!(1), second.as_str()));
    let several = format!("\"other\", {second}");
    assert_eq!(change(&gateway, "PATCH", &path, &[("If-Match", &several)], "{\"cost\":5.0}").status, 202);
    assert_eq!(change(&gateway, "DELETE", &path, &[("If-Match", "*")], "").status, 202);
}

#[test]
fn the_list_has_a_tag_that_changes_with_every_change() {
    let (gateway, workers) = (empty(), [Worker::echo(), Worker::echo()]);
    let empty_tag = tag(&gateway.get("/workers")).to_owned();
    let add = |worker: &Worker, tag: &str| {
        let body = json!({"url": worker.url()}).to_string();
        change(&gateway, "POST", "/workers", &[("If-Match", tag)], &body).status
    };
    assert_eq!(add(&workers[0], &empty_tag), 202);
    assert_eq!(add(&workers[1], &empty_tag), 412, "it is not empty any more");
    eventually(LIMIT, || gateway.get("/workers").json()["stats"]["healthy_workers"] == 1);
    let list = gateway.get("/workers");
    assert_ne!(tag(&list), empty_tag);
    assert_eq!(gateway.request("GET", "/workers", &[("If-None-Match", tag(&list))], b"").status, 304);
    assert_eq!(add(&workers[1], tag(&list)), 202);
}
