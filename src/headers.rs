//! Header fields on their way through a proxy (RFC 9110 sections 7.6 and 5.5).

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

/// Request ids longer than this are not taken over from a client.
const MAX_REQUEST_ID: usize = 128;

pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The fields in which callers present keys: OpenAI's clients use the first, Anthropic's the second, Azure's the third.
pub static KEY_FIELDS: [HeaderName; 3] =
    [header::AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("api-key")];

/// Removes what belongs to one connection only: the fields that `Connection` nominates and the well-known
/// ones (RFC 9110 section 7.6.1), and what a proxy and its client say to each other about access. `Trailer` stays: it
/// announces fields that are passed on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip(headers, |_| false);
}

/// The same for a worker's answer, and removes `X-Smg-Error-Code`, by which clients know the gateway's own errors.
/// Returns whether one of the fields that refer to a resource by its URL is among the others: `Location`,
/// `Content-Location` or `Refresh`.
#[must_use]
pub fn strip_answer(headers: &mut HeaderMap) -> bool {
    let mut refers = false;
    strip(headers, |name| {
        match name.len() {
            7 => refers |= name == "refresh",
            8 => refers |= name == "location",
            16 => {
                refers |= name == "content-location";
                return name == "x-smg-error-code";
            }
            _ => {}
        }
        false
    });
    refers
}

/// `goes_too` is shown each field that stays at least once, and says which else are removed.
fn strip(headers: &mut HeaderMap, mut goes_too: impl FnMut(&str) -> bool) {
    let mut nominated = Vec::new();
    let mut is_to_go = |name: &&HeaderName| {
        let name = name.as_str();
        goes_too(name) || is_hop_by_hop(name)
    };
    // Most messages have one of these at most: a look at the names is cheaper than a removal for each.
    while let Some(name) = headers.keys().find(&mut is_to_go).cloned() {
        if name == header::CONNECTION {
            nominated = nominations(headers);
        }
        headers.remove(&name);
    }
    for name in &nominated {
        headers.remove(name);
    }
}

/// What belongs to one connection only, or to a proxy and its neighbour, and what nobody must be able to say to those
/// behind us: `Proxy` becomes the `HTTP_PROXY` variable of CGI-style programs (CVE-2016-5385), and the name of a
/// caller's key comes from us alone. To such programs `_` is `-`, so what we say must not come in that spelling either.
fn is_hop_by_hop(name: &str) -> bool {
    match name.len() {
        2 => name == "te",
        5 => name == "proxy",
        7 => name == "upgrade",
        10 => name == "connection" || name == "keep-alive",
        12 => is_misspelt(name, "x-request-id"),
        14 => {
            name == "http2-settings"
                || name == "x-smg-key-name"
                || is_misspelt(name, "x-smg-key-name")
                || is_misspelt(name, "content-length")
        }
        15 => is_misspelt(name, "x-forwarded-for"),
        16 => name == "proxy-connection" || is_misspelt(name, "x-forwarded-host"),
        17 => {
            name == "transfer-encoding"
                || is_misspelt(name, "transfer-encoding")
                || is_misspelt(name, "x-forwarded-proto")
        }
        18 => name == "proxy-authenticate",
        19 => name == "proxy-authorization",
        _ => false,
    }
}

/// Whether it is `field` with `_` somewhere for `-`. Both are of the same length. Most names differ in the first byte.
pub fn is_misspelt(name: &str, field: &str) -> bool {
    let is_same = |(a, b): (u8, u8)| a == b || (a, b) == (b'_', b'-');
    name.bytes().zip(field.bytes()).all(is_same) && name.contains('_')
}

/// The fields that `Connection` nominates, except those that frame the message: a nomination cannot remove
/// `Content-Length` or `Host`.
fn nominations(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok())
        .filter(|name| name != header::CONTENT_LENGTH && name != header::HOST)
        .collect()
}

/// Several `Cookie` fields become the one that HTTP/1.1 and CGI-style programs know (RFC 9113 section 8.2.3).
pub fn join_cookies(headers: &mut HeaderMap) {
    let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1 {
        let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).expect("values and separators are valid");
        headers.insert(header::COOKIE, joined);
    }
}

/// Appends `element` to the comma-separated list that `name` holds, keeping what the client sent.
pub fn append_to_list(headers: &mut HeaderMap, name: &HeaderName, element: &HeaderValue) {
    match headers.entry(name) {
        Entry::Vacant(vacant) => drop(vacant.insert(element.clone())),
        Entry::Occupied(mut occupied) => {
            let elements: Vec<_> = occupied.iter().chain([element]).map(HeaderValue::as_bytes).collect();
            let list = HeaderValue::from_bytes(&elements.join(&b", "[..]));
            occupied.insert(list.expect("values and separators are valid, so is their list"));
        }
    }
}

