//! TLS with workers: whom the gateway believes, who it is to them, and what an end without a word means.

use crate::support::{
    Authority, Builder, End, Files, Gateway, H2, H2Worker, Message, StreamEnd, WebSocket, Worker, eventually,
};
use std::io::ErrorKind;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// A gateway that believes `authority`; its requests go out whatever the health checks say.
fn believing(authority: &Authority, files: &Files) -> Builder {
    let roots = authority.write(files, "roots.pem");
    Gateway::builder().args([format!("--ca-cert-paths={roots}"), "--shards=1".into(), "--disable-health-check".into()])
}

fn echo_with(authority: &Authority, name: &str) -> Worker {
    Worker::with_tls(authority.leaf(&[name]).acceptor(&[], None), |request, conn| conn.answer(200, &request.target))
}

#[test]
fn a_worker_is_believed_by_its_authority_and_name() {
    let (ours, foreign, files) = (Authority::new(), Authority::new(), Files::new());
    let believed = echo_with(&ours, "127.0.0.1");
    assert_eq!(believing(&ours, &files).worker(&believed).start().get("/x").text(), "/x");
    for (worker, why) in [
        (echo_with(&foreign, "127.0.0.1"), "UnknownIssuer"),
        (echo_with(&ours, "127.0.0.2"), "not valid for name"),
        (echo_with(&ours, "worker.test"), "not valid for name"),
    ] {
        let gateway = believing(&ours, &files).worker(&worker).start();
        for method in ["GET", "POST"] {
            gateway.request(method, "/", &[], b"x").assert_error(502, "upstream_connection_failed");
        }
        gateway.wait_for_log(why);
        assert!(worker.requests().is_empty());
    }
    // Without roots of our own the system's count, which know no such authority.
    let gateway = Gateway::builder().worker(&believed).arg("--disable-health-check").start();
    gateway.get("/").assert_error(502, "upstream_connection_failed");
    // A plain worker does not answer to a handshake.
    let plain = Worker::echo();
    let builder = believing(&ours, &files).worker_url(plain.url().replace("http:", "https:"));
    let gateway = builder.args(["--connect-timeout-secs=0.5", "--disable-retries"]).start();
    gateway.get("/").assert_error(504, "upstream_connect_timeout");
}

#[test]
fn health_checks_shake_hands_too() {
    let (ours, foreign, files) = (Authority::new(), Authority::new(), Files::new());
    let roots = foreign.write(&files, "roots.pem");
    let worker = echo_with(&ours, "127.0.0.1");
    let flags = [format!("--ca-cert-paths={roots}"), "--health-check-interval-secs=0.2".into()];
    let gateway = Gateway::builder().worker(&worker).args(flags).start_unready();
    gateway.get("/").assert_error(503, "no_available_workers");
    eventually(LIMIT, || !worker.broken().is_empty());
    // The right roots, while it runs.
    ours.write(&files, "roots.pem");
    eventually(LIMIT, || gateway.get("/readiness").status == 200);
    assert_eq!(gateway.get("/x").text(), "/x");
    worker.set_health(500);
    gateway.wait_for_workers(0);
}

