//! A reload that changes how workers are connected to: the next request goes out in the new way, on a new connection.

use crate::support::{Authority, ConfigFile, Dns, Files, Gate, Gateway, H2Worker, Nowhere, Reply, Worker, eventually};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);

/// A gateway of one shard, whose requests go out whatever the health checks say.
fn unchecked(file: &ConfigFile) -> Gateway {
    file.gateway().args(["--disable-health-check", "--shards=1", "--upstream-reuse=always"]).start()
}

#[test]
fn the_next_request_is_http_2_or_again_http_1_1() {
    let (old, new) = (Worker::echo(), H2Worker::echo());
    let text = |url: String, http2: bool| format!("worker_urls: [{url}]\nupstream_http2: {http2}\n");
    let file = ConfigFile::new(text(old.url(), false));
    let gateway = unchecked(&file);
    assert_eq!(gateway.get("/").status, 200);
    file.rewrite(text(old.url(), true));
    assert!(gateway.reload().contains("tls"));
    assert_ne!(gateway.get("/").status, 200, "this one speaks HTTP/1.1 only");
    file.rewrite(text(old.url(), false));
    gateway.reload();
    assert_eq!(gateway.get("/").status, 200);

    file.rewrite(text(new.url(), true));
    gateway.reload();
    assert_eq!(gateway.get("/x").text(), "/x");
    file.rewrite(text(new.url(), false));
    gateway.reload();
    assert_ne!(gateway.get("/").status, 200, "this one speaks HTTP/2 only");
    eventually(LIMIT, || new.open_connections() == 0);
}

