//! What the gateway holds for clients that ask and do not read: little, whatever version of HTTP they speak, and not for
//! long after they have left.

use crate::support::{Builder, Client, Frame, Gateway, H2, Last, Worker, eventually};
use std::time::Duration;

const KIB: u64 = 1024;
/// What may be buffered for each client, and what a connection and a request need besides.
const BUFFERED: u64 = 64 * KIB;
const BESIDES: u64 = 16 * KIB;
const SOON: Duration = Duration::from_secs(10);

/// Each of its answers goes on for as long as it is taken.
fn endless() -> Worker {
    Worker::new(|request, conn| {
        let piece = vec![b'x'; 64 << 10];
        if request.target == "/warm" {
            return conn.answer(200, &piece);
        }
        if request.target == "/unanswered" {
            // Until its client leaves.
            let _ = conn.read_until("nothing comes");
            return;
        }
        conn.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000000\r\n\r\n");
        while conn.try_send(&piece).is_ok() {}
    })
}

fn start(builder: Builder) -> Gateway {
    let gateway = builder.arg("--shards=1").start();
    // What is made once is made.
    let mut client = gateway.connect();
    (0..50).for_each(|_| assert_eq!(client.get("/warm").body.len(), 64 << 10));
    gateway
}

/// What the gateway has grown by when it has stopped growing.
fn grown(gateway: &Gateway, before: u64) -> u64 {
    let mut last = 0;
    eventually(SOON, || {
        let now = gateway.memory();
        let is_still = std::mem::replace(&mut last, now) == now;
        std::thread::sleep(Duration::from_millis(200));
        is_still
    });
    last.saturating_sub(before)
}

/// The memory is the system's again, but for a tenth and what a larger table keeps. It takes a second at most, and longer
/// on a busy machine.
#[track_caller]
fn assert_returned(gateway: &Gateway, before: u64, grown: u64) {
    eventually(Duration::from_secs(5), || gateway.memory() < before + grown / 10 + 512 * KIB);
}

fn unread(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send_request("GET", "/endless", &[], b"");
    client
}

#[test]
fn an_answer_that_is_not_read_costs_little_and_nothing_when_its_client_has_left() {
    let (worker, count) = (endless(), 150);
    let gateway = start(Gateway::builder().worker(&worker));
    let before = gateway.memory();
    let clients: Vec<_> = (0..count).map(|_| unread(&gateway)).collect();
    eventually(SOON, || worker.requests().len() as u64 >= count);
    let grown = grown(&gateway, before);
    let each = grown / count;
    assert!(each < BUFFERED + BESIDES, "{each} bytes for each client");
    drop(clients);
    assert_returned(&gateway, before, grown);
}

#[test]
fn requests_that_are_sent_ahead_of_an_answer_that_is_not_read_cost_little() {
    let (worker, count) = (endless(), 150);
    let gateway = start(Gateway::builder().worker(&worker));
    let before = gateway.memory();
    let mut clients: Vec<_> = (0..count).map(|_| unread(&gateway)).collect();
    for client in &mut clients {
        client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000));
    }
    let each = grown(&gateway, before) / count;
    assert!(each < BUFFERED + BESIDES, "{each} bytes for each client");
}

#[test]
fn streams_that_are_not_read_cost_little_and_their_connection_as_a_whole() {
    let worker = endless();
    let wide = (Frame::INITIAL_WINDOW_SIZE, 1 << 24);
    for (settings, connections, streams, each_connection) in
        [(&[][..], 20, 6, 512 * KIB), (&[wide], 20, 6, 512 * KIB), (&[wide], 3, 120, 2560 * KIB)]
    {
        // The requests themselves: several times as much in a build that is not optimised.
        let state = {
            let gateway = start(Gateway::builder().worker(&worker));
            let before = gateway.memory();
            let _clients = open(&gateway, settings, connections, streams, "/unanswered");
            grown(&gateway, before)
        };
        let gateway = start(Gateway::builder().worker(&worker));
        let before = gateway.memory();
        let clients = open(&gateway, settings, connections, streams, "/endless");
        let grown = grown(&gateway, before);
        let buffered = grown.saturating_sub(state);
        let (stream, connection) = (buffered / (connections * streams), buffered / connections);
        assert!(stream < BUFFERED + BESIDES, "{stream} bytes buffered for each of {streams} streams");
        assert!(connection < each_connection, "{connection} bytes buffered for each connection");
        drop(clients);
        assert_returned(&gateway, before, grown);
    }
}

fn open(gateway: &Gateway, settings: &[(u16, u32)], connections: u64, streams: u64, target: &str) -> Vec<H2> {
    let connect = |_| {
        let mut client = H2::connect_with(gateway.address, settings);
        client.grant(0, 1 << 29);
        for _ in 0..streams {
            client.start("GET", target, &[], Last::Yes);
        }
        client
    };
    (0..connections).map(connect).collect()
}
