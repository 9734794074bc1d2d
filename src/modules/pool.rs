//! The guests of one shard: made for a request, kept in a pool, or the one that a module has.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use tokio::sync::Semaphore;

use super::breaker::Breaker;
use super::engine::Engine;
use super::guest::{Caller, Guest, GuestError, View};
use super::hook::{Hook, RequestView, ResponseView, Verdict};
use super::load::Module;
use super::settings::InstanceMode;
use super::stats::{FailureKind, Outcome, ShardStats};

/// All guests of one shard.
pub struct ShardGuests {
    caller: Caller,
    shards: u32,
    modules: RefCell<Vec<Rc<ModuleGuests>>>,
}

impl ShardGuests {
    /// For one of `shards` shards, which share a pool's size.
    pub fn new(engine: &Engine, shards: u32) -> Self {
        Self { caller: Caller::new(engine), shards, modules: RefCell::default() }
    }

    /// The guests of these modules, in this order; those of modules that were there before are kept.
    pub fn arrange(&self, modules: &[Arc<Module>]) -> Vec<Rc<ModuleGuests>> {
        let mut known = self.modules.borrow_mut();
        let arranged: Vec<_> = modules
            .iter()
            .map(|module| match known.iter().find(|guests| Arc::ptr_eq(&guests.module, module)) {
                Some(guests) => guests.clone(),
                None => Rc::new(ModuleGuests::new(module.clone(), self.caller.clone(), self.shards)),
            })
            .collect();
        known.clone_from(&arranged);
        arranged
    }
}

/// The guests of one module on one shard.
pub struct ModuleGuests {
    pub module: Arc<Module>,
    caller: Caller,
    stats: Arc<ShardStats>,
    breaker: Breaker,
    idle: RefCell<Vec<Guest>>,
    permits: Semaphore,
}

impl ModuleGuests {
    fn new(module: Arc<Module>, caller: Caller, shards: u32) -> Self {
        let size = match module.settings.instance {
            InstanceMode::Pooled { size, .. } => size.unwrap_or(1).div_ceil(shards),
            InstanceMode::Request {} | InstanceMode::Single {} => 0,
        };
        let stats = module.stats.shard();
        let permits = Semaphore::new(size as usize);
        Self { module, caller, stats, breaker: Breaker::default(), idle: RefCell::default(), permits }
    }

    /// Calls a hook of the module; counts it, and logs a failure. `kept` is where a request's own guest
    /// waits for the request's next hook.
    pub async fn call(
        self: &Rc<Self>,
        kept: &mut Option<Guest>,
        view: View<'_>,
        now_ms: u64,
    ) -> Result<Verdict, FailureKind> {
        let start = Instant::now();
        let result = if !view.fits(self.module.settings.limits.body_bytes) {
            Err(FailureKind::BodyTooLarge.into())
        } else if !self.breaker.admits(|| start) {
            Err(FailureKind::Quarantined.into())
        } else {
            self.run(kept, view).await
        };
        let end = Instant::now();
        let outcome = match &result {
            Ok(Verdict::Continue) => Outcome::Continue,
            Ok(Verdict::Edit(_)) => Outcome::Modify,
            Ok(Verdict::Respond(_)) => Outcome::Reject,
            Err(error) => Outcome::Failure(error.kind),
        };
        self.stats.record(view.hook(), outcome, end - start, now_ms);
        match result {
            Ok(verdict) => {
                self.breaker.succeeded();
                Ok(verdict)
            }
            Err(error) => {
                if !matches!(error.kind, FailureKind::BodyTooLarge | FailureKind::Quarantined | FailureKind::Busy) {
                    self.breaker.failed(end);
                }
                self.module.failures.note(&self.module.name, view.hook(), &error);
                Err(error.kind)
            }
        }
    }