#[test]
fn an_authority_that_is_not_believed_any_more_is_not_on_kept_connections_either() {
    let (ours, foreign, files) = (Authority::new(), Authority::new(), Files::new());
    let worker = Worker::with_tls(ours.leaf(&["127.0.0.1"]).acceptor(&[], None), |_, conn| conn.answer(200, ""));
    let text = |roots: String| format!("worker_urls: [{}]\nca_cert_paths: [{roots}]\n", worker.url());
    let (believing, other) = (text(ours.write(&files, "ours.pem")), text(foreign.write(&files, "foreign.pem")));
    let file = ConfigFile::beside(files, &believing);
    let gateway = unchecked(&file);
    assert_eq!([(); 3].map(|()| gateway.get("/").status), [200; 3]);
    file.rewrite(other);
    assert!(gateway.reload().contains("tls"));
    gateway.get("/").assert_error(502, "upstream_connection_failed");
    file.rewrite(believing);
    gateway.reload();
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn workers_are_shown_the_certificate_of_the_new_configuration() {
    let (ours, clients, files) = (Authority::new(), Authority::new(), Files::new());
    let acceptor = ours.leaf(&["127.0.0.1"]).acceptor(&[], Some(&clients));
    let worker = Worker::with_tls(acceptor, |_, conn| {
        let shown = conn.channel().peer().expect("it was asked for").to_vec();
        conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", shown.len()));
        conn.send(shown);
    });
    let (one, two) = (clients.leaf(&["one.test"]), clients.leaf(&["two.test"]));
    let roots = ours.write(&files, "roots.pem");
    let text = |(chain, key): (String, String)| {
        let identity = format!("client_cert_path: {chain}\nclient_key_path: {key}\n");
        format!("worker_urls: [{}]\nca_cert_paths: [{roots}]\n{identity}", worker.url())
    };
    let (first, second) = (text(one.write(&files, "one")), text(two.write(&files, "two")));
    let file = ConfigFile::beside(files, first);
    let gateway = unchecked(&file);
    assert_eq!(gateway.get("/").body, one.der().as_ref());
    file.rewrite(second);
    gateway.reload();
    assert_eq!(gateway.get("/").body, two.der().as_ref());
}

#[test]
fn kept_connections_go_by_the_new_idle_time() {
    let worker = Worker::echo();
    let text = |seconds: f64| format!("worker_urls: [{}]\nupstream_pool_idle_timeout_secs: {seconds}\n", worker.url());
    let file = ConfigFile::new(text(600.0));
    let gateway = unchecked(&file);
    assert_eq!([(); 3].map(|()| gateway.get("/").status), [200; 3]);
    assert_eq!(worker.connections(), 1);
    file.rewrite(text(0.2));
    gateway.reload();
    worker.wait_for_closed(1);
    gateway.get("/");
    worker.wait_for_closed(2);
}

#[test]
fn a_stream_goes_on_over_its_connection_which_nobody_uses_after_it() {
    let finish = Gate::new();
    let worker = Worker::streaming(&finish);
    let text = |seconds: u32| format!("worker_urls: [{}]\nupstream_pool_idle_timeout_secs: {seconds}\n", worker.url());
    let file = ConfigFile::new(text(600));
    let gateway = unchecked(&file);
    let mut client = gateway.connect();
    client.begin_stream(&[]);
    assert_eq!((gateway.get("/").status, worker.connections()), (200, 2));
    file.rewrite(text(500));
    gateway.reload();
    worker.wait_for_closed(1);
    assert_eq!(gateway.get("/").status, 200);
    finish.open();
    client.end_stream();
    worker.wait_for_closed(2);
    assert_eq!((gateway.get("/").status, worker.connections()), (200, 3));
}

#[test]
fn the_time_to_connect_is_the_new_one() {
    let silent = Nowhere::silent();
    let text = |seconds: f64| format!("worker_urls: [{}]\nconnect_timeout_secs: {seconds}\n", silent.url());
    let file = ConfigFile::new(text(600.0));
    let gateway = file.gateway().args(["--disable-health-check", "--disable-retries"]).start();
    file.rewrite(text(0.3));
    assert!(gateway.reload().contains("workers"));
    let start = Instant::now();
    gateway.get("/").assert_error(504, "upstream_connect_timeout");
    assert!(start.elapsed() < LIMIT);
}

#[test]
fn names_are_looked_up_at_once_with_the_new_servers() {
    let (old, new) = (Dns::start(), Dns::start());
    let here = Worker::echo();
    // Nobody listens there: a worker that is not asked, whichever way.
    let there = SocketAddr::from(([127, 0, 0, 77], here.address.port()));
    old.set("w.test", Reply::at(&there.ip().to_string(), 300));
    new.set("w.test", Reply::at("127.0.0.1", 300));
    let text = |dns: &Dns| format!("worker_urls: [http://w.test:{}]\ndns_servers: [{}]\n", there.port(), dns.address);
    let file = ConfigFile::new(text(&old));
    let gateway = unchecked(&file);
    gateway.get("/").assert_error(502, "upstream_connection_failed");
    file.rewrite(text(&new));
    gateway.reload();
    eventually(LIMIT, || gateway.get("/").status == 200);
}

#[test]
fn only_the_certificates_in_force_are_watched() {
    let (worker, files, authority) = (Worker::echo(), Files::new(), Authority::new());
    let text = |(chain, key): (String, String)| {
        let listeners = "listeners: [{address: \"127.0.0.1:0\", tls: true}]";
        format!("worker_urls: [{}]\n{listeners}\ncertificates: [{{cert: {chain}, key: {key}}}]\n", worker.url())
    };
    let leaf = || authority.leaf(&["a.test"]);
    let (first, second) = (text(leaf().write(&files, "one")), text(leaf().write(&files, "two")));
    let file = ConfigFile::beside(files, first);
    let gateway = file.gateway().start();
    file.rewrite(second);
    assert!(gateway.reload().contains("tls"));
    file.files.write("one.pem", "no certificate any more");
    // Two looks at these, and there would have been one at the others.
    for turn in 1..=2 {
        let taken = gateway.log().matches("a certificate is in use").count();
        leaf().write(&file.files, "two");
        eventually(LIMIT, || gateway.log().matches("a certificate is in use").count() > taken);
        assert!(!gateway.log().contains("not taken"), "look {turn}: {}", gateway.log());
    }
}
