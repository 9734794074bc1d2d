//! Whether there is room for a request: in the whole gateway, and for the holder of a key.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

use super::Gateway;
use super::error::GatewayError;
use crate::admission::{AdmissionError, Entry, Permit, retry_after};
use crate::config::Config;

/// What a request holds of the limits that it was admitted under.
#[derive(Default)]
pub struct Permits {
    _gateway: Option<Permit>,
}

impl Gateway {
    /// Waits until there is room, but not for long.
    pub(super) async fn admit(&self, config: &Config) -> Result<Permits, GatewayError> {
        if let Some(rate) = &self.shared.rate {
            rate.take(Instant::now()).map_err(GatewayError::RateLimited)?;
        }
        let permit = match self.shared.admission.enter(&self.metrics.admission) {
            Ok(Entry::Admitted(permit)) => permit,
            Ok(Entry::Queued(mut wait)) => {
                let deadline = self.deadlines.register();
                deadline.set(config.admission.queue_timeout_secs);
                let given = poll_fn(|cx| match Pin::new(&mut wait).poll(cx) {
                    Poll::Ready(permit) => Poll::Ready(Some(permit)),
                    Poll::Pending => deadline.poll_expired(cx).map(|()| None),
                });
                match given.await {
                    Some(permit) => permit,
                    None => wait.time_out(&self.metrics.admission).map_err(|error| self.not_admitted(error))?,
                }
            }
            Err(error) => return Err(self.not_admitted(error)),
        };
        Ok(Permits { _gateway: Some(permit) })
    }

    fn not_admitted(&self, error: AdmissionError) -> GatewayError {
        let seconds = retry_after(self.shared.admission.waiting(), 0.0, fastrand::f64());
        GatewayError::NotAdmitted { error, seconds }
    }
}
