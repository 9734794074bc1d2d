//! Requests and frames that HTTP/2 forbids (cases 47 to 50): what could mean something else on HTTP/1.1 is refused,
//! never sent on. Refused is a stream that is reset or answered with 400, or a connection that ends.

use crate::support::{Answer, Code, Frame, Gate, Gateway, H2, Last, RawH2, StreamEnd, Worker};
use std::time::Duration;

const SMUGGLED: &str = "x\r\nHost: a\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

type Fields = Vec<(&'static str, &'static str)>;

/// A good head; the pseudo-fields come first.
fn good() -> Fields {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/bad")]
}

/// A good head with one pseudo-field's value changed.
fn with(name: &'static str, value: &'static str) -> Fields {
    good().into_iter().map(|field| if field.0 == name { (name, value) } else { field }).collect()
}

fn without(name: &str) -> Fields {
    good().into_iter().filter(|field| field.0 != name).collect()
}

fn and(name: &'static str, value: &'static str) -> Fields {
    [good(), vec![(name, value)]].concat()
}

fn is_refused(answer: &Answer) -> bool {
    match answer.end {
        StreamEnd::Reset(_) | StreamEnd::Lost => answer.status == 0 || answer.status == 400,
        StreamEnd::Open | StreamEnd::Clean => answer.status == 400,
    }
}

/// Sends each head on a connection of its own; none may be answered otherwise or reach the worker.
#[track_caller]
fn all_are_refused(heads: Vec<Fields>) {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut complaints = Vec::new();
    for head in heads {
        let answer = H2::connect(&gateway).request_with(&head);
        if !is_refused(&answer) {
            complaints.push(format!("{head:?}: {} {:?} {}", answer.status, answer.end, answer.text()));
        }
    }
    assert_eq!(H2::connect(&gateway).get("/after").status, 200, "the gateway goes on serving");
    complaints
        .extend(worker.requests().iter().filter(|r| r.target != "/after").map(|r| format!("sent on: {}", r.head)));
    complaints.extend(worker.broken());
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// Case 48.
#[test]
fn pseudo_fields_that_are_repeated_late_unknown_or_absent_are_refused() {
    let mut heads: Vec<_> = good().into_iter().map(|(name, value)| and(name, value)).collect();
    heads.extend([":method", ":scheme", ":path"].map(without));
    heads.extend([[vec![("x", "y")], good()].concat(), and(":late", "x"), and(":status", "200"), and(":", "x")]);
    heads.push([vec![(":status", "200")], good()].concat());
    heads.push([vec![(":protocol", "websocket")], good()].concat());
    all_are_refused(heads);
}

// Case 48: RFC 9113 section 8.3.1 asks for an authority or a Host field where there is one to name.
#[test]
fn a_request_to_nobody_is_refused() {
    all_are_refused(vec![without(":authority"), with(":authority", "")]);
}

// Case 48: RFC 9113 section 8.2.2.
#[test]
fn fields_that_belong_to_a_connection_are_refused() {
    all_are_refused(vec![
        and("connection", "close"),
        and("connection", "x-other"),
        and("keep-alive", "timeout=5"),
        and("proxy-connection", "keep-alive"),
        and("transfer-encoding", "chunked"),
        and("transfer-encoding", "identity"),
        and("upgrade", "websocket"),
        and("te", "gzip"),
        and("te", "trailers, gzip"),
    ]);
}

// Cases 48 and 50: RFC 9113 section 8.2.1.
#[test]
fn names_that_are_none_are_refused() {
    let names =
        ["X-Upper", "", "a b", "a:b", " a", "a ", "a\r\nb", "a\nb", "a\0b", "a\x7fb", "a(b", "transfer-encodinG"];
    let smuggling = "x: y\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    all_are_refused(names.into_iter().chain([smuggling]).map(|name| and(name, "v")).collect());
}

// Case 50.
#[test]
fn values_with_line_ends_are_refused() {
    let values = ["a\rb", "a\nb", "a\r\nb", "a\0b", "\r", "\n", "a\r\n b", SMUGGLED];
    all_are_refused(values.into_iter().map(|value| and("x", value)).collect());
}

// Case 50. Such values are malformed, too, but harmless once they are trimmed.
#[test]
fn values_with_space_around_them_are_refused_or_trimmed() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for value in [" v", "v ", "\tv", "v\t"] {
        let answer = H2::connect(&gateway).request_with(&and("x", value));
        assert!(is_refused(&answer) || answer.status == 200, "{value:?}: {answer:?}");
    }
    assert!(worker.requests().iter().all(|r| r.headers.get("x") == Some("v")));
}

