//! The body of a request on its way to a worker over HTTP/2.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::http1::trailers;

/// A body that is taken back when its exchange ends, and at once: h2's tasks hear later that nobody waits for an answer,
/// and the body's connection may carry its next request by then.
pub struct Lent<B>(pub Upload<B>);

impl<B> Drop for Lent<B> {
    fn drop(&mut self) {
        self.0.take();
    }
}

/// A request's body, with the trailers that may be sent. h2 reads it in a task of its own; who has begun the exchange
/// can take back what is left of it, which resets the stream unless it has ended.
pub struct Upload<B>(Rc<Shared<B>>);

struct Shared<B> {
    body: RefCell<Option<B>>,
    /// The task that reads it.
    reader: Cell<Option<Waker>>,
}

impl<B> Clone for Upload<B> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<B> Upload<B> {
    pub fn new(body: B) -> Self {
        Self(Rc::new(Shared { body: RefCell::new(Some(body)), reader: Cell::new(None) }))
    }

    pub fn take(&self) -> Option<B> {
        self.0.reader.take().into_iter().for_each(Waker::wake);
        self.0.body.take()
    }
}

impl<B> Body for Upload<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let mut body = self.0.body.borrow_mut();
        let Some(body) = &mut *body else {
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
        };
        let frame = Pin::new(body).poll_frame(cx);
        if frame.is_pending() {
            self.0.reader.set(Some(cx.waker().clone()));
        }
        frame.map_err(Into::into).map_ok(|frame| match frame.into_trailers() {
            Ok(fields) => Frame::trailers(trailers::allowed(fields)),
            Err(frame) => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.0.body.borrow().as_ref().is_some_and(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.body.borrow().as_ref().map_or_else(SizeHint::default, B::size_hint)
    }
}
