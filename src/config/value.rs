//! What a value may look like.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Units of time, in seconds.
const TIMES: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86_400.0)];

/// Units of size, in bytes. They are case-insensitive.
const SIZES: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// A time with a unit, such as `500ms`, `1.5s`, `5m`, `2h` or `1d`.
fn with_unit(text: &str) -> Option<Duration> {
    let parts = TIMES.iter().filter_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, seconds)));
    let mut times = parts.filter_map(|(number, seconds)| Some(number.trim_end().parse::<f64>().ok()? * seconds));
    Duration::try_from_secs_f64(times.next()?).ok()
}

/// A time greater than 0. A plain number is in seconds.
pub fn seconds(text: &str) -> Result<Duration, &'static str> {
    let plain = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let time = plain.or_else(|| with_unit(text));
    let bounds = Duration::from_millis(1)..=Duration::from_secs(1_000_000_000);
    time.filter(|time| bounds.contains(time)).ok_or(
        "it must be a number of seconds greater than 0, such as 30 or 0.5, or a time with a unit, such as 500ms, 5m or 2h",
    )
}

/// The same, or 0.
pub fn seconds_or_none(text: &str) -> Result<Duration, &'static str> {
    if text.parse() == Ok(0.0) { Ok(Duration::ZERO) } else { seconds(text) }
}

/// A time of up to an hour. A plain number is in milliseconds.
pub fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    let time = text.parse().ok().map(Duration::from_millis).or_else(|| with_unit(text));
    let bounds = Duration::from_millis(1)..=Duration::from_secs(3600);
    time.filter(|time| bounds.contains(time)).ok_or(
        "it must be a whole number of milliseconds from 1 to 3600000, or a time with a unit, such as 500ms or 2s",
    )
}

/// The same, or 0.
pub fn milliseconds_or_none(text: &str) -> Result<Duration, &'static str> {
    if text.parse() == Ok(0_u64) { Ok(Duration::ZERO) } else { milliseconds(text) }
}

/// A size. A plain number is in bytes.
pub fn bytes(text: &str) -> Result<u64, &'static str> {
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let unit = unit.trim_start();
    let factor = match unit {
        "" => Some(1),
        _ => SIZES.iter().find(|(known, _)| known.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor),
    };
    let size = number.parse::<u64>().ok().zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    size.ok_or("it must be a number of bytes, such as 65536, or a size with a unit, such as 64KiB or 10MB")
}

/// A guest's stack.
pub fn stack_size(text: &str) -> Result<u32, &'static str> {
    let size = bytes(text)?;
    let size = u32::try_from(size).ok().filter(|size| (16_384..=67_108_864).contains(size));
    size.ok_or("it must be from 16384 to 67108864 bytes (64MiB)")
}

/// An address of this machine to listen on.
pub fn address(text: &str) -> Result<IpAddr, &'static str> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse() {
        Ok(address) => Ok(address),
        Err(_) if text.eq_ignore_ascii_case("localhost") => Ok(Ipv4Addr::LOCALHOST.into()),
        Err(_) => Err("it must be an IP address of this machine, such as 0.0.0.0, 127.0.0.1 or ::, or localhost"),
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
    fn times_take_fractions_and_units_and_refuse_nonsense() {
        for (text, ms) in [("0.25", 250), ("1e3", 1_000_000), ("250ms", 250), ("1.5 s", 1500), ("5m", 300_000)] {
            assert_eq!(seconds(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(seconds("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(seconds("1d"), Ok(Duration::from_secs(86_400)));
        for bad in ["0", "-1", "nan", "inf", "1e300", "x", "", "5x", "m", "-5m", "1h30m", "0ms", "nans", "infm", "5M"] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
        for (text, ms) in [("250", 250), ("250ms", 250), ("2s", 2000), ("1h", 3_600_000)] {
            assert_eq!(milliseconds(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["0", "3600001", "2h", "0.5", "-1", "x", "", "18446744073709551615"] {
            assert!(milliseconds(bad).is_err(), "{bad}");
        }
        assert_eq!((seconds_or_none("0"), milliseconds_or_none("0")), (Ok(Duration::ZERO), Ok(Duration::ZERO)));
    }

    #[test]
    fn sizes_take_units() {
        for (text, size) in [
            ("0", 0),
            ("65536", 65_536),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("10MB", 10_000_000),
            ("10kB", 10_000),
            ("1GiB", 1 << 30),
            ("1TB", 1_000_000_000_000),
            ("7B", 7),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(bytes(text), Ok(size), "{text}");
        }
        for bad in ["", "MB", "-1", "1.5MB", "10 M", "10MBs", "99999999TiB", "18446744073709551616", "1e3"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
        assert_eq!((stack_size("1MiB"), stack_size("1kB").is_err()), (Ok(1 << 20), true));
    }

    #[test]
    fn addresses_are_of_this_machine() {
        for (text, shown) in [("0.0.0.0", "0.0.0.0"), ("::1", "::1"), ("[::]", "::"), ("LocalHost", "127.0.0.1")] {
            assert_eq!(address(text).map(|address| address.to_string()).as_deref(), Ok(shown), "{text}");
        }
        for bad in ["", "example.org", "127.0.0.1:80", "[127", "[]"] {
            assert!(address(bad).is_err(), "{bad}");
        }
    }
}
