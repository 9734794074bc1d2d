//! Floods of HTTP/2 frames: one connection that means ill, and what must hold meanwhile.

use super::gateway::Gateway;
use super::h2_frames::{Code, Frame};
use super::h2_raw::{Ending, RawH2};
use super::wait::eventually;
use super::worker::Worker;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// What a gateway may take for one client that means ill.
const MOST_MEMORY: u64 = 32 * MIB;

/// What a gateway that is built for tests may compute for it, and for the other client beside it.
const MOST_CPU: Duration = Duration::from_secs(1);

/// How long a flood may go on before its connection ends.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How long another client's request may take meanwhile, on a busy machine.
const SERVED_WITHIN: Duration = Duration::from_secs(2);

pub fn head(path: &str) -> [(&str, &str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

/// A worker that answers `/fine` and holds everything else until its peer leaves.
pub fn holding() -> Worker {
    Worker::new(|request, conn| match request.target.as_str() {
        "/fine" => conn.answer(200, "fine"),
        _ => {
            conn.wait_peer_closed(Duration::from_secs(30));
        }
    })
}

/// Runs `flood` while another client is served and memory is watched; asserts what holds for every flood.
#[track_caller]
pub fn endure<T>(gateway: &Gateway, flood: impl FnOnce() -> T) -> T {
    assert_eq!(gateway.get("/fine").text(), "fine");
    let before = gateway.memory();
    let (done, most, slowest) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let outcome = std::thread::scope(|scope| {
        let watching = || {
            while !done.load(Ordering::SeqCst) {
                most.fetch_max(gateway.memory(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let served = || {
            while !done.load(Ordering::SeqCst) {
                let start = Instant::now();
                assert_eq!(gateway.get("/fine").text(), "fine");
                slowest.fetch_max(start.elapsed().as_millis() as u64, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        scope.spawn(watching);
        scope.spawn(served);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(flood));
        done.store(true, Ordering::SeqCst);
        outcome
    });
    let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let (most, slowest) = (most.into_inner(), Duration::from_millis(slowest.into_inner()));
    assert!(most < before + MOST_MEMORY, "{} MiB -> {} MiB", before / MIB, most / MIB);
    assert!(slowest < SERVED_WITHIN, "another client waited {slowest:?}");
    eventually(Duration::from_secs(5), || gateway.load() == 0);
    outcome
}

/// Repeats `frames` on one connection, as fast as it takes them, until it ends; `None` if it does not.
#[track_caller]
pub fn pour(gateway: &Gateway, mut frames: impl FnMut(u32) -> Vec<Frame> + Send) -> Option<Ending> {
    let (mut raw, _) = RawH2::open(gateway.address, &[]);
    let mut reader = raw.split_reader();
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || -> io::Result<()> {
            let start = Instant::now();
            for round in (0u32..).step_by(64).take_while(|_| start.elapsed() < LIMIT) {
                let batch: Vec<_> = (round..round + 64).flat_map(&mut frames).flat_map(|f| f.encode()).collect();
                raw.write(batch)?;
            }
            Ok(())
        });
        let ending = reader.ending(LIMIT);
        assert_eq!(ending.is_some(), writing.join().expect("writing does not panic").is_err());
        ending
    })
}

/// Pours, and asserts that it ended as a flood should.
#[track_caller]
pub fn is_cut_off(frames: impl FnMut(u32) -> Vec<Frame> + Send) -> Ending {
    let worker = holding();
    let gateway = Gateway::before(&worker);
    let computed = gateway.cpu();
    let ending = endure(&gateway, || pour(&gateway, frames)).expect("the connection of a flood ends");
    let computed = gateway.cpu() - computed;
    assert!(computed < MOST_CPU, "{computed:?} for one client");
    let calm = [Code::ENHANCE_YOUR_CALM, Code::PROTOCOL_ERROR, Code::FRAME_SIZE_ERROR, Code::STREAM_CLOSED];
    assert!(ending.goaway.is_none_or(|code| calm.contains(&code)), "{ending:?}");
    assert!(worker.requests().len() < 5_000, "the worker was flooded, too: {} requests", worker.requests().len());
    ending
}

/// The stream id of the nth request.
pub fn nth(n: u32) -> u32 {
    2 * n + 1
}