    async fn run(self: &Rc<Self>, kept: &mut Option<Guest>, view: View<'_>) -> Result<Verdict, GuestError> {
        match self.module.settings.instance {
            InstanceMode::Request {} => self.run_fresh(kept, view).await,
            InstanceMode::Pooled { max_uses, .. } => self.run_pooled(max_uses, view).await,
            InstanceMode::Single {} => self.run_only(view).await,
        }
    }

    async fn run_fresh(&self, kept: &mut Option<Guest>, view: View<'_>) -> Result<Verdict, GuestError> {
        let (guest, verdict) = self.use_guest(kept.take(), view).await?;
        let is_wanted_again = view.hook() == Hook::Request && self.module.runs_at(Hook::Response);
        *kept = is_wanted_again.then_some(guest);
        Ok(verdict)
    }

    async fn run_pooled(&self, max_uses: u32, view: View<'_>) -> Result<Verdict, GuestError> {
        let _permit = match self.permits.try_acquire() {
            Ok(permit) => permit,
            Err(_) => self.wait_for_permit().await?,
        };
        let pooled = self.idle.borrow_mut().pop();
        if pooled.is_some() {
            self.module.stats.idle_guests.fetch_sub(1, Relaxed);
        }
        let (guest, verdict) = self.use_guest(pooled, view).await?;
        // A guest whose memory keeps growing starts anew before it fails.
        let memory = self.module.settings.limits.memory_pages as usize * 65_536;
        if guest.uses < max_uses && guest.memory_bytes() <= memory / 4 * 3 {
            self.idle.borrow_mut().push(guest);
            self.module.stats.idle_guests.fetch_add(1, Relaxed);
        }
        Ok(verdict)
    }

    async fn wait_for_permit(&self) -> Result<tokio::sync::SemaphorePermit<'_>, GuestError> {
        let wait = tokio::time::timeout(self.module.settings.limits.execution, self.permits.acquire());
        let permit = wait.await.map_err(|_| FailureKind::Busy)?;
        Ok(permit.expect("the semaphore is never closed"))
    }

    /// The one guest keeps state that callers rely on, so a client that leaves must not end its call: the
    /// call runs in a task of its own.
    async fn run_only(self: &Rc<Self>, view: View<'_>) -> Result<Verdict, GuestError> {
        let (this, view) = (self.clone(), OwnedView::from(view));
        let call = tokio::task::spawn_local(async move {
            let wait = tokio::time::timeout(this.module.settings.limits.execution, this.module.only_guest.lock());
            let mut only = wait.await.map_err(|_| FailureKind::Busy)?;
            let (guest, verdict) = this.use_guest(only.take(), view.view()).await?;
            *only = Some(guest);
            Ok(verdict)
        });
        call.await.unwrap_or(Err(FailureKind::Trap.into()))
    }

    /// Calls `guest`, or a new one. It comes back only after a success.
    async fn use_guest(&self, guest: Option<Guest>, view: View<'_>) -> Result<(Guest, Verdict), GuestError> {
        let work = async {
            let mut guest = match guest {
                Some(guest) => guest,
                None => Guest::new(&self.module, &self.caller).await?,
            };
            let verdict = guest.call(&self.caller, view).await?;
            Ok((guest, verdict))
        };
        self.caller.bounded(self.module.settings.limits.execution, pin!(work)).await
    }
}

impl Drop for ModuleGuests {
    fn drop(&mut self) {
        self.module.stats.idle_guests.fetch_sub(self.idle.get_mut().len() as i64, Relaxed);
    }
}

/// A view that outlives its request.
enum OwnedView {
    Request(RequestView),
    Response(ResponseView),
}

impl From<View<'_>> for OwnedView {
    fn from(view: View<'_>) -> Self {
        match view {
            View::Request(view) => Self::Request(view.clone()),
            View::Response(view) => Self::Response(view.clone()),
        }
    }
}

impl OwnedView {
    fn view(&self) -> View<'_> {
        match self {
            Self::Request(view) => View::Request(view),
            Self::Response(view) => View::Response(view),
        }
    }
}
