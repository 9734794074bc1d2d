//! Which fields may come behind a body, and how they are written (RFC 9110 section 6.5, RFC 9112 section 7.1.2).

use http::header::{self, HeaderMap, HeaderName};

use super::write;

/// The fields that a message says it ends with (RFC 9110 section 6.6.2): those alone are passed on.
#[derive(Debug, Default)]
pub struct Announced(Vec<HeaderName>);

impl Announced {
    pub fn by(headers: &HeaderMap) -> Self {
        let lists = headers.get_all(header::TRAILER).iter().filter_map(|value| value.to_str().ok());
        let names = lists.flat_map(|list| list.split(',')).filter_map(|name| name.trim().parse().ok());
        Self(names.filter(is_trailer).collect())
    }

    /// Writes the last chunk and the trailer section (RFC 9112 section 7.1.2).
    pub fn write(&self, out: &mut Vec<u8>, trailers: &HeaderMap) {
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().filter(|(name, _)| self.0.contains(name)) {
            write::field(out, name.as_str(), value.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A trailer section without the fields that do not belong there.
pub fn allowed(mut trailers: HeaderMap) -> HeaderMap {
    let forbidden: Vec<_> = trailers.keys().filter(|name| !is_trailer(name)).cloned().collect();
    for name in forbidden {
        trailers.remove(name);
    }
    trailers
}

/// Fields that frame, route, authenticate or describe a message do not belong behind it (RFC 9110 section 6.5.1), and
/// what a proxy says of it does not come from others.
fn is_trailer(name: &HeaderName) -> bool {
    use header as h;
    const NONE: [&str; 6] = ["keep-alive", "proxy", "proxy-connection", "x-request-id", "traceparent", "tracestate"];
    let text = name.as_str();
    // To CGI-style programs, `_` is `-`.
    if text.contains('_') {
        return text.replace('_', "-").parse().is_ok_and(|name| is_trailer(&name));
    }
    if ["x-forwarded-", "x-smg-"].iter().any(|start| text.starts_with(start)) || NONE.contains(&text) {
        return false;
    }
    ![
        h::DATE,
        h::FORWARDED,
        h::VIA,
        h::AUTHORIZATION,
        h::CACHE_CONTROL,
        h::CONNECTION,
        h::CONTENT_ENCODING,
        h::CONTENT_LENGTH,
        h::CONTENT_RANGE,
        h::CONTENT_TYPE,
        h::COOKIE,
        h::EXPECT,
        h::HOST,
        h::MAX_FORWARDS,
        h::PROXY_AUTHENTICATE,
        h::PROXY_AUTHORIZATION,
        h::RANGE,
        h::SET_COOKIE,
        h::TE,
        h::TRAILER,
        h::TRANSFER_ENCODING,
        h::UPGRADE,
        h::WWW_AUTHENTICATE,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn only_announced_trailers_pass_and_none_that_frame_or_authorise() {
        let announced = headers(&[("trailer", "Grpc-Status , content-length,authorization"), ("trailer", "via")]);
        let trailers =
            [("content-length", "5"), ("authorization", "x"), ("grpc-status", "0"), ("via", "1"), ("a", "b")];
        let mut out = Vec::new();
        Announced::by(&announced).write(&mut out, &headers(&trailers));
        assert_eq!(String::from_utf8_lossy(&out), "0\r\ngrpc-status: 0\r\n\r\n");
    }
}
