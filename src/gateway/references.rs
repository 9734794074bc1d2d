//! Rewrites references in an answer that name the worker itself, such as a redirect to a path with a trailing slash. A
//! client that followed one would bypass the gateway, its keys and its modules, or would not reach anything.
//!
//! A reference to the worker's own origin becomes a path at the gateway. The path is relative, so that it works with
//! any host name and scheme by which the client reaches the gateway.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue};

use crate::config::WorkerUrl;
use crate::workers::Worker;

/// Rewrites `Location`, `Content-Location` (RFC 9110 sections 10.2.2 and 8.7) and `Refresh` (WHATWG HTML section
/// 4.2.5.3).
pub fn point_at_gateway(headers: &mut HeaderMap, worker: &Worker) {
    let origin = Origin { url: &worker.url, is_at: |address| worker.addresses.has(address) };
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        rewrite(headers, &name, |value| origin.at_gateway(value));
    }
    rewrite(headers, &header::REFRESH, |value| origin.refresh(value));
}

fn rewrite(headers: &mut HeaderMap, name: &HeaderName, change: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let Entry::Occupied(mut fields) = headers.entry(name) else { return };
    for field in fields.iter_mut() {
        if let Some(changed) = change(field.as_bytes()) {
            // Only `/` and `.` are added to bytes of the worker's value.
            *field = HeaderValue::from_bytes(&changed).expect("a part of a valid value is valid");
        }
    }
}

/// A worker's origin, in all forms that the worker may use.
struct Origin<'a, F> {
    url: &'a WorkerUrl,
    /// Whether the worker has this address.
    is_at: F,
}

impl<F: Fn(SocketAddr) -> bool> Origin<'_, F> {
    /// The reference as a path at the gateway; `None` if it stays unchanged.
    fn at_gateway(&self, reference: &[u8]) -> Option<Vec<u8>> {
        let (scheme, hierarchical) = match reference {
            _ if starts_with(reference, b"http:") => (Some("http"), &reference[5..]),
            _ if starts_with(reference, b"https:") => (Some("https"), &reference[6..]),
            _ => (None, reference),
        };
        let Some(rest) = hierarchical.strip_prefix(b"//") else {
            let is_path = scheme.is_none() && reference.starts_with(b"/");
            return self.below_base(reference).filter(|_| is_path).map(|changed| path(&changed));
        };
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let authority = std::str::from_utf8(authority).ok()?;
        if !self.is_named_by(scheme.unwrap_or(self.url.scheme().as_str()), authority) {
            return None;
        }
        let below = self.below_base(rest).map_or(Cow::Borrowed(rest), Cow::Owned);
        Some(path(&below))
    }

    /// Rewrites the URL in a value of `Refresh`, such as `5; url=http://worker/x`; `None` if it stays unchanged.
    fn refresh(&self, value: &[u8]) -> Option<Vec<u8>> {
        let at = value.windows(3).position(|window| window.eq_ignore_ascii_case(b"url"))?;
        let blank = |bytes: &[u8]| bytes.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let mut begin = at + 3;
        begin += blank(&value[begin..]);
        if value.get(begin) != Some(&b'=') {
            return None;
        }
        begin += 1;
        begin += blank(&value[begin..]);
        let quote = value.get(begin).copied().filter(|byte| matches!(byte, b'\'' | b'"'));
        begin += usize::from(quote.is_some());
        let rest = &value[begin..];
        let end = begin + rest.iter().position(|byte| Some(*byte) == quote).unwrap_or(rest.len());
        let url = self.at_gateway(&value[begin..end])?;
        Some([&value[..begin], &url, &value[end..]].concat())
    }

    /// Whether the authority is the worker's: by the name in its URL, which the worker gets as `Host`, or by its
    /// address. The scheme may differ: applications take it from `X-Forwarded-Proto`, or do not know about TLS that is
    /// terminated in front of them.
    fn is_named_by(&self, scheme: &str, authority: &str) -> bool {
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port),
            _ => (authority, ""),
        };
        let is_usual = |scheme: &str, port: u16| port == if scheme == "https" { 443 } else { 80 };
        let port = match port {
            "" => None,
            digits => match digits.parse().ok() {
                Some(port) => Some(port).filter(|port| !is_usual(scheme, *port)),
                None => return false,
            },
        };
        let own = self.url.port();
        if port.map_or_else(|| !is_usual(self.url.scheme().as_str(), own), |port| port != own) {
            return false;
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_at = |ip: IpAddr| (self.is_at)(SocketAddr::new(ip, own));
        host.eq_ignore_ascii_case(self.url.host()) || host.parse().is_ok_and(is_at)
    }

    /// The gateway's path for a path of the worker, if they differ.
    fn below_base(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.url.path_at_gateway(std::str::from_utf8(path).ok()?).map(String::into_bytes)
    }
}

