//! A place in the queue.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::{Admission, AdmissionCounts, AdmissionError, ONE_WAITING, Permit};

/// Waits for a permit. Dropped, it leaves the queue, or gives back the permit that it was given and had not
/// taken yet. How long to wait is for its owner to decide: see [`Wait::time_out`].
#[derive(Debug)]
#[must_use]
pub struct Wait(Option<Place>);

/// The waiter with this number. It is in the queue until it is given a permit.
#[derive(Debug)]
struct Place {
    admission: Arc<Admission>,
    number: u64,
}

impl Wait {
    pub(super) fn new(admission: Arc<Admission>, number: u64) -> Self {
        Self(Some(Place { admission, number }))
    }

    /// The time is up. A permit that came at the same moment is not lost, otherwise it is
    /// [`AdmissionError::QueueTimeout`].
    pub fn time_out(mut self, counts: &AdmissionCounts) -> Result<Permit, AdmissionError> {
        self.0.take().and_then(Place::leave).ok_or_else(|| {
            counts.queue_timeout.add(1);
            AdmissionError::QueueTimeout
        })
    }
}

impl Future for Wait {
    type Output = Permit;

    /// Pending for ever after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let Some(place) = &self.0 else { return Poll::Pending };
        let mut queue = place.admission.lock();
        let before = match queue.waiters.get_mut(&place.number) {
            Some(Some(waker)) if waker.will_wake(cx.waker()) => return Poll::Pending,
            Some(waker) => waker.replace(cx.waker().clone()),
            None => {
                drop(queue);
                return self.0.take().map_or(Poll::Pending, |place| Poll::Ready(Permit(place.admission)));
            }
        };
        drop(queue);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        // A permit is given back here.
        let _ = self.0.take().and_then(Place::leave);
    }
}

impl Place {
    /// The permit, if it was given one.
    fn leave(self) -> Option<Permit> {
        let mut queue = self.admission.lock();
        let waiter = queue.waiters.remove(&self.number);
        if waiter.is_some() {
            self.admission.word.fetch_sub(ONE_WAITING, super::AcqRel);
        }
        drop(queue);
        match waiter {
            Some(_waker) => None,
            None => Some(Permit(self.admission)),
        }
    }
}
