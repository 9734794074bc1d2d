//! Time, stack and memory, used without restraint.

use std::hint::black_box;

use crate::memory;

const MIB: usize = 1 << 20;

pub fn spin() -> ! {
    loop {
        black_box(());
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

/// Touches `count` MiB and never gives them back. Traps when memory runs out.
pub fn leak_mib(count: usize) {
    for _ in 0..count {
        black_box(vec![1_u8; MIB].leak());
    }
}

/// Takes all the memory there is, without touching it.
pub fn grow() {
    while memory::grow_by_a_page() {}
}
