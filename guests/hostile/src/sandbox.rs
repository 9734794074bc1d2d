//! What the guest tries to get from its host.

use std::cell::RefCell;
use std::io::{self, Write};

use crate::wasi::clocks::monotonic_clock::subscribe_duration;
use crate::wasi::io::poll::{self, Pollable};
use crate::wasi::random::random::get_random_bytes;

/// Lines that would clear a terminal, and pass for the gateway's own log.
const FORGERY: &[u8] = b"\x1b[2J\x1b[31mhostile\x1b[0m\n{\"level\":\"ERROR\",\"forged\":true}\n";

/// Prints `count` bytes to stdout, and as many to stderr. A stream that takes no more is left alone.
pub fn print(count: usize) {
    let _ = flood(&mut io::stdout().lock(), count);
    let _ = flood(&mut io::stderr().lock(), count);
}

fn flood(stream: &mut impl Write, count: usize) -> io::Result<()> {
    let mut left = count;
    while left > 0 {
        let piece = &FORGERY[..left.min(FORGERY.len())];
        stream.write_all(piece)?;
        left -= piece.len();
    }
    stream.flush()
}

/// Asks for `count` random bytes at once, and says how many came.
pub fn random(count: u64) -> String {
    get_random_bytes(count).len().to_string()
}

thread_local! {
    static POLLABLES: RefCell<Vec<Pollable>> = const { RefCell::new(Vec::new()) };
}

/// Creates `count` handles and keeps them for as long as the guest lives; says how many it has by now.
pub fn keep_pollables(count: usize) -> String {
    POLLABLES.with_borrow_mut(|kept| {
        for _ in 0..count {
            kept.push(subscribe_duration(u64::MAX));
        }
        kept.len().to_string()
    })
}

/// Waits for `count` handles in one call, all of them ready; says how many were.
pub fn poll(count: usize) -> String {
    let pollables: Vec<_> = (0..count).map(|_| subscribe_duration(0)).collect();
    let borrowed: Vec<_> = pollables.iter().collect();
    poll::poll(&borrowed).len().to_string()
}

pub fn files() -> &'static str {
    let read = |path| std::fs::read(path).is_ok();
    if read("/etc/passwd") || read("../../etc/passwd") || std::fs::read_dir("/").is_ok() {
        "open"
    } else {
        "denied"
    }
}

/// How many variables and arguments there are.
pub fn environment() -> String {
    format!(
        "{},{}",
        std::env::vars_os().count(),
        std::env::args_os().count()
    )
}