// Case 50.
#[test]
fn methods_that_are_none_are_refused() {
    let methods = ["", "G T", "GET\r\n", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nGET", "GET\0", "G(T", "GET "];
    all_are_refused(methods.map(|method| with(":method", method)).to_vec());
}

// Case 50.
#[test]
fn paths_that_are_none_are_refused() {
    let paths = ["", "bad", "/b ad", "/bad HTTP/1.1\r\nX: y", "/bad\r\n", "/b\0d", "/b\nd", "/b\td", "*", SMUGGLED];
    all_are_refused(paths.map(|path| with(":path", path)).to_vec());
}

// The parser of URIs drops fragments, so they need not be refused.
#[test]
fn a_fragment_is_not_sent_on() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let answer = H2::connect(&gateway).request_with(&with(":path", "/bad#x"));
    assert!(is_refused(&answer) || answer.status == 200, "{answer:?}");
    assert!(worker.requests().iter().all(|r| r.target == "/bad"));
}

// Case 50.
#[test]
fn authorities_and_schemes_that_are_none_are_refused() {
    let authorities = ["a b", "a\r\nX: y", "a/b", "user@a", "a:b:c", "a?b", "a#b", "a\0", SMUGGLED];
    let schemes = ["ht tp", "http\r\nX: y"];
    let heads = authorities.map(|a| with(":authority", a)).into_iter().chain(schemes.map(|s| with(":scheme", s)));
    all_are_refused(heads.collect());
}

// Case 48: whoever decides by one of the two must not be told the other.
#[test]
fn an_authority_that_differs_from_the_host_is_refused_or_wins() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for host in ["b", "a.evil", "a:81", ""] {
        let answer = H2::connect(&gateway).request_with(&and("host", host));
        assert!(is_refused(&answer) || answer.status == 200, "{host:?}: {answer:?}");
    }
    let two_hosts = [without(":authority"), vec![("host", "a"), ("host", "b")]].concat();
    assert!(is_refused(&H2::connect(&gateway).request_with(&two_hosts)));
    for request in worker.requests() {
        assert_eq!(request.headers.get("x-forwarded-host"), Some("a"));
        assert_eq!(request.headers.get("host"), Some(worker.address.to_string().as_str()));
    }
}

// The `h2` crate drops pseudo-fields among trailers where RFC 9113 section 8.1 wants the stream refused.
#[test]
fn trailers_that_are_none_are_refused_or_dropped() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for name in [":path", ":status", "X-Upper", "connection", "a b"] {
        let mut client = H2::connect(&gateway);
        let announced = format!("x, {name}");
        let stream = client.start("POST", "/odd", &[("trailer", &announced)], Last::No);
        client.data(stream, b"hello", Last::No);
        client.trailers(stream, &[(name, "evil")]);
        let answer = client.wait(stream);
        assert!(is_refused(&answer) || answer.status == 200, "{name}: {answer:?}");
    }
    for request in worker.requests() {
        assert_eq!((request.target.as_str(), request.trailers.iter().count()), ("/odd", 0), "{request:?}");
    }
}

