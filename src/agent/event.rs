//! What a proxy tells of: the payloads of events, as what hooks are shown. The proxy is believed no more than
//! a client: what is not a head that HTTP could carry is refused.

use std::fmt;
use std::rc::Rc;
use std::str::FromStr;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, StatusCode, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::modules::{Hook, HookView, RequestHead, RequestView, ResponseHead, ResponseView};
use crate::telemetry::Untrusted;

/// What must not be in a URI as it is.
const NOT_IN_URIS: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'#')
    .add(b'"')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// An event that a module may have a say about.
pub enum Event {
    Request(RequestView),
    Response(ResponseView),
}

impl Event {
    pub fn view(&self) -> HookView<'_> {
        match self {
            Self::Request(view) => HookView::Request(view),
            Self::Response(view) => HookView::Response(view),
        }
    }
}

/// As events are spelled by version 1, and in metrics.
pub fn name(hook: Hook) -> &'static str {
    match hook {
        Hook::Request => "request_headers",
        Hook::Response => "response_headers",
    }
}

#[derive(Debug, thiserror::Error)]
pub enum EventError {
    #[error("the payload is not the event's: {0}")]
    Payload(#[from] serde_json::Error),
    #[error("`{0}` is not a method")]
    Method(String),
    #[error("`{0}` is not a URI")]
    Uri(String),
    #[error("{0} is not a status")]
    Status(u16),
}

#[derive(Deserialize)]
struct RequestHeaders {
    metadata: Metadata,
    method: String,
    uri: String,
    headers: Headers,
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    correlation_id: String,
    #[serde(default)]
    client_ip: String,
}

#[derive(Deserialize)]
struct ResponseHeaders {
    #[serde(default)]
    correlation_id: String,
    status: u16,
    headers: Headers,
}

/// An event of the kind that `hook` is about, from its JSON.
pub fn read(hook: Hook, payload: &[u8]) -> Result<Event, EventError> {
    match hook {
        Hook::Request => request(serde_json::from_slice(payload)?),
        Hook::Response => response(serde_json::from_slice(payload)?),
    }
}

fn request(payload: RequestHeaders) -> Result<Event, EventError> {
    let RequestHeaders { metadata, method, uri, headers: Headers(headers) } = payload;
    let Ok(method) = Method::from_bytes(method.as_bytes()) else { return Err(EventError::Method(method)) };
    let head = RequestHead { method, uri: parse_uri(uri)?, headers };
    Ok(Event::Request(RequestView {
        head: Rc::new(head),
        body: Bytes::new(),
        request_id: shown(&metadata.correlation_id),
        client: shown(&metadata.client_ip),
        received_ms: 0,
    }))
}

fn response(payload: ResponseHeaders) -> Result<Event, EventError> {
    let ResponseHeaders { correlation_id, status, headers: Headers(headers) } = payload;
    let status = StatusCode::from_u16(status).map_err(|_| EventError::Status(status))?;
    Ok(Event::Response(ResponseView {
        head: Rc::new(ResponseHead { status, headers }),
        body: Bytes::new(),
        request_id: shown(&correlation_id),
        streamed: false,
        oversized: false,
    }))
}

/// A target in origin form, or `*` (RFC 9112 section 3.2). One that a proxy lets pass but that is not quite that
/// is shown with what is wrong percent-encoded: nothing of it is hidden.
fn parse_uri(uri: String) -> Result<Uri, EventError> {
    if !uri.starts_with('/') && uri != "*" {
        return Err(EventError::Uri(uri));
    }
    let is_clean = !uri.contains('#') && PathAndQuery::from_str(&uri).is_ok_and(|target| target.as_str() == uri);
    let target = if is_clean { uri } else { utf8_percent_encode(&uri, NOT_IN_URIS).to_string() };
    match PathAndQuery::from_str(&target) {
        Ok(target) => Ok(Uri::from(target)),
        Err(_) => Err(EventError::Uri(target)),
    }
}

/// Text that goes to guests and logs only: what no header could carry becomes a question mark.
fn shown(text: &str) -> HeaderValue {
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| {
        let safe: Vec<_> = text.bytes().map(|byte| if byte.is_ascii_control() { b'?' } else { byte }).collect();
        HeaderValue::from_bytes(&safe).expect("only control characters are not allowed")
    })
}

/// The id by which the proxy finds its request again, wherever any event's payload has it; empty if it has none.
pub fn correlation_id(payload: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Payload {
        correlation_id: Option<Value>,
        metadata: Option<Value>,
    }
    let Ok(Payload { correlation_id, metadata }) = serde_json::from_slice(payload) else { return String::new() };
    let id = correlation_id.as_ref().or_else(|| metadata.as_ref()?.get("correlation_id"));
    id.and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// What a `configure` event asks for. What is missing, null or of another type stays as it is.
#[derive(Debug, PartialEq)]
pub struct Configuration {
    pub pool_size: Option<u32>,
    pub fail_open: Option<bool>,
    /// The rest, for the module.
    pub module: Map<String, Value>,
}

/// The configuration of a `configure` event's payload, or of a handshake; `None` if it has none.
pub fn configuration(payload: &[u8]) -> Result<Option<Configuration>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Configure {
        config: Option<Map<String, Value>>,
    }
    let Configure { config: Some(mut module) } = serde_json::from_slice(payload)? else { return Ok(None) };
    let mut take = |names: [&str; 2]| names.map(|name| module.remove(name)).into_iter().flatten().next();
    let (pool_size, fail_open) = (take(["pool-size", "pool_size"]), take(["fail-open", "fail_open"]));
    let is_size = |size: &u64| (1..=1024).contains(size);
    let size = pool_size.as_ref().and_then(Value::as_u64).filter(is_size).and_then(|size| u32::try_from(size).ok());
    for (name, value, known) in [
        ("pool-size", &pool_size, size.is_some()),
        ("fail-open", &fail_open, fail_open.as_ref().is_some_and(Value::is_boolean)),
    ] {
        if let Some(value) = value.as_ref().filter(|value| !known && !value.is_null()) {
            let value = value.to_string();
            tracing::warn!(name, value = %Untrusted(value.as_bytes()), "a configured value is not valid and was ignored");
        }
    }
    Ok(Some(Configuration { pool_size: size, fail_open: fail_open.as_ref().and_then(Value::as_bool), module }))
}

