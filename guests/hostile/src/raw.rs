//! The guest's side of the canonical ABI, by hand: answers that no binding would produce.
//!
//! The generated functions do the work; these stand between them and the host, and swap the answer where a behaviour
//! asked for it.

use std::cell::Cell;

use crate::Hostile;
use crate::exports::smg::gateway::{middleware_on_request, middleware_on_response};

/// An `action` as the host reads it, in words of 4 bytes: the case (0 continue, 1 reject, 2 modify), then of a
/// `modify-action` the status (2), headers-set (pointer, length), headers-add, headers-remove, body-replace (is it there,
/// pointer, length). Leaked, since it must outlive the call; so is what it points to.
pub type Area = &'static [u32; 11];

const MODIFY: u32 = 2;
const NO_STATUS: u32 = 0;
/// Pointer and length of a list or string.
type Span = [u32; 2];
/// An empty list still needs an aligned pointer.
const EMPTY: Span = [4, 0];

/// Headers that are one MiB each, and all the same MiB. Their names are one and the same, too.
pub fn alias(count: usize) -> Area {
    let name = span(b"x-alias");
    let value = span(vec![b'a'; 1 << 20].leak());
    let headers: &[[Span; 2]] = vec![[name, value]; count].leak();
    modify(span(headers), None)
}

/// A header whose value is whatever `bytes` are, UTF-8 or not.
pub fn bytes(bytes: Vec<u8>) -> Area {
    let header: &[[Span; 2]] = vec![[span(b"x-bytes"), span(bytes.leak())]].leak();
    modify(span(header), None)
}

/// A body of `length` bytes, wherever memory ends.
pub fn claim(length: u32) -> Area {
    modify(EMPTY, Some([4, length]))
}

/// A list of headers that begins where no memory is.
pub fn wild() -> Area {
    modify([0xffff_fff0, 16], None)
}

/// A list of headers that begins in the middle of a word.
pub fn misaligned() -> Area {
    modify([6, 1], None)
}

/// Case `case` of `action`, which has three.
pub fn variant(case: u32) -> Area {
    leaked([case, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
}

fn modify([set, set_len]: Span, body: Option<Span>) -> Area {
    let [empty, none] = EMPTY;
    let [body_at, body_len] = body.unwrap_or_default();
    leaked([
        MODIFY,
        NO_STATUS,
        set,
        set_len,
        empty,
        none,
        empty,
        none,
        u32::from(body.is_some()),
        body_at,
        body_len,
    ])
}

fn leaked(area: [u32; 11]) -> Area {
    Box::leak(Box::new(area))
}

/// Where a slice lies in linear memory, whose addresses have 32 bits.
fn span<T>(slice: &'static [T]) -> Span {
    [slice.as_ptr().addr() as u32, slice.len() as u32]
}

thread_local! {
    /// The answer to the call that is under way, until the host has read it.
    static PENDING: Cell<Option<Area>> = const { Cell::new(None) };
}

/// Answers the call that is under way with `area`, whatever the generated code answers.
pub fn hand_over(area: Area) {
    PENDING.set(Some(area));
}

fn pending_or(generated: *mut u8) -> *const u8 {
    PENDING
        .get()
        .map_or(generated.cast_const(), |area| area.as_ptr().cast())
}

#[unsafe(export_name = "smg:gateway/middleware-on-request#on-request")]
unsafe extern "C" fn on_request(
    method: *mut u8,
    method_len: usize,
    path: *mut u8,
    path_len: usize,
    query: *mut u8,
    query_len: usize,
    headers: *mut u8,
    headers_len: usize,
    body: *mut u8,
    body_len: usize,
    request_id: *mut u8,
    request_id_len: usize,
    now_epoch_ms: i64,
) -> *const u8 {
    // SAFETY: the arguments are what the host passed, in the order it passed them.
    pending_or(unsafe {
        middleware_on_request::_export_on_request_cabi::<Hostile>(
            method,
            method_len,
            path,
            path_len,
            query,
            query_len,
            headers,
            headers_len,
            body,
            body_len,
            request_id,
            request_id_len,
            now_epoch_ms,
        )
    })
}

#[unsafe(export_name = "cabi_post_smg:gateway/middleware-on-request#on-request")]
unsafe extern "C" fn after_on_request(answer: *mut u8) {
    if PENDING.take().is_none() {
        // SAFETY: the host gives back what `on_request` returned, and that was the generated code's.
        unsafe { middleware_on_request::__post_return_on_request::<Hostile>(answer) }
    }
}

#[unsafe(export_name = "smg:gateway/middleware-on-response#on-response")]
unsafe extern "C" fn on_response(
    status: i32,
    headers: *mut u8,
    headers_len: usize,
    body: *mut u8,
    body_len: usize,
) -> *const u8 {
    // SAFETY: the arguments are what the host passed, in the order it passed them.
    pending_or(unsafe {
        middleware_on_response::_export_on_response_cabi::<Hostile>(
            status,
            headers,
            headers_len,
            body,
            body_len,
        )
    })
}

#[unsafe(export_name = "cabi_post_smg:gateway/middleware-on-response#on-response")]
unsafe extern "C" fn after_on_response(answer: *mut u8) {
    if PENDING.take().is_none() {
        // SAFETY: the host gives back what `on_response` returned, and that was the generated code's.
        unsafe { middleware_on_response::__post_return_on_response::<Hostile>(answer) }
    }
}
