//! Uploads that are held for their model and stop: others find room, and turns.

use crate::support::{Client, ConfigFile, Gateway, Worker, gzip};
use std::time::{Duration, Instant};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn pools() -> (Gateway, [Worker; 2]) {
    let workers = ["a", "b"].map(|name| Worker::new(move |_, conn| conn.answer(200, name)));
    let [a, b] = workers.each_ref().map(Worker::url);
    let pools = format!("pools:\n- {{model: a, workers: [{a}]}}\n- {{model: b, workers: [{b}]}}\n");
    let gateway = ConfigFile::new(format!("disable_health_check: true\n{pools}")).gateway().arg("--shards=1").start();
    (gateway, workers)
}

/// Sends so many MiB of a body that names nothing yet, and stops.
fn upload(gateway: &Gateway, mib: usize) -> Client {
    let mut client = gateway.connect();
    client.set_patience(Duration::from_secs(60));
    let length = (mib << 20) + 1000;
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{{\"x\":\""));
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..mib {
        client.send(&piece);
    }
    client
}

#[test]
fn uploads_that_stop_leave_room_for_others() {
    let (gateway, _workers) = pools();
    let _first = upload(&gateway, 63);
    let mut second = upload(&gateway, 35);
    second.read_response().assert_error(503, "overloaded");
    let chat = format!("{{\"x\":\"{}\",\"model\":\"b\"}}", "p".repeat(150_000));
    for _ in 0..20 {
        assert_eq!(gateway.request("POST", "/", &[JSON], chat.as_bytes()).text(), "b");
    }
}

// A client of a short body has more time: it takes little.
#[test]
fn a_large_upload_that_stops_is_given_up_soon() {
    let (gateway, _workers) = pools();
    let start = Instant::now();
    let mut short = gateway.connect();
    short.set_patience(Duration::from_secs(60));
    short.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 13\r\n\r\n{\"model\"");
    upload(&gateway, 2).read_response().assert_error(408, "request_timeout");
    assert!((15..50).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
    short.send(":\"b\"}");
    assert_eq!(short.read_response().text(), "b");
}

// Each takes a while to decode, one at a time.
#[test]
fn no_queue_of_bodies_to_decode_is_without_end() {
    let (gateway, _workers) = pools();
    let bomb = gzip(format!("{{\"x\":{}", "[".repeat(15 << 20)).as_bytes());
    let headers = [JSON, ("Content-Encoding", "gzip")];
    let mut clients: Vec<_> = (0..40)
        .map(|_| {
            let mut client = gateway.connect();
            client.set_patience(Duration::from_secs(120));
            client.send_request("POST", "/", &headers, &bomb);
            client
        })
        .collect();
    let mut served = 0;
    for client in &mut clients {
        let answer = client.read_response();
        match answer.status {
            200 => served += 1,
            _ => answer.assert_error(503, "overloaded"),
        }
    }
    assert!((17..40).contains(&served), "{served}");
    let answer = gateway.request("POST", "/", &headers, &gzip(b"{\"model\":\"b\"}"));
    assert_eq!(answer.text(), "b");
}
