//! Other names of a pool's model: workers know only its own, so that is what they are sent.

use crate::support::{
    ConfigFile, Gateway, H2, Module, ReceivedRequest, Worker, assert_is_switching, codings, gzip, switching,
    upgrade_request,
};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const FORM: (&str, &str) = ("Content-Type", "application/x-www-form-urlencoded");
const MULTIPART: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=b");

fn worker() -> Worker {
    Worker::new(|request, conn| {
        if request.headers.has("upgrade") {
            conn.leave_http();
            return conn.send(switching(""));
        }
        conn.answer(200, "ok");
    })
}

/// A pool of `org/llama-3`, also called `llama` and `gpt 4` without the space; `more` is behind it in the file.
fn config(worker: &Worker, settings: &str, more: &str) -> ConfigFile {
    let pool = format!("{{model: org/llama-3, aliases: [llama, gpt-4], {settings}workers: [{}]}}", worker.url());
    ConfigFile::new(format!("disable_health_check: true\npools:\n- {pool}\n{more}"))
}

fn other(worker: &Worker) -> String {
    format!("- {{model: other, workers: [{}]}}\n", worker.url())
}

/// What the worker gets of a request.
#[track_caller]
fn sent(gateway: &Gateway, worker: &Worker, headers: &[(&str, &str)], body: &[u8]) -> ReceivedRequest {
    assert_eq!(gateway.request("POST", "/v1/x", headers, body).status, 200, "{headers:?}");
    worker.wait_for_request()
}

#[track_caller]
fn sent_text(gateway: &Gateway, worker: &Worker, headers: &[(&str, &str)], body: &str) -> String {
    let got = sent(gateway, worker, headers, body.as_bytes());
    let text = String::from_utf8(got.body).expect("it is text");
    if let Some(length) = got.headers.get("content-length") {
        assert_eq!(length, text.len().to_string());
    }
    text
}

