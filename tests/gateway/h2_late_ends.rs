//! Clients of HTTP/2 that end a stream with an empty frame after a body of known length, and have more to do than they
//! can: the answer is there before that frame.

use crate::support::{Gateway, H2, Last, Worker};
use std::time::Duration;

/// Starts streams with complete bodies and without ends, and waits for the answers.
fn answered(client: &mut H2, count: usize) -> Vec<u32> {
    let start = |_| client.start("POST", "/", &[("content-length", "4")], Last::No);
    let streams: Vec<_> = (0..count).map(start).collect();
    streams.iter().for_each(|stream| client.data(*stream, b"body", Last::No));
    for stream in &streams {
        client.wait_until(*stream, |answer| answer.status == 200 && answer.text().ends_with('}'));
    }
    streams
}

#[test]
fn ends_that_come_after_the_answers_do_not_end_the_connection() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    for _ in 0..3 {
        let streams = answered(&mut client, 100);
        streams.iter().for_each(|stream| client.data(*stream, b"", Last::Yes));
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn ends_that_never_come_do_not_hold_up_a_drain() {
    let worker = Worker::echo();
    let mut gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    answered(&mut client, 50);
    gateway.terminate();
    assert!(gateway.wait_exit(Duration::from_secs(4)).success());
}
