//! What the gateway takes from and adds to the fields of both directions (cases 21, 22 and 33).

use crate::support::{Gateway, Module, ReceivedRequest, Response, Worker};

/// Sends a GET with these fields through a fresh gateway; what the worker got.
fn forwarded(fields: &[(&str, &str)]) -> ReceivedRequest {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    assert_eq!(gateway.request("GET", "/", fields, b"").status, 200);
    worker.wait_for_request()
}

/// The answer to a GET when the worker answers with these field lines.
fn relayed(fields: &str) -> Response {
    let worker = Worker::fixed(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok"));
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    let answer = client.get("/");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok"));
    answer
}

// Case 21.
#[test]
fn hop_by_hop_fields_do_not_reach_the_worker() {
    let request = forwarded(&[
        ("Connection", "keep-alive, X-Nominated, x-also"),
        ("Connection", "x-second-line"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "gzip"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
        ("X-Nominated", "1"),
        ("X-Also", "2"),
        ("X-Second-Line", "3"),
        ("X-End-To-End", "4"),
    ]);
    let gone = ["keep-alive", "proxy-connection", "te", "upgrade", "http2-settings"];
    for name in gone.into_iter().chain(["x-nominated", "x-also", "x-second-line"]) {
        assert!(!request.headers.has(name), "{name} in {}", request.head);
    }
    let connection = request.headers.get("connection").unwrap_or("keep-alive");
    assert!(connection.eq_ignore_ascii_case("keep-alive"), "{connection}");
    assert_eq!(request.headers.get("x-end-to-end"), Some("4"));
}

// Case 21.
#[test]
fn hop_by_hop_fields_do_not_reach_the_client() {
    let answer = relayed(
        "Connection: X-Nominated\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n\
         Upgrade: h2c\r\nX-Nominated: 1\r\nX-End-To-End: 2\r\n\
         Connection: \u{fc}, x-second-line\r\nX-Second-Line: 3\r\n",
    );
    for name in ["keep-alive", "proxy-connection", "upgrade", "x-nominated", "x-second-line"] {
        assert!(!answer.headers.has(name), "{name} in {:?}", answer.headers);
    }
    assert!(answer.headers.get("connection").unwrap_or("keep-alive").eq_ignore_ascii_case("keep-alive"));
    assert_eq!(answer.headers.get("x-end-to-end"), Some("2"));
}

// Case 21: what a part of a line says counts whatever the others are.
#[test]
fn a_byte_that_is_no_character_does_not_hide_what_connection_says() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for line in [
        &b"Connection: close, x-auth, \xff"[..],
        b"Connection: \xff,x-auth,close",
        b"connection: x-auth,\xc3\xbc, close",
    ] {
        let mut client = gateway.connect();
        client.send([b"GET / HTTP/1.1\r\nHost: a\r\nX-Auth: 1\r\n", line, b"\r\n\r\n"].concat());
        let answer = client.read_response();
        assert!(matches!(answer.status, 200 | 400), "{}", answer.status);
        client.assert_closed();
    }
    assert!(worker.requests().iter().all(|request| !request.headers.has("x-auth")));
}

// Case 22: a key that its sender calls hop-by-hop is one for the gateway all the same, and goes no further.
#[test]
fn a_key_that_is_nominated_is_looked_at_and_goes_no_further() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--api-key=k").start();
    let nominated = ("Connection", "authorization");
    assert_eq!(gateway.request("GET", "/", &[nominated], b"").status, 401);
    assert_eq!(gateway.request("GET", "/", &[nominated, ("Authorization", "Bearer x")], b"").status, 401);
    assert_eq!(gateway.request("GET", "/", &[nominated, ("Authorization", "Bearer k")], b"").status, 200);
    assert!(!worker.wait_for_request().headers.has("authorization"));
    assert_eq!(worker.requests().len(), 1);
}

// Case 22: nor what a module adds.
#[test]
fn nominating_a_field_cannot_strip_what_a_module_sets() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let fields = [("Connection", "x-user, close"), ("X-User", "forged"), ("X-Hostile", "set-header:x-user=trusted")];
    assert_eq!(gateway.request("GET", "/", &fields, b"").status, 200);
    assert_eq!(worker.wait_for_request().headers.all("x-user"), ["trusted"]);
}

// Case 21: they are for the first proxy on the way (RFC 9110 section 11.7), not for whoever is behind it.
#[test]
fn proxy_credentials_and_challenges_are_not_passed_on() {
    assert!(!forwarded(&[("Proxy-Authorization", "Basic eDp5")]).headers.has("proxy-authorization"));
    assert!(!relayed("Proxy-Authenticate: Basic\r\n").headers.has("proxy-authenticate"));
}

// The worker's wish about its own connection is not the client's.
#[test]
fn a_workers_connection_close_does_not_close_the_clients_connection() {
    let worker = Worker::fixed_then_close("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(answer.status, 200);
        assert!(!answer.headers.has("connection"));
    }
    assert_eq!(worker.connections(), 3);
}

// Case 22.
#[test]
fn nominating_a_field_cannot_strip_what_the_gateway_adds() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let nominated =
        "Host, Via, X-Forwarded-For, X-Forwarded-Proto, X-Forwarded-Host, X-Request-Id, Content-Length, close";
    let mut client = gateway.connect();
    client.send_request("POST", "/", &[("Connection", nominated), ("X-Request-Id", "abc")], b"hello");
    let status = client.read_response().status;
    if status == 400 {
        return;
    }
    let request = worker.wait_for_request();
    for name in ["host", "via", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"] {
        assert!(request.headers.has(name), "no {name} in {}", request.head);
    }
    assert_eq!((status, request.body.as_slice()), (200, &b"hello"[..]));
}