#[test]
fn a_worker_that_wants_to_know_us_gets_our_certificate() {
    let (ours, clients, files) = (Authority::new(), Authority::new(), Files::new());
    let acceptor = ours.leaf(&["127.0.0.1"]).acceptor(&[], Some(&clients));
    let worker = Worker::with_tls(acceptor, |_, conn| {
        let shown = conn.channel().peer().expect("it was asked for").to_vec();
        conn.send(format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", shown.len()));
        conn.send(shown);
        conn.close();
    });
    let with = |leaf: &crate::support::Leaf, name: &str| {
        let (chain, key) = leaf.write(&files, name);
        let identity = [format!("--client-cert-path={chain}"), format!("--client-key-path={key}")];
        believing(&ours, &files).worker(&worker).args(identity).start()
    };
    let identity = clients.leaf(&["gateway.test"]);
    let gateway = with(&identity, "identity");
    assert!(gateway.get("/").body == identity.der().to_vec());
    for gateway in [believing(&ours, &files).worker(&worker).start(), with(&ours.leaf(&["gateway.test"]), "foreign")] {
        for method in ["GET", "POST"] {
            assert_eq!(gateway.request(method, "/", &[], b"x").status, 502);
        }
    }
    assert_eq!(worker.requests().len(), 1);
    // A new identity is shown on new connections.
    let next = clients.leaf(&["gateway.test"]);
    next.write(&files, "identity");
    eventually(LIMIT, || gateway.get("/").body == next.der().to_vec());
}

// RFC 9112 section 9.8: anyone on the path can end a connection of TCP.
#[test]
fn an_answer_that_ends_without_close_notify_is_not_whole() {
    let (ours, files) = (Authority::new(), Files::new());
    let worker = Worker::with_tls(ours.leaf(&["127.0.0.1"]).acceptor(&[], None), |request, conn| {
        let (framing, end) = request.target[1..].split_once('/').expect("two words");
        let length = if framing == "length" { "Content-Length: 5\r\n" } else { "" };
        conn.send(format!("HTTP/1.1 200 OK\r\n{length}\r\nhello"));
        if end == "cut" { conn.cut() } else { conn.close() }
    });
    let gateway = believing(&ours, &files).worker(&worker).start();
    for (path, whole) in [("/close/cut", false), ("/close/word", true), ("/length/cut", true), ("/length/word", true)] {
        let mut old = gateway.connect();
        old.send_request("GET", path, &[], b"");
        let answer = old.read_response_however("GET");
        let end = if whole { End::Clean } else { End::Broken(ErrorKind::UnexpectedEof) };
        assert_eq!((answer.text().as_str(), answer.end), ("hello", end), "{path}");
        let answer = H2::connect(&gateway).get(path);
        assert_eq!(answer.end == StreamEnd::Clean, whole, "{path}: {answer:?}");
    }
    assert_eq!(worker.requests().len(), 8, "never again once an answer has begun");
}

// Session tickets come after the handshake, on a connection that may be idle by then.
#[test]
fn connections_are_used_again() {
    let (ours, files) = (Authority::new(), Files::new());
    let worker = echo_with(&ours, "127.0.0.1");
    let gateway = believing(&ours, &files).worker(&worker).start();
    let mut client = gateway.connect();
    for i in 0..20 {
        client.send_request(if i % 2 == 0 { "POST" } else { "GET" }, &format!("/{i}"), &[], b"x");
        assert_eq!(client.read_response().text(), format!("/{i}"));
    }
    assert_eq!(worker.connections(), 1);
}

#[test]
fn a_websocket_passes_through_tls_on_both_sides() {
    let (ours, files) = (Authority::new(), Files::new());
    let acceptor = ours.leaf(&["127.0.0.1"]).acceptor(&["http/1.1"], None);
    let worker = Worker::with_tls(acceptor, |request, conn| WebSocket::accept(request, conn).echo());
    let pair = ours.leaf(&["127.0.0.1"]).write(&files, "site");
    let caller = ours.client("127.0.0.1");
    // HTTP/2 knows no such upgrade: the request goes over HTTP/1.1 all the same.
    for flags in [&[][..], &["--upstream-http2"]] {
        let gateway = believing(&ours, &files).worker(&worker).tls(caller.clone(), &pair).args(flags.to_vec()).start();
        let mut client = WebSocket::open_tls(gateway.address, caller.clone(), "/chat");
        for text in ["hello", "", &"long ".repeat(50_000)] {
            assert!(client.ask(&Message::text(text)) == Message::text(text));
        }
        assert_eq!(client.ask(&Message::close(1000, "done")), Message::close(1000, "done"));
        assert!(client.ends_within(Duration::from_secs(1)));
        drop(client);
        eventually(Duration::from_secs(1), || gateway.load() == 0);
    }
}

#[test]
fn http_2_is_agreed_on_by_alpn() {
    let (ours, files) = (Authority::new(), Files::new());
    let leaf = ours.leaf(&["127.0.0.1"]);
    let worker = H2Worker::builder().tls(leaf.acceptor(&["h2", "http/1.1"], None)).start(|request, stream| {
        stream.head(200, &[]);
        stream.data(&request.body, 0);
        stream.trailers(&[("grpc-status", "0")]);
    });
    let roots = ours.write(&files, "roots.pem");
    let builder = || Gateway::builder().args([format!("--ca-cert-paths={roots}"), "--upstream-http2".into()]);
    let gateway = builder().worker_url(worker.url()).arg("--shards=1").start();
    let body: Vec<u8> = (0..1 << 20).map(|i: usize| (i * 31 + i / 251) as u8).collect();
    for _ in 0..3 {
        assert!(gateway.request("POST", "/", &[], &body).body == body);
        let answer = H2::connect(&gateway).post("/", &body);
        assert!(answer.body == body && answer.trailers.get("grpc-status") == Some("0"));
    }
    assert_eq!(worker.connections(), 1);
    assert!(worker.requests().iter().all(|request| request.scheme == "https"));
    drop(gateway);
    // A worker without it is told apart by the handshake, not by what it answers.
    for alpn in [&[][..], &["http/1.1"]] {
        let old = Worker::with_tls(leaf.acceptor(alpn, None), |_, conn| conn.answer(200, ""));
        let gateway = builder().worker(&old).arg("--disable-health-check").start();
        gateway.request("POST", "/", &[], b"x").assert_error(502, "upstream_connection_failed");
        assert!(old.requests().is_empty() && old.connections() == 0);
    }
    // And one that only has HTTP/2, where that is not wanted.
    let new = H2Worker::builder().tls(leaf.acceptor(&["h2"], None)).start(|_, stream| stream.answer(200, ""));
    let gateway = believing(&ours, &files).worker_url(new.url()).start();
    gateway.get("/").assert_error(502, "upstream_connection_failed");
}
