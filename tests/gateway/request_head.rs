//! Request lines and header lines (cases 8 to 12, 14 to 16): what is malformed is refused before any worker hears of it.

use crate::support::{BadRequest, Gateway, H2, Worker, bad, refuses};

fn cases(statuses: &[u16], requests: &[&[u8]]) -> Vec<BadRequest> {
    requests.iter().map(|r| bad(&String::from_utf8_lossy(r), r, statuses)).collect()
}

fn with_field(line: &[u8]) -> Vec<u8> {
    [b"GET /head HTTP/1.1\r\nHost: a\r\n", line, b"\r\nAfter: x\r\n\r\n"].concat()
}

fn field_cases(statuses: &[u16], lines: &[&[u8]]) -> Vec<BadRequest> {
    lines.iter().map(|l| bad(&String::from_utf8_lossy(l), with_field(l), statuses)).collect()
}

#[track_caller]
fn refused_unseen(cases: &[BadRequest]) {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    refuses(&gateway, &worker, cases);
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Case 8.
#[test]
fn a_bare_carriage_return_is_refused() {
    refused_unseen(&field_cases(&[400], &[b"X: a\rb", b"X: a\r", b"X\r: a", b"X: a\r\rb", b"\rX: a"]));
    refused_unseen(&cases(
        &[400],
        &[
            b"GET / HTTP/1.1\rHost: a\r\n\r\n",
            b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\r\nHost: a\r\n\r\n",
        ],
    ));
}

// RFC 9112 2.2 lets a recipient take a bare LF as the end of a line; then both sides must read the same.
#[test]
fn a_bare_line_feed_as_line_end_is_refused_or_normalised() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for raw in ["GET /a HTTP/1.1\nHost: a\n\n", "GET /a HTTP/1.1\r\nHost: a\nX-Second: b\r\n\r\n"] {
        let mut client = gateway.connect();
        client.send(raw);
        let status = client.read_response().status;
        assert!(matches!(status, 200 | 400), "{raw:?}: {status}");
    }
    for request in worker.requests() {
        assert!(!request.head.replace("\r\n", "").contains('\n'), "{:?}", request.head);
    }
}

// Case 9.
#[test]
fn space_before_the_colon_or_before_the_first_field_is_refused() {
    refused_unseen(&field_cases(&[400], &[b"Name : v", b"Name\t: v", b"Na me: v"]));
    refused_unseen(&cases(
        &[400],
        &[
            b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\n Folded: b\r\nHost: a\r\n\r\n",
        ],
    ));
}

// Case 9.
#[test]
fn a_folded_line_is_refused_or_joined_with_spaces() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for line in ["X-Folded: a\r\n b", "X-Folded: a\r\n\tb", "X-Folded: a\r\n Content-Length: 5"] {
        let mut client = gateway.connect();
        client.send(with_field(line.as_bytes()));
        let status = client.read_response().status;
        assert!(matches!(status, 200 | 400), "{line:?}: {status}");
    }
    for request in worker.requests() {
        let value = request.headers.get("x-folded").expect("the field is kept");
        assert!(value.starts_with("a ") && !request.headers.has("content-length"), "{:?}", request.head);
    }
}

// Case 10.
#[test]
fn a_control_character_in_a_value_is_refused() {
    let values: Vec<u8> = (0..0x20).chain([0x7f]).filter(|b| !matches!(b, b'\t' | b'\n' | b'\r')).collect();
    let lines: Vec<Vec<u8>> = values.iter().map(|&b| [b"X: a", &[b][..], b"b"].concat()).collect();
    refused_unseen(&field_cases(&[400], &lines.iter().map(Vec::as_slice).collect::<Vec<_>>()));
}

#[test]
fn bytes_above_ascii_in_a_value_pass_untouched() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send(with_field(b"X-Name: J\xfcrgen \xe2\x82\xac"));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(worker.wait_for_request().headers.get("x-name"), Some("J\u{fc}rgen \u{e2}\u{82}\u{ac}"));
}

// Case 11.
#[test]
fn an_empty_name_or_a_line_without_a_colon_is_refused() {
    let lines: [&[u8]; 7] = [b": v", b":", b"no colon here", b"X", b"X-\xc3\xa9: v", b"X(y): v", b"X\0: v"];
    refused_unseen(&field_cases(&[400], &lines));
}

// Case 12.
#[test]
fn http_1_1_without_exactly_one_valid_host_is_refused() {
    let hosts = [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nHost: b\r\n",
        "Host: a b\r\n",
        "Host: a/b\r\n",
        "Host: user@a\r\n",
        "Host: a\\b\r\n",
        "Host: http://a\r\n",
        "Host: [::1\r\n",
        "Host: a:port\r\n",
        "Host: <a>\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: a, b\r\n",
    ];
    let case = |h: &&str| bad(h, format!("GET / HTTP/1.1\r\n{h}\r\n"), &[400]);
    refused_unseen(&hosts.iter().map(case).collect::<Vec<_>>());
}

#[test]
fn valid_hosts_of_every_form_are_accepted() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for host in
        ["a", "a.example:8080", "127.0.0.1", "[::1]", "[::1]:80", "EXAMPLE.com.", "xn--bcher-kva.example", "a_b"]
    {
        let mut client = gateway.connect();
        client.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.read_response().status, 200, "{host}");
    }
}

#[test]
fn http_1_0_without_a_host_is_served_and_its_connection_closed() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(client.read_response().json()["path"], "/old");
    client.assert_closed();
}

