//! `--api-key`: strangers get no further than the probes.

use crate::support::{Gateway, Worker};

fn guarded(worker: &Worker) -> Gateway {
    Gateway::builder().worker(worker).arg("--api-key=s3cret").start()
}

#[test]
fn the_probes_are_open() {
    let worker = Worker::echo();
    let gateway = guarded(&worker);
    for path in ["/health", "/liveness", "/readiness"] {
        assert_eq!(gateway.get(path).status, 200, "{path}");
    }
}

#[test]
fn without_the_key_every_other_path_is_401_and_no_worker_hears_of_it() {
    let worker = Worker::echo();
    let gateway = guarded(&worker);
    for path in ["/v1/chat/completions", "/", "/v1/models", "/get_server_info", "//health", "/health/x"] {
        let answer = gateway.request("POST", path, &[], b"{}");
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.headers.get("x-smg-error-code"), answer.json()["error"]["code"].as_str());
    }
    assert!(worker.requests().is_empty());
}

#[test]
fn a_wrong_key_is_401() {
    let worker = Worker::echo();
    let gateway = guarded(&worker);
    for value in [
        "Bearer wrong",
        "Bearer s3cre",
        "Bearer s3cret1",
        "Bearer ",
        "Bearer",
        "s3cret",
        "Basic s3cret",
        "Bearer S3CRET",
        "Bearer s3cret s3cret",
        "Bearer  ",
        "",
    ] {
        let answer = gateway.request("GET", "/", &[("Authorization", value)], b"");
        assert_eq!(answer.status, 401, "{value:?}");
    }
    assert!(worker.requests().is_empty());
}

#[test]
fn two_authorizations_do_not_open_the_door() {
    let worker = Worker::echo();
    let gateway = guarded(&worker);
    let both = [("Authorization", "Bearer wrong"), ("Authorization", "Bearer s3cret")];
    let answer = gateway.request("GET", "/", &both, b"");
    answer.assert_error(400, "invalid_request");
}

#[test]
fn with_the_key_requests_pass() {
    let worker = Worker::echo();
    let gateway = guarded(&worker);
    for value in ["Bearer s3cret", "bearer s3cret", "BEARER s3cret"] {
        let answer = gateway.request("POST", "/v1/chat/completions", &[("Authorization", value)], b"{}");
        assert_eq!(answer.status, 200, "{value:?}");
    }
}

#[test]
fn the_key_also_comes_from_the_environment_and_is_never_printed() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).env("SMG_API_KEY", "s3cret").arg("--log-level=debug").start();
    assert_eq!(gateway.get("/").status, 401);
    assert_eq!(gateway.request("GET", "/", &[("Authorization", "Bearer s3cret")], b"").status, 200);
    assert!(!gateway.log().contains("s3cret") && !gateway.stdout().contains("s3cret"), "the key is in the log");
}

#[test]
fn a_stranger_is_refused_before_the_body_comes() {
    let worker = Worker::echo();
    let gateway = guarded(&worker);
    for expectation in ["", "Expect: 100-continue\r\n"] {
        let mut client = gateway.connect();
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{expectation}Content-Length: 1000000\r\n\r\n"));
        let answer = client.read_response();
        assert_eq!((answer.status, answer.interim.len()), (401, 0));
    }
}

#[test]
fn without_an_api_key_authorization_is_the_workers_business() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    gateway.request("GET", "/", &[("Authorization", "Bearer of-the-worker")], b"");
    assert_eq!(worker.wait_for_request().headers.get("authorization"), Some("Bearer of-the-worker"));
}
