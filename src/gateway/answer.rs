//! An answer on its way to the client, whoever gave it.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::body::{Content, Hold};
use super::error::{ERROR_CODE, GatewayError};
use super::record::Record;
use crate::modules::{self, ResponseHead};

pub struct Answer {
    pub head: ResponseHead,
    pub content: Content,
    pub hold: Hold,
}

impl Answer {
    pub fn whole(response: Response<Bytes>) -> Self {
        let (parts, body) = response.into_parts();
        let head = ResponseHead { status: parts.status, headers: parts.headers };
        Self { head, content: Content::Whole(Some(body)), hold: Hold::default() }
    }

    pub fn of_module(answer: modules::Answer) -> Self {
        let modules::Answer { head, body, tags: _ } = answer;
        let content = Content::Whole(body.filter(|body| !body.is_empty()));
        Self { head, content, hold: Hold::default() }
    }

    pub fn empty(status: StatusCode) -> Self {
        let head = ResponseHead { status, headers: HeaderMap::new() };
        Self { head, content: Content::Whole(None), hold: Hold::default() }
    }

    pub fn text(status: StatusCode, text: &'static str) -> Self {
        let mut answer = Self::empty(status);
        answer.head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        answer.content = Content::Whole(Some(Bytes::from_static(text.as_bytes())));
        answer
    }

    pub fn json(status: StatusCode, value: &serde_json::Value) -> Self {
        let mut answer = Self::empty(status);
        answer.head.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer.content = Content::Whole(Some(Bytes::from(value.to_string())));
        answer
    }

    /// A module has given it its status. If that is one of an error, it is a rejection, and says so.
    pub fn decided_by_module(mut self, record: &mut Record) -> Self {
        const CODE: &str = "wasm_module_rejected";
        if self.head.status.is_client_error() || self.head.status.is_server_error() {
            record.refused(CODE, String::new());
            self.head.headers.insert(&ERROR_CODE, HeaderValue::from_static(CODE));
        }
        self
    }

    pub fn of_error(error: &GatewayError, record: &mut Record) -> Self {
        record.refused(error.code(), error.to_string());
        Self::whole(error.response())
    }

    /// Without a body where there must be none (RFC 9112 section 6.3, RFC 9110 section 15.3.6), whatever a module did.
    /// Nor is there a tunnel, if a module has refused it.
    pub fn framed(mut self, is_head: bool) -> Self {
        use StatusCode as S;
        let is_switching = self.head.status == S::SWITCHING_PROTOCOLS;
        match (&self.content, is_switching) {
            (Content::Tunnel(_), false) => (self.content, self.hold.lease) = (Content::Whole(None), None),
            (Content::Whole(_) | Content::Stream { .. }, true) => {
                // Its content is not what the client would take it for.
                self.head.status = S::BAD_GATEWAY;
                self.content = Content::Whole(None);
            }
            _ => {}
        }
        let bodiless = matches!(self.head.status, S::NO_CONTENT | S::RESET_CONTENT | S::NOT_MODIFIED);
        if matches!(self.head.status, S::NO_CONTENT | S::RESET_CONTENT) {
            self.head.headers.remove(header::CONTENT_LENGTH);
        }
        if bodiless || (is_head && matches!(self.content, Content::Whole(_))) {
            self.content = Content::Whole(None);
        }
        self
    }
}
