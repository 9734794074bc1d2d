//! The first look at a request: what the parser lets through and a proxy must not, and the fields that a
//! proxy adds (RFC 9112 sections 3.2 and 6.1, RFC 9110 section 7.6).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, Scheme};
use http::{Method, Uri, Version};

use super::error::GatewayError;
use crate::client::Client;
use crate::headers::{self, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID};
use crate::http1::head::Request;
use crate::keys::KEY_NAME;
use crate::modules::RequestHead;

/// The longest method that is passed on.
const MAX_METHOD: usize = 32;
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// Checks what every request must hold to, wherever it goes.
pub fn check(request: &Request) -> Result<(), GatewayError> {
    // TRACE asks for the request as the worker got it, with the worker's key (RFC 9110 section 9.3.8).
    let is_offered = !matches!(request.method, Method::CONNECT | Method::TRACE);
    if !is_offered || request.method.as_str().len() > MAX_METHOD {
        return Err(GatewayError::Method);
    }
    if !is_target(&request.method, &request.uri) {
        return Err(GatewayError::BadRequest("The request target is not valid."));
    }
    check_host(request)?;
    check_credentials(&request.headers)
}

/// A field with credentials must not be repeated: the gateway and the worker might use different ones.
fn check_credentials(headers: &HeaderMap) -> Result<(), GatewayError> {
    // Few requests have any field twice.
    if headers.len() == headers.keys_len() {
        return Ok(());
    }
    let is_repeated = |name: &HeaderName| headers.get_all(name).iter().nth(1).is_some();
    match headers::KEY_FIELDS.iter().chain([&header::PROXY_AUTHORIZATION]).any(is_repeated) {
        true => Err(GatewayError::BadRequest("A header field that carries credentials is repeated.")),
        false => Ok(()),
    }
}

/// A path, a whole URL without credentials, or `*` for `OPTIONS` (RFC 9112 section 3.2).
fn is_target(method: &Method, target: &Uri) -> bool {
    match (target.scheme(), target.authority()) {
        (Some(_), Some(authority)) => {
            !authority.as_str().contains('@') && (target.path() != "*" || method == Method::OPTIONS)
        }
        (None, None) => target.path().starts_with('/') || (target.path() == "*" && method == Method::OPTIONS),
        _ => false,
    }
}

/// HTTP/1.1 needs exactly one valid `Host` (RFC 9112 section 3.2); in HTTP/2 the target's authority takes its place,
/// and the two must not differ (RFC 9113 section 8.3.1).
fn check_host(request: &Request) -> Result<(), GatewayError> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let authority = request.uri.authority().filter(|_| request.version == Version::HTTP_2);
    match (hosts.next(), hosts.next(), authority) {
        (None, _, Some(_)) => Ok(()),
        (None, _, None) if request.version < Version::HTTP_11 => Ok(()),
        (None, _, None) => Err(GatewayError::BadRequest("The Host header is missing.")),
        (Some(_), Some(_), _) => Err(GatewayError::BadRequest("There is more than one Host header.")),
        (Some(host), None, Some(authority)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) => {
            Err(GatewayError::BadRequest("The Host header and the target's authority differ."))
        }
        (Some(host), None, _) if is_host(host) => Ok(()),
        (Some(_), None, _) => Err(GatewayError::BadRequest("The Host header is not valid.")),
    }
}

fn is_host(host: &HeaderValue) -> bool {
    is_plain_host(host.as_bytes()) || is_authority(host)
}

/// A name or an IPv4 address, with or without a port: what almost all are.
fn is_plain_host(host: &[u8]) -> bool {
    let (name, port) = host.split_at(host.iter().position(|byte| *byte == b':').unwrap_or(host.len()));
    let is_name = name.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
    is_name && !name.is_empty() && port.len() <= 6 && port.iter().skip(1).all(u8::is_ascii_digit)
}

fn is_authority(host: &HeaderValue) -> bool {
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let (text, host) = (authority.as_str(), authority.host());
    let port = text.get(host.len()..).unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit()) && port.len() <= 5;
    !text.contains('@') && !host.is_empty() && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port))
}

/// What a proxy adds to every request that it passes on.
pub struct Additions<'a> {
    pub client: &'a Client,
    pub request_id: &'a HeaderValue,
    pub via: &'a Via,
    /// The name of the caller's key.
    pub key: Option<&'a HeaderValue>,
}

/// This gateway's own entries for `Via`, one for each version of HTTP that a request may arrive in.
pub struct Via {
    http1: HeaderValue,
    http2: HeaderValue,
}

impl Via {
    /// With a name that no other gateway has (RFC 9110 section 7.6.3), so that a loop is seen.
    pub fn new(name: &str) -> Self {
        let entry = |version| HeaderValue::from_str(&format!("{version} {name}"));
        let valid = "a name is of letters and digits";
        Self { http1: entry("1.1").expect(valid), http2: entry("2.0").expect(valid) }
    }

    fn of(&self, version: Version) -> &HeaderValue {
        if version == Version::HTTP_2 { &self.http2 } else { &self.http1 }
    }

    /// Whether a `Via` field contains one of them.
    fn is_in(&self, field: &HeaderValue) -> bool {
        let is_in = |own: &HeaderValue| field.as_bytes().windows(own.len()).any(|window| window == own.as_bytes());
        is_in(&self.http1) || is_in(&self.http2)
    }
}

