//! The hook vocabulary: what a hook is shown, and what it may decide. Every interface translates into it,
//! and nothing past it knows which interface a guest was written for.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};

use super::edit::Edit;

/// A point in a request's life at which modules run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    Request,
    Response,
}

impl Hook {
    pub const ALL: [Hook; 2] = [Hook::Request, Hook::Response];

    /// As it is spelled in attach points.
    pub fn attach_point(self) -> &'static str {
        match self {
            Hook::Request => "OnRequest",
            Hook::Response => "OnResponse",
        }
    }

    /// As it is spelled in metric labels and logs.
    pub fn label(self) -> &'static str {
        match self {
            Hook::Request => "on-request",
            Hook::Response => "on-response",
        }
    }
}

/// The head of a request, as modules see and edit it and as it goes to the worker.
#[derive(Debug, Clone)]
pub struct RequestHead {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub headers: HeaderMap,
}

/// What an on-request hook is shown. Shared, so that a call can outlive the request that asked for it.
#[derive(Debug, Clone)]
pub struct RequestView {
    pub head: Rc<RequestHead>,
    pub body: Bytes,
    pub request_id: HeaderValue,
    /// The client's address, without a port.
    pub client: HeaderValue,
    pub received_ms: u64,
}

/// What an on-response hook is shown.
#[derive(Debug, Clone)]
pub struct ResponseView {
    pub head: Rc<ResponseHead>,
    pub body: Bytes,
    pub request_id: HeaderValue,
    /// The answer arrives event by event: the body is not shown and can't be replaced.
    pub streamed: bool,
    /// The body is larger than any module may be shown, so none is here.
    pub oversized: bool,
}

/// What a hook decides.
#[derive(Debug)]
pub enum Verdict {
    Continue,
    Edit(Box<Edit>),
    /// Answer with this. On a request nobody else is asked; on a response it takes the place of the worker's.
    Respond(Box<Answer>),
}

/// A complete answer from a module.
#[derive(Debug)]
pub struct Answer {
    pub head: ResponseHead,
    /// `None` if the module said nothing of it, which is not the same to every caller as an empty one.
    pub body: Option<Bytes>,
    pub tags: Vec<String>,
}

impl Answer {
    pub fn empty(status: StatusCode) -> Self {
        Self { head: ResponseHead { status, headers: HeaderMap::new() }, body: None, tags: Vec::new() }
    }
}
