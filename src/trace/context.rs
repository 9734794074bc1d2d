//! W3C trace context (<https://www.w3.org/TR/trace-context/>): which trace a request belongs to, as its headers say.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of `traceparent` in version 00, and of the part that later versions must begin with.
const LENGTH: usize = 55;
const SAMPLED: u8 = 0b01;
/// The trace id was made at random (level 2 of the specification): passed on, as the id is.
const RANDOM: u8 = 0b10;
/// What is passed on of `tracestate` at most.
const MAX_STATE: usize = 512;
const MOST_MEMBERS: usize = 32;

/// Never all zeroes. Shown as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(u128);

/// Never all zeroes. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpanId(u64);

/// One span as the others of its trace know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace: TraceId,
    pub span: SpanId,
    flags: u8,
}

impl TraceId {
    pub fn hex(self) -> [u8; 32] {
        let mut digits = [0; 32];
        write_hex(&self.0.to_be_bytes(), &mut digits);
        digits
    }
}

impl SpanId {
    pub fn random() -> Self {
        Self(fastrand::u64(1..))
    }

    pub fn hex(self) -> [u8; 16] {
        let mut digits = [0; 16];
        write_hex(&self.0.to_be_bytes(), &mut digits);
        digits
    }
}

impl TraceContext {
    /// The first span of a new trace.
    pub fn root(sampled: impl FnOnce() -> bool) -> Self {
        let flags = if sampled() { SAMPLED } else { 0 };
        Self { trace: TraceId(fastrand::u128(1..)), span: SpanId::random(), flags }
    }

    /// Another span of the same trace.
    pub fn child(self) -> Self {
        Self { span: SpanId::random(), ..self }
    }

    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Reads the caller's span from a request. `None` if there is none, if it is not valid, or if there are
    /// several; then, or if it is not valid itself, `tracestate` is removed (section 3.3).
    pub fn take_up(headers: &mut HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(&TRACEPARENT).iter();
        let parent = match (values.next(), values.next()) {
            (Some(only), None) => Self::parse(only.as_bytes()),
            _ => None,
        };
        if headers.contains_key(&TRACESTATE) && (parent.is_none() || !has_valid_state(headers)) {
            headers.remove(&TRACESTATE);
        }
        parent
    }

    /// Version 00 to the letter. Of later versions the part that must stay the same is read (section 3.2.4).
    fn parse(value: &[u8]) -> Option<Self> {
        let (known, more) = value.split_at_checked(LENGTH)?;
        let is_complete = match hex(&known[..2])? {
            0x00 => more.is_empty(),
            0xff => false,
            _ => more.first().is_none_or(|next| *next == b'-'),
        };
        let is_divided = [2, 35, 52].iter().all(|at| known[*at] == b'-');
        let (trace, span, flags) = (hex(&known[3..35])?, hex(&known[36..52])?, hex(&known[53..])?);
        if !is_complete || !is_divided || trace == 0 || span == 0 {
            return None;
        }
        Some(Self { trace: TraceId(trace), span: SpanId(span as u64), flags: flags as u8 & (SAMPLED | RANDOM) })
    }

    /// The `traceparent` that names this span to who is called next.
    pub fn header(self) -> HeaderValue {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        text[3..35].copy_from_slice(&self.trace.hex());
        text[36..52].copy_from_slice(&self.span.hex());
        text[LENGTH - 1] = b'0' + self.flags;
        HeaderValue::from_bytes(&text).expect("hexadecimal digits and dashes are valid")
    }
}

