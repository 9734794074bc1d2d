//! The JSON that a handler is given. All keys are always there.

use std::borrow::Cow;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::modules::hook::{RequestView, ResponseView};
use crate::modules::settings::HeaderCase;

/// `{"method","uri","client_ip","correlation_id","headers"}`
pub fn request(view: &RequestView, case: HeaderCase) -> Vec<u8> {
    let head = &*view.head;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut json = Vec::with_capacity(1024);
    json.extend_from_slice(b"{\"method\":");
    string(&mut json, head.method.as_str());
    json.extend_from_slice(b",\"uri\":");
    string(&mut json, target);
    json.extend_from_slice(b",\"client_ip\":");
    string(&mut json, &text(&view.client));
    correlation(&mut json, &view.request_id);
    headers(&mut json, &head.headers, case);
    json.push(b'}');
    json
}

/// `{"status","correlation_id","headers"}`
pub fn response(view: &ResponseView, case: HeaderCase) -> Vec<u8> {
    let mut json = Vec::with_capacity(1024);
    json.extend_from_slice(b"{\"status\":");
    json.extend_from_slice(view.head.status.as_str().as_bytes());
    correlation(&mut json, &view.request_id);
    headers(&mut json, &view.head.headers, case);
    json.push(b'}');
    json
}

fn correlation(json: &mut Vec<u8>, request_id: &HeaderValue) {
    json.extend_from_slice(b",\"correlation_id\":");
    string(json, &text(request_id));
}

fn headers(json: &mut Vec<u8>, headers: &HeaderMap, case: HeaderCase) {
    json.extend_from_slice(b",\"headers\":{");
    let mut separator: &[u8] = b"\"";
    let mut field = |name: &HeaderName, value: &str| {
        json.extend_from_slice(separator);
        separator = b",\"";
        match case {
            HeaderCase::Lower => json.extend_from_slice(name.as_str().as_bytes()),
            HeaderCase::Title => title(json, name),
        }
        json.extend_from_slice(b"\":");
        string(json, value);
    };
    if headers.keys_len() == headers.len() {
        // Each name is there once, as nearly always: nothing needs to be looked up.
        headers.iter().for_each(|(name, value)| field(name, &text(value)));
    } else {
        headers.keys().for_each(|name| field(name, &joined(headers, name)));
    }
    json.push(b'}');
}

/// All values of a header, as one (RFC 9110 section 5.3; cookies as in RFC 9113 section 8.2.3).
fn joined(headers: &HeaderMap, name: &HeaderName) -> String {
    let separator = if name == header::COOKIE { "; " } else { ", " };
    headers.get_all(name).iter().map(text).collect::<Vec<_>>().join(separator)
}

/// `x-request-id` as `X-Request-Id`. A name has only characters that JSON takes as they are.
fn title(json: &mut Vec<u8>, name: &HeaderName) {
    let mut after_dash = true;
    for byte in name.as_str().bytes() {
        json.push(if after_dash { byte.to_ascii_uppercase() } else { byte });
        after_dash = byte == b'-';
    }
}

/// What is not UTF-8 is shown with replacement characters, never hidden.
fn text(value: &HeaderValue) -> Cow<'_, str> {
    String::from_utf8_lossy(value.as_bytes())
}

fn string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a vector takes all that is written");
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use bytes::Bytes;
    use http::{Method, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::modules::hook::{RequestHead, ResponseHead};

    fn view(headers: HeaderMap, uri: &'static str) -> RequestView {
        let head = RequestHead { method: Method::PATCH, uri: http::Uri::from_static(uri), headers };
        RequestView {
            head: Rc::new(head),
            body: Bytes::new(),
            request_id: HeaderValue::from_static("id-\"1\""),
            client: HeaderValue::from_static("::1"),
            received_ms: 0,
        }
    }

    fn parsed(json: &[u8]) -> Value {
        serde_json::from_slice(json).expect("valid JSON")
    }

    #[test]
    fn a_request_has_all_its_keys() {
        assert_eq!(
            parsed(&request(&view(HeaderMap::new(), "/a?b=%22c'"), HeaderCase::Title)),
            json!({"method": "PATCH", "uri": "/a?b=%22c'", "client_ip": "::1", "correlation_id": "id-\"1\"", "headers": {}}),
        );
    }

    #[test]
    fn a_response_has_all_its_keys() {
        let head = ResponseHead { status: StatusCode::IM_A_TEAPOT, headers: HeaderMap::new() };
        let request_id = HeaderValue::from_static("7");
        let view =
            ResponseView { head: Rc::new(head), body: Bytes::new(), request_id, streamed: false, oversized: false };
        let expected = json!({"status": 418, "correlation_id": "7", "headers": {}});
        assert_eq!(parsed(&response(&view, HeaderCase::Lower)), expected);
    }

    #[test]
    fn names_are_in_the_case_asked_for_and_values_are_joined_and_never_dropped() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("user-agent", &b"curl \"8\"\t\\"[..]),
            ("cookie", b"a=1"),
            ("accept", b"a"),
            ("cookie", b"b=2"),
            ("accept", b"b"),
            ("x-bytes", b"\xff!"),
            ("x'odd#name", b""),
        ] {
            let name: HeaderName = name.parse().expect("a name");
            headers.append(name, HeaderValue::from_bytes(value).expect("a value"));
        }
        let view = view(headers, "/");
        let title = parsed(&request(&view, HeaderCase::Title));
        assert_eq!(
            title["headers"],
            json!({
                "User-Agent": "curl \"8\"\t\\", "Cookie": "a=1; b=2", "Accept": "a, b", "X-Bytes": "\u{fffd}!",
                "X'odd#name": "",
            }),
        );
        assert_eq!(parsed(&request(&view, HeaderCase::Lower))["headers"]["user-agent"], "curl \"8\"\t\\");
    }
}
