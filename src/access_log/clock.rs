//! The time at the beginning of a line, as `tracing-subscriber` shows it: RFC 3339 in UTC, with microseconds.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

const LENGTH: usize = "2026-01-02T03:04:05.678901Z".len();

/// Remembers the second it showed last: a busy shard writes thousands of lines in one.
#[derive(Debug, Clone)]
pub struct Clock {
    second: u64,
    text: [u8; LENGTH],
}

impl Default for Clock {
    fn default() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00.000000Z" }
    }
}

impl Clock {
    /// Moments before 1970 are shown as its beginning.
    pub fn show(&mut self, now: SystemTime) -> &[u8] {
        let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since.as_secs() != self.second
            && let Some(date) =
                i64::try_from(since.as_secs()).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok())
        {
            self.second = since.as_secs();
            let year = u32::try_from(date.year()).unwrap_or_default();
            self.put(0..4, year);
            for (at, value) in
                [date.month().into(), date.day(), date.hour(), date.minute(), date.second()].iter().enumerate()
            {
                self.put(5 + 3 * at..7 + 3 * at, u32::from(*value));
            }
        }
        self.put(20..26, since.subsec_micros());
        &self.text
    }

    fn put(&mut self, at: std::ops::Range<usize>, mut value: u32) {
        for digit in self.text[at].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
}
