//! The same request to several workers, until one has what it is about.

use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;

use crate::gateway::attempt::{Attempt, Failed, Reuse};
use crate::gateway::error::GatewayError;
use crate::gateway::exchange::{Exchange, Seat};
use crate::gateway::forward::Received;
use crate::gateway::upload::{Resend, WorkerBody};
use crate::modules::RequestHead;
use crate::workers::Lease;
use crate::workers::breaker::verdict_of_status;
use crate::workers::retry::Failure;

/// Workers that one request asks at once.
const MOST_AT_ONCE: usize = 16;

/// See the module's documentation.
pub struct Search<'a, 'b> {
    pub exchange: &'a Exchange<'b>,
    pub head: &'a RequestHead,
    pub body: Option<Bytes>,
}

/// What an answer says of where the object is. Of several, the greatest is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The worker has no such objects.
    NotOffered,
    NotFound,
    /// The worker might have it.
    Failed,
    /// It says something of the object, or would say the same of each: that it can't be cancelled, say.
    Refused,
    Found,
}

/// Why a worker gave no answer.
struct Unanswered {
    error: GatewayError,
    kind: Failure,
}

impl Rank {
    fn of(said: &Result<Received, Unanswered>) -> Self {
        use StatusCode as S;
        match said.as_ref().map(|received| received.begun.0.status) {
            Err(_) => Self::Failed,
            Ok(S::NOT_FOUND) => Self::NotFound,
            Ok(S::METHOD_NOT_ALLOWED | S::NOT_IMPLEMENTED) => Self::NotOffered,
            Ok(status) if status.is_server_error() => Self::Failed,
            Ok(status) if status.is_client_error() => Self::Refused,
            Ok(_) => Self::Found,
        }
    }
}

impl Search<'_, '_> {
    /// What is to be passed on, and how many workers were asked. Workers are asked at the same time only if the request
    /// does no harm when two have the object, because they share what they store.
    pub async fn run(&self, seats: &[Seat]) -> (Result<Received, GatewayError>, u32) {
        let most = if self.head.method.is_idempotent() { MOST_AT_ONCE } else { 1 };
        let pools = &self.exchange.view.snapshot.pools;
        let mut seats = seats.iter().filter_map(|seat| {
            let lease = pools[seat.pool].pick_only(seat.position, Instant::now())?;
            Some((*seat, lease))
        });
        let (mut asking, mut asked) = (FuturesUnordered::new(), 0);
        let mut best: Option<(Rank, Result<Received, Unanswered>)> = None;
        loop {
            while asking.len() < most
                && let Some((seat, lease)) = seats.next()
            {
                asked += 1;
                asking.push(self.ask(seat, lease));
            }
            let Some(said) = asking.next().await else { break };
            let rank = Rank::of(&said);
            // It may have been carried out, and must not be a second time.
            let is_risky = most == 1 && said.as_ref().is_err_and(|unanswered| unanswered.kind != Failure::Unsent);
            let loser = match &best {
                Some((better, _)) if *better >= rank => Some(said),
                _ => best.replace((rank, said)).map(|(_, said)| said),
            };
            if let Some(Ok(Received { begun: (_, body), .. })) = loser {
                body.pass_over();
            }
            if rank == Rank::Found || is_risky {
                break;
            }
        }
        let said =
            best.map_or(Err(GatewayError::AllLeftAlone), |(_, said)| said.map_err(|unanswered| unanswered.error));
        (said, asked)
    }

    async fn ask(&self, seat: Seat, mut lease: Lease) -> Result<Received, Unanswered> {
        let home = &self.exchange.view.connections[seat.pool][seat.position];
        let body = WorkerBody::Whole(self.body.clone());
        let resend = Resend::of(&body, self.exchange.record.upload());
        let attempt = Attempt { exchange: self.exchange, home, resend: &resend, reuse: Reuse::Allowed };
        match attempt.run(&mut self.head.clone(), body).await {
            Ok(begun) => {
                lease.begun(verdict_of_status(begun.0.status));
                Ok(Received { begun, lease })
            }
            Err(Failed { error, kind, left: _ }) => {
                lease.ended(error.outcome());
                Err(Unanswered { error, kind })
            }
        }
    }
}
