//! The body of a request on a stream of HTTP/2, and what becomes of a stream whose end is late.
//!
//! A body is complete when the length that was told for it has come, and its answer may be complete before the client
//! has also ended the stream, with an empty frame of its own as many send it. A stream that nobody holds then is reset,
//! which is no fault of the client; but h2 remembers few of such resets, takes the end that comes after them for one,
//! and closes a connection with too many of those, other requests and all.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body::Body;
use hyper::body::Incoming;

/// How long a late end is waited for; it is looked at when anything happens on the connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body of one request.
pub struct Http2Body {
    incoming: Option<Incoming>,
    late: Rc<Late>,
}

impl Http2Body {
    pub fn new(incoming: Incoming, late: &Rc<Late>) -> Self {
        Self { incoming: Some(incoming), late: late.clone() }
    }

    pub fn incoming(&self) -> &Incoming {
        self.incoming.as_ref().expect("it is taken when this is dropped")
    }

    pub fn incoming_mut(&mut self) -> &mut Incoming {
        self.incoming.as_mut().expect("it is taken when this is dropped")
    }
}

impl Drop for Http2Body {
    fn drop(&mut self) {
        let is_late = |body: &Incoming| !body.is_end_stream() && body.size_hint().exact() == Some(0);
        if let Some(body) = self.incoming.take().filter(is_late) {
            self.late.0.borrow_mut().push((body, Instant::now()));
        }
    }
}

/// The streams of a connection whose ends are late: no more than it may have open.
#[derive(Default)]
pub struct Late(RefCell<Vec<(Incoming, Instant)>>);

impl Late {
    /// Lets go of those that have ended, or won't.
    pub fn look(&self, cx: &mut Context<'_>) {
        self.0.borrow_mut().retain_mut(|(body, since)| {
            loop {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(None | Some(Err(_))) => return false,
                    Poll::Pending => return since.elapsed() < PATIENCE,
                }
            }
        });
    }

    /// Waits for none of them any more.
    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}
