//! A message's body as it arrives on a wire.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use super::MessageError;
use super::framing::{Decoded, Decoder};
use super::wire::Wire;

#[derive(Debug)]
pub struct IncomingBody {
    pub decoder: Decoder,
    /// Somebody wants it in one piece: then it is not copied together. Only where its length is known.
    pub whole: bool,
}

impl IncomingBody {
    pub fn new(decoder: Decoder) -> Self {
        Self { decoder, whole: false }
    }

    pub fn is_ended(&self) -> bool {
        self.decoder.is_ended()
    }

    pub fn size_hint(&self) -> SizeHint {
        self.decoder.remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The next of it. `before_read` is called each time that nothing of it is here.
    pub fn poll<S>(
        &mut self,
        wire: &mut Wire<S>,
        cx: &mut Context<'_>,
        mut before_read: impl FnMut(&mut Wire<S>, &mut Context<'_>) -> io::Result<()>,
    ) -> Poll<Option<Result<Frame<Bytes>, MessageError>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        loop {
            let missing = if self.whole { self.decoder.missing(&wire.unread) } else { 0 };
            if missing == 0 {
                match self.decoder.decode(&mut wire.unread) {
                    Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Decoded::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                    Ok(Decoded::End) => return Poll::Ready(None),
                    Ok(Decoded::More) => {}
                    Err(error) => return Poll::Ready(Some(Err(error.into()))),
                }
            }
            if let Err(error) = before_read(wire, cx) {
                return Poll::Ready(Some(Err(error.into())));
            }
            let read = match missing {
                0 => ready!(wire.poll_fill(cx, self.decoder.expected())),
                missing => ready!(wire.poll_fill_whole(cx, missing)),
            };
            match (read, &self.decoder) {
                (Ok(0), Decoder::UntilClose) => self.decoder = Decoder::Ended,
                (Ok(0), _) => return Poll::Ready(Some(Err(MessageError::Incomplete))),
                (Ok(_), _) => {}
                (Err(error), _) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
    }
}
