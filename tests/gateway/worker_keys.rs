//! Workers that want a key: who is sent which, with what, and who never sees it.

use crate::support::{ConfigFile, Gateway, Worker, eventually, guest};
use serde_json::json;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// A worker that answers nobody without this key, not even a health check, and otherwise with its name and what it was
/// sent in the way of keys.
fn wanting(key: &'static str, model: &'static str) -> Worker {
    Worker::new(move |request, conn| {
        let bearer = format!("Bearer {key}");
        match (request.headers.get("authorization") == Some(&bearer), request.target.as_str()) {
            (false, _) => conn.answer(401, "no key"),
            (true, "/v1/models") => conn.answer_json(&json!({"object": "list", "data": [{"id": model}]})),
            (true, _) => conn.answer(200, format!("{model} {}", presented(request))),
        }
    })
    .bare()
}

/// Every field that could carry a key.
fn presented(request: &crate::support::ReceivedRequest) -> String {
    let fields = request
        .headers
        .iter()
        .filter(|(name, _)| ["authorization", "x-api-key", "api-key"].contains(&&*name.to_lowercase()));
    fields.map(|(name, value)| format!("{}={value}", name.to_lowercase())).collect::<Vec<_>>().join(" ")
}

/// What the worker for this model answers a caller with keys of its own.
fn ask(gateway: &Gateway, model: &str) -> String {
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", "Bearer callers"),
        ("X-Api-Key", "callers"),
        ("api-key", "callers"),
    ];
    gateway.request("POST", "/v1/chat/completions", &headers, format!("{{\"model\":\"{model}\"}}").as_bytes()).text()
}

fn models(gateway: &Gateway) -> Vec<String> {
    let list = gateway.get("/v1/models").json();
    list["data"].as_array().expect("a list").iter().map(|model| model["id"].as_str().expect("an id").into()).collect()
}

/// All that the gateway's own questions and requests presented to a worker.
fn all_presented(worker: &Worker) -> Vec<String> {
    let mut all: Vec<_> = worker.requests().iter().map(presented).collect();
    all.sort();
    all.dedup();
    all
}

#[test]
fn one_key_for_all_workers_is_sent_with_everything() {
    let workers = [wanting("k1-s3cret", "a"), wanting("k1-s3cret", "b")];
    for gateway in [
        Gateway::builder().workers(&workers).arg("--worker-api-key=k1-s3cret").start(),
        Gateway::builder().workers(&workers).env("SMG_WORKER_API_KEY", "k1-s3cret").start(),
    ] {
        gateway.wait_for_workers(2);
        assert_eq!(models(&gateway), ["a", "b"]);
        assert_eq!(ask(&gateway, "a"), "a authorization=Bearer k1-s3cret");
        assert_eq!(ask(&gateway, "b"), "b authorization=Bearer k1-s3cret");
        assert_eq!(gateway.get("/get_server_info").status, 200);
        let list = gateway.get("/workers");
        assert_eq!(list.json()["workers"][0]["has_api_key"], true);
        assert!(!list.text().contains("s3cret") && !gateway.log().contains("s3cret"));
    }
    for worker in &workers {
        assert_eq!(all_presented(worker), ["authorization=Bearer k1-s3cret"]);
    }
}

