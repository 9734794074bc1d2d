//! Requests to leave HTTP/1.1 and the answers to them (RFC 9110 section 7.8), as bytes.

use super::client::Response;
use super::conn::ReceivedRequest;
use super::worker::Worker;
use std::net::SocketAddr;

/// A key and what the server makes of it: the example of RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A protocol without a name of its own: how it is asked for, and the answer that switches to it.
pub const CUSTOM: &str = "Connection: Upgrade\r\nUpgrade: custom/1\r\n";
pub const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: custom/1\r\n\r\n";

/// A request for a WebSocket, as bytes; `fields` are header lines with their ends.
pub fn upgrade_request(address: SocketAddr, path: &str, fields: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

/// What a worker says to such a request; `fields` are header lines with their ends.
pub fn switching(fields: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n{fields}\r\n"
    )
}

/// Asserts that a worker got what [`upgrade_request`] asks for, whole.
#[track_caller]
pub fn assert_asks_for_a_websocket(request: &ReceivedRequest) {
    let field = |name| request.headers.get(name).map(str::to_ascii_lowercase);
    assert_eq!(field("upgrade").as_deref(), Some("websocket"), "{}", request.head);
    assert_eq!(field("connection").as_deref(), Some("upgrade"), "{}", request.head);
    assert_eq!(request.headers.get("sec-websocket-version"), Some("13"), "{}", request.head);
    assert_eq!(request.headers.get("sec-websocket-key"), Some(KEY), "{}", request.head);
}

/// Asserts that an answer opens a WebSocket, and only that.
#[track_caller]
pub fn assert_is_switching(answer: &Response) {
    assert_eq!(answer.status, 101, "{answer:?}");
    let field = |name| answer.headers.get(name).map(str::to_ascii_lowercase);
    assert_eq!(field("upgrade").as_deref(), Some("websocket"), "{answer:?}");
    assert_eq!(field("connection").as_deref(), Some("upgrade"), "{answer:?}");
    assert_eq!(answer.headers.get("sec-websocket-accept"), Some(ACCEPT), "{answer:?}");
    for name in ["content-length", "transfer-encoding"] {
        assert!(!answer.headers.has(name), "a 101 has no body: {answer:?}");
    }
}

/// A request for some other protocol; `fields` are header lines with their ends.
pub fn ask_for_upgrade(fields: &str) -> String {
    format!("GET /up HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

impl Worker {
    /// A worker that switches to `custom/1`, and then says what it hears in capitals until `end`.
    pub fn shouting() -> Self {
        Worker::new(|request, conn| {
            if !request.headers.has("upgrade") {
                return conn.answer(200, "plain");
            }
            conn.leave_http();
            conn.send(SWITCHED);
            while let Ok(Some(line)) = conn.read_until("\n") {
                conn.send(line.to_ascii_uppercase());
            }
        })
    }
}
