//! The gateway's own errors: one shape, the right status and code, and nothing told that is not the client's business.

use crate::support::{End, Gateway, Response, Worker};
use std::time::{Duration, Instant};

#[track_caller]
fn assert_envelope(answer: &Response, secrets: &[String]) {
    let body = answer.json();
    let error = body["error"].as_object().unwrap_or_else(|| panic!("no error object in {body}"));
    let mut names: Vec<&str> = error.keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["code", "message", "param", "type"]);
    assert!(error["param"].is_null());
    assert!(error["type"].as_str().is_some_and(|t| !t.is_empty()));
    assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()));
    assert_eq!(answer.headers.get("x-smg-error-code"), error["code"].as_str());
    assert_eq!(answer.headers.get("content-type").map(|c| &c[..16]), Some("application/json"));
    assert!(answer.headers.has("x-request-id"));
    let all = format!("{:?} {}", answer.headers, answer.text());
    for secret in secrets {
        assert!(!all.contains(secret), "{secret} is told to the client: {all}");
    }
}

fn secrets(worker: &Worker) -> Vec<String> {
    vec![worker.address.to_string(), format!(":{}", worker.address.port())]
}

/// The answer to a POST, for which nothing is retried.
fn posted_to(gateway: &Gateway) -> Response {
    gateway.request("POST", "/v1/chat/completions", &[("Content-Type", "application/json")], b"{}")
}

#[test]
fn without_workers_every_request_is_an_immediate_503_that_says_when_to_come_back() {
    let gateway = Gateway::builder().start_unready();
    for method in ["GET", "POST"] {
        let start = Instant::now();
        let answer = gateway.request(method, "/v1/chat/completions", &[], b"{}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        answer.assert_error(503, "no_available_workers");
        assert_envelope(&answer, &[]);
        let after = answer.headers.get("retry-after").expect("it says when to come back");
        assert!(after.parse::<u32>().is_ok_and(|s| s > 0), "{after}");
    }
}

#[test]
fn without_a_healthy_worker_every_request_is_an_immediate_503() {
    let worker = Worker::echo();
    worker.set_health(500);
    let gateway = Gateway::builder().worker(&worker).start_unready();
    let answer = posted_to(&gateway);
    answer.assert_error(503, "no_available_workers");
    assert_envelope(&answer, &secrets(&worker));
    assert!(worker.requests().is_empty());
}

#[test]
fn a_worker_that_refuses_the_connection_is_a_502() {
    let mut worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--health-check-interval-secs=60").start();
    worker.stop();
    let answer = posted_to(&gateway);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_envelope(&answer, &secrets(&worker));
}

#[test]
fn a_worker_that_dies_before_its_head_is_a_502() {
    for part in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Half"] {
        let worker = Worker::fixed_then_close(part);
        let gateway = Gateway::before(&worker);
        for answer in [posted_to(&gateway), gateway.get("/")] {
            assert_eq!(answer.status, 502, "{part:?}: {}", answer.text());
            assert_envelope(&answer, &secrets(&worker));
        }
    }
}

#[test]
fn a_worker_that_resets_before_its_head_is_a_502() {
    let worker = Worker::new(|_, conn| conn.reset());
    let gateway = Gateway::before(&worker);
    let answer = posted_to(&gateway);
    assert_eq!(answer.status, 502, "{}", answer.text());
    assert_envelope(&answer, &secrets(&worker));
}

#[test]
fn a_worker_that_is_too_slow_is_a_504_in_the_same_shape() {
    let worker = Worker::new(|_, conn| {
        conn.wait_peer_closed(Duration::from_secs(5));
    });
    let gateway = Gateway::builder().worker(&worker).arg("--request-timeout-secs=0.2").start();
    let answer = posted_to(&gateway);
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert_envelope(&answer, &secrets(&worker));
}

#[test]
fn a_body_that_is_too_large_is_a_413_in_the_same_shape() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--max-payload-size=1").start();
    assert_envelope(&posted_to(&gateway), &secrets(&worker));
}

#[test]
fn a_loop_is_a_508_in_the_same_shape() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    gateway.get("/");
    let via = worker.wait_for_request().headers.get("via").expect("a via is added").to_owned();
    let answer = gateway.request("GET", "/", &[("Via", &via)], b"");
    assert_eq!(answer.status, 508);
    assert_envelope(&answer, &secrets(&worker));
}

#[test]
fn an_error_answer_leaves_the_clients_connection_usable() {
    let worker = Worker::new(|request, conn| match request.target.as_str() {
        "/die" => conn.close(),
        _ => conn.answer(200, "fine"),
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("POST", "/die", &[], b"x");
    assert_eq!(client.read_response().status, 502);
    assert_eq!(client.get("/").text(), "fine");
}

#[test]
fn an_error_answer_to_head_has_no_body() {
    let gateway = Gateway::builder().start_unready();
    let mut client = gateway.connect();
    client.send_request("HEAD", "/", &[], b"");
    assert_eq!(client.read_response_to("HEAD").status, 503);
    assert_eq!(client.get("/").status, 503);
}

#[test]
fn a_worker_that_dies_mid_body_breaks_the_answer_off() {
    let worker = Worker::fixed_then_close("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send_request("POST", "/", &[], b"x");
    let answer = client.read_response_however("POST");
    assert_eq!((answer.status, answer.end), (200, End::Broken(std::io::ErrorKind::UnexpectedEof)));
    assert_eq!(answer.text(), "hello");
}

// Case 65 in part: what a client sends must not forge a line of the log.
#[test]
fn control_characters_do_not_reach_the_log() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    gateway.request("GET", "/log-%0d%0aforged?\u{9b}31m", &[("User-Agent", "x\u{9b}31mred\t")], b"");
    gateway.get("/log-end");
    gateway.wait_for_log("/log-end");
    assert!(!gateway.log().contains('\u{9b}'));
    assert!(!gateway.log().lines().any(|line| line.starts_with("forged")));
}

#[test]
fn a_request_that_cannot_be_parsed_is_answered_in_the_same_shape() {
    let gateway = Gateway::builder().start_unready();
    for raw in ["GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET / HTTP/9.9\r\n\r\n"] {
        let mut client = gateway.connect();
        client.send(raw);
        assert_envelope(&client.read_response(), &[]);
    }
}
