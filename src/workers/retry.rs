//! When a request may be sent again, after which pause, and how often in all. Nothing here sends anything.

mod budget;

use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode};

pub use self::budget::Budget;

#[derive(Debug, Clone, Copy)]
pub struct RetrySettings {
    /// The first attempt is one of them.
    pub max_attempts: u32,
    /// Pause after the first attempt, before jitter.
    pub initial: Duration,
    /// Longest pause, after jitter.
    pub max: Duration,
    /// Each pause is this many times the one before.
    pub multiplier: f64,
    /// Share by which a pause may be longer or shorter, 0 to 1: clients that failed together don't come back
    /// together.
    pub jitter: f64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        let (initial, max) = (Duration::from_millis(50), Duration::from_secs(30));
        Self { max_attempts: 5, initial, max, multiplier: 1.5, jitter: 0.2 }
    }
}

impl RetrySettings {
    /// The pause after the attempt with this number (the first is 1). `random` is evenly spread from 0 to 1.
    pub fn pause(&self, attempt: u32, random: f64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let jitter = 1.0 + self.jitter * (2.0 * random - 1.0);
        let pause = self.initial.as_secs_f64() * self.multiplier.max(1.0).powi(exponent) * jitter;
        // What is no duration is past the largest one: no factor is negative.
        Duration::try_from_secs_f64(pause).unwrap_or(self.max).min(self.max)
    }

    /// The pause before the same worker is asked again, when its answer said how long to wait: no shorter
    /// than it asked for, as far as [`RetrySettings::max`] goes. Another worker said nothing of the kind.
    pub fn pause_as_asked(&self, attempt: u32, random: f64, asked: Option<Duration>) -> Duration {
        self.pause(attempt, random).max(asked.unwrap_or_default()).min(self.max)
    }
}

/// What a worker's `Retry-After` asks for: seconds, or a date (RFC 9110 section 10.2.3). A date that has passed
/// is no time at all; anything else is `None`.
pub fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The worker can't have seen the request: no connection, or one that took none of it.
    Unsent,
    /// The connection broke before an answer, and the worker may have seen the request.
    Broken,
    /// It answered with this status.
    Status(StatusCode),
}

/// Which requests may reach workers twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeat {
    /// Those with safe methods (RFC 9110 section 9.2.1). PUT and DELETE may be repeated too by section 9.2.2, but
    /// the second answer need not be the first: a deletion that worked would be reported as a 404.
    Safe,
    /// All: the operator says that doing a thing twice does no harm (`--retry-non-idempotent`). For generating
    /// text it costs only time.
    Any,
}

/// Whether any request is sent again after an answer with this status.
pub fn may_be_retried(status: StatusCode, repeat: Repeat) -> bool {
    match status.as_u16() {
        408 | 429 | 502..=504 | 529 => true,
        500 => repeat == Repeat::Any,
        _ => false,
    }
}

/// Whether a request may be sent again after this failure. That it still can be, is for others to know: its body
/// must be at hand, attempts and budget left, and no byte of an answer sent on.
pub fn may_resend(failure: Failure, method: &Method, repeat: Repeat) -> bool {
    let Failure::Status(status) = failure else {
        return failure == Failure::Unsent || repeats(method, repeat);
    };
    match status.as_u16() {
        // "I did not do it." 529 is what inference services say when they are overloaded.
        429 | 503 | 529 => true,
        // It may have been done, and only the answer got lost.
        408 | 502 | 504 => repeats(method, repeat),
        // As far as anybody knows it is what the request leads to, or what is wrong with this one worker.
        500 => repeat == Repeat::Any,
        _ => false,
    }
}

/// Whether a request must not go to the same worker again after this failure: there it would end as before.
pub fn needs_another(failure: Failure) -> bool {
    failure == Failure::Status(StatusCode::INTERNAL_SERVER_ERROR)
}

fn repeats(method: &Method, repeat: Repeat) -> bool {
    match repeat {
        Repeat::Safe => method.is_safe(),
        Repeat::Any => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_longest_and_jitter_both_ways() {
        let settings = RetrySettings { jitter: 0.0, ..RetrySettings::default() };
        let ms = |pause: Duration| (pause.as_secs_f64() * 1e4).round() / 10.0;
        assert_eq!([1, 2, 3, 4].map(|attempt| ms(settings.pause(attempt, 0.9))), [50.0, 75.0, 112.5, 168.8]);
        for far in [17, 1000, u32::MAX] {
            assert_eq!(settings.pause(far, 0.5), settings.max);
        }
        let settings = RetrySettings::default();
        assert_eq!([0.0, 0.5, 1.0].map(|random| ms(settings.pause(1, random))), [40.0, 50.0, 60.0]);
        assert_eq!(settings.pause(17, 1.0), settings.max, "jitter doesn't go past it");
        let nonsense = RetrySettings { multiplier: f64::NAN, jitter: f64::INFINITY, ..settings };
        assert!([0.0, 0.5, 1.0].iter().all(|random| nonsense.pause(3, *random) <= settings.max));
    }

    #[test]
    fn a_worker_is_waited_for_as_long_as_it_asks_within_bounds() {
        let settings = RetrySettings::default();
        let seconds = Duration::from_secs;
        for (asked, pause) in [
            (Some(seconds(7)), seconds(7)),
            (Some(seconds(u64::MAX)), settings.max),
            (Some(Duration::ZERO), Duration::from_millis(50)),
            (None, Duration::from_millis(50)),
        ] {
            assert_eq!(settings.pause_as_asked(1, 0.5, asked), pause, "{asked:?}");
        }
        let now = SystemTime::UNIX_EPOCH + seconds(784_111_777);
        for (text, asked) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(0)),
            ("Sun, 06 Nov 1970 08:49:37 GMT", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            let value = HeaderValue::from_static(text);
            assert_eq!(retry_after(&value, now), asked.map(seconds), "{text}");
        }
        assert_eq!(retry_after(&HeaderValue::from_bytes(b"1\xff").expect("a value"), now), None);
    }

    #[test]
    fn what_may_be_sent_again() {
        use Failure::{Broken, Status, Unsent};
        let status = |code| Status(StatusCode::from_u16(code).expect("a status"));
        let rows = [(Unsent, [true; 4]), (Broken, [true, false, false, true])]
            .into_iter()
            .chain([429, 503, 529].map(|code| (status(code), [true; 4])))
            .chain([408, 502, 504].map(|code| (status(code), [true, false, false, true])))
            .chain([(status(500), [false, false, false, true])])
            .chain([200, 400, 404, 501, 505, 599].map(|code| (status(code), [false; 4])));
        for (failure, expected) in rows {
            let cases = [
                (Method::GET, Repeat::Safe),
                (Method::POST, Repeat::Safe),
                (Method::DELETE, Repeat::Safe),
                (Method::POST, Repeat::Any),
            ];
            assert_eq!(cases.map(|(method, repeat)| may_resend(failure, &method, repeat)), expected, "{failure:?}");
            if let Status(status) = failure {
                let any = [Repeat::Safe, Repeat::Any].map(|repeat| may_be_retried(status, repeat));
                assert_eq!(any, [expected[0], expected[3]], "{failure:?}");
            }
        }
    }
}
