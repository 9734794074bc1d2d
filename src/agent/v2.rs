//! Version 2 of the protocol (Zentinel): a handshake, then many events at once on a connection, answered in any
//! order. The proxy matches an answer to its request by the correlation id.

use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, Id, JoinSet};

use super::frame::{Frames, framed};
use super::reply::Reply;
use super::{Agent, ConnectionError, Peer, WRITE_TIME, event};
use crate::modules::Hook;

const VERSION: u32 = 2;
/// Events of one connection that are worked on at once; past them, nothing is read from it.
const MOST_EVENTS: usize = 128;
/// Answers that wait for the writer. What more there is waits in the events' own tasks, where it can be given up.
const MOST_ANSWERS: usize = 1;

/// Types of frames: their first byte.
pub const HANDSHAKE: u8 = 0x01;
const HANDSHAKE_ANSWER: u8 = 0x02;
const REQUEST_HEADERS: u8 = 0x10;
const RESPONSE_HEADERS: u8 = 0x12;
/// Bodies, completion, WebSocket frames, guardrails.
const OTHER_EVENTS: [u8; 5] = [0x11, 0x13, 0x14, 0x15, 0x16];
const CONFIGURE: u8 = 0x17;
const ANSWER: u8 = 0x20;
const CANCEL: u8 = 0x40;
const PING: u8 = 0x41;
const PONG: u8 = 0x42;

#[derive(Deserialize)]
struct Handshake {
    supported_versions: Vec<u32>,
    #[serde(default)]
    supported_encodings: Vec<String>,
}

/// Serves a connection whose first frame is a handshake.
pub async fn serve(
    agent: &Rc<Agent>,
    first: Bytes,
    frames: Frames<impl AsyncRead + Unpin>,
    mut writer: impl AsyncWrite + Unpin,
    peer: &Peer,
) -> Result<(), ConnectionError> {
    let (answer, accepted) = shake_hands(agent, &first[1..]).await?;
    write(&mut writer, HANDSHAKE_ANSWER, answer.to_string().as_bytes()).await?;
    if !accepted {
        return Err(ConnectionError::Protocol("the handshake asks for what is not offered".to_owned()));
    }
    let (answers, mut queue) = mpsc::channel::<(u8, Bytes)>(MOST_ANSWERS);
    let writing = async move {
        while let Some((kind, payload)) = queue.recv().await {
            write(&mut writer, kind, &payload).await?;
        }
        Ok(())
    };
    let conversation = Conversation { agent: agent.clone(), answers, events: Events::default() };
    // Whichever fails first ends the other, and all events that are worked on.
    tokio::try_join!(writing, conversation.run(frames, peer)).map(|((), ())| ())
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), kind: u8, payload: &[u8]) -> Result<(), ConnectionError> {
    let frame = framed(&[&[kind], payload]);
    let written = tokio::time::timeout(WRITE_TIME, writer.write_all(&frame)).await;
    Ok(written.map_err(|_| ConnectionError::SlowPeer)??)
}

/// The answer to a handshake, and whether the connection can be used.
async fn shake_hands(agent: &Agent, payload: &[u8]) -> Result<(Value, bool), ConnectionError> {
    let invalid = |error: serde_json::Error| ConnectionError::Protocol(error.to_string());
    let Handshake { supported_versions, supported_encodings } = serde_json::from_slice(payload).map_err(invalid)?;
    let error = if !supported_versions.contains(&VERSION) {
        Some("version 2 is the only one that is offered here")
    } else if !supported_encodings.is_empty() && !supported_encodings.iter().any(|encoding| encoding == "json") {
        Some("json is the only encoding that is offered")
    } else {
        None
    };
    let mut refused = error.map(str::to_owned);
    if refused.is_none() {
        refused = agent.apply(payload).await.err().map(|error| error.to_string());
    }
    let accepted = refused.is_none();
    let answer = json!({
        "protocol_version": VERSION,
        "capabilities": {
            "agent_id": "smg-wasm-agent",
            "name": "smg WebAssembly agent",
            "version": env!("CARGO_PKG_VERSION"),
            "supported_events": [1, 3],
            "features": {
                "streaming_body": false, "websocket": false, "guardrails": false, "config_push": true,
                "metrics_export": false, "concurrent_requests": MOST_EVENTS, "cancellation": true,
                "flow_control": false, "health_reporting": false,
            },
            "limits": {
                "max_body_size": 0, "max_concurrency": MOST_EVENTS, "preferred_chunk_size": 65_536,
            },
        },
        "success": accepted,
        "error": refused,
        "encoding": "json",
    });
    Ok((answer, accepted))
}

