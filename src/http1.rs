//! HTTP/1.1 messages on a socket (RFC 9112), the same code for both sides of the gateway.
//!
//! [`head`] turns bytes into heads and [`write`](mod@write) heads into bytes, [`framing`] knows where a body ends,
//! [`wire`] is a socket with what has been read ahead and what could not be written yet, [`incoming`] is a body read
//! from it, [`outgoing`] one that is written to it. Nothing here runs a task, owns a timer or knows what a message is
//! for: the client's side is [`crate::connection`] and [`crate::server`], the worker's side [`crate::workers::link`].
//!
//! Why not hyper's connections, which carry HTTP/2 here: with them on both sides a request of HTTP/1.1 took 43,000
//! instructions in user space instead of 31,000, an idle connection kept 22 KiB more, a refused head had neither id nor
//! envelope, and what was lenient in them (bare LF, fragments) could not be seen from outside. Heads are parsed by
//! `httparse`, the parser that hyper uses. Reading is strict: a bare LF, a bare CR or two framings at once are errors,
//! because another program might read them differently (RFC 9112 section 11.2).

mod chunks;
mod date;
pub mod framing;
pub mod head;
pub mod incoming;
pub mod outgoing;
pub mod trailers;
pub mod wire;
pub mod write;

use std::io;

/// Why a message can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the head is not valid: {0}")]
    Head(#[from] head::HeadError),
    #[error("the body is not valid: {0}")]
    Framing(#[from] framing::FramingError),
    #[error("the connection ended in the middle of a message")]
    Incomplete,
}
