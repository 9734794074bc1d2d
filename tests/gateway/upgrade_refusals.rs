//! Switches that do not come about (cases 35, 36 and 38): nothing of what was meant for the other protocol gets through,
//! and what nobody may ask for is not asked for.

use crate::support::{
    CUSTOM, Code, Frame, Gateway, H2, Last, StreamEnd, Worker, ask_for_upgrade, eventually, upgrade_request,
};
use std::time::Duration;

/// From one end of an exchange to the other, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

// Case 35, CVE-2026-2833: what follows the head is the next request, and treated as one.
#[test]
fn bytes_after_an_upgrade_that_is_not_accepted_are_never_tunnelled() {
    for status in [200, 204, 400, 403, 426, 500] {
        let worker = Worker::new(move |request, conn| match request.target.as_str() {
            "/up" if status == 204 => conn.send("HTTP/1.1 204 No Content\r\n\r\n"),
            "/up" => conn.answer(status, "no"),
            _ => conn.answer(200, "next"),
        });
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        client.send(
            [ask_for_upgrade(CUSTOM).as_bytes(), b"GET /next HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"]
                .concat(),
        );
        assert_eq!(client.read_response().status, status);
        if let Ok(Some(next)) = client.try_read_head("GET") {
            assert_eq!(next.status, 200);
        }
        for request in worker.requests().iter().filter(|r| r.target != "/up") {
            let forwarded = request.headers.get("x-forwarded-for");
            assert_eq!((request.target.as_str(), forwarded), ("/next", Some("6.6.6.6, 127.0.0.1")), "sent on unread");
        }
        assert!(worker.broken().is_empty(), "{status}: {:?}", worker.broken());
    }
}

// Case 35.
#[test]
fn garbage_after_an_upgrade_that_is_not_accepted_never_reaches_the_worker() {
    let worker = Worker::new(|_, conn| {
        conn.answer(200, "no");
        assert!(!matches!(conn.read_until("EVIL"), Ok(Some(_))), "bytes were tunnelled");
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send([ask_for_upgrade(CUSTOM).as_bytes(), b"\x81\x84EVIL\r\n\r\n"].concat());
    assert_eq!(client.read_response().text(), "no");
    let _ = client.try_send("EVIL");
    assert!(client.ends_within(Duration::from_secs(3)), "garbage is no request");
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// RFC 9110 section 7.8: nobody may switch to what was not asked for.
#[test]
fn a_switch_to_something_else_is_a_502() {
    for fields in ["Upgrade: other\r\n", "Upgrade: custom/1, other\r\n", "", "Upgrade: h2c\r\n"] {
        let worker = Worker::fixed_then_close(format!("HTTP/1.1 101 X\r\nConnection: Upgrade\r\n{fields}\r\nevil"));
        let gateway = Gateway::before(&worker);
        let mut client = gateway.connect();
        client.send(ask_for_upgrade(CUSTOM));
        let answer = client.read_response();
        assert_eq!(answer.status, 502, "{fields}");
        assert!(!answer.text().contains("evil"));
    }
}

// Case 36, RFC 9113 section 3.1: the way to HTTP/2 past the gateway's eyes.
#[test]
fn h2c_is_never_asked_for() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let settings = "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "Connection: HTTP2-Settings, uPGRADE\r\nUpgrade: H2C\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c, websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade:\th2c \r\n",
        "Connection: Upgrade\r\nUpgrade: h2\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
    ] {
        let mut client = gateway.connect();
        client.send(ask_for_upgrade(&format!("{fields}{settings}")));
        let answer = client.read_response();
        assert!(matches!(answer.status, 200 | 400), "{fields}: {}", answer.status);
    }
    for request in worker.requests() {
        let asked = request.headers.all("upgrade").join(",").to_ascii_lowercase();
        assert!(!asked.contains("h2") && !asked.contains("http"), "{}", request.head);
        let nominated = request.headers.all("connection").join(",").to_ascii_lowercase();
        assert!(!nominated.contains("http2-settings") && !request.headers.has("http2-settings"), "{}", request.head);
    }
}

// Case 36: a worker that answers a plain request with 101 is broken.
#[test]
fn a_switch_to_h2c_is_a_502() {
    let worker = Worker::fixed_then_close("HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\nevil");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(ask_for_upgrade("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"));
    assert!(matches!(client.read_response_however("GET").status, 400 | 502));
}

// RFC 9110 section 7.8: without the option in Connection, and on HTTP/1.0, it means nothing.
#[test]
fn an_upgrade_that_is_not_nominated_is_not_sent_on() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for request in [
        ask_for_upgrade("Upgrade: websocket\r\n"),
        ask_for_upgrade("Connection: keep-alive\r\nUpgrade: websocket\r\n"),
        ask_for_upgrade("Connection: Upgrade\r\n"),
        "GET /up HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n".to_owned(),
    ] {
        let mut client = gateway.connect();
        client.send(&request);
        assert_eq!(client.read_response().status, 200, "{request}");
        let seen = worker.wait_for_request();
        assert!(!seen.headers.has("upgrade"), "{}", seen.head);
    }
}

