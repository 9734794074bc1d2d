//! Who may call, and who may administer. Checked before a body is read and before any guest runs.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::Uri;
use http::header::{self, HeaderMap, HeaderName};
use http::uri::Authority;

use super::error::GatewayError;
use super::exchange::Exchange;
use crate::client::Peer;
use crate::config::file::Role;
use crate::http1::head::Request;
use crate::keys::{Key, Keys, Presented};

static SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Fields by which a proxy or a content delivery network shows that a request came from elsewhere, and how others of
/// theirs begin.
const FORWARDED: [&str; 14] = [
    "forwarded",
    "via",
    "cdn-loop",
    "client-ip",
    "true-client-ip",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "x-real-ip",
    "x-real-port",
    "x-remote-addr",
    "x-remote-ip",
    "x-cloud-trace-context",
];
const FORWARDED_PREFIXES: [&str; 10] = [
    "x-forwarded",
    "x-original-",
    "x-envoy-",
    "x-azure-",
    "x-appengine-",
    "x-amzn-",
    "x-amz-cf-",
    "cf-",
    "fastly-",
    "fly-",
];

/// The data plane: open, or for those who have a key. No field that carries a key of the gateway alone remains.
pub fn check_caller(keys: &Keys, headers: &mut HeaderMap) -> Result<Option<Arc<Key>>, GatewayError> {
    if keys.is_empty() {
        return Ok(None);
    }
    let credentials = keys.credentials(headers);
    let key = match credentials.presented {
        Presented::Key(key) => {
            // All that it asks for, whatever a limit says to it.
            key.requests.fetch_add(1, Relaxed);
            Ok(Some(key.clone()))
        }
        Presented::Nothing | Presented::Unknown if keys.is_open() => Ok(None),
        Presented::Nothing | Presented::Unknown => Err(GatewayError::Unauthorized),
        Presented::Conflict => Err(GatewayError::KeysDiffer),
    };
    // A preflight that is refused here goes on without a key.
    credentials.strip(headers);
    key
}

/// The admin API: for those who have a key with a role for it. Without any key it is for this machine alone, and then
/// also closed to web pages that make a browser on this machine ask (DNS rebinding, cross-site requests).
pub fn check_admin(exchange: &Exchange, request: &Request) -> Result<(), GatewayError> {
    let keys = &exchange.view.snapshot.keys;
    if keys.is_empty() {
        return check_local(exchange.caller.peer, &request.uri, &request.headers);
    }
    let key = match keys.credentials(&request.headers).presented {
        Presented::Key(key) => key,
        Presented::Nothing | Presented::Unknown => return Err(GatewayError::Unauthorized),
        Presented::Conflict => return Err(GatewayError::KeysDiffer),
    };
    match key.role() {
        Role::Admin => Ok(()),
        Role::ReadOnly if request.method.is_safe() => Ok(()),
        Role::ReadOnly | Role::Caller => Err(GatewayError::Forbidden("This key's role does not allow it.")),
    }
}

/// Whoever can open a Unix socket is on this machine, and no browser does: its mode is the gate.
fn check_local(peer: Peer, target: &Uri, headers: &HeaderMap) -> Result<(), GatewayError> {
    let refuse = |why| Err(GatewayError::Forbidden(why));
    if matches!(peer, Peer::Address(peer) if !peer.ip().to_canonical().is_loopback()) {
        return refuse("Without --admin-key, the admin API answers only callers on the gateway's own machine.");
    }
    if headers.keys().any(is_of_a_proxy) {
        return refuse("Without --admin-key, the admin API does not answer requests that came through a proxy.");
    }
    // In absolute form the target's authority counts, not `Host` (RFC 9112 section 3.2.2).
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_loopback = target.authority().map(Authority::as_str).or(host).is_some_and(is_loopback_authority);
    if !is_loopback && peer != Peer::UnixSocket {
        return refuse("Without --admin-key, the admin API answers only to a loopback Host such as localhost.");
    }
    let foreign_origin = headers.get_all(header::ORIGIN).iter().any(|origin| {
        let authority = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        !authority.is_some_and(|(_, authority)| is_loopback_authority(authority))
    });
    let cross_site = headers.get(&SEC_FETCH_SITE).is_some_and(|site| site == "cross-site" || site == "same-site");
    if foreign_origin || cross_site {
        return refuse("Without --admin-key, the admin API does not answer to web pages of other sites.");
    }
    Ok(())
}

fn is_of_a_proxy(name: &HeaderName) -> bool {
    let name = name.as_str();
    FORWARDED.contains(&name) || FORWARDED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn is_loopback_authority(text: &str) -> bool {
    let Ok(authority) = text.parse::<Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match address.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use http::HeaderValue;

    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    const LOCAL: Peer = Peer::Address(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9));
    static PATH: std::sync::LazyLock<Uri> = std::sync::LazyLock::new(|| Uri::from_static("/wasm"));

    #[test]
    fn without_a_key_only_this_machine_is_answered() {
        let host = map(&[("host", "localhost:3000")]);
        for (peer, good) in
            [("127.0.0.1:1", true), ("[::1]:1", true), ("[::ffff:127.0.0.1]:1", true), ("192.168.0.1:1", false)]
        {
            let peer = Peer::Address(peer.parse().expect("an address"));
            assert_eq!(check_local(peer, &PATH, &host).is_ok(), good, "{peer:?}");
        }
        assert!(check_local(LOCAL, &PATH, &map(&[("host", "localhost"), ("x-forwarded-for", "8.8.8.8")])).is_err());
    }

    #[test]
    fn over_a_unix_socket_any_host_will_do() {
        for (fields, good) in [
            (&[][..], true),
            (&[("host", "admin.example")], true),
            (&[("host", "a"), ("origin", "https://evil.com")], false),
            (&[("host", "a"), ("x-forwarded-proto", "https")], false),
        ] {
            assert_eq!(check_local(Peer::UnixSocket, &PATH, &map(fields)).is_ok(), good, "{fields:?}");
        }
    }

    #[test]
    fn without_a_key_the_host_must_be_loopback() {
        for (host, good) in [
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("127.0.0.1:3000", true),
            ("127.9.9.9", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]", true),
            ("127.evil.com", false),
            ("localhost.evil", false),
            ("evil.com", false),
            ("a@127.0.0.1", false),
            ("0.0.0.0", false),
            ("169.254.169.254", false),
        ] {
            assert_eq!(check_local(LOCAL, &PATH, &map(&[("host", host)])).is_ok(), good, "{host}");
        }
        assert!(check_local(LOCAL, &PATH, &map(&[])).is_err());
    }

    #[test]
    fn without_a_key_foreign_pages_are_refused() {
        for (name, value, good) in [
            ("origin", "http://localhost:8080", true),
            ("origin", "https://evil.com", false),
            ("origin", "null", false),
            ("origin", "http://localhost.evil.com", false),
            ("sec-fetch-site", "same-origin", true),
            ("sec-fetch-site", "none", true),
            ("sec-fetch-site", "cross-site", false),
        ] {
            let mut headers = map(&[("host", "localhost")]);
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(check_local(LOCAL, &PATH, &headers).is_ok(), good, "{name}: {value}");
        }
    }

    #[test]
    fn the_authority_of_an_absolute_target_counts() {
        let headers = map(&[("host", "localhost")]);
        let evil = Uri::from_static("http://evil.com/wasm");
        assert!(check_local(LOCAL, &evil, &headers).is_err());
    }
}