fn write_hex(bytes: &[u8], digits: &mut [u8]) {
    for (byte, digits) in bytes.iter().zip(digits.chunks_exact_mut(2)) {
        digits.copy_from_slice(&[byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
}

/// Digits in lower case only; no more than 32 of them.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |value, digit| match digit {
        b'0'..=b'9' => Some(value << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(value << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

/// Several lines are one list. A key that is there twice is its vendors' affair.
fn has_valid_state(headers: &HeaderMap) -> bool {
    let (mut length, mut members) = (0, 0);
    headers.get_all(&TRACESTATE).iter().all(|line| {
        length += line.len();
        line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii).all(|member| {
            members += usize::from(!member.is_empty());
            member.is_empty() || is_member(member)
        }) && length <= MAX_STATE
            && members <= MOST_MEMBERS
    })
}

/// `key=value` (section 3.3.1.3; keys as in level 2, which takes what level 1 takes).
fn is_member(member: &[u8]) -> bool {
    let Some(at) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..at], &member[at + 1..]);
    let begins = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let goes_on = |byte: &u8| begins(byte) || b"_-*/@".contains(byte);
    let in_value = |byte: &u8| matches!(byte, 0x20..=0x7e) && *byte != b'=';
    key.first().is_some_and(begins)
        && key.len() <= 256
        && key.iter().all(goes_on)
        && (1..=256).contains(&value.len())
        && value.iter().all(in_value)
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn map(fields: &[(&HeaderName, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| ((*name).clone(), HeaderValue::from_str(value).expect("a value"))).collect()
    }

    #[test]
    fn a_parent_is_read_to_the_letter() {
        let parse = |text: &str| TraceContext::parse(text.as_bytes());
        for (tail, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true), ("fe", false)] {
            let context = parse(&format!("00-{TRACE}-b7ad6b7169203331-{tail}")).expect(tail);
            assert_eq!((context.trace.to_string().as_str(), context.is_sampled()), (TRACE, sampled), "{tail}");
        }
        for later in ["-01", "-01-", "-01-what-the-future-will-be-like"] {
            assert!(parse(&format!("cc-{TRACE}-b7ad6b7169203331{later}")).is_some(), "{later}");
        }
        for bad in [
            String::new(),
            format!("00-{TRACE}-b7ad6b7169203331"),
            format!("00-{TRACE}-b7ad6b7169203331-"),
            format!("00-{TRACE}-b7ad6b7169203331-0"),
            format!("00-{TRACE}-b7ad6b7169203331-01-"),
            format!("00-{TRACE}-b7ad6b7169203331-01-more"),
            format!("00-{TRACE}-b7ad6b7169203331-0x"),
            format!("00-{TRACE}_b7ad6b7169203331-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{TRACE}-B7AD6B7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", TRACE.to_uppercase()),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("0A-{TRACE}-b7ad6b7169203331-01"),
            format!("ff-{TRACE}-b7ad6b7169203331-01"),
            format!("cc-{TRACE}-b7ad6b7169203331-01.what"),
            format!("00-{TRACE}-b7ad6b7169203331-01,00-{TRACE}-b7ad6b7169203331-01"),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_child_is_written_as_it_would_be_read() {
        let parent = TraceContext::parse(format!("cc-{TRACE}-b7ad6b7169203331-ff-x").as_bytes()).expect("a parent");
        let child = parent.child();
        assert_ne!(child.span, parent.span);
        assert!(child.header().to_str().expect("text").starts_with(&format!("00-{TRACE}-")));
        assert_eq!(TraceContext::parse(child.header().as_bytes()), Some(child));
        for sampled in [true, false] {
            let root = TraceContext::root(|| sampled);
            assert_eq!((root.is_sampled(), TraceContext::parse(root.header().as_bytes())), (sampled, Some(root)));
        }
    }

    #[test]
    fn a_state_stays_with_a_valid_parent_only() {
        let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
        let mut twice = map(&[(&TRACEPARENT, &parent), (&TRACEPARENT, &parent), (&TRACESTATE, "a=1")]);
        assert_eq!(TraceContext::take_up(&mut twice), None);
        assert!(!twice.contains_key(&TRACESTATE));
        assert_eq!(TraceContext::take_up(&mut map(&[(&TRACESTATE, "a=1")])), None);

        let members = |count: usize| (0..count).map(|at| format!("k{at}=1")).collect::<Vec<_>>().join(",");
        let long = format!("a={}", "v".repeat(256));
        for (state, stays) in [
            ("congo=t61rcWkgMzE,rojo=00f067aa0ba902b7", true),
            ("a=1, ,\tb=x y,", true),
            ("", true),
            ("a=1,a=2", true),
            ("0a@system_-*/=!~", true),
            (&members(32), true),
            (&members(33), false),
            (&long, true),
            (&format!("{long}v"), false),
            (&format!("{long},{long}"), false),
            ("a=", false),
            ("a", false),
            ("=1", false),
            ("A=1", false),
            ("_a=1", false),
            ("a=b=c", false),
            ("a =1", false),
        ] {
            let mut headers = map(&[(&TRACEPARENT, &parent), (&TRACESTATE, state)]);
            assert!(TraceContext::take_up(&mut headers).is_some());
            assert_eq!(headers.contains_key(&TRACESTATE), stays, "{state}");
        }
        let mut lines = map(&[(&TRACEPARENT, &parent), (&TRACESTATE, &members(20)), (&TRACESTATE, &members(13))]);
        TraceContext::take_up(&mut lines);
        assert!(!lines.contains_key(&TRACESTATE), "the lines are one list");
    }
}