// Case 14.
#[test]
fn an_unknown_or_malformed_version_is_refused() {
    refused_unseen(&cases(
        &[400, 505],
        &[
            b"GET /\r\n\r\n",
            b"GET / HTTP/1.01\r\nHost: a\r\n\r\n",
            b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
            b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
            b"GET / http/1.1\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
            b"GET / HTTP/1\r\nHost: a\r\n\r\n",
            b"GET / XTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"GET HTTP/1.1\r\nHost: a\r\n\r\n",
            b" GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        ],
    ));
}

#[test]
fn the_error_for_another_version_names_what_the_port_offers() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.send("GET / HTTP/2.0\r\nHost: a\r\n\r\n");
    let answer = client.read_response();
    answer.assert_error(505, "http_version_not_supported");
    let message = answer.json()["error"]["message"].as_str().expect("a text").to_owned();
    for offered in ["HTTP/1.0", "HTTP/1.1", "HTTP/2"] {
        assert!(message.contains(offered), "{message}");
    }
}

// Case 14: HTTP/0.9 has no more than a line.
#[test]
fn a_request_of_http_0_9_is_not_answered_as_one() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--header-read-timeout-secs=0.3").start();
    let mut client = gateway.connect();
    client.send("GET /\r\n");
    let answer = String::from_utf8(client.read_until_close()).expect("text");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(worker.requests().is_empty());
}

// Case 14.
#[test]
fn a_method_longer_than_32_bytes_is_not_implemented() {
    let long = format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "M".repeat(33));
    refused_unseen(&[bad("33 bytes of method", long, &[501]).connection_may_go_on()]);
}

#[test]
fn a_method_that_is_no_token_is_refused() {
    refused_unseen(&cases(
        &[400],
        &[
            b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"G\xc3\xa9T / HTTP/1.1\r\nHost: a\r\n\r\n",
        ],
    ));
}

// Case 14.
#[test]
fn a_target_beyond_64_kib_is_too_long() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000));
    refused_unseen(&[bad("70 kB of target", long, &[414])]);
}

#[test]
fn a_head_that_is_too_long_is_answered_alike_however_it_arrives() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(66_000));
    let field = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(66_000));
    for (head, status) in [(target, 414), (field, 431)] {
        for piece in [head.len(), 16_384, 997] {
            let mut client = gateway.connect();
            // The gateway may have answered before the last piece.
            let _ = head.as_bytes().chunks(piece).try_for_each(|piece| client.try_send(piece));
            assert_eq!(client.read_response_however("GET").status, status, "in pieces of {piece}");
        }
    }
}

// Case 15.
#[test]
fn connect_is_refused() {
    let case = |r: &str| bad(r, r, &[405, 501]).connection_may_go_on();
    refused_unseen(&[
        case("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"),
        case("CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ]);
}

// Case 15.
#[test]
fn what_follows_a_connect_is_neither_tunnelled_nor_a_request() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    let target = worker.address;
    client.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\nGET /inside HTTP/1.1\r\nHost: a\r\n\r\n"));
    assert!(matches!(client.read_response_however("GET").status, 405 | 501));
    client.assert_closed();
    assert!(worker.requests().is_empty() && worker.broken().is_empty());
}

// A worker that implements TRACE would show its key to the caller.
#[test]
fn trace_is_refused() {
    let worker = Worker::new(|request, conn| conn.answer(200, &request.head));
    let gateway = Gateway::builder().worker(&worker).arg("--worker-api-key=theirs").start();
    for path in ["/", "/v1/chat/completions", "/v1/responses/x", "/workers", "/health"] {
        gateway.request("TRACE", path, &[("Max-Forwards", "10")], b"").assert_error(501, "method_not_implemented");
        assert_eq!(H2::connect(&gateway).request("TRACE", path, &[], b"").status, 501, "{path}");
    }
    assert!(worker.requests().is_empty());
}

// Case 15.
#[test]
fn options_of_everything_is_answered_or_passed_on_as_it_is() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let answer = gateway.request("OPTIONS", "*", &[], b"");
    assert!(matches!(answer.status, 200 | 204 | 400 | 405 | 501), "{}", answer.status);
    for request in worker.requests() {
        assert_eq!((request.method.as_str(), request.target.as_str()), ("OPTIONS", "*"));
    }
}

// Case 16.
#[test]
fn heads_beyond_the_limits_are_refused_without_growing_memory() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let head = |fields: String| format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let count = head((0..100).map(|i| format!("X-{i}: v\r\n")).collect());
    let one = head(format!("X: {}\r\n", "v".repeat(64 * 1024)));
    let total = head((0..50).map(|i| format!("X-{i}: {}\r\n", "v".repeat(8 * 1024))).collect());
    let cases = || {
        [
            bad("101 fields", &count, &[431]),
            bad("one field of 64 KiB", &one, &[431]),
            bad("400 KiB in all", &total, &[431]),
        ]
    };
    refuses(&gateway, &worker, &cases());
    let before = gateway.memory();
    for _ in 0..20 {
        refuses(&gateway, &worker, &cases());
    }
    let growth = gateway.memory().saturating_sub(before);
    assert!(growth < 8 << 20, "{growth} bytes more");
}

// Case 16.
#[test]
fn a_hundred_fields_are_served() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let fields: String = (0..99).map(|i| format!("X-{i}: v\r\n")).collect();
    let mut client = gateway.connect();
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    assert_eq!(client.read_response().status, 200);
    assert_eq!(worker.wait_for_request().headers.get("x-98"), Some("v"));
}
