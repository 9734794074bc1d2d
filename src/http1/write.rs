//! Heads of messages as they are written: request line or status line, and fields (RFC 9112 sections 2 to 5).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, Uri, Version};

use super::date;
use super::framing::Framing;

/// Writes the head of a request. `Host` is `host`, and the framing is `framing`'s, whatever `headers` say of them.
pub fn request(
    out: &mut Vec<u8>,
    method: &Method,
    uri: &Uri,
    host: &HeaderValue,
    headers: &HeaderMap,
    framing: Framing,
    upgrade: Option<&HeaderValue>,
) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(uri.path_and_query().map_or("/", |path| path.as_str()).as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    field(out, header::HOST.as_str(), host.as_bytes());
    for (name, value) in headers {
        if *name != header::HOST && !frames(name) {
            field(out, name.as_str(), value.as_bytes());
        }
    }
    framing.write(out);
    if let Some(protocol) = upgrade {
        upgrade_fields(out, protocol);
    }
    out.extend_from_slice(b"\r\n");
}

fn upgrade_fields(out: &mut Vec<u8>, protocol: &HeaderValue) {
    field(out, "connection", b"upgrade");
    field(out, "upgrade", protocol.as_bytes());
}

/// Writes the head of an interim response (RFC 9110 section 15.2). With `upgrade` it ends HTTP on this connection.
pub fn interim(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap, upgrade: Option<&HeaderValue>) {
    status_line(out, status);
    for (name, value) in headers.iter().filter(|(name, _)| !frames(name)) {
        field(out, name.as_str(), value.as_bytes());
    }
    if let Some(protocol) = upgrade {
        upgrade_fields(out, protocol);
    }
    out.extend_from_slice(b"\r\n");
}

fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a response of ours. The framing is `framing`'s, whatever `headers` say; the connection can be
/// used again if `persistent` and `headers` agree, which is told to a client of this `version` and returned.
pub fn response(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    framing: Framing,
    version: Version,
    mut persistent: bool,
) -> bool {
    status_line(out, status);
    let (mut is_dated, mut is_sized) = (false, false);
    for (name, value) in headers {
        if *name == header::CONNECTION {
            persistent &= !value.as_bytes().eq_ignore_ascii_case(b"close");
            continue;
        }
        // What is said of a body that is not sent is said once.
        if frames(name) && (framing != Framing::AsSaid || std::mem::replace(&mut is_sized, true)) {
            continue;
        }
        is_dated |= *name == header::DATE;
        field(out, name.as_str(), value.as_bytes());
    }
    framing.write(out);
    if !is_dated {
        date::write(out);
    }
    match (persistent, version >= Version::HTTP_11) {
        (false, true) => field(out, "connection", b"close"),
        (true, false) => field(out, "connection", b"keep-alive"),
        (true, true) | (false, false) => {}
    }
    out.extend_from_slice(b"\r\n");
    persistent
}

fn frames(name: &HeaderName) -> bool {
    *name == header::CONTENT_LENGTH || *name == header::TRANSFER_ENCODING
}

pub fn field(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_head_has_one_host_and_one_framing() {
        let headers = [("host", "evil"), ("content-length", "7"), ("transfer-encoding", "chunked"), ("a", "b")];
        let headers: HeaderMap =
            headers.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect();
        let (mut out, host) = (Vec::new(), HeaderValue::from_static("h:1"));
        request(&mut out, &Method::PUT, &Uri::from_static("/p?q"), &host, &headers, Framing::Length(3), None);
        assert_eq!(
            String::from_utf8_lossy(&out),
            "PUT /p?q HTTP/1.1\r\nhost: h:1\r\na: b\r\ncontent-length: 3\r\n\r\n"
        );
    }
}