fn starts_with(text: &[u8], beginning: &[u8]) -> bool {
    text.get(..beginning.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(beginning))
}

/// A relative reference to `rest`, the part after an authority. A reference must not begin with two slashes, which
/// would introduce another host. Browsers treat a backslash as a slash and ignore tabs (WHATWG URL section 4.4).
fn path(rest: &[u8]) -> Vec<u8> {
    let mut significant = rest.iter().filter(|byte| **byte != b'\t');
    match (significant.next(), significant.next()) {
        (Some(b'/' | b'\\'), Some(b'/' | b'\\')) => [b"/.", rest].concat(),
        (Some(b'/'), _) => rest.to_vec(),
        _ => [b"/", rest].concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str, reference: &str) -> String {
        let url: WorkerUrl = url.parse().expect("a URL");
        let is_at = |address: SocketAddr| address == ([10, 0, 0, 1], url.port()).into();
        let origin = Origin { url: &url, is_at };
        let changed = origin.at_gateway(reference.as_bytes()).unwrap_or_else(|| reference.into());
        String::from_utf8(changed).expect("text")
    }

    #[test]
    fn the_worker_is_known_under_each_of_its_names() {
        for (url, reference, wanted) in [
            ("http://w", "http://w/x", "/x"),
            ("http://w", "http://W:80/x", "/x"),
            ("http://w", "https://w/x", "/x"),
            ("http://w", "http://w:8000/x", "http://w:8000/x"),
            ("https://w", "http://w/x", "/x"),
            ("https://w", "https://w:443/x", "/x"),
            ("https://w:8443", "http://w:8443/x", "/x"),
            ("https://w:8443", "https://w/x", "https://w/x"),
            ("http://w:8000", "//w:8000/x", "/x"),
            ("http://w:8000", "//w/x", "//w/x"),
            ("http://w:8000", "http://10.0.0.1:8000/x", "/x"),
            ("http://w:8000", "http://10.0.0.2:8000/x", "http://10.0.0.2:8000/x"),
            ("http://[::1]:8000", "http://[::1]:8000/x", "/x"),
            ("http://[::1]", "http://[::1]/x", "/x"),
            ("http://w:8000", "http://w:8000\\evil/x", "/\\evil/x"),
            ("http://w:8000", "http://w:99999/x", "http://w:99999/x"),
            ("http://w:8000", "http://w:8000/\t/evil/x", "/./\t/evil/x"),
            ("http://w", "http:/w/x", "http:/w/x"),
            ("http://w", "", ""),
            ("http://w", "http://", "http://"),
        ] {
            assert_eq!(shown(url, reference), wanted, "{url}: {reference}");
        }
    }

    #[test]
    fn the_base_path_of_a_worker_is_taken_off() {
        for (reference, wanted) in [
            ("https://w/api/v1/x?y", "/v1/x?y"),
            ("https://w/api//evil", "/.//evil"),
            ("/api/v1/x/", "/v1/x/"),
            ("/api", "/"),
            ("/api?x", "/?x"),
            ("/api//evil/x", "/.//evil/x"),
            // Nothing that the gateway has a name for, but it is not sent past the gateway either.
            ("https://w/other/x", "/other/x"),
            ("/other/x", "/other/x"),
            ("/apix", "/apix"),
            ("x/y", "x/y"),
        ] {
            assert_eq!(shown("https://w/api", reference), wanted, "{reference}");
        }
    }

    #[test]
    fn the_url_of_a_refresh_is_found() {
        let url: WorkerUrl = "http://w:8000".parse().expect("a URL");
        let origin = Origin { url: &url, is_at: |_| false };
        for (value, wanted) in [
            ("5; url=http://w:8000/x", Some("5; url=/x")),
            ("0,URL = \"http://w:8000/x\" ", Some("0,URL = \"/x\" ")),
            ("0; url='http://w:8000", Some("0; url='/")),
            ("0; url", None),
            ("0; url=", None),
            ("0; url=/x", None),
            ("5", None),
            ("url", None),
        ] {
            let changed = origin.refresh(value.as_bytes());
            assert_eq!(changed.as_deref(), wanted.map(str::as_bytes), "{value}");
        }
    }
}
