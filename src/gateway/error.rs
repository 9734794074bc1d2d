//! Why a request was not answered by a worker, and what its client is told: the single table from error to
//! status, code and text. The cause goes to the log; nothing of it goes to the client.

pub mod codes;

use std::time::Duration;

use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use serde_json::json;

use crate::admission::AdmissionError;
use crate::content_coding;
use crate::http1::MessageError;
use crate::http1::head::HeadError;
use crate::modules::GuestFailure;
use crate::workers::connector::ConnectError;
use crate::workers::link::LinkError;

pub static ERROR_CODE: HeaderName = HeaderName::from_static("x-smg-error-code");

/// Seconds after which a client may ask again when there is no worker.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// Everything that can go wrong with a request.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    #[error("the request is not valid: {0}")]
    BadRequest(&'static str),
    #[error("what arrived is not a request: {0}")]
    NoRequest(#[from] MessageError),
    #[error("the client's body broke off")]
    BrokenBody,
    #[error("the request body is larger than {0} bytes")]
    BodyTooLarge(u64),
    #[error("the client did not send its body in time")]
    SlowBody,
    #[error("the method is not offered")]
    Method,
    #[error("no or a wrong API key")]
    Unauthorized,
    #[error("several fields carry different keys")]
    KeysDiffer,
    #[error("not for this client: {0}")]
    Forbidden(&'static str),
    #[error("one of the gateway's own resources is only read")]
    MethodNotAllowed,
    #[error("the request has come through this gateway before")]
    Loop,
    #[error("no worker is healthy")]
    NoWorker,
    #[error("every breaker is open")]
    AllLeftAlone,
    #[error("no connection to the worker: {0}")]
    Connect(#[source] ConnectError),
    #[error("the worker's answer is broken: {0}")]
    BadAnswer(#[source] LinkError),
    #[error("no answer in time")]
    Timeout,
    #[error("the worker's answer did not begin in time")]
    FirstByteTimeout,
    #[error("the worker fell silent in its answer")]
    Stalled,
    #[error("no pool serves the model {0:?}")]
    UnknownModel(String),
    #[error("the body's content coding is unknown, and its model selects the workers")]
    UnknownCoding,
    #[error("{error}")]
    NotAdmitted { error: AdmissionError, seconds: u64 },
    #[error("the key's holder has as many requests in flight as it may")]
    KeyBusy,
    #[error("more requests than the rate limit allows")]
    RateLimited(Duration),
    #[error(transparent)]
    Guest(#[from] GuestFailure),
    #[error("memory or file descriptors are nearly used up")]
    Pressed,
    #[error(
        "this listener is for the admin API alone, or not for it, or the path is an admin operation spelled otherwise"
    )]
    NotHere,
    #[error("the base paths of the workers name a version, and the path is not below /v1")]
    NotServed,
    #[error("too many calls wait for the control plane")]
    Overloaded,
    #[error("the control plane gave no answer")]
    ControlPlane,
}

/// Status, code and public text.
type Row = (StatusCode, &'static str, &'static str);

impl GatewayError {
    fn row(&self) -> Row {
        use StatusCode as S;
        match self {
            Self::BadRequest(why) => (S::BAD_REQUEST, "invalid_request", why),
            Self::NoRequest(MessageError::Head(HeadError::Version)) => (
                S::HTTP_VERSION_NOT_SUPPORTED,
                "http_version_not_supported",
                "This port supports HTTP/1.0, HTTP/1.1 and HTTP/2 (over TLS by ALPN, without TLS by prior knowledge).",
            ),
            Self::NoRequest(MessageError::Head(HeadError::TargetTooLong)) => {
                (S::URI_TOO_LONG, "uri_too_long", "The request target is too long.")
            }
            Self::NoRequest(MessageError::Head(HeadError::TooLarge)) => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "request_header_fields_too_large",
                "The header has too many fields, or is too long.",
            ),
            Self::NoRequest(MessageError::Framing(_)) => {
                (S::BAD_REQUEST, "invalid_request", "The length of the request's body is not clear.")
            }
            Self::NoRequest(_) => (S::BAD_REQUEST, "invalid_request", "This is not a valid HTTP/1.1 request."),
            Self::BrokenBody => (S::BAD_REQUEST, "invalid_request_body", "The request body is incomplete or broken."),
            Self::BodyTooLarge(_) => (S::PAYLOAD_TOO_LARGE, "request_body_too_large", "The request body is too large."),
            Self::SlowBody => (S::REQUEST_TIMEOUT, "request_timeout", "The request body did not arrive in time."),
            Self::Method => (S::NOT_IMPLEMENTED, "method_not_implemented", "This method is not offered."),
            Self::Unauthorized => (S::UNAUTHORIZED, "invalid_api_key", "A valid API key is needed."),
            Self::KeysDiffer => {
                (S::UNAUTHORIZED, "invalid_api_key", "Authorization, X-Api-Key and Api-Key carry different keys.")
            }
            Self::Forbidden(why) => (S::FORBIDDEN, "forbidden", why),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "This method is not allowed here."),
            Self::Loop => (S::LOOP_DETECTED, "loop_detected", "The request has come through this gateway before."),
            Self::NoWorker | Self::AllLeftAlone => {
                (S::SERVICE_UNAVAILABLE, "no_available_workers", "No worker is available.")
            }
            Self::Connect(error) if error.is_timeout() => {
                (S::GATEWAY_TIMEOUT, "upstream_connect_timeout", "The worker can't be reached in time.")
            }
            Self::Connect(_) => (S::BAD_GATEWAY, "upstream_connection_failed", "The worker can't be reached."),
            Self::BadAnswer(_) => (S::BAD_GATEWAY, "upstream_bad_response", "The worker gave no valid answer."),
            Self::Timeout => (S::GATEWAY_TIMEOUT, "upstream_timeout", "The worker did not answer in time."),
            Self::FirstByteTimeout => {
                (S::GATEWAY_TIMEOUT, "upstream_first_byte_timeout", "The worker did not begin to answer in time.")
            }
            Self::Stalled => (S::GATEWAY_TIMEOUT, "upstream_stalled", "The worker fell silent in its answer."),
            Self::UnknownModel(_) => (S::NOT_FOUND, "model_not_found", "No worker serves this model."),
            Self::UnknownCoding => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_content_encoding",
                "The model can't be read from a body with this Content-Encoding; send gzip, deflate, br, zstd or none.",
            ),
            Self::NotAdmitted { error: AdmissionError::QueueFull, .. } => {
                (S::TOO_MANY_REQUESTS, "admission_queue_full", "Too many requests; try again later.")
            }
            Self::NotAdmitted { error: AdmissionError::QueueTimeout, .. } => {
                (S::SERVICE_UNAVAILABLE, "admission_queue_timeout", "The request waited for too long; try again later.")
            }
            Self::KeyBusy => {
                (S::TOO_MANY_REQUESTS, "concurrency_limit_exceeded", "This key has too many requests in flight.")
            }
            Self::RateLimited(_) => {
                (S::TOO_MANY_REQUESTS, "rate_limit_exceeded", "Requests come too fast; try again later.")
            }
            Self::Guest(failure) => (failure.status, "wasm_module_failed", "A module failed."),
            Self::Pressed => (S::SERVICE_UNAVAILABLE, "overloaded", "The gateway is short of resources; try again."),
            Self::NotHere => (S::NOT_FOUND, "not_found", "There is nothing here."),
            Self::NotServed => (S::NOT_FOUND, "not_found", "No worker serves this path."),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "The gateway is busy; try again."),
            Self::ControlPlane => (S::SERVICE_UNAVAILABLE, "shutting_down", "The gateway is shutting down."),
        }
    }

    pub fn code(&self) -> &'static str {
        self.row().1
    }

    /// What callers of such modules expect.
    fn plain(status: StatusCode, code: &'static str, text: &'static str) -> Response<bytes::Bytes> {
        let mut response = Response::new(bytes::Bytes::from_static(text.as_bytes()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(&ERROR_CODE, HeaderValue::from_static(code));
        response
    }

    /// The answer to the client, in the envelope of the OpenAI API.
    pub fn response(&self) -> Response<bytes::Bytes> {
        let (status, code, message) = self.row();
        if let Self::Guest(GuestFailure { text: Some(text), .. }) = self {
            return Self::plain(status, code, text);
        }
        let kind = match status.as_u16() {
            401 | 403 => "authentication_error",
            429 => "rate_limit_error",
            400..=499 => "invalid_request_error",
            _ => "server_error",
        };
        let body = json!({"error": {"type": kind, "code": code, "message": message, "param": null}}).to_string();
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(&ERROR_CODE, HeaderValue::from_static(code));
        match self {
            Self::NoWorker
            | Self::AllLeftAlone
            | Self::Overloaded
            | Self::Pressed
            | Self::ControlPlane
            | Self::KeyBusy => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            Self::NotAdmitted { seconds, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
            }
            Self::RateLimited(wait) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
            }
            Self::MethodNotAllowed => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            // RFC 9110 section 15.5.16
            Self::UnknownCoding => {
                headers.insert(header::ACCEPT_ENCODING, content_coding::KNOWN);
            }
            Self::Unauthorized | Self::KeysDiffer => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            // A body that nobody will read must not be taken for the next request.
            // What follows CONNECT is not a request either, and a head with two hosts may be two requests.
            Self::BodyTooLarge(_) | Self::SlowBody | Self::BrokenBody | Self::Method | Self::BadRequest(_) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::framing::FramingError;
    use crate::modules::FailureKind;
    use crate::workers::dial::DialError;

    #[test]
    fn every_error_has_its_row() {
        let guest = |text| {
            let (kind, status) = (FailureKind::Trap, StatusCode::IM_A_TEAPOT);
            GatewayError::Guest(GuestFailure { module: "m".into(), kind, status, text })
        };
        let plain = guest(Some("Wasm Error")).response();
        assert_eq!((plain.status().as_u16(), &plain.body()[..]), (418, &b"Wasm Error"[..]));
        assert_eq!(plain.headers()[&ERROR_CODE], "wasm_module_failed");
        for (error, status, code) in [
            (GatewayError::BadRequest("no"), 400, "invalid_request"),
            (GatewayError::BrokenBody, 400, "invalid_request_body"),
            (GatewayError::BodyTooLarge(1), 413, "request_body_too_large"),
            (GatewayError::SlowBody, 408, "request_timeout"),
            (GatewayError::Method, 501, "method_not_implemented"),
            (GatewayError::Unauthorized, 401, "invalid_api_key"),
            (GatewayError::KeysDiffer, 401, "invalid_api_key"),
            (GatewayError::Forbidden("no"), 403, "forbidden"),
            (GatewayError::MethodNotAllowed, 405, "method_not_allowed"),
            (GatewayError::Loop, 508, "loop_detected"),
            (GatewayError::NoWorker, 503, "no_available_workers"),
            (GatewayError::AllLeftAlone, 503, "no_available_workers"),
            (GatewayError::Connect(DialError::Timeout.into()), 504, "upstream_connect_timeout"),
            (GatewayError::Connect(ConnectError::TlsTimeout), 504, "upstream_connect_timeout"),
            (
                GatewayError::Connect(DialError::Io(std::io::ErrorKind::ConnectionRefused.into()).into()),
                502,
                "upstream_connection_failed",
            ),
            (GatewayError::FirstByteTimeout, 504, "upstream_first_byte_timeout"),
            (GatewayError::Stalled, 504, "upstream_stalled"),
            (GatewayError::UnknownModel("m".into()), 404, "model_not_found"),
            (GatewayError::UnknownCoding, 415, "unsupported_content_encoding"),
            (GatewayError::NotAdmitted { error: AdmissionError::QueueFull, seconds: 3 }, 429, "admission_queue_full"),
            (
                GatewayError::NotAdmitted { error: AdmissionError::QueueTimeout, seconds: 3 },
                503,
                "admission_queue_timeout",
            ),
            (GatewayError::KeyBusy, 429, "concurrency_limit_exceeded"),
            (GatewayError::RateLimited(Duration::from_millis(10)), 429, "rate_limit_exceeded"),
            (GatewayError::BadAnswer(LinkError::Interim), 502, "upstream_bad_response"),
            (GatewayError::NoRequest(FramingError::Both.into()), 400, "invalid_request"),
            (GatewayError::NoRequest(HeadError::Version.into()), 505, "http_version_not_supported"),
            (GatewayError::NoRequest(HeadError::TargetTooLong.into()), 414, "uri_too_long"),
            (GatewayError::NoRequest(HeadError::TooLarge.into()), 431, "request_header_fields_too_large"),
            (GatewayError::Timeout, 504, "upstream_timeout"),
            (guest(None), 418, "wasm_module_failed"),
            (GatewayError::Pressed, 503, "overloaded"),
            (GatewayError::NotHere, 404, "not_found"),
            (GatewayError::NotServed, 404, "not_found"),
            (GatewayError::Overloaded, 503, "overloaded"),
            (GatewayError::ControlPlane, 503, "shutting_down"),
        ] {
            let response = error.response();
            assert_eq!((response.status().as_u16(), error.code()), (status, code));
            let row = codes::find(code).unwrap_or_else(|| panic!("{code} is not in the table of codes"));
            assert!(row.statuses.contains(&status.to_string()) || code == "wasm_module_failed", "{code}: {status}");
            assert_eq!(response.headers()[&ERROR_CODE], code);
            let body: serde_json::Value = serde_json::from_slice(response.body()).expect("JSON");
            assert_eq!(body["error"]["code"], code);
            assert_eq!(body["error"]["param"], serde_json::Value::Null);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), matches!(status, 429 | 503));
        }
    }
}