fn field(name: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

// With one pool as with several.
#[test]
fn an_alias_is_replaced_wherever_it_stands() {
    let (llama, else_where) = (worker(), worker());
    for more in [String::new(), other(&else_where)] {
        let gateway = config(&llama, "", &more).gateway().start();
        let text = |headers: &[(&str, &str)], body: &str| sent_text(&gateway, &llama, headers, body);
        for (body, expected) in [
            ("{\"model\":\"llama\"}", "{\"model\":\"org/llama-3\"}"),
            (
                " {\"x\":1.0, \"m\\u006fdel\" : \"gpt\\u002d4\" ,\"y\":\"llama\"}\n",
                " {\"x\":1.0, \"m\\u006fdel\" : \"org/llama-3\" ,\"y\":\"llama\"}\n",
            ),
            ("{\"model\":\"gpt-4\",\"model\":\"llama\"}", "{\"model\":\"org/llama-3\",\"model\":\"org/llama-3\"}"),
            (
                "{\"model\":\"org/llama-3\",\"x\":{\"model\":\"llama\"}}",
                "{\"model\":\"org/llama-3\",\"x\":{\"model\":\"llama\"}}",
            ),
        ] {
            assert_eq!(text(&[JSON], body), expected);
            assert_eq!(text(&[("Content-Type", "text/plain")], body), expected);
            let chunked = format!("3\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &body[..3], body.len() - 3, &body[3..]);
            assert_eq!(text(&[JSON, ("Transfer-Encoding", "chunked")], &chunked), expected);
            let mut client = H2::connect(&gateway);
            client.request("POST", "/", &[("content-type", "application/json")], body.as_bytes());
            assert_eq!(String::from_utf8_lossy(&llama.wait_for_request().body), expected);
        }
        assert_eq!(text(&[FORM], "a=llama&model=gpt%2d4&b=1"), "a=llama&model=org%2Fllama-3&b=1");
        let form =
            |model: &str| field("x", "llama") + &field("model", model) + &field("y", &"z".repeat(100_000)) + "--b--";
        assert_eq!(text(&[MULTIPART], &form("llama")), form("org/llama-3"));
        let long =
            |model: &str| format!("{{\"a\":\"{0}\",\"model\":\"{model}\",\"z\":\"{0}\"}}", "x".repeat(2_000_000));
        assert!(text(&[JSON], &long("llama")) == long("org/llama-3"));
    }
    assert!(else_where.requests().is_empty());
}

#[test]
fn an_alias_in_a_query_is_replaced() {
    let llama = worker();
    let gateway = config(&llama, "", "").gateway().start();
    let mut client = gateway.connect();
    client.send(upgrade_request(gateway.address, "/v1/realtime?a=%20&model=llama&b", ""));
    assert_is_switching(&client.read_head());
    assert_eq!(llama.wait_for_request().target, "/v1/realtime?a=%20&model=org%2Fllama-3&b");
    for path in ["/v1/realtime?model=org/llama-3", "/v1/x?models=llama", "/v1/x?model=unknown"] {
        gateway.get(path);
        assert_eq!(llama.wait_for_request().target, path);
    }
}

#[test]
fn a_compressed_body_with_an_alias_is_sent_on_without_its_coding() {
    let llama = worker();
    let gateway = config(&llama, "", "").gateway().start();
    let body = |model: &str| format!("{{\"x\":\"{}\",\"model\":\"{model}\"}}", "y".repeat(100_000));
    for (coding, coded) in codings(body("llama").as_bytes()) {
        let got = sent(&gateway, &llama, &[JSON, ("Content-Encoding", coding)], &coded);
        assert!(got.body == body("org/llama-3").as_bytes(), "{coding}");
        assert!(!got.headers.has("content-encoding"));
        assert_eq!(got.headers.get("content-length"), Some(body("org/llama-3").len().to_string().as_str()));
    }
    // What was said of the bytes is true no more.
    let digests = ["Content-Digest", "Repr-Digest", "Digest", "Content-MD5"];
    let coded = gzip(body("llama").as_bytes());
    let with_digests = |coding| [&[JSON][..], coding, &digests.map(|name| (name, "x"))].concat();
    for (coding, sent_body) in [(&[("Content-Encoding", "gzip")][..], &coded[..]), (&[], body("llama").as_bytes())] {
        let got = sent(&gateway, &llama, &with_digests(coding), sent_body);
        assert!(got.body == body("org/llama-3").as_bytes());
        assert!(digests.iter().all(|name| !got.headers.has(name)), "{:?}", got.headers);
    }
    let got = sent(&gateway, &llama, &with_digests(&[]), body("org/llama-3").as_bytes());
    assert!(digests.iter().all(|name| got.headers.has(name)), "it arrives as it was");
    let own = gzip(body("org/llama-3").as_bytes());
    let got = sent(&gateway, &llama, &[JSON, ("Content-Encoding", "gzip")], &own);
    assert!(got.body == own && got.headers.get("content-encoding") == Some("gzip"), "nothing had to be replaced");
    let plain = sent(&gateway, &llama, &[JSON, ("Content-Encoding", "gzip")], b"{\"model\":\"llama\"}");
    assert_eq!(plain.body, b"{\"model\":\"org/llama-3\"}", "it was not compressed at all");
}

#[test]
fn a_file_may_say_that_workers_know_the_aliases() {
    let llama = worker();
    let gateway = config(&llama, "rewrite: false, ", &other(&worker())).gateway().start();
    assert_eq!(sent_text(&gateway, &llama, &[JSON], "{\"model\":\"llama\"}"), "{\"model\":\"llama\"}");
    assert_eq!(sent_text(&gateway, &llama, &[FORM], "model=gpt-4"), "model=gpt-4");
}

// Models that the same workers list share a pool; each is a name that they know.
#[test]
fn names_that_workers_list_are_left_alone() {
    let (several, one) = (worker(), worker());
    several.set_models(&["base", "adapter"]);
    one.set_models(&["other"]);
    let gateway = Gateway::builder().workers([&several, &one]).start();
    gateway.wait_for_workers(2);
    for model in ["base", "adapter"] {
        let body = format!("{{\"model\":\"{model}\"}}");
        assert_eq!(sent_text(&gateway, &several, &[JSON], &body), body);
    }
}

#[test]
fn a_route_to_a_pool_replaces_its_aliases_and_leaves_other_names() {
    let (llama, elsewhere) = (worker(), worker());
    let more = other(&elsewhere) + "routes:\n- {path: /v1/x, pool: org/llama-3}\n";
    let gateway = config(&llama, "", &more).gateway().start();
    assert_eq!(sent_text(&gateway, &llama, &[JSON], "{\"model\":\"llama\"}"), "{\"model\":\"org/llama-3\"}");
    assert_eq!(sent_text(&gateway, &llama, &[JSON], "{\"model\":\"other\"}"), "{\"model\":\"other\"}");
}

#[test]
fn a_body_that_is_sent_again_has_the_models_own_name() {
    let met = AtomicUsize::new(0);
    let llama = Worker::new(move |_, conn| match met.fetch_add(1, Ordering::SeqCst) % 2 {
        0 => conn.answer(503, "busy"),
        _ => conn.answer(200, "ok"),
    });
    let gateway = config(&llama, "", "").gateway().arg("--retry-initial-backoff-ms=1").start();
    for length in [1, 200_000] {
        let body = |model: &str| format!("{{\"x\":\"{}\",\"model\":\"{model}\"}}", "y".repeat(length));
        assert_eq!(gateway.request("POST", "/", &[JSON], body("llama").as_bytes()).status, 200);
        for _ in 0..2 {
            assert!(llama.wait_for_request().body == body("org/llama-3").as_bytes(), "{length}");
        }
    }
}

#[test]
fn an_alias_in_what_a_module_makes_of_a_body_is_replaced() {
    let (llama, elsewhere) = (worker(), worker());
    for more in [String::new(), other(&elsewhere)] {
        let gateway = config(&llama, "", &more).gateway().arg("--enable-wasm").start();
        gateway.add(&Module::hostile());
        let headers = [JSON, ("X-Hostile", "body:{\"model\":\"llama\"}")];
        assert_eq!(sent_text(&gateway, &llama, &headers, "{\"model\":\"other\"}"), "{\"model\":\"org/llama-3\"}");
    }
}

#[test]
fn a_model_that_is_not_an_alias_passes_a_single_pool_as_it_is() {
    let llama = worker();
    let gateway = config(&llama, "", "").gateway().start();
    for body in ["{\"model\":\"unknown\"}", "{\"model\":7}", "no JSON", "{\"model\":\"llama\"", "", "{}"] {
        assert_eq!(sent_text(&gateway, &llama, &[JSON], body), body.replace("\"llama\"", "\"org/llama-3\""));
    }
    let unknown = [JSON, ("Content-Encoding", "compress")];
    assert_eq!(sent_text(&gateway, &llama, &unknown, "{\"model\":\"llama\"}"), "{\"model\":\"llama\"}");
    let log = json!({"model": "llama"});
    assert_eq!(gateway.post_json("/", &log).status, 200);
}
