//! Sends the same request to several workers, to find the one that has an object.

use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;

use crate::gateway::attempt::{Attempt, Failed, Reuse};
use crate::gateway::error::GatewayError;
use crate::gateway::exchange::{Exchange, WorkerIndex};
use crate::gateway::forward::{Received, own_head};
use crate::gateway::upload::{Resend, WorkerBody};
use crate::modules::RequestHead;
use crate::workers::Lease;
use crate::workers::breaker::verdict_of_status;
use crate::workers::retry::Failure;

/// Number of workers that one request asks at once.
const MOST_AT_ONCE: usize = 16;

/// A search for the worker that has an object.
pub struct Search<'a, 'b> {
    pub exchange: &'a Exchange<'b>,
    pub head: &'a RequestHead,
    pub body: Option<Bytes>,
}

/// What an answer says about the object. The client gets the answer with the highest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The worker does not support such objects.
    NotOffered,
    NotFound,
    /// The worker may have the object.
    Failed,
    /// Another 4xx, for example 400 because the object can't be cancelled.
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
    /// The answer for the client, and how many workers were asked. Requests that change something go to one
    /// worker after the other: several workers may know the object, and only one is to carry it out.
    pub async fn run(&self, indices: &[WorkerIndex]) -> (Result<Received, GatewayError>, u32) {
        let most = if self.head.method.is_safe() { MOST_AT_ONCE } else { 1 };
        let pools = &self.exchange.view.snapshot.pools;
        let mut indices = indices.iter().filter_map(|index| {
            let lease = pools[index.pool].pick_only(index.worker, Instant::now())?;
            Some((*index, lease))
        });
        let (mut asking, mut asked) = (FuturesUnordered::new(), 0);
        let mut best: Option<(Rank, Result<Received, Unanswered>)> = None;
        loop {
            while asking.len() < most
                && let Some((index, lease)) = indices.next()
            {
                asked += 1;
                asking.push(self.ask(index, lease));
            }
            let Some(said) = asking.next().await else { break };
            let rank = Rank::of(&said);
            // The worker may have carried out the request. No other worker may carry it out again.
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

    async fn ask(&self, index: WorkerIndex, mut lease: Lease) -> Result<Received, Unanswered> {
        let home = &self.exchange.view.connections[index.pool][index.worker];
        let body = WorkerBody::Whole(self.body.clone());
        let resend = Resend::of(&body, self.exchange.record.upload());
        let attempt = Attempt { exchange: self.exchange, home, resend: &resend, reuse: Reuse::Allowed };
        let mut head = match own_head(self.exchange, self.head, &lease.worker) {
            Ok(own) => own.map_or_else(|| self.head.clone(), |own| *own),
            Err(error) => return Err(Unanswered { error, kind: Failure::Unsent }),
        };
        match attempt.run(&mut head, body).await {
            Ok(begun) => {
                lease.begun(verdict_of_status(begun.0.status));
                Ok(Received::new(begun, lease))
            }
            Err(Failed { error, kind, left: _ }) => {
                lease.ended(error.outcome());
                Err(Unanswered { error, kind })
            }
        }
    }
}