/// One connection after its handshake.
struct Conversation {
    agent: Rc<Agent>,
    answers: mpsc::Sender<(u8, Bytes)>,
    events: Events,
}

/// The events that are worked on.
#[derive(Default)]
struct Events {
    tasks: JoinSet<()>,
    by_correlation_id: HashMap<String, AbortHandle>,
}

impl Conversation {
    async fn run(mut self, mut frames: Frames<impl AsyncRead + Unpin>, peer: &Peer) -> Result<(), ConnectionError> {
        let mut drain = self.agent.drain.clone();
        loop {
            let has_room = self.events.tasks.len() < MOST_EVENTS;
            tokio::select! {
                biased;
                Some(done) = self.events.tasks.join_next_with_id(), if !self.events.tasks.is_empty() => {
                    let id = done.map_or_else(|error| error.id(), |(id, ())| id);
                    self.events.forget(id);
                }
                frame = frames.next(), if has_room => match frame? {
                    Some(frame) => self.take(frame[0], frame.slice(1..)).await,
                    None => break,
                },
                _ = drain.wait_for(|draining| *draining) => break,
            }
        }
        let finished = async { while self.events.tasks.join_next().await.is_some() {} };
        tokio::select! {
            () = finished => {}
            // What is still worked on ends here.
            () = peer.gone() => {}
        }
        Ok(())
    }

    /// One frame. What is wrong with it concerns its own request only, never the others on the connection.
    async fn take(&mut self, kind: u8, payload: Bytes) {
        match kind {
            REQUEST_HEADERS => self.begin(Hook::Request, payload),
            RESPONSE_HEADERS => self.begin(Hook::Response, payload),
            CONFIGURE => {
                let reply = self.agent.configure(&payload).await;
                self.answer(reply, event::correlation_id(&payload)).await;
            }
            CANCEL => self.events.give_up(&event::correlation_id(&payload)),
            PING => self.send(PONG, payload).await,
            // Events are for other agents; whoever sends them here wants to go on.
            kind if OTHER_EVENTS.contains(&kind) => {
                let id = event::correlation_id(&payload);
                self.events.give_up(&id);
                self.answer(Reply::allow(), id).await;
            }
            // A later version of the protocol may tell of more, and expects no answer from us.
            kind => tracing::debug!(kind, "a frame of an unknown type was ignored"),
        }
    }

    /// Works on an event in a task of its own. A proxy that sends a second event with the id of the first
    /// waits for the second only, and would take the answer to the first for it: so that one is given up.
    fn begin(&mut self, hook: Hook, payload: Bytes) {
        let id = event::correlation_id(&payload);
        self.events.give_up(&id);
        let (agent, answers, key) = (self.agent.clone(), self.answers.clone(), id.clone());
        let event = self.events.tasks.spawn_local(async move {
            let reply = agent.decide("v2", hook, &id, &payload).await;
            // The connection may be gone by now.
            let _ = answers.send((ANSWER, reply.encode(VERSION, Some(id)).into())).await;
        });
        if !key.is_empty() {
            self.events.by_correlation_id.insert(key, event);
        }
    }

    async fn answer(&self, reply: Reply, correlation_id: String) {
        self.send(ANSWER, reply.encode(VERSION, Some(correlation_id)).into()).await;
    }

    async fn send(&self, kind: u8, payload: Bytes) {
        // When the writer is gone, it has said why.
        let _ = self.answers.send((kind, payload)).await;
    }
}

impl Events {
    /// Nobody waits for the answer to this event any more, if it is still worked on.
    fn give_up(&mut self, correlation_id: &str) {
        if let Some(event) = self.by_correlation_id.remove(correlation_id) {
            event.abort();
        }
    }

    fn forget(&mut self, done: Id) {
        self.by_correlation_id.retain(|_, event| event.id() != done);
    }
}
