//! TLS with clients (`--tls-cert-path`, `--tls-key-path`): either version of HTTP, certificates that change, a drain.

use crate::support::{
    Authority, Builder, Caller, Client, End, Files, Frame, Gate, Gateway, H2, Leaf, PREFACE, WebSocket, Worker,
    eventually, holds_for,
};
use std::io;
use std::net::TcpStream;
use std::time::Duration;

const MIB: usize = 1 << 20;
const LIMIT: Duration = Duration::from_secs(5);

/// An authority, the files of a certificate of its, and a client that trusts it.
struct Site {
    authority: Authority,
    files: Files,
    leaf: Leaf,
    pair: (String, String),
}

impl Site {
    fn new() -> Self {
        let (authority, files) = (Authority::new(), Files::new());
        let leaf = authority.leaf(&["127.0.0.1", "smg.test"]);
        let pair = leaf.write(&files, "site");
        Site { authority, files, leaf, pair }
    }

    fn caller(&self) -> Caller {
        self.authority.client("127.0.0.1")
    }

    fn builder(&self) -> Builder {
        Gateway::builder().tls(self.caller(), &self.pair)
    }

    /// The certificate that a new client is shown.
    fn shown(&self, gateway: &Gateway) -> Vec<u8> {
        gateway.connect().channel().peer().expect("the handshake is over").to_vec()
    }
}

#[test]
fn what_is_spoken_is_agreed_on_by_alpn() {
    let (site, worker) = (Site::new(), Worker::echo());
    let gateway = site.builder().worker(&worker).start();
    let connect = |alpn: &[&str]| Client::try_connect_tls(gateway.address, site.caller().alpn(alpn));
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("h2")),
        (&["http/1.1", "h2"], Some("h2")),
        (&["h2"], Some("h2")),
        (&["http/1.1"], Some("http/1.1")),
        (&["spdy/1", "http/1.1"], Some("http/1.1")),
        (&[], None),
    ] {
        assert_eq!(connect(offered).expect("a connection").channel().alpn().as_deref(), agreed, "{offered:?}");
    }
    assert!(connect(&["spdy/1"]).is_err(), "RFC 7301 section 3.2: there is nothing to agree on");
    assert_eq!(connect(&["http/1.1"]).unwrap().get("/one").json()["path"], "/one");
    assert_eq!(H2::connect(&gateway).get("/two").json()["path"], "/two");
    let metrics = gateway.metrics();
    assert!(metrics.sum("smg_http_connections_total", &[("protocol", "h2")]) >= 1.0);
    assert!(metrics.sum("smg_http_connections_total", &[("protocol", "http/1.1")]) >= 1.0);
    assert!(metrics.sum("smg_tls_handshakes_total", &[("outcome", "made")]) >= 8.0);
    eventually(LIMIT, || gateway.metrics().sum("smg_tls_handshakes_total", &[("outcome", "failed")]) == 1.0);
}

// RFC 9113 section 3.2.
#[test]
fn http_2_is_not_spoken_where_alpn_has_not_agreed_on_it() {
    let (site, worker) = (Site::new(), Worker::echo());
    let gateway = site.builder().worker(&worker).start();
    for alpn in [&["http/1.1"][..], &[]] {
        let mut client = Client::try_connect_tls(gateway.address, site.caller().alpn(alpn)).expect("a connection");
        client.send([PREFACE, &Frame::settings(&[]).encode()].concat());
        client.read_response_however("GET").assert_error(505, "http_version_not_supported");
        client.assert_closed();
    }
    assert_eq!(gateway.metrics().sum("smg_http_connections_total", &[("protocol", "h2")]), 0.0);
}

#[test]
fn workers_are_told_that_the_client_came_by_https() {
    let (site, worker) = (Site::new(), Worker::echo());
    let gateway = site.builder().worker(&worker).start();
    for forged in [&[][..], &[("X-Forwarded-Proto", "http")], &[("X-Forwarded-Proto", "gopher, http")]] {
        gateway.request("GET", "/", forged, b"");
        let lower: Vec<_> = forged.iter().map(|(_, value)| ("x-forwarded-proto", *value)).collect();
        H2::connect(&gateway).request("GET", "/", &lower, b"");
    }
    for request in worker.requests() {
        assert_eq!(request.headers.get("x-forwarded-proto"), Some("https"), "{}", request.head);
    }
}

#[test]
fn both_versions_of_tls_carry_both_versions_of_http() {
    let (site, worker) = (Site::new(), Worker::new(|request, conn| conn.answer(200, &request.body)));
    let gateway = site.builder().worker(&worker).start();
    let body: Vec<u8> = (0..4 * MIB + 3).map(|i| (i * 31 + i / 251) as u8).collect();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let caller = site.caller().version(version);
        let mut old = Client::connect_tls(gateway.address, caller.clone());
        assert_eq!(old.channel().version(), version.version);
        for _ in 0..2 {
            old.send_request("POST", "/", &[], &body);
            assert!(old.read_response().body == body, "{:?}", version.version);
        }
        let mut new = H2::connect_tls(gateway.address, caller);
        assert!(new.post("/", &body).body == body, "{:?}", version.version);
    }
}

// RFC 9112 section 9.8: close_notify is what tells an end from a cut.
#[test]
fn an_answer_that_ends_with_its_connection_ends_as_tls_wants() {
    let site = Site::new();
    let worker = Worker::new(|request, conn| {
        conn.start_events();
        conn.chunk("data: 1\n\n");
        if request.target == "/whole" { conn.chunk("") } else { conn.close() }
    });
    let gateway = site.builder().worker(&worker).start();
    for (path, clean) in [("/whole", true), ("/cut", false)] {
        let mut client = gateway.connect();
        client.send(format!("GET {path} HTTP/1.0\r\n\r\n"));
        client.read_until("data: 1\n\n");
        assert_eq!(client.read_end() == End::Clean, clean, "{path}");
    }
}

