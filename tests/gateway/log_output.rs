//! Case 66: a log or a standard output that nobody takes costs lines, never requests.

use crate::support::{Builder, Client, Gateway, Worker, request};
use std::thread;
use std::time::Duration;

/// Their lines are many times what a pipe holds.
const REQUESTS: usize = 2000;

/// More lines than the gateway keeps for whoever is slow to take them.
const BEYOND_ALL_BUFFERS: usize = 70_000;

/// Serves under load and ends well, started by this line of a shell.
fn serves(line: &str, settings: impl FnOnce(Builder) -> Builder, once_ready: impl FnOnce(&Gateway)) {
    let worker = Worker::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let mut gateway = settings(Gateway::builder().worker(&worker).shell(line)).start();
    let before = gateway.memory();
    once_ready(&gateway);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.connect();
                (0..REQUESTS / 4).for_each(|_| assert_eq!(client.get("/").status, 200));
            });
        }
    });
    assert!(gateway.memory() < before + (64 << 20), "{line}");
    gateway.terminate();
    assert_eq!(gateway.wait_exit(Duration::from_secs(4)).code(), Some(0), "{line}");
}

#[test]
fn a_full_disk_costs_no_request() {
    serves(r#"exec "$0" "$@" 2>/dev/full"#, |builder| builder, |_| {});
}

#[test]
fn a_closed_standard_error_costs_no_request() {
    // What is opened next would be taken for standard error, and get lines of the log between its own bytes.
    let has_a_place_of_its_own =
        |gateway: &Gateway| assert_eq!(gateway.descriptor(2).as_path(), std::path::Path::new("/dev/null"));
    serves(r#"exec "$0" "$@" 2>&-"#, |builder| builder, has_a_place_of_its_own);
}

/// Makes descriptor 0 standard error.
const TO_A_PIPE: &str = r#"exec "$0" "$@" 2>&0 </dev/null"#;

#[test]
fn a_pipe_that_nobody_reads_costs_no_request() {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    serves(TO_A_PIPE, |builder| builder.stdin(writer), ask_for_more_lines_than_are_kept);
}

#[test]
fn a_pipe_whose_reader_has_left_costs_no_request() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    serves(TO_A_PIPE, |builder| builder.stdin(writer), |_| drop(reader));
}

/// Asks the gateway itself, in batches that are as fast as its log.
fn ask_for_more_lines_than_are_kept(gateway: &Gateway) {
    const BATCH: usize = 100;
    let batch = request("a", "GET", "/health", &[], b"").repeat(BATCH);
    let ask = |mut client: Client| {
        for _ in 0..BEYOND_ALL_BUFFERS / 4 / BATCH {
            client.send(&batch);
            (0..BATCH).for_each(|_| assert_eq!(client.read_response().status, 200));
        }
    };
    thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| ask(gateway.connect())))));
}

// Standard output is for the start alone, and who started the gateway may have left by then.
#[test]
fn a_standard_output_that_nobody_takes_costs_no_request() {
    for line in [r#"exec "$0" "$@" >/dev/full"#, r#"exec "$0" "$@" >&-"#, r#"exec "$0" "$@" >&0 </dev/null"#] {
        let (_, writer) = std::io::pipe().expect("a pipe");
        let worker = Worker::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
        let mut gateway = Gateway::builder().worker(&worker).shell(line).stdin(writer).start_untold();
        assert_eq!(gateway.get("/").text(), "hi", "{line}");
        gateway.terminate();
        assert_eq!(gateway.wait_exit(Duration::from_secs(4)).code(), Some(0), "{line}");
    }
}
