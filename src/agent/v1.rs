//! Version 1 of the protocol (Sentinel 0.4): one event at a time on a connection, each answered before the next.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::frame::{Frames, framed};
use super::reply::Reply;
use super::{Agent, ConnectionError, Peer, WRITE_TIME, event};
use crate::modules::Hook;

const VERSION: u32 = 1;
/// The longest frame of this version.
const MAX_FRAME: usize = 10 << 20;

#[derive(Deserialize)]
struct Message<'a> {
    version: u32,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    payload: &'a RawValue,
}

/// Answers events until the peer is done, or the agent drains and nothing is in flight.
pub async fn serve(
    agent: &Agent,
    first: Bytes,
    mut frames: Frames<impl AsyncRead + Unpin>,
    mut writer: impl AsyncWrite + Unpin,
    peer: &Peer,
) -> Result<(), ConnectionError> {
    let mut drain = agent.drain.clone();
    let mut frame = Some(first);
    while let Some(message) = frame {
        let reply = tokio::select! {
            biased;
            reply = answer(agent, &message) => reply?,
            () = peer.gone() => return Ok(()),
        };
        let reply = framed(&[&reply.encode(VERSION, None)]);
        let written = tokio::time::timeout(WRITE_TIME, writer.write_all(&reply)).await;
        written.map_err(|_| ConnectionError::SlowPeer)??;
        frame = tokio::select! {
            biased;
            frame = frames.next() => frame?,
            _ = drain.wait_for(|draining| *draining) => None,
        };
    }
    Ok(())
}

async fn answer(agent: &Agent, message: &[u8]) -> Result<Reply, ConnectionError> {
    if message.len() > MAX_FRAME {
        return Err(ConnectionError::Protocol(format!("{} bytes; {MAX_FRAME} are allowed", message.len())));
    }
    let message: Message<'_> =
        serde_json::from_slice(message).map_err(|error| ConnectionError::Protocol(error.to_string()))?;
    if message.version != VERSION {
        return Err(ConnectionError::Protocol(format!("version {}", message.version)));
    }
    let payload = message.payload.get().as_bytes();
    let hook = Hook::ALL.into_iter().find(|hook| event::name(*hook) == message.event_type);
    match (&*message.event_type, hook) {
        (_, Some(hook)) => Ok(agent.decide("v1", hook, &event::correlation_id(payload), payload).await),
        ("configure", None) => Ok(agent.configure(payload).await),
        // Other events are for other agents; whoever sends them here wants to go on.
        (_, None) => Ok(Reply::allow()),
    }
}
