//! How long a client may take, and the clock of one stream of HTTP/2, which hyper's own code is in the middle of. The
//! clocks of a connection of HTTP/1.1 are in [`crate::connection`], that of an upload in the gateway's.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::config::Limits;
use crate::deadline::Deadline;

/// What a request is given beyond its own time: its own end comes first, and is told.
const GRACE: Duration = Duration::from_secs(1);

/// How long a client may take. A shard's connections share it, because a reload may change it.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// To send the whole head of a request, from its first byte (or from the start of the connection).
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// Between two steps of taking an answer; on HTTP/1.1 a step is a part of what the system keeps for it.
    pub stall: Duration,
    /// For a request of which nothing else is known, to the last byte of its answer.
    pub exchange: Duration,
}

impl Patience {
    pub fn new(limits: &Limits) -> Self {
        Self {
            head: limits.header_read_timeout_secs,
            idle: limits.idle_connection_timeout_secs,
            stall: limits.stream_body_stall_timeout_secs,
            exchange: Self::exchange(limits.request_timeout_secs),
        }
    }

    /// For a request that may take so long.
    pub fn exchange(request: Duration) -> Duration {
        request.saturating_add(GRACE)
    }
}

/// The time of one stream. A client that takes nothing of an answer also keeps anybody from asking for more of it, so
/// nothing but the stream's own clock can end it.
pub struct StreamClock {
    deadline: Deadline,
    end: Cell<Instant>,
    /// Pieces of the answer that the client has made room for.
    pieces: Cell<u64>,
    /// The client has not made room for another.
    awaits_client: Cell<bool>,
    stall: Duration,
}

impl StreamClock {
    pub fn new(deadline: Deadline, patience: Patience) -> Self {
        let clock = Self {
            deadline,
            end: Cell::new(Instant::now()),
            pieces: Cell::default(),
            awaits_client: Cell::default(),
            stall: patience.stall,
        };
        clock.allow(patience.exchange);
        clock
    }

    /// The stream may take so long from now on.
    pub fn allow(&self, exchange: Duration) {
        self.end.set(Instant::now() + exchange);
        self.deadline.set(exchange.min(self.stall));
    }

    /// The client has made room for a piece, and gets it.
    pub fn note_piece(&self) {
        self.pieces.set(self.pieces.get() + 1);
        self.awaits_client.set(true);
    }

    /// The client has made room for a piece, and there is none.
    pub fn note_pause(&self) {
        self.awaits_client.set(false);
    }

    /// Waits until the stream has had its time, or its client has taken nothing for as long as it may; that is seen
    /// late, but before it was twice as long.
    pub async fn expired(&self) {
        let mut seen = 0;
        loop {
            self.deadline.expired().await;
            let left = self.end.get().saturating_duration_since(Instant::now());
            let before = std::mem::replace(&mut seen, self.pieces.get());
            if left.is_zero() || (self.awaits_client.get() && before == seen) {
                return;
            }
            self.deadline.set(left.min(self.stall));
        }
    }
}
