//! Case 66: a log or a standard output that nobody takes costs lines, never requests.

use crate::support::{Builder, Gateway, Worker};
use std::thread;
use std::time::Duration;

/// Their lines are many times what a pipe holds.
const REQUESTS: usize = 2000;

/// Serves under load and ends well, started by this line of a shell.
fn serves(line: &str, settings: impl FnOnce(Builder) -> Builder, once_ready: impl FnOnce()) {
    let worker = Worker::fixed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi");
    let mut gateway = settings(Gateway::builder().worker(&worker).shell(line)).start();
    once_ready();
    let before = gateway.memory();
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
    serves(r#"exec "$0" "$@" 2>/dev/full"#, |builder| builder, || {});
}

#[test]
fn a_closed_standard_error_costs_no_request() {
    serves(r#"exec "$0" "$@" 2>&-"#, |builder| builder, || {});
}

/// Makes descriptor 0 standard error.
const TO_A_PIPE: &str = r#"exec "$0" "$@" 2>&0 </dev/null"#;

#[test]
fn a_pipe_that_nobody_reads_costs_no_request() {
    let (_reader, writer) = std::io::pipe().expect("a pipe");
    serves(TO_A_PIPE, |builder| builder.stdin(writer), || {});
}

#[test]
fn a_pipe_whose_reader_has_left_costs_no_request() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    serves(TO_A_PIPE, |builder| builder.stdin(writer), || drop(reader));
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