#[test]
fn a_refusal_is_passed_on_and_the_connection_goes_on() {
    let worker = Worker::new(|request, conn| match request.target.as_str() {
        "/chat" => conn.answer(403, "not you"),
        _ => conn.answer(200, "next"),
    });
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(upgrade_request(gateway.address, "/chat", ""));
    let answer = client.read_response();
    assert_eq!((answer.status, answer.text().as_str()), (403, "not you"));
    assert_eq!(client.get("/next").text(), "next");
    eventually(AT_ONCE, || gateway.load() == 0);
}

#[test]
fn a_worker_that_dies_instead_of_switching_is_a_502() {
    let worker = Worker::new(|_, conn| conn.close());
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(upgrade_request(gateway.address, "/chat", ""));
    client.read_response().assert_error(502, "upstream_bad_response");
}

#[test]
fn an_upgrade_needs_the_api_key_as_any_request() {
    let worker = Worker::shouting();
    let gateway = Gateway::builder().worker(&worker).arg("--api-key=k").start();
    let mut client = gateway.connect();
    client.send(upgrade_request(gateway.address, "/chat", ""));
    assert_eq!(client.read_response().status, 401);
    assert!(worker.requests().is_empty());
}

#[test]
fn the_gateway_s_own_resources_do_not_switch() {
    let worker = Worker::shouting();
    let gateway = Gateway::before(&worker);
    for path in ["/health", "/workers"] {
        let mut client = gateway.connect();
        client.send(upgrade_request(gateway.address, path, ""));
        let answer = client.read_response();
        assert_eq!((answer.status, answer.headers.has("upgrade")), (200, false), "{path}");
    }
}

// Case 38: extended CONNECT (RFC 8441) is not offered, and refused as one stream.
#[test]
fn a_websocket_over_h2_is_refused_and_the_connection_goes_on() {
    let worker = Worker::shouting();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    assert_ne!(client.setting(Frame::ENABLE_CONNECT_PROTOCOL), Some(1));
    let extended = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ];
    for fields in [&extended[..], &[(":method", "CONNECT"), (":authority", "a:80")]] {
        let stream = client.start_with(fields, Last::No);
        client.wait_until(stream, |answer| answer.end != StreamEnd::Open);
        let answer = client.wait(stream);
        assert!(answer.end != StreamEnd::Lost && answer.end != StreamEnd::Reset(Code::NO_ERROR), "{answer:?}");
        answer.assert_refused(&[400, 405, 501]);
        assert_eq!(client.get("/next").text(), "plain", "the connection goes on");
    }
    assert!(worker.requests().iter().all(|r| r.target == "/next"));
}