// Case 49: RFC 9113 section 8.1.1.
#[test]
fn a_length_that_is_not_the_sum_of_the_data_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let bodies: [(&[&str], &[&[u8]]); 10] = [
        (&["5"], &[]),
        (&["5"], &[b"hell"]),
        (&["5"], &[b"hello!"]),
        (&["5", "4"], &[b"hello"]),
        (&["5, 5"], &[b"hello"]),
        (&["+5"], &[b"hello"]),
        (&["0x5"], &[b"hello"]),
        (&["-1"], &[b"hello"]),
        (&[""], &[b"hello"]),
        (&["18446744073709551621"], &[b"hello"]),
    ];
    let mut complaints = Vec::new();
    for (lengths, pieces) in bodies {
        let mut client = H2::connect(&gateway);
        let lengths: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        let last = |i| if i == pieces.len() { Last::Yes } else { Last::No };
        let stream = client.start("POST", "/bad", &lengths, last(0));
        for (i, piece) in pieces.iter().enumerate() {
            client.data(stream, piece, last(i + 1));
        }
        let answer = client.wait(stream);
        if !is_refused(&answer) {
            complaints.push(format!("{lengths:?} {pieces:?}: {} {:?}", answer.status, answer.end));
        }
    }
    complaints.extend(worker.requests().iter().map(|r| format!("sent on: {}{:?}", r.head, r.body)));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

// Case 49. The worker may have answered before the excess comes; it never gets it.
#[test]
fn what_goes_on_after_its_length_is_not_sent_on() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    for (length, whole) in [("5", "hello"), ("0", "")] {
        let mut client = H2::connect(&gateway);
        let stream = client.start("POST", "/bad", &[("content-length", length)], Last::No);
        client.data(stream, whole.as_bytes(), Last::No);
        client.take_for(Duration::from_millis(100));
        client.data(stream, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", Last::Yes);
        let answer = client.wait(stream);
        assert!(is_refused(&answer) || answer.status == 200, "{answer:?}");
    }
    assert_eq!(H2::connect(&gateway).get("/after").status, 200);
    for request in worker.requests().iter().filter(|r| r.target != "/after") {
        let length = request.headers.get("content-length").unwrap_or("0");
        assert_eq!((request.target.as_str(), request.body.len().to_string().as_str()), ("/bad", length));
    }
    assert!(worker.broken().is_empty(), "{:?}", worker.broken());
}

// Case 47: RFC 9113 section 5.1.2.
#[test]
fn streams_beyond_the_limit_are_refused_and_the_others_are_served() {
    let gate = Gate::new();
    let wait = gate.clone();
    let worker = Worker::new(move |request, conn| {
        wait.wait();
        conn.answer(200, request.target.as_str());
    });
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    let most = client.setting(Frame::MAX_CONCURRENT_STREAMS).expect("there is a limit");
    assert!((100..=1000).contains(&most), "{most}");
    let served: Vec<_> = (0..most).map(|i| client.start("GET", &format!("/{i}"), &[], Last::Yes)).collect();
    let refused: Vec<_> = (0..5).map(|_| client.start("GET", "/beyond", &[], Last::Yes)).collect();
    for stream in refused {
        assert_eq!(client.wait(stream).end, StreamEnd::Reset(Code::REFUSED_STREAM));
    }
    gate.open();
    for (i, stream) in served.into_iter().enumerate() {
        assert_eq!(client.wait(stream).text(), format!("/{i}"));
    }
    assert_eq!(client.get("/again").text(), "/again", "the places are free again");
}

// Case 47.
#[test]
fn the_last_stream_id_ends_only_its_connection() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let (mut raw, _) = RawH2::open(gateway.address, &[]);
    raw.send(&Frame::headers(0x7fff_ffff, Frame::END_STREAM, good()));
    raw.expect(|f| f.stream == 0x7fff_ffff && f.has(Frame::END_STREAM));
    assert!(raw.is_alive(), "what is open may go on");
    for id in [0x7fff_fffd, 0x7fff_fffe, 1] {
        let (mut raw, _) = RawH2::open(gateway.address, &[]);
        raw.send(&Frame::headers(0x7fff_ffff, Frame::END_STREAM, good()));
        raw.expect(|f| f.stream == 0x7fff_ffff && f.has(Frame::END_STREAM));
        let _ = raw.try_send(&Frame::headers(id, Frame::END_STREAM, good()));
        let ending = raw.ending(Duration::from_secs(3)).expect("there is no id below the last one");
        assert!(
            ending.goaway.is_none_or(|code| [Code::PROTOCOL_ERROR, Code::STREAM_CLOSED].contains(&code)),
            "{ending:?}"
        );
    }
    assert_eq!(worker.requests().len(), 4);
    assert_eq!(H2::connect(&gateway).get("/").status, 200);
}
