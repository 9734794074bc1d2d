//! Panics (case 68). Nobody can cause one by a request, as far as we know; `src/panics/tests.rs` has what becomes of it
//! then. A shard that finds no room for its event queue panics.

use crate::support::{Gateway, Worker};
use std::time::Duration;

/// Enough to start with, and too few for a hundred shards.
const FEW: &str = r#"ulimit -n 100; exec "$0" "$@""#;

#[test]
fn a_gateway_that_loses_a_shard_says_so_and_ends_with_a_failure() {
    let worker = Worker::echo();
    let builder = Gateway::builder().worker(&worker).shell(FEW).env("RUST_BACKTRACE", "0");
    let mut gateway = builder.arg("--shards=100").start_unready();
    assert_eq!(gateway.wait_exit(Duration::from_secs(5)).code(), Some(1));
    gateway.wait_for_log("smg: a part that the gateway can't do without has panicked");
    let log = gateway.log();
    let panics: Vec<_> = log.lines().filter(|line| line.contains("smg::panics: ")).collect();
    let is_told = |line: &&str| line.contains("thread=\"smg-shard-") && line.contains("location=src/shard.rs:");
    assert!(!panics.is_empty() && panics.iter().all(is_told), "{log}");
    let is_one_line = |line: &str| line.starts_with("20") || line.starts_with("smg: ");
    assert!(log.lines().all(is_one_line), "a panic takes more than its line: {log}");
}

#[test]
fn without_panics_their_count_is_zero() {
    let gateway = Gateway::builder().start_unready();
    let metrics = gateway.metrics();
    assert_eq!(metrics.of("smg_panics_total").map(|series| series.value).collect::<Vec<_>>(), [0.0]);
}