/// The head as modules and the worker see it: without what belongs to the client's connection, with what a
/// proxy adds. `Host` stays the client's until a worker is picked.
pub fn forwardable(request: &mut Request, additions: &Additions) -> Result<RequestHead, GatewayError> {
    let version = request.version;
    let mut headers = std::mem::take(&mut request.headers);
    if headers.get_all(header::VIA).iter().any(|field| additions.via.is_in(field)) {
        return Err(GatewayError::Loop);
    }
    headers::strip_hop_by_hop(&mut headers);
    if version != Version::HTTP_11 {
        // In HTTP/1.0 it says nothing (RFC 9110 section 10.1.1), in HTTP/2 nobody here would answer it.
        headers.remove(header::EXPECT);
    }
    if version == Version::HTTP_2 {
        headers::join_cookies(&mut headers);
    }
    headers::append_to_list(&mut headers, &X_FORWARDED_FOR, &additions.client.address);
    headers::append_to_list(&mut headers, &header::VIA, additions.via.of(version));
    headers.insert(&X_REQUEST_ID, additions.request_id.clone());
    if let Some(name) = additions.key {
        headers.insert(&KEY_NAME, name.clone());
    }
    headers.insert(&X_FORWARDED_PROTO, if additions.client.scheme == Scheme::HTTPS { HTTPS } else { HTTP });
    let uri = to_origin_form(std::mem::take(&mut request.uri), &mut headers);
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.entry(&X_FORWARDED_HOST).or_insert(host);
    }
    Ok(RequestHead { method: std::mem::take(&mut request.method), uri, headers })
}

/// In absolute form the target's authority wins over `Host` (RFC 9112 section 3.2.2).
fn to_origin_form(uri: Uri, headers: &mut HeaderMap) -> Uri {
    let Some(authority) = uri.authority() else { return uri };
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        headers.insert(header::HOST, host);
    }
    match uri.path_and_query() {
        None => Uri::from_static("/"),
        Some(path) if path.as_str().starts_with('/') => Uri::from(path.clone()),
        // Written out, an empty path is a slash (RFC 9112 section 3.2.1).
        Some(query) => query.to_string().parse().expect("what is written of a valid target is a valid target"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Offers, Peer};

    fn parts(uri: &'static str, fields: &[(&'static str, &'static str)]) -> Request {
        let field = |&(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value));
        let (uri, headers) = (Uri::from_static(uri), fields.iter().map(field).collect());
        Request { method: Method::GET, uri, version: Version::HTTP_11, headers }
    }

    fn forwarded(mut request: Request) -> Result<RequestHead, GatewayError> {
        let client = Client {
            peer: Peer::Address(([9, 9, 9, 9], 1).into()),
            address: HeaderValue::from_static("9.9.9.9"),
            scheme: Scheme::HTTP,
            offers: Offers::Everything,
            tls: "",
            has_asked: std::cell::Cell::default(),
        };
        forwardable(
            &mut request,
            &Additions {
                client: &client,
                request_id: &HeaderValue::from_static("id"),
                via: &Via::new("smg-0123"),
                key: None,
            },
        )
    }

    #[test]
    fn what_the_proxy_says_cannot_be_nominated_away() {
        let nominate = "x-forwarded-for, x-request-id, via, host, x-forwarded-host";
        let head =
            forwarded(parts("/", &[("host", "h"), ("connection", nominate), ("proxy", "evil")])).expect("a head");
        for (name, value) in [
            ("x-forwarded-for", "9.9.9.9"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "h"),
            ("x-request-id", "id"),
            ("via", "1.1 smg-0123"),
            ("host", "h"),
        ] {
            assert_eq!(head.headers[name], value, "{name}");
        }
        assert!(!head.headers.contains_key("connection") && !head.headers.contains_key("proxy"));
    }

    #[test]
    fn the_target_wins_over_host() {
        let head = forwarded(parts("http://target:81/p?q", &[("host", "other")])).expect("a head");
        assert_eq!(
            (head.uri.to_string().as_str(), &head.headers["host"]),
            ("/p?q", &HeaderValue::from_static("target:81"))
        );
    }

    #[test]
    fn a_loop_is_seen_and_another_gateway_is_not_one() {
        assert!(matches!(forwarded(parts("/", &[("via", "1.0 a, 1.1 smg-0123")])), Err(GatewayError::Loop)));
        let passed = forwarded(parts("/", &[("via", "1.1 smg-9999")])).expect("no loop");
        assert_eq!(passed.headers["via"], "1.1 smg-9999, 1.1 smg-0123");
    }

    #[test]
    fn hosts_are_checked() {
        let check = |version, target: &'static str, hosts: &[&'static str]| {
            let hosts: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let mut request = parts(target, &[]);
            request.version = version;
            for (_, host) in hosts {
                request.headers.append(header::HOST, HeaderValue::from_static(host));
            }
            check_host(&request).is_ok()
        };
        let (old, new, two) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for good in ["a", "a:1", "[::1]:80", "127.0.0.1"] {
            assert!(check(new, "/", &[good]), "{good}");
        }
        for bad in ["", "a b", "a/b", "u@a", "a,b?", "a:port", ":80", "a:1:2"] {
            assert!(!check(new, "/", &[bad]), "{bad}");
        }
        assert!(!check(new, "/", &[]) && check(old, "/", &[]) && !check(new, "/", &["a", "a"]));
        assert!(!check(two, "/", &[]) && check(two, "/", &["a"]) && check(two, "http://a/", &[]));
        assert!(check(two, "http://a/", &["A"]) && !check(two, "http://a/", &["b"]) && !check(two, "/", &["a", "a"]));
    }
}
