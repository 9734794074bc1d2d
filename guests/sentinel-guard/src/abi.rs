//! The module's exports: memory that the host fills and reads, and handlers that take and return JSON in it.

use std::alloc::Layout;

use serde::de::DeserializeOwned;

use crate::config::Refused;
use crate::messages::Answer;

/// A block of `size` bytes for the host to write to; null where there is not that much memory.
#[unsafe(no_mangle)]
extern "C" fn alloc(size: usize) -> *mut u8 {
    match layout(size) {
        // SAFETY: the layout is at least one byte long. Zeroed, so that reading what the host did not write is sound.
        Some(layout) => unsafe { std::alloc::alloc_zeroed(layout) },
        None => std::ptr::null_mut(),
    }
}

/// Takes back what `alloc` or a handler returned, with the size it had.
#[unsafe(no_mangle)]
unsafe extern "C" fn dealloc(ptr: *mut u8, size: usize) {
    if let (false, Some(layout)) = (ptr.is_null(), layout(size)) {
        // SAFETY: the host gives back each block once and with its size; both `alloc` and `give` allocate with the
        // layout of that size.
        unsafe { std::alloc::dealloc(ptr, layout) }
    }
}

/// Takes the deployment's `config`; the result is 0 if the module can work with it.
#[unsafe(no_mangle)]
unsafe extern "C" fn on_configure(ptr: *const u8, len: usize) -> i32 {
    // SAFETY: as for the handlers, the host passes a block of `len` bytes from `alloc`.
    let input = unsafe { std::slice::from_raw_parts(ptr, len) };
    match crate::on_configure(input) {
        Ok(()) => 0,
        Err(Refused::Malformed) => 1,
        Err(Refused::Meaningless) => 2,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn on_request_headers(ptr: *const u8, len: usize) -> u64 {
    // SAFETY: the host passes a block of `len` bytes from `alloc`, and frees it only after this call.
    let input = unsafe { std::slice::from_raw_parts(ptr, len) };
    give(&crate::on_request_headers(&parsed(input)))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn on_response_headers(ptr: *const u8, len: usize) -> u64 {
    // SAFETY: the host passes a block of `len` bytes from `alloc`, and frees it only after this call.
    let input = unsafe { std::slice::from_raw_parts(ptr, len) };
    give(&crate::on_response_headers(&parsed(input)))
}

/// Traps when the input is not what the ABI promises: no decision could be trusted then.
fn parsed<T: DeserializeOwned>(input: &[u8]) -> T {
    serde_json::from_slice(input).expect("the host passes the JSON of the ABI")
}

/// Hands the answer over to the host, which frees it with `dealloc`. No answer is 0, which allows.
fn give(answer: &Answer) -> u64 {
    if *answer == Answer::ALLOW {
        return 0;
    }
    let json = serde_json::to_vec(answer).expect("an answer is lists and maps of text");
    let block = Box::into_raw(json.into_boxed_slice());
    pack(block as *mut u8 as usize, block.len())
}

/// The pointer in the upper 32 bits, the length in the lower ones.
fn pack(ptr: usize, len: usize) -> u64 {
    (ptr as u64) << 32 | len as u64
}

/// No layout where `size` is more than memory can hold. An allocation of no bytes is undefined, so one is the least.
fn layout(size: usize) -> Option<Layout> {
    Layout::array::<u8>(size.max(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_size_may_be_asked_for() {
        for size in [0, 1, 7, 4_096] {
            let block = alloc(size);
            assert!(!block.is_null(), "{size}");
            // SAFETY: the block is from `alloc` and this long, and nothing else uses it.
            unsafe { dealloc(block, size) }
        }
        assert!(alloc(usize::MAX).is_null());
        // SAFETY: nothing is freed.
        unsafe { dealloc(std::ptr::null_mut(), 8) }
    }

    #[test]
    fn a_result_is_a_pointer_and_a_length() {
        assert_eq!(pack(0x8000_0000, 0xff), 0x8000_0000_0000_00ff);
    }
}
