//! Time, stack and memory, used without restraint.

use std::hint::black_box;
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

pub fn spin() -> ! {
    loop {
        black_box(());
    }
}

/// Computes by the monotonic clock: asking it is a host call, so the loop leaves the guest now and then.
pub fn spin_for(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        for n in 0..1_000 {
            black_box(n);
        }
    }
}

/// Runs out of stack.
pub fn recurse() -> ! {
    black_box(deeper(black_box([1, 2, 3, 4])));
    unreachable!("there is no end to the recursion but the stack's")
}

/// Holds four values across the call. They are locals of the machine code, not of linear memory, so it is the
/// host's own stack that runs out and not the one the guest keeps for itself.
#[expect(unconditional_recursion, reason = "that is the point")]
#[inline(never)]
fn deeper([a, b, c, d]: [u64; 4]) -> u64 {
    let below = deeper([
        b ^ d,
        c.wrapping_mul(3),
        d.rotate_left(7),
        a.wrapping_add(1),
    ]);
    below.rotate_left(3) ^ a.wrapping_mul(below | b) ^ c.rotate_right(5) ^ d
}

/// Allocates until nothing more is to be had.
pub fn grow() -> ! {
    loop {
        leak_mib(1);
    }
}

/// Touches `count` MiB and never gives them back. Traps when memory runs out.
pub fn leak_mib(count: usize) {
    for _ in 0..count {
        black_box(vec![1_u8; MIB].leak());
    }
}

/// The largest body there is memory for, up to 1 GiB.
pub fn largest_body() -> Vec<u8> {
    let mut body = Vec::new();
    for mib in (1..=1024).rev() {
        if body.try_reserve_exact(mib * MIB).is_ok() {
            body.resize(mib * MIB, b'g');
            break;
        }
    }
    body
}
