//! Whether there is room for a request: in the whole gateway, and for the holder of a key.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use super::Gateway;
use super::error::GatewayError;
use super::exchange::Exchange;
use crate::admission::{AdmissionError, Entry, Permit, Wait, retry_after};

/// What a request holds of the limits that it was admitted under.
#[derive(Default)]
pub struct Permits {
    _gateway: Option<Permit>,
    _key: Option<Permit>,
}

impl Gateway {
    /// Waits until there is room, but not for long.
    pub(super) async fn admit(&self, exchange: &Exchange<'_>) -> Result<Permits, GatewayError> {
        let of_route = exchange.route.as_ref().and_then(|route| route.rate.as_ref());
        let of_key = exchange.key.as_ref().and_then(|key| key.rate.as_ref());
        for rate in [of_key, of_route, exchange.view.snapshot.rate.as_deref()].into_iter().flatten() {
            rate.take(Instant::now()).map_err(GatewayError::RateLimited)?;
        }
        let of_key = exchange.key.as_ref().and_then(|key| key.admission.as_ref());
        let of_key = of_key.map(|admission| admission.try_enter().ok_or(GatewayError::KeyBusy)).transpose()?;
        let permit = match self.shared.admission.enter(&self.metrics.admission) {
            Ok(Entry::Admitted(permit)) => permit,
            Ok(Entry::Queued(wait)) => Box::pin(self.wait(exchange, wait)).await?,
            Err(error) => return Err(self.not_admitted(error)),
        };
        Ok(Permits { _gateway: Some(permit), _key: of_key })
    }

    /// Waits for its turn.
    async fn wait(&self, exchange: &Exchange<'_>, mut wait: Wait) -> Result<Permit, GatewayError> {
        let deadline = self.deadlines.register();
        deadline.set(exchange.config().admission.queue_timeout_secs);
        let given = poll_fn(|cx| match Pin::new(&mut wait).poll(cx) {
            Poll::Ready(permit) => Poll::Ready(Some(permit)),
            // The request's own time may be shorter than the queue's.
            Poll::Pending if exchange.deadline.poll_expired(cx).is_ready() => Poll::Ready(None),
            Poll::Pending => deadline.poll_expired(cx).map(|()| None),
        });
        match given.await {
            Some(permit) => Ok(permit),
            None => wait.time_out(&self.metrics.admission).map_err(|error| self.not_admitted(error)),
        }
    }

    fn not_admitted(&self, error: AdmissionError) -> GatewayError {
        let seconds = retry_after(self.shared.admission.waiting(), 0.0, fastrand::f64());
        GatewayError::NotAdmitted { error, seconds }
    }
}