#[test]
fn each_worker_of_the_file_is_sent_its_own_key_alone() {
    let (a, b, c) = (wanting("key-a", "a"), wanting("key-b", "b"), wanting("key-c", "c"));
    let files = crate::support::Files::new();
    let key = files.write("key", "key-c\n");
    let text = format!(
        "worker_api_key: key-of-all\npools:\n- {{model: a, workers: [{{url: {}, api_key: key-a}}]}}\n\
         - {{model: b, workers: [{{url: {}, api_key_env: KEY_OF_B}}]}}\n- {{model: c, workers: [{{url: {}, api_key_file: {key}}}]}}\n",
        a.url(),
        b.url(),
        c.url(),
    );
    let file = ConfigFile::beside(files, &text);
    let gateway = file.gateway().env("KEY_OF_B", "key-b").start();
    gateway.wait_for_workers(3);
    assert_eq!(models(&gateway), ["a", "b", "c"]);
    for model in ["a", "b", "c"] {
        assert_eq!(ask(&gateway, model), format!("{model} authorization=Bearer key-{model}"));
    }
    for (worker, name) in [(&a, "a"), (&b, "b"), (&c, "c")] {
        assert_eq!(all_presented(worker), [format!("authorization=Bearer key-{name}")]);
    }
    // Another key in the file is another key from the next request on, and is said to be a change.
    file.rewrite(text.replace("api_key: key-a", "api_key: key-z"));
    assert!(gateway.reload().contains("worker_keys"), "{}", gateway.log());
    assert_eq!(ask(&gateway, "a"), "no key");
}

#[test]
fn a_key_that_the_admin_api_is_told_is_used_and_never_shown() {
    let worker = wanting("k-s3cret", "m");
    let (headers, fast) = ([("Content-Type", "application/json")], "--health-check-interval-secs=0.2");
    let gateway =
        Gateway::builder().arg(fast).env("OTHER_API_KEY", "k-s3cret").env("OTHER", "k-s3cret").start_unready();
    let added = gateway.post_json("/workers", &json!({"url": worker.url(), "api_key": "k-s3cret"}));
    assert_eq!(added.status, 202, "{}", added.text());
    let path = format!("/workers/{}", added.json()["worker_id"].as_str().expect("an id"));
    eventually(LIMIT, || gateway.get(&path).json()["models"] == json!(["m"]));
    assert_eq!(ask(&gateway, "m"), "m authorization=Bearer k-s3cret");
    assert!(all_presented(&worker) == ["authorization=Bearer k-s3cret"]);
    let shown = gateway.get(&path);
    assert_eq!(shown.json()["has_api_key"], true);
    let tag = shown.headers.get("etag").expect("a tag").to_owned();
    let change = |method: &str, body: &str| {
        let answer = gateway.request(method, &path, &headers, body.as_bytes());
        assert!(!answer.text().contains("s3cret"), "{}", answer.text());
        (answer.status, ask(&gateway, "m"))
    };
    assert_eq!(change("PATCH", "{\"priority\":3}").1, "m authorization=Bearer k-s3cret", "it stays");
    assert_eq!(change("PATCH", "{\"api_key\":\"wrong\"}"), (202, "no key".into()));
    assert_ne!(gateway.get(&path).headers.get("etag"), Some(tag.as_str()), "another key is a change");
    for bad in
        ["{\"api_key_env\":\"OTHER\"}", "{\"api_key_env\":\"OTHER_API_KEY\",\"api_key\":\"k\"}", "{\"api_key\":\"\"}"]
    {
        assert_eq!(change("PATCH", bad), (422, "no key".into()), "{bad}");
    }
    assert_eq!(change("PATCH", "{\"api_key_env\":\"OTHER_API_KEY\"}").1, "m authorization=Bearer k-s3cret");
    assert_eq!(change("PATCH", "{\"api_key\":null}"), (202, "no key".into()));
    assert_eq!(gateway.get(&path).json()["has_api_key"], false);
    assert_eq!(change("PUT", "{\"api_key\":\"k-s3cret\"}").1, "m authorization=Bearer k-s3cret");
    assert_eq!(change("PUT", "{}").1, "no key", "it says everything");
    assert!(!gateway.log().contains("s3cret"));
}

