//! From the start to the end of a process under load (case 64): what clients are told while it drains, and that streams
//! come through.

use crate::support::{Builder, Client, Gate, Gateway, H2, Worker, eventually, request};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(5);

fn start_stream(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.begin_stream(&[]);
    client
}

fn refuses(gateway: &Gateway) {
    eventually(LIMIT, || TcpStream::connect(gateway.address).is_err());
}

#[test]
fn a_draining_gateway_is_not_ready_and_tells_its_clients_to_leave() {
    let finish = Gate::new();
    let worker = Worker::streaming(&finish);
    let mut gateway = Gateway::before(&worker);
    let mut stream = start_stream(&gateway);
    let mut kept: Vec<_> = (0..3).map(|_| gateway.connect()).collect();
    kept.iter_mut().for_each(|client| assert_eq!(client.get("/").headers.get("connection"), None));
    gateway.terminate();
    refuses(&gateway);
    let (asks, rest) = kept.split_first_mut().expect("three");
    let readiness = asks.get("/readiness");
    assert_eq!((readiness.status, &readiness.json()["reason"]), (503, &"draining".into()));
    assert_eq!(readiness.headers.get("connection"), Some("close"));
    asks.assert_closed();
    let answer = rest[0].get("/");
    assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
    let start = Instant::now();
    rest[1].assert_closed();
    assert!(start.elapsed() < Duration::from_secs(3), "an idle one is closed after about a second");
    finish.open();
    stream.end_stream();
    stream.assert_closed();
    assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn streams_over_both_versions_of_http_finish_within_the_grace_period() {
    let finish = Gate::new();
    let worker = Worker::streaming(&finish);
    let mut gateway = Gateway::before(&worker);
    let mut streams: Vec<_> = (0..8).map(|_| start_stream(&gateway)).collect();
    let mut multiplexed = H2::connect(&gateway);
    let ids = [(); 4].map(|()| multiplexed.begin_stream());
    gateway.terminate();
    refuses(&gateway);
    finish.open();
    for stream in &mut streams {
        stream.end_stream();
        stream.assert_closed();
    }
    ids.into_iter().for_each(|id| multiplexed.end_stream(id));
    assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_exit_code_says_nothing_of_streams_that_were_cut() {
    for (settings, signals) in [("--shutdown-grace-period-secs=0.3", 1), ("--shutdown-grace-period-secs=60", 2)] {
        let finish = Gate::new();
        let worker = Worker::streaming(&finish);
        let mut gateway = Builder::arg(Gateway::builder().worker(&worker), settings).start();
        let mut stream = start_stream(&gateway);
        gateway.terminate();
        refuses(&gateway);
        (1..signals).for_each(|_| gateway.terminate());
        assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0), "{settings}");
        assert!(!stream.read_until_close().ends_with(b"0\r\n\r\n"), "a stream that was cut does not look whole");
        assert!(gateway.log().contains("connections still open"));
        finish.open();
    }
}

// Every request that could be sent before the end is answered; what is refused is refused by connecting.
#[test]
fn no_request_is_lost_when_the_gateway_is_told_to_stop_under_load() {
    let worker = Worker::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    for _ in 0..3 {
        let mut gateway = Gateway::before(&worker);
        let (address, begun) = (gateway.address, AtomicUsize::new(0));
        thread::scope(|scope| {
            for keeps in [false, false, true, true] {
                let begun = &begun;
                scope.spawn(move || ask_until_refused(address, keeps, begun));
            }
            eventually(LIMIT, || begun.load(Ordering::Relaxed) == 4);
            gateway.terminate();
        });
        assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0));
    }
}

/// Asks until the gateway refuses to be connected to. One connection, which the system has accepted in the very moment in
/// which the gateway stopped to listen, may end without a word.
fn ask_until_refused(address: SocketAddr, keeps: bool, begun: &AtomicUsize) {
    let (mut answered, mut unheard) = (0, 0);
    while let Ok(mut client) = Client::try_connect(address) {
        let before = answered;
        loop {
            let sent = client.try_send(request("a", "GET", "/", &[], b""));
            let head = sent.and_then(|()| client.try_read_head("GET"));
            let Ok(Some(head)) = head else {
                assert_eq!(answered, before, "a request on a kept connection is lost: {head:?}");
                unheard += 1;
                break;
            };
            assert_eq!(head.status, 200);
            client.read_until("}");
            answered += 1;
            if answered == 1 {
                begun.fetch_add(1, Ordering::Relaxed);
            }
            if !keeps || head.headers.get("connection") == Some("close") {
                break;
            }
        }
    }
    assert!(unheard <= 1, "{unheard} connections ended without a word");
}