#[test]
fn a_client_that_leaves_without_a_word_takes_its_request_with_it() {
    let site = Site::new();
    let worker = Worker::new(|_, conn| assert!(conn.wait_peer_closed(LIMIT)));
    let gateway = site.builder().worker(&worker).start();
    for end in [std::net::Shutdown::Write, std::net::Shutdown::Both] {
        let mut client = gateway.connect();
        client.send_request("POST", "/", &[], b"x");
        worker.wait_for_request();
        client.channel().tcp().shutdown(end).unwrap();
        eventually(Duration::from_secs(1), || gateway.load() == 0);
    }
}

#[test]
fn a_websocket_passes() {
    let (site, worker) = (Site::new(), Worker::new(|request, conn| WebSocket::accept(request, conn).echo()));
    let gateway = site.builder().worker(&worker).start();
    let mut client = WebSocket::open_tls(gateway.address, site.caller(), "/chat");
    for text in ["hello", "", &"long ".repeat(50_000)] {
        let message = crate::support::Message::text(text);
        assert!(client.ask(&message) == message);
    }
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_open_ones_go_on() {
    let (site, gate) = (Site::new(), Gate::new());
    let worker = Worker::streaming(&gate);
    let gateway = site.builder().worker(&worker).start();
    let (mut old, mut new) = (gateway.connect(), H2::connect(&gateway));
    old.begin_stream(&[]);
    let stream = new.begin_stream();
    // Half of it, then the other: a pair that does not belong together is not taken.
    let next = site.authority.leaf(&["127.0.0.1"]);
    site.files.write("site.pem", &next.chain);
    gateway.wait_for_log("a changed certificate is not taken");
    holds_for(Duration::from_millis(200), || site.shown(&gateway) == site.leaf.der().to_vec());
    site.files.write("site.key", &next.key);
    eventually(LIMIT, || site.shown(&gateway) == next.der().to_vec());
    std::fs::remove_file(&site.pair.1).unwrap();
    site.files.write("site.pem", "not a certificate");
    gateway.wait_for_log("site.key: no such file");
    assert_eq!(site.shown(&gateway), next.der().to_vec());
    gate.open();
    old.end_stream();
    new.end_stream(stream);
    assert_eq!(old.get("/health").status, 200, "the connection of before");
}

#[test]
fn files_that_cannot_be_used_are_an_error_that_names_them() {
    let site = Site::new();
    let foreign = site.authority.leaf(&["127.0.0.1"]).write(&site.files, "foreign");
    let garbage = site.files.write("garbage.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let empty = site.files.write("empty.pem", "");
    let missing = site.files.named("missing.pem");
    let directory = site.files.root().to_str().unwrap().to_owned();
    let ours = ["--tls-cert-path", "--tls-key-path"];
    let workers = ["--client-cert-path", "--client-key-path"];
    for flags in [ours, workers] {
        for (chain, key, named) in [
            (&missing, &site.pair.1, &missing),
            (&site.pair.0, &missing, &missing),
            (&garbage, &site.pair.1, &garbage),
            (&empty, &site.pair.1, &empty),
            (&directory, &site.pair.1, &directory),
            (&site.pair.0, &site.pair.0, &site.pair.0),
            (&site.pair.0, &foreign.1, &foreign.1),
        ] {
            refused(&[format!("{}={chain}", flags[0]), format!("{}={key}", flags[1])], named);
        }
    }
    for roots in [&missing, &garbage, &empty, &site.pair.1] {
        refused(&[format!("--ca-cert-paths={roots}")], roots);
    }
    for alone in ours.into_iter().chain(workers) {
        let ran = crate::support::run(&["--port=0", &format!("{alone}={}", site.pair.0)], &[]);
        assert!(ran.code == Some(2) && ran.stderr.contains("--"), "{alone}: {}", ran.stderr);
    }
}

#[track_caller]
fn refused(flags: &[String], named: &str) {
    let args: Vec<_> = ["--host=127.0.0.1", "--port=0"].into_iter().chain(flags.iter().map(String::as_str)).collect();
    let ran = crate::support::run(&args, &[]);
    assert_eq!(ran.code, Some(1), "{flags:?}: {}", ran.stderr);
    assert!(ran.stderr.contains(named) && !ran.stdout.contains("listening"), "{flags:?}: {}", ran.stderr);
}

// Case 64.
#[test]
fn a_drain_finishes_streams_and_waits_for_no_handshake() {
    let (site, gate) = (Site::new(), Gate::new());
    let worker = Worker::streaming(&gate);
    let mut gateway = site.builder().worker(&worker).start();
    let (mut old, mut idle, mut new) = (gateway.connect(), gateway.connect(), H2::connect(&gateway));
    idle.get("/health");
    old.begin_stream(&[]);
    let stream = new.begin_stream();
    let silent = TcpStream::connect(gateway.address).unwrap();
    let mut half = TcpStream::connect(gateway.address).unwrap();
    io::Write::write_all(&mut half, &site.caller().hello()[..40]).unwrap();
    gateway.terminate();
    eventually(LIMIT, || TcpStream::connect(gateway.address).is_err());
    assert_eq!(idle.read_end(), End::Clean);
    assert!(gateway.is_running());
    gate.open();
    old.end_stream();
    assert_eq!(old.read_end(), End::Clean);
    new.end_stream(stream);
    assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0));
    drop((silent, half));
}