// As before, it is the callers' that goes on with requests.
#[test]
fn the_callers_key_that_workers_share_is_used_for_checks_and_models() {
    let workers = [wanting("shared", "a"), wanting("shared", "b")];
    let gateway = Gateway::builder().workers(&workers).arg("--api-key=shared").start();
    gateway.wait_for_workers(2);
    let list = gateway.with_key("shared", "GET", "/v1/models").json();
    assert_eq!((&list["data"][0]["id"], &list["data"][1]["id"]), (&json!("a"), &json!("b")));
    for model in ["a", "b"] {
        let body = json!({ "model": model });
        let answer = gateway.with_key_and_body("shared", "/v1/chat/completions", &body);
        assert_eq!(answer.text(), format!("{model} authorization=Bearer shared"));
    }
    let shown = gateway.with_key("shared", "GET", "/workers").json();
    assert_eq!(shown["workers"][0]["has_api_key"], false, "it is not the worker's own");
}

#[test]
fn a_key_that_is_missing_or_wrong_is_said_once() {
    let worker = wanting("right", "m");
    let gateway =
        Gateway::builder().worker(&worker).args(["--worker-api-key=wrong", "--health-check-interval-secs=0.1"]).start();
    gateway.wait_for_log("--worker-api-key");
    eventually(LIMIT, || worker.requests().len() > 6);
    assert_eq!(gateway.get("/v1/models").json()["data"], json!([]));
    assert_eq!(gateway.log().matches("--worker-api-key").count(), 1, "{}", gateway.log());
    assert!(!gateway.log().contains("wrong"));
}

// A retry at another worker is another request: it goes with that worker's key, or with the caller's.
#[test]
fn a_key_does_not_go_to_another_worker_when_the_request_is_sent_again() {
    let busy = |request: &crate::support::ReceivedRequest, conn: &mut crate::support::Conn| {
        conn.answer(503, presented(request))
    };
    let (first, second) = (Worker::new(busy), Worker::new(|request, conn| conn.answer(200, presented(request))));
    for (key, wanted) in [
        ("", "authorization=Bearer callers x-api-key=callers api-key=callers"),
        (", api_key: k2", "authorization=Bearer k2"),
    ] {
        let pool = format!(
            "pools:\n- {{model: m, policy: passthrough, workers: [{{url: {}, api_key: k1}}, {{url: {}{key}}}]}}\n",
            first.url(),
            second.url()
        );
        let file = ConfigFile::new(pool);
        let gateway = file.gateway().arg("--retry-initial-backoff-ms=1").start();
        gateway.wait_for_workers(2);
        assert_eq!(ask(&gateway, "m"), wanted);
    }
    assert_eq!(all_presented(&first), ["authorization=Bearer k1"]);
}

// The module answers 401 where the caller's key is not the one that it knows, so it sees the caller's and no other.
#[test]
fn modules_do_not_see_a_workers_key() {
    let worker = wanting("workers", "m");
    let gateway = Gateway::builder().worker(&worker).args(["--enable-wasm", "--worker-api-key=workers"]).start();
    gateway.deploy("auth", &guest("auth"), &["OnRequest"]);
    let request = |key: &str| gateway.request("POST", "/v1/x", &[("Authorization", &format!("Bearer {key}"))], b"{}");
    assert_eq!((request("workers").status, request("other").status), (401, 401));
    assert_eq!(request("secret-api-key-12345").text(), "m authorization=Bearer workers");
}

#[test]
fn a_preflight_without_a_callers_key_goes_on_without_the_workers() {
    let worker = wanting("k1-s3cret", "a");
    let gateway = Gateway::builder().worker(&worker).arg("--worker-api-key=k1-s3cret").arg("--api-key=callers").start();
    let preflight = [("Origin", "https://page.example"), ("Access-Control-Request-Method", "POST")];
    let answer = gateway.request("OPTIONS", "/v1/chat/completions", &preflight, b"");
    assert_eq!((answer.status, answer.text().as_str()), (401, "no key"), "the worker was sent none");
    let with_key = [preflight[0], preflight[1], ("Authorization", "Bearer callers")];
    let answer = gateway.request("OPTIONS", "/v1/chat/completions", &with_key, b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "a authorization=Bearer k1-s3cret"));
}
