//! What one call leaves behind in guest memory for the next.

use std::cell::{Cell, RefCell};

thread_local! {
    static REMEMBERED: RefCell<Option<String>> = const { RefCell::new(None) };
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

pub fn remember(text: String) {
    REMEMBERED.set(Some(text));
}

pub fn recall() -> String {
    REMEMBERED.with_borrow(|text| text.clone().unwrap_or_else(|| "nothing".to_owned()))
}

/// The how manieth count this is, from 1.
pub fn count() -> String {
    CALLS.set(CALLS.get() + 1);
    CALLS.get().to_string()
}