// Case 22.
#[test]
fn nominating_transfer_encoding_does_not_lose_the_body() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nhello\r\n0\r\n\r\n",
    );
    let answer = client.read_response();
    assert!(matches!(answer.status, 200 | 400));
    assert!(worker.requests().iter().all(|r| r.body == b"hello"));
}

// Case 33.
#[test]
fn the_worker_learns_who_asked_and_how() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("GET / HTTP/1.1\r\nHost: api.example.com:8443\r\n\r\n");
    client.read_response();
    let headers = worker.wait_for_request().headers;
    assert_eq!(headers.get("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(headers.get("x-forwarded-proto"), Some("http"));
    assert_eq!(headers.get("x-forwarded-host"), Some("api.example.com:8443"));
    assert_eq!(headers.get("host"), Some(worker.address.to_string().as_str()));
    assert!(headers.get("via").is_some_and(|v| v.starts_with("1.1 smg-")), "{:?}", headers.get("via"));
}

// Case 33.
#[test]
fn the_clients_address_is_appended_to_x_forwarded_for() {
    let request = forwarded(&[("X-Forwarded-For", "203.0.113.7"), ("X-Forwarded-For", "198.51.100.2")]);
    let joined = request.headers.all("x-forwarded-for").join(", ");
    assert_eq!(joined, "203.0.113.7, 198.51.100.2, 127.0.0.1");
}

// Case 33.
#[test]
fn an_existing_x_forwarded_host_is_kept() {
    assert_eq!(
        forwarded(&[("X-Forwarded-Host", "first.example")]).headers.get("x-forwarded-host"),
        Some("first.example")
    );
}

// Case 33: the gateway vouches for none of these, and says so.
#[test]
fn other_fields_about_where_a_request_comes_from_pass_as_they_are() {
    let request = forwarded(&[("Forwarded", "for=203.0.113.7"), ("X-Real-IP", "203.0.113.7")]);
    assert_eq!(request.headers.all("forwarded"), ["for=203.0.113.7"]);
    assert_eq!(request.headers.all("x-real-ip"), ["203.0.113.7"]);
}

#[test]
fn x_forwarded_proto_is_what_the_gateway_saw() {
    assert_eq!(forwarded(&[("X-Forwarded-Proto", "https")]).headers.get("x-forwarded-proto"), Some("http"));
}

// Case 33: httpoxy.
#[test]
fn the_proxy_field_is_removed() {
    let request = forwarded(&[("Proxy", "http://evil.example"), ("pRoXy", "http://evil.example")]);
    assert!(!request.headers.has("proxy"), "{}", request.head);
}

// Case 33.
#[test]
fn via_is_appended_to_those_already_there() {
    let via = forwarded(&[("Via", "1.0 fred")]).headers.all("via").join(", ");
    assert!(via.starts_with("1.0 fred, 1.1 smg-"), "{via}");
}

#[test]
fn a_request_that_went_through_this_gateway_already_is_a_loop() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    gateway.get("/first");
    let own = worker.wait_for_request().headers.get("via").expect("a via is added").to_owned();
    for via in [own.clone(), format!("1.0 fred, {own}"), format!("{own}, 1.1 other")] {
        assert_eq!(gateway.request("GET", "/again", &[("Via", &via)], b"").status, 508, "{via}");
    }
    let chained = gateway.request("GET", "/other", &[("Via", "1.1 smg-another")], b"");
    assert_eq!(chained.status, 200, "another gateway's via is no loop");
    assert!(worker.requests().iter().all(|r| r.target != "/again"));
}

#[test]
fn end_to_end_request_fields_reach_the_worker_untouched() {
    let fields = [
        ("Authorization", "Bearer k"),
        ("Cookie", "a=b; c=d"),
        ("Accept", "text/event-stream"),
        ("X-Api-Key", "k"),
        ("User-Agent", "curl/8"),
        ("Accept-Encoding", "gzip, br"),
        ("Content-Type", "application/json"),
        ("X-Empty", ""),
        ("X-Odd", "a,  b ;c=\"d\""),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("Range", "bytes=0-1"),
        ("If-None-Match", "\"x\""),
        ("X-Twice", "1"),
        ("X-Twice", "2"),
    ];
    let request = forwarded(&fields);
    for (name, value) in fields {
        assert!(request.headers.all(name).contains(&value), "{name} in {}", request.head);
    }
    assert_eq!(request.headers.all("x-twice"), ["1", "2"]);
}

#[test]
fn end_to_end_answer_fields_reach_the_client_untouched() {
    let answer = relayed(
        "Set-Cookie: a=b; Path=/\r\nSet-Cookie: c=d\r\nServer: vllm\r\nContent-Type: application/json\r\n\
         Content-Encoding: gzip\r\nETag: \"x\"\r\nX-Empty:\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
         WWW-Authenticate: Bearer\r\nX-Name: J\u{fc}rgen\r\n",
    );
    assert_eq!(answer.headers.all("set-cookie"), ["a=b; Path=/", "c=d"]);
    assert_eq!(answer.headers.get("server"), Some("vllm"));
    assert_eq!(answer.headers.get("content-encoding"), Some("gzip"));
    assert_eq!(answer.headers.get("etag"), Some("\"x\""));
    assert_eq!(answer.headers.get("x-empty"), Some(""));
    assert_eq!(answer.headers.get("date"), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(answer.headers.get("www-authenticate"), Some("Bearer"));
    assert_eq!(answer.headers.get("x-name"), Some("J\u{c3}\u{bc}rgen"));
}

// Case 33: an origin without a clock leaves it out, a proxy then adds it (RFC 9110 6.6.1).
#[test]
fn an_answer_without_a_date_gets_one() {
    assert!(relayed("").headers.get("date").is_some_and(|d| d.ends_with(" GMT")));
}
