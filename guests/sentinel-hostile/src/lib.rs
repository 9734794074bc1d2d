//! A guest of the Sentinel ABI that misbehaves as it is told, for the gateway's own tests.
//!
//! The header `x-hostile` says what to do: of the request in `on_request_headers`, of the response, where the test's
//! worker sets it, in `on_response_headers`. [`behaviour`] lists what can be asked for. Without the header the result
//! is 0, which allows.

mod answer;
mod behaviour;
mod blocks;
mod memory;
mod resources;

use std::cell::Cell;

use behaviour::{Seen, Side};

#[unsafe(no_mangle)]
extern "C" fn alloc(size: usize) -> usize {
    blocks::alloc(size)
}

#[unsafe(no_mangle)]
extern "C" fn dealloc(ptr: usize, size: usize) {
    blocks::dealloc(ptr, size);
}

#[unsafe(no_mangle)]
extern "C" fn on_request_headers(ptr: usize, len: usize) -> u64 {
    handle(Side::Request, ptr, len)
}

#[unsafe(no_mangle)]
extern "C" fn on_response_headers(ptr: usize, len: usize) -> u64 {
    handle(Side::Response, ptr, len)
}

thread_local! {
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

/// Traps when the input is not what the ABI says: a fault of the gateway, which its tests must not miss.
fn handle(side: Side, ptr: usize, len: usize) -> u64 {
    CALLS.set(CALLS.get() + 1);
    let input = blocks::held(ptr, len).expect("the input is in a block that `alloc` gave out");
    let seen = Seen::parse(side, &input, CALLS.get());
    behaviour::run(&seen).packed()
}
