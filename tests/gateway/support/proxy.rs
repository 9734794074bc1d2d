//! The Sentinel (Zentinel) proxy's side of a connection to its agent.

use super::event::{Event, Version, kind};
use super::frames::Frames;
use super::reply::Reply;
use serde_json::{Value, json};
use std::path::Path;

/// A proxy's connection, after its handshake if the version has one.
pub struct Proxy {
    pub frames: Frames,
    pub version: Version,
}

impl Proxy {
    #[track_caller]
    pub fn connect(path: &Path, version: Version) -> Self {
        let mut frames = Frames::connect(path).unwrap_or_else(|e| panic!("no connection to the agent: {e}"));
        if version == Version::V2 {
            let answer = shake_hands(&mut frames, &handshake());
            assert_eq!(answer["success"], true, "{answer}");
        }
        Proxy { frames, version }
    }

    #[track_caller]
    pub fn send(&mut self, event: &Event) {
        self.frames.send(&event.encode(self.version));
    }

    /// The next answer.
    #[track_caller]
    pub fn read(&mut self) -> Reply {
        self.try_read().expect("the agent ended the connection without an answer")
    }

    /// The next answer; `None` if the agent ended the connection before it.
    #[track_caller]
    pub fn try_read(&mut self) -> Option<Reply> {
        let frame = self.frames.read().unwrap_or_else(|e| panic!("no answer: {e}"))?;
        let reply = match self.version {
            Version::V1 => &frame[..],
            Version::V2 => {
                assert_eq!(frame[0], kind::ANSWER, "{}", String::from_utf8_lossy(&frame));
                &frame[1..]
            }
        };
        let reply = Reply::parse(reply);
        assert_eq!(reply.version, if self.version == Version::V1 { 1 } else { 2 });
        Some(reply)
    }

    /// Sends an event and reads its answer, which must be the next one.
    #[track_caller]
    pub fn ask(&mut self, event: &Event) -> Reply {
        self.send(event);
        let reply = self.read();
        if self.version == Version::V2 {
            assert_eq!(reply.id(), event.correlation_id());
        }
        reply
    }
}

/// What a proxy says first in version 2.
pub fn handshake() -> Value {
    json!({
        "supported_versions": [2], "proxy_id": "zentinel-proxy", "proxy_version": "0.6.51", "config": null,
        "supported_encodings": ["json"],
    })
}

/// Sends a handshake; the answer to it.
#[track_caller]
pub fn shake_hands(frames: &mut Frames, handshake: &Value) -> Value {
    frames.send(&[&[kind::HANDSHAKE], handshake.to_string().as_bytes()].concat());
    let answer = frames.read().expect("an answer to the handshake").expect("no end before it");
    assert_eq!(answer[0], kind::HANDSHAKE_ANSWER);
    serde_json::from_slice(&answer[1..]).expect("JSON")
}
