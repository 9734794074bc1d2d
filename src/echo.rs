//! An OpenAI-compatible worker that repeats what it is told: for the demo, and for tests that want a model
//! server's real shapes without a model.
//!
//! Chat completions, completions (whole and streamed), `/v1/models`, `/health`. Every other path is answered
//! with what was received.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::Sleep;

const MAX_BODY: usize = 64 << 20;

/// How the worker behaves.
#[derive(Debug, Clone)]
pub struct Echo {
    /// The model that it says it serves.
    pub model: String,
    /// Pause before each token of a streamed answer.
    pub token_delay: Duration,
}

impl Echo {
    /// Serves clients for as long as its task runs.
    pub async fn serve(self, listener: TcpListener) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let echo = self.clone();
            spawn_local(async move {
                let _ = stream.set_nodelay(true);
                let service = service_fn(|request| async { Ok::<_, Infallible>(echo.answer(request).await) });
                // A client that breaks off is no news here.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<EchoBody> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, MAX_BODY).collect().await.map(|body| body.to_bytes()) else {
            return self.error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
        };
        match (&head.method, head.uri.path()) {
            (_, "/health") => Response::new(EchoBody::whole("OK")),
            (_, "/v1/models") => json_response(StatusCode::OK, &self.models()),
            (&Method::POST, "/v1/chat/completions") => self.complete(&body, Kind::Chat),
            (&Method::POST, "/v1/completions") => self.complete(&body, Kind::Text),
            _ => json_response(StatusCode::OK, &received(&head, &body)),
        }
    }

    fn models(&self) -> Value {
        json!({"object": "list", "data": [{"id": self.model, "object": "model", "created": now(), "owned_by": "smg-echo"}]})
    }

    fn complete(&self, body: &[u8], kind: Kind) -> Response<EchoBody> {
        let Ok(request) = serde_json::from_slice::<Value>(body) else {
            return self.error(StatusCode::BAD_REQUEST, "the body is not JSON");
        };
        let Some(prompt) = kind.prompt(&request) else {
            return self.error(StatusCode::BAD_REQUEST, kind.missing());
        };
        let completion = Completion {
            kind,
            id: format!("echo-{:016x}", fastrand::u64(..)),
            created: now(),
            model: request["model"].as_str().unwrap_or(&self.model).to_owned(),
            tokens: prompt.split_inclusive(' ').map(str::to_owned).collect(),
        };
        if request["stream"] != Value::Bool(true) {
            return json_response(StatusCode::OK, &completion.whole());
        }
        let mut response = Response::new(EchoBody::events(completion.events(), self.token_delay));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        response
    }

    fn error(&self, status: StatusCode, message: &str) -> Response<EchoBody> {
        json_response(
            status,
            &json!({"error": {"type": "invalid_request_error", "code": null, "message": message, "param": null}}),
        )
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Chat,
    Text,
}

impl Kind {
    /// What is repeated: the last message, or the prompt.
    fn prompt(self, request: &Value) -> Option<String> {
        let text = match self {
            Kind::Chat => &request["messages"].as_array()?.last()?["content"],
            Kind::Text => &request["prompt"],
        };
        text.as_str().map(str::to_owned)
    }

    fn missing(self) -> &'static str {
        match self {
            Kind::Chat => "`messages` must end with a message whose `content` is text",
            Kind::Text => "`prompt` must be text",
        }
    }
}

struct Completion {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    tokens: Vec<String>,
}

impl Completion {
    fn whole(&self) -> Value {
        let text = self.tokens.concat();
        let choice = match self.kind {
            Kind::Chat => {
                json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"})
            }
            Kind::Text => json!({"index": 0, "text": text, "finish_reason": "stop"}),
        };
        let object = match self.kind {
            Kind::Chat => "chat.completion",
            Kind::Text => "text_completion",
        };
        let mut whole = self.frame(object, choice);
        let count = self.tokens.len();
        whole["usage"] = json!({"prompt_tokens": count, "completion_tokens": count, "total_tokens": 2 * count});
        whole
    }

    /// The events of a streamed answer: one for each token, one with the reason for the end, `[DONE]`.
    fn events(&self) -> Vec<Bytes> {
        let last = [None];
        let pieces = self.tokens.iter().map(Some).chain(last);
        let mut events: Vec<_> = pieces.map(|token| self.event(token)).collect();
        events.push(Bytes::from_static(b"data: [DONE]\n\n"));
        events
    }

    fn event(&self, token: Option<&String>) -> Bytes {
        let reason = if token.is_none() { json!("stop") } else { Value::Null };
        let (object, choice) = match (self.kind, token) {
            (Kind::Chat, Some(token)) => (
                "chat.completion.chunk",
                json!({"index": 0, "delta": {"role": "assistant", "content": token}, "finish_reason": reason}),
            ),
            (Kind::Chat, None) => ("chat.completion.chunk", json!({"index": 0, "delta": {}, "finish_reason": reason})),
            (Kind::Text, token) => (
                "text_completion",
                json!({"index": 0, "text": token.map_or("", String::as_str), "finish_reason": reason}),
            ),
        };
        Bytes::from(format!("data: {}\n\n", self.frame(object, choice)))
    }

    fn frame(&self, object: &str, choice: Value) -> Value {
        json!({"id": self.id, "object": object, "created": self.created, "model": self.model, "choices": [choice]})
    }
}

/// What arrived, for those who want to see what the gateway made of it.
fn received(head: &http::request::Parts, body: &[u8]) -> Value {
    let headers =
        head.headers.iter().map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]));
    json!({
        "method": head.method.as_str(),
        "path": head.uri.to_string(),
        "headers": headers.collect::<Vec<_>>(),
        "body": String::from_utf8_lossy(body),
    })
}

fn json_response(status: StatusCode, value: &Value) -> Response<EchoBody> {
    let mut response = Response::new(EchoBody::whole(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Pieces, each after a pause.
struct EchoBody {
    pieces: std::vec::IntoIter<Bytes>,
    delay: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    length: Option<u64>,
}

impl EchoBody {
    fn whole(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let length = Some(body.len() as u64);
        Self { pieces: vec![body].into_iter(), delay: Duration::ZERO, pause: None, length }
    }

    fn events(events: Vec<Bytes>, delay: Duration) -> Self {
        Self { pieces: events.into_iter(), delay, pause: None, length: None }
    }
}

impl Body for EchoBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if !self.delay.is_zero() && self.pieces.len() > 0 {
            let delay = self.delay;
            let pause = self.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(delay)));
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(self.pieces.next().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.len() == 0
    }

    fn size_hint(&self) -> SizeHint {
        self.length.map(SizeHint::with_exact).unwrap_or_default()
    }
}