/// `{name: [value, …]}`
struct Headers(HeaderMap);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(HeadersVisitor)
    }
}

struct HeadersVisitor;

impl<'de> Visitor<'de> for HeadersVisitor {
    type Value = Headers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of lists of header values by name")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
        let mut headers = HeaderMap::new();
        while let Some((name, values)) = map.next_entry::<String, Vec<String>>()? {
            let field = HeaderName::from_bytes(name.as_bytes());
            let field = field.map_err(|_| A::Error::custom(format_args!("{name:?} is not a header name")))?;
            for value in values {
                let value = HeaderValue::from_bytes(value.as_bytes());
                let value = value.map_err(|_| A::Error::custom(format_args!("a value of {field} is not valid")))?;
                let appended = headers.try_append(&field, value);
                appended.map_err(|_| A::Error::custom("there are too many headers"))?;
            }
        }
        Ok(Headers(headers))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(uri: &str, headers: Value) -> Result<RequestView, EventError> {
        let metadata = json!({"correlation_id": "c", "client_ip": "192.0.2.1", "client_port": 1, "more": null});
        let event = json!({"metadata": metadata, "method": "GET", "uri": uri, "headers": headers});
        match read(Hook::Request, event.to_string().as_bytes())? {
            Event::Request(view) => Ok(view),
            Event::Response(_) => panic!("asked for a request"),
        }
    }

    #[test]
    fn a_request_is_taken_over() {
        let view = request("/a?b=c", json!({"host": ["h"], "cookie": ["a=1", "b=2"], "x": [], "y": ["é"]}))
            .expect("a request");
        assert_eq!((view.request_id, view.client), ("c".parse().unwrap(), "192.0.2.1".parse().unwrap()));
        assert_eq!(view.head.uri, "/a?b=c");
        assert_eq!(view.head.headers.get_all("cookie").iter().count(), 2);
        assert_eq!(view.head.headers["y"].as_bytes(), "é".as_bytes());
        assert_eq!(view.head.headers.len(), 4);
    }

    #[test]
    fn what_is_not_quite_a_uri_is_shown_encoded() {
        let uri = |uri| request(uri, json!({})).map(|view| view.head.uri.to_string());
        assert_eq!(uri("/a b?c=<d>").expect("a URI"), "/a%20b?c=%3Cd%3E");
        assert_eq!(uri("/a#/../admin").expect("a URI"), "/a%23/../admin");
        assert_eq!(uri("*").expect("a URI"), "*");
        for bad in ["", "admin", "admin/x", "http://a/b", "?a"] {
            assert!(uri(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_http_could_not_carry_is_refused() {
        for headers in
            [json!({"a b": ["c"]}), json!({"a": ["b\r\nc: d"]}), json!({"a": "b"}), json!({"a": [1]}), json!([])]
        {
            assert!(request("/", headers.clone()).is_err(), "{headers}");
        }
        for event in ["", "{}", "[]", r#"{"status":99,"headers":{}}"#, r#"{"status":"200","headers":{}}"#] {
            assert!(read(Hook::Response, event.as_bytes()).is_err(), "{event}");
        }
        let shown = request("/", json!({})).map(|_| shown("a\r\nb\u{7f}é"));
        assert_eq!(shown.expect("a request").as_bytes(), "a??b?é".as_bytes());
    }

    #[test]
    fn the_id_is_found_at_either_place() {
        for (payload, id) in [
            (r#"{"correlation_id":"a","metadata":{"correlation_id":"b"}}"#, "a"),
            (r#"{"metadata":{"correlation_id":"b"}}"#, "b"),
            (r#"{"correlation_id":null,"metadata":null}"#, ""),
            (r#"{"correlation_id":5,"metadata":"x"}"#, ""),
            ("{}", ""),
            ("{", ""),
        ] {
            assert_eq!(correlation_id(payload.as_bytes()), id, "{payload}");
        }
    }

    #[test]
    fn a_configuration_is_taken_as_far_as_it_makes_sense() {
        let read = |config: Value| {
            let payload = json!({"config": config, "config_version": null}).to_string();
            configuration(payload.as_bytes())
                .expect("an object or null")
                .map(|found| (found.pool_size, found.fail_open))
        };
        for (config, wanted) in [
            (json!(null), None),
            (json!({}), Some((None, None))),
            (json!({"pool-size": 8, "fail-open": true}), Some((Some(8), Some(true)))),
            (json!({"pool_size": 1, "fail_open": false}), Some((Some(1), Some(false)))),
            (json!({"pool-size": 0, "fail-open": "yes"}), Some((None, None))),
            (json!({"pool-size": 1e9, "fail-open": null}), Some((None, None))),
        ] {
            assert_eq!(read(config.clone()), wanted, "{config}");
        }
        let rest =
            configuration(br#"{"config":{"pool-size":1,"patterns":["a"]}}"#).expect("JSON").expect("a configuration");
        assert_eq!(Value::Object(rest.module), json!({"patterns": ["a"]}));
    }
}
