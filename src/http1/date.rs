//! The `Date` field (RFC 9110 section 6.6.1), written anew once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

struct Cached {
    second: u64,
    field: String,
}

thread_local! {
    static CACHED: RefCell<Cached> = const { RefCell::new(Cached { second: u64::MAX, field: String::new() }) };
}

/// Writes the field line.
pub fn write(out: &mut Vec<u8>) {
    let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    CACHED.with_borrow_mut(|cached| {
        if cached.second != second {
            let now = UNIX_EPOCH + Duration::from_secs(second);
            *cached = Cached { second, field: format!("date: {}\r\n", httpdate::fmt_http_date(now)) };
        }
        out.extend_from_slice(cached.field.as_bytes());
    });
}