/// The id of a request: the first of `names` that is present and sane (1 to 128 visible ASCII characters),
/// otherwise a new random one.
pub fn request_id(headers: &HeaderMap, names: &[HeaderName]) -> HeaderValue {
    names
        .iter()
        .find_map(|name| headers.get(name))
        .filter(|value| is_sane_id(value.as_bytes()))
        .cloned()
        .unwrap_or_else(new_request_id)
}

/// What a client calls a transaction of which the request is a part; several requests may have the same.
pub fn correlation_id(headers: &HeaderMap) -> Option<&HeaderValue> {
    // A look at the names is cheaper than three look-ups, and most requests have none of them.
    let is_one = |name: &&HeaderName| matches!(name.as_str(), "x-correlation-id" | "x-trace-id" | "request-id");
    headers.keys().find(is_one).and_then(|name| headers.get(name))
}

fn is_sane_id(id: &[u8]) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// 32 lower-case hexadecimal digits of a random 128-bit number.
pub fn new_request_id() -> HeaderValue {
    let mut id = [0u8; 32];
    for (digits, byte) in id.chunks_exact_mut(2).zip(fastrand::u128(..).to_ne_bytes()) {
        digits.copy_from_slice(&[byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    HeaderValue::from_bytes(&id).expect("hexadecimal digits are valid")
}

/// What `Content-Type` says, without parameters (RFC 9110 section 8.3.1).
pub fn media_type(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::CONTENT_TYPE)?.as_bytes();
    Some(value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
}

/// Whether `Content-Type` announces an answer that arrives event by event.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let Some(announced) = media_type(headers) else { return false };
    [&b"text/event-stream"[..], b"application/x-ndjson", b"application/jsonl"]
        .iter()
        .any(|kind| announced.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn nominated_fields_go_but_framing_stays() {
        let mut headers = map(&[
            ("connection", "close, X-Auth, content-length"),
            ("x-auth", "1"),
            ("content-length", "3"),
            ("te", "trailers"),
            ("keep-alive", "5"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("accept", "*/*")]));
    }

    #[test]
    fn fields_that_refer_to_a_resource_are_noticed_wherever_they_are() {
        for name in ["location", "content-location", "refresh"] {
            for fields in [
                &[(name, "/x"), ("connection", "close")][..],
                &[("connection", "a"), ("a", "1"), (name, "/x")],
                &[("content-length", "3"), (name, "/x"), ("keep-alive", "5"), ("date", "x")],
            ] {
                assert!(strip_answer(&mut map(fields)), "{fields:?}");
            }
        }
        let others = &[("content-type", "a"), ("connection", "close"), ("link", "<http://a/>"), ("upgrade", "a")];
        assert!(!strip_answer(&mut map(others)));
    }

    #[test]
    fn only_the_gateway_says_its_error_code() {
        let mut headers = map(&[("x-smg-error-code", "a"), ("etag", "b"), ("x-smg-error-code", "c")]);
        assert!(!strip_answer(&mut headers));
        assert_eq!(headers, map(&[("etag", "b")]));
    }

    #[test]
    fn a_list_keeps_what_was_there() {
        let mut headers = map(&[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "2.2.2.2")]);
        append_to_list(&mut headers, &X_FORWARDED_FOR, &HeaderValue::from_static("3.3.3.3"));
        assert_eq!(headers, map(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2, 3.3.3.3")]));
    }

    #[test]
    fn the_first_id_wins_when_it_is_sane() {
        let names = [HeaderName::from_static("x-request-id"), HeaderName::from_static("x-trace-id")];
        assert_eq!(request_id(&map(&[("x-trace-id", "t1")]), &names), "t1");
        assert_eq!(request_id(&map(&[("x-trace-id", "t1"), ("x-request-id", "r1")]), &names), "r1");
        let generated = request_id(&map(&[("x-request-id", "with space")]), &names);
        assert_eq!(generated.len(), 32);
        assert_ne!(generated, request_id(&HeaderMap::new(), &names));
    }

    #[test]
    fn the_id_of_a_transaction_is_found() {
        for name in ["x-correlation-id", "x-trace-id", "request-id"] {
            assert_eq!(correlation_id(&map(&[("accept", "*/*"), (name, "a b")])).expect("it is there"), "a b");
        }
        assert_eq!(correlation_id(&map(&[("x-request-id", "1"), ("x-correlation", "2"), ("traceparent", "3")])), None);
    }

    #[test]
    fn streams_are_known_by_their_type() {
        assert!(is_event_stream(&map(&[("content-type", "text/event-stream; charset=utf-8")])));
        assert!(is_event_stream(&map(&[("content-type", "Application/X-NDJSON")])));
        assert!(!is_event_stream(&map(&[("content-type", "application/json")])));
        assert!(!is_event_stream(&map(&[])));
    }
}
