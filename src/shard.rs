//! One data-plane thread: its runtime, its clients' connections, its connections to workers, its guests.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_local;

use crate::allocator;
use crate::deadline::Deadlines;
use crate::gateway::metrics::HttpMetrics;
use crate::gateway::{Gateway, Shared};
use crate::panics::{Vital, vital};
use crate::server::{self, Arrival};

/// Time between two looks for idle connections to workers.
const TIDY_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two looks at clients that the system does not report on.
const ROUSE_INTERVAL: Duration = Duration::from_millis(500);

/// Tasks that run before the sockets are looked at again: each may be the first slice of a guest that spins.
const TASKS_BETWEEN_EVENTS: u32 = 8;

/// What the control plane tells a shard.
pub enum Message {
    /// Serve this client.
    Client(Arrival),
    /// The gateway drains: tell clients to close, finish what is in flight.
    Drain,
    /// End, whatever is in flight.
    Stop,
}

/// The control plane's handle on a shard.
pub struct Shard {
    pub metrics: Arc<HttpMetrics>,
    messages: mpsc::UnboundedSender<Message>,
    thread: JoinHandle<()>,
}

impl Shard {
    pub fn start(number: u16, shared: Arc<Shared>) -> io::Result<Self> {
        let metrics = Arc::<HttpMetrics>::default();
        let (messages, inbox) = mpsc::unbounded_channel();
        let thread = thread::Builder::new().name(format!("smg-shard-{number}")).spawn({
            let metrics = metrics.clone();
            move || run(shared, metrics, inbox)
        })?;
        Ok(Self { metrics, messages, thread })
    }

    /// Clients' connections that it has.
    pub fn load(&self) -> u64 {
        self.metrics.connections.load(Relaxed)
    }

    pub fn tell(&self, message: Message) {
        // A shard that has ended has nothing left to do with it.
        let _ = self.messages.send(message);
    }

    /// Ends the shard and waits until its thread has.
    pub fn stop(self) {
        self.tell(Message::Stop);
        if self.thread.join().is_err() {
            tracing::error!("a shard ended with a panic");
        }
    }
}

fn run(shared: Arc<Shared>, metrics: Arc<HttpMetrics>, inbox: mpsc::UnboundedReceiver<Message>) {
    let _vital = Vital;
    let runtime = Builder::new_current_thread()
        .event_interval(TASKS_BETWEEN_EVENTS)
        .enable_all()
        .build_local(Default::default())
        .expect("the system has room for one more event queue");
    runtime.block_on(serve(shared, metrics, inbox));
}

async fn serve(shared: Arc<Shared>, metrics: Arc<HttpMetrics>, mut inbox: mpsc::UnboundedReceiver<Message>) {
    let (deadlines, publications) = (Deadlines::default(), shared.publisher.publications());
    let gateway = Rc::new(Gateway::new(shared.clone(), deadlines.clone(), metrics));
    let sweeper = deadlines.clone();
    spawn_local(vital(async move { sweeper.run().await }));
    spawn_local(vital(follow(gateway.clone(), publications)));
    spawn_local(vital(tidy(gateway.clone())));
    spawn_local(vital(rouse(gateway.clone(), deadlines.clone())));
    while let Some(message) = inbox.recv().await {
        match message {
            Message::Client(arrival) => drop(spawn_local(server::serve(gateway.clone(), arrival))),
            Message::Drain => deadlines.wake_all(),
            Message::Stop => return,
        }
    }
}

/// Lets go of what a new snapshot no longer has, also on a shard that has no requests.
async fn follow(gateway: Rc<Gateway>, mut publications: watch::Receiver<()>) {
    while publications.changed().await.is_ok() {
        gateway.keep_up();
    }
}

async fn tidy(gateway: Rc<Gateway>) {
    loop {
        tokio::time::sleep(TIDY_INTERVAL).await;
        gateway.close_aged_connections();
    }
}

/// Wakes those who must look at their client again, and gives back the memory of those whose clients have left.
async fn rouse(gateway: Rc<Gateway>, deadlines: Deadlines) {
    loop {
        tokio::time::sleep(ROUSE_INTERVAL).await;
        deadlines.wake_restless();
        if gateway.has_memory_to_release() {
            allocator::release_freed();
        }
    }
}
