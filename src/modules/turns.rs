//! Turns of guests that don't finish quickly.
//!
//! A guest that is still running at the engine's next tick has used up its first slice. From then on it needs
//! the shard's one turn for each further slice, and gets it only when the shard has nothing else to do. However
//! many guests spin on a shard, its other work waits for one slice, not for one per guest.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Looks at the sockets before a slice. What one of them finds may take a few tasks, one after the other, to be
/// worked off: each look waits for those that are ready by then.
const LOOKS: usize = 4;

/// The turn of one shard.
#[derive(Clone)]
pub struct Turns(Arc<Turn>);

struct Turn {
    free: Arc<Semaphore>,
    /// Full only while a guest runs a further slice, within one poll of its call.
    held: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Turn { free: Arc::new(Semaphore::new(1)), held: Mutex::new(None) }))
    }
}

impl Turns {
    /// Waits at the end of the line for the next slice.
    pub fn next(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let turns = self.clone();
        Box::pin(async move {
            turns.release();
            let turn = turns.0.free.clone().acquire_owned().await.expect("the semaphore is never closed");
            for _ in 0..LOOKS {
                // Behind everything that is ready, and behind a look at the sockets.
                tokio::task::yield_now().await;
            }
            *turns.held() = Some(turn);
        })
    }

    /// Gives the turn back, if it is held: after each poll of a call, whether the guest ended, used up its
    /// slice, or waits for the host.
    pub fn release(&self) {
        drop(self.held().take());
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<OwnedSemaphorePermit>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
