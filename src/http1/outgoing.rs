//! A message's body on its way to a wire.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::HeaderMap;
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite};

use super::framing::Framing;
use super::trailers::Announced;
use super::wire::Wire;

/// What is sent at once.
#[derive(Debug)]
pub enum Piece {
    Data(Bytes),
    Trailers(Box<HeaderMap>),
}

impl Default for Piece {
    fn default() -> Self {
        Self::Data(Bytes::new())
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct OutgoingBody<B> {
    body: B,
    pub framing: Framing,
    announced: Announced,
    is_ended: bool,
}

impl<B> OutgoingBody<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// `headers` are those of the message: what they announce is sent behind the body.
    pub fn new(body: B, framing: Framing, headers: &HeaderMap) -> Self {
        let announced = if framing == Framing::Chunked { Announced::by(headers) } else { Announced::default() };
        Self { body, framing, announced, is_ended: false }
    }

    pub fn body(&self) -> &B {
        &self.body
    }

    /// The body as far as it has not been read.
    pub fn into_body(self) -> B {
        self.body
    }

    /// The last of it has been taken.
    pub fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// The next of it; empty at its end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, B::Error>> {
        while self.framing != Framing::AsSaid && !self.body.is_end_stream() {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else { break };
            match frame?.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    self.is_ended = self.body.is_end_stream();
                    return Poll::Ready(Ok(Piece::Data(data)));
                }
                Err(frame) if self.framing == Framing::Chunked => {
                    self.is_ended = true;
                    return Poll::Ready(Ok(Piece::Trailers(Box::new(frame.into_trailers().unwrap_or_default()))));
                }
                Err(_) => {}
            }
        }
        self.is_ended = true;
        Poll::Ready(Ok(Piece::default()))
    }

    /// Writes a piece behind what `head` writes. After an error nothing of it was written, and it is still there
    /// (see [`Wire::send`]).
    pub fn send<S>(
        &self,
        wire: &mut Wire<S>,
        cx: &mut Context<'_>,
        head: impl FnOnce(&mut Vec<u8>),
        piece: &mut Piece,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match piece {
            Piece::Data(data) => {
                let length = data.len();
                let front = |out: &mut Vec<u8>| {
                    head(out);
                    self.framing.write_front(out, length);
                };
                wire.send(cx, front, data, self.framing.back(length, self.is_ended))
            }
            Piece::Trailers(trailers) => {
                let front = |out: &mut Vec<u8>| {
                    head(out);
                    self.announced.write(out, trailers);
                };
                wire.send(cx, front, &mut Bytes::new(), b"")
            }
        }
    }
}
