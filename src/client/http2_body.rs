//! The body of a request on a stream of HTTP/2, and what becomes of it when its request is answered before it has ended.
//!
//! A stream that nobody holds is reset, though its client has done nothing wrong. h2 passes over what still comes for a
//! stream that was reset, but it remembers 50 of them, and for a second; what comes for another it takes for a fault,
//! and ends a connection with too many of those, other requests and all. And not every client finds the answer when it
//! is told to stop. So what is left of such a body is read, as far as that is little, and no more streams are reset at
//! once than h2 remembers. Often it is but an empty frame, which ends a stream behind a body of known length.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http_body::Body;
use hyper::body::Incoming;

use crate::deadline::Deadline;

/// What is read of a body that nobody wants, in bytes, and for how long.
const MOST_READ: usize = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(2);
/// Streams that are reset in a time, somewhat fewer and somewhat longer than h2 remembers.
const MOST_RESETS: usize = 40;
const RESETS_TIME: Duration = Duration::from_millis(1100);

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
        if let Some(body) = self.incoming.take().filter(|body| !body.is_end_stream()) {
            self.late.add(body);
        }
    }
}

/// The bodies of a connection that nobody wants, and that have not ended: no more than it may have streams.
pub struct Late {
    bodies: RefCell<Vec<LateBody>>,
    /// When streams were reset.
    resets: RefCell<VecDeque<Instant>>,
    /// When to look at the bodies though nothing comes for them.
    deadline: Deadline,
    /// The task of the connection.
    connection: Cell<Option<Waker>>,
}

impl Late {
    /// `deadline` is for it alone.
    pub fn new(deadline: Deadline) -> Self {
        Self { bodies: RefCell::default(), resets: RefCell::default(), deadline, connection: Cell::default() }
    }

    fn add(&self, incoming: Incoming) {
        self.bodies.borrow_mut().push(LateBody { incoming, read: 0, since: Instant::now() });
        // Some of it may be here, and its client may wait for that to be read.
        self.connection.take().into_iter().for_each(Waker::wake);
    }

    /// Reads what has come, and lets go of the bodies that have ended, are too long, or take too long. To be called
    /// whenever the connection's task runs.
    pub fn look(&self, cx: &mut Context<'_>) {
        self.connection.set(Some(cx.waker().clone()));
        let mut bodies = self.bodies.borrow_mut();
        if bodies.is_empty() {
            return;
        }
        bodies.retain_mut(|body| body.poll_end(cx).is_pending());
        let now = Instant::now();
        let due = |body: &LateBody| if body.read < MOST_READ { body.since + PATIENCE } else { body.since };
        let mut resets = self.resets.borrow_mut();
        while resets.front().is_some_and(|at| now >= *at + RESETS_TIME) {
            resets.pop_front();
        }
        bodies.retain(|body| {
            let is_let_go = due(body) <= now && resets.len() < MOST_RESETS;
            if is_let_go {
                resets.push_back(now);
            }
            !is_let_go
        });
        let may_reset = if resets.len() < MOST_RESETS { now } else { resets[0] + RESETS_TIME };
        if let Some(next) = bodies.iter().map(due).min() {
            self.deadline.set(next.max(may_reset).saturating_duration_since(now));
            // It wakes the task; what has expired is seen by looking.
            let _ = self.deadline.poll_expired(cx);
        }
    }
}

/// The rest of a body.
struct LateBody {
    incoming: Incoming,
    /// Bytes of it.
    read: usize,
    since: Instant,
}

impl LateBody {
    /// Ready at its end, however it ends. Beyond the most that is read, its window stays closed.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.read < MOST_READ {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => self.read += frame.data_ref().map_or(0, |data| data.len()),
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Pending
    }
}
