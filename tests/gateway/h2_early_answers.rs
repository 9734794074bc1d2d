//! Requests over HTTP/2 that are answered before their bodies have ended: what is left of a body is taken if it is not
//! long, its client is told to stop if it is, and no other stream of the connection suffers.

use crate::support::{Answer, Code, Frame, Gate, Gateway, H2, Last, StreamEnd, Worker, eventually};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

fn guarded(worker: &Worker) -> Gateway {
    Gateway::builder().worker(worker).arg("--api-key=s3cret").start()
}

/// Starts uploads, and waits for their answers; the bodies are still to be sent.
fn answered(client: &mut H2, count: usize, status: u16) -> Vec<u32> {
    let streams: Vec<_> = (0..count).map(|_| client.start("POST", "/", &[], Last::No)).collect();
    for stream in &streams {
        client.wait_until(*stream, |answer| answer.status == status && answer.end == StreamEnd::Clean);
    }
    streams
}

fn is_told_to_stop(answer: &Answer) -> bool {
    answer.reset_after == Some(Code::NO_ERROR)
}

#[test]
fn uploads_that_are_refused_do_not_cost_those_that_are_not() {
    let worker = Worker::echo();
    let places = ["--max-concurrent-requests=4", "--queue-size=0"];
    let gateway = Gateway::builder().worker(&worker).args(places).start();
    let mut client = H2::connect(&gateway);
    let good: Vec<_> = (0..4).map(|_| client.start("POST", "/", &[], Last::No)).collect();
    for _ in 0..10 {
        let refused = answered(&mut client, 100, 429);
        for part in [Last::No, Last::Yes] {
            refused.iter().for_each(|stream| client.data(*stream, &[b'x'; 10_000], part));
        }
        assert!(refused.iter().all(|stream| client.answer(*stream).reset_after.is_none()), "one was cut off");
    }
    for stream in good {
        client.data(stream, b"body", Last::Yes);
        assert_eq!(client.wait(stream).status, 200);
    }
}

// More than the stream's window, so that it is read, with nothing else to wake the connection.
#[test]
fn an_upload_of_half_a_mebibyte_is_taken_whole() {
    let worker = Worker::new(|_, _| ());
    let early = Worker::on_head(|_, conn| conn.answer(400, "no"));
    let refusing = [guarded(&worker), Gateway::before(&early), {
        Gateway::builder().worker(&worker).arg("--max-payload-size=1000").start()
    }];
    for (gateway, status) in refusing.iter().zip([401, 400, 413]) {
        let mut client = H2::connect(gateway);
        let length = (MIB / 2).to_string();
        for headers in [&[][..], &[("content-length", length.as_str())]] {
            let stream = client.start("POST", "/", headers, Last::No);
            client.data(stream, &[b'x'; MIB / 4], Last::No);
            client.wait_until(stream, |answer| answer.status == status);
            client.data(stream, &[b'x'; MIB / 4], Last::Yes);
            client.take_for(Duration::from_millis(50));
            assert_eq!(client.answer(stream).reset_after, None, "{status}");
        }
        assert_eq!(client.get("/health").status, 200);
    }
}

#[test]
fn a_long_upload_is_told_to_stop_and_costs_little() {
    let worker = Worker::echo();
    let gateway = guarded(&worker);
    let mut client = H2::connect(&gateway);
    let computed = gateway.cpu();
    for _ in 0..8 {
        let stream = answered(&mut client, 1, 401)[0];
        // It stops where it is told to.
        client.data(stream, &vec![b'x'; 100 * MIB], Last::Yes);
        assert!(is_told_to_stop(client.answer(stream)), "{:?}", client.answer(stream));
    }
    let computed = gateway.cpu() - computed;
    assert!(computed < Duration::from_secs(1), "{computed:?}");
    assert_eq!(client.get("/health").status, 200);
}

/// Waits until more than `than` of the streams were told to stop; these.
fn stopped(client: &mut H2, streams: &[u32], than: usize) -> Vec<u32> {
    let start = Instant::now();
    loop {
        client.take_for(Duration::from_millis(20));
        let is_stopped = |stream: &u32| is_told_to_stop(client.answer(*stream));
        let stopped: Vec<_> = streams.iter().copied().filter(is_stopped).collect();
        if stopped.len() > than {
            return stopped;
        }
        assert!(start.elapsed() < Duration::from_secs(8), "no more than {than} were reset");
    }
}

// h2 remembers few streams that were reset, and takes what comes for others for a fault.
#[test]
fn uploads_that_take_long_are_reset_no_faster_than_they_are_remembered() {
    let worker = Worker::echo();
    let gateway = guarded(&worker);
    let mut client = H2::connect(&gateway);
    let streams = answered(&mut client, 120, 401);
    let first = stopped(&mut client, &streams, 0);
    let start = Instant::now();
    // A client that has not read yet that it should stop.
    while start.elapsed() < Duration::from_millis(150) {
        first.iter().for_each(|stream| client.raw.send(&Frame::new(Frame::DATA, 0, *stream, *b"x")));
        client.take_for(Duration::from_millis(2));
    }
    assert_eq!(client.get("/health").status, 200);
    stopped(&mut client, &streams, 40);
}

#[test]
fn uploads_that_are_answered_do_not_hold_up_a_drain() {
    let held = Gate::new();
    let wait = held.clone();
    let worker = Worker::on_head(move |request, conn| {
        if request.target == "/held" {
            wait.wait_within(Duration::from_secs(20));
        }
        conn.answer(200, "early");
    });
    let mut gateway = Gateway::before(&worker);
    let mut client = H2::connect(&gateway);
    answered(&mut client, 30, 200);
    let last = client.start("POST", "/held", &[], Last::No);
    eventually(Duration::from_secs(5), || worker.requests().iter().any(|r| r.target == "/held"));
    gateway.terminate();
    held.open();
    client.wait_until(last, |answer| answer.text() == "early");
    assert!(gateway.wait_exit(Duration::from_secs(5)).success());
}
