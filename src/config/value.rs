//! What a value may look like.

use std::time::Duration;

pub fn seconds(text: &str) -> Result<Duration, &'static str> {
    let wrong = "it must be a number of seconds greater than 0, such as 30 or 0.5";
    let seconds: f64 = text.parse().map_err(|_| wrong)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration >= Duration::from_millis(1) && seconds <= 1e9 => Ok(duration),
        _ => Err(wrong),
    }
}

/// The same, or 0.
pub fn seconds_or_none(text: &str) -> Result<Duration, &'static str> {
    if text.parse() == Ok(0.0) { Ok(Duration::ZERO) } else { seconds(text) }
}

pub fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<u64>() {
        Ok(ms @ 1..=3_600_000) => Ok(Duration::from_millis(ms)),
        _ => Err("it must be a whole number of milliseconds from 1 to 3600000"),
    }
}

pub fn origin_form(text: &str) -> Result<String, &'static str> {
    let is_path = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok();
    if is_path { Ok(text.to_owned()) } else { Err("it must be a path that starts with /") }
}

/// An origin as browsers write it (RFC 6454 section 6.2), or `*`.
pub fn origin(text: &str) -> Result<String, &'static str> {
    let parsed = text.split_once("://").map(|(scheme, authority)| (scheme, authority.parse::<http::uri::Authority>()));
    let is_origin = matches!(parsed, Some(("http" | "https", Ok(_)))) && !text.contains('@');
    match text == "*" || is_origin {
        true => Ok(text.to_ascii_lowercase()),
        false => Err("it must be an origin such as https://chat.example, or *"),
    }
}

/// A share, 0 to 1.
pub fn share(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share)).ok_or("it must be a number from 0 to 1")
}

/// A factor of at least 1.
pub fn factor(text: &str) -> Result<f64, &'static str> {
    text.parse().ok().filter(|factor| (1.0..=100.0).contains(factor)).ok_or("it must be a number from 1 to 100")
}

/// A rate per second.
pub fn rate(text: &str) -> Result<f64, &'static str> {
    let rate = text.parse().ok().filter(|rate| (0.001..=1e9).contains(rate));
    rate.ok_or("it must be a number greater than 0, such as 100 or 0.5")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_fractions_and_refuse_nonsense() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "nan", "inf", "1e300", "x", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
