//! The guests of one shard: made for a request, kept in a pool, or the one that a module has.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::breaker::Breaker;
use super::engine::Engine;
use super::guest::{Caller, Guest, GuestError, HookView};
use super::hook::{Hook, RequestView, ResponseView, Verdict};
use super::load::Module;
use super::outcome::{FailureKind, Outcome};
use super::settings::InstanceMode;
use super::stats::ShardStats;

/// Guests whose calls last that may be without a place in the pool, for each place.
const SLOW_FOR_EACH_PLACE: usize = 4;

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
    size: usize,
    places: Semaphore,
    slow: Cell<usize>,
}

impl ModuleGuests {
    fn new(module: Arc<Module>, caller: Caller, shards: u32) -> Self {
        let size = match module.settings.instance {
            InstanceMode::Pooled { size, .. } => size.unwrap_or(1).div_ceil(shards),
            InstanceMode::Request {} | InstanceMode::Single {} => 0,
        };
        let (stats, size) = (module.stats.shard(), size as usize);
        let places = Semaphore::new(size);
        let (breaker, idle, slow) = Default::default();
        Self { module, caller, stats, breaker, idle, size, places, slow }
    }

    /// Calls a hook of the module; counts it, and logs a failure. `kept` is where a request's own guest
    /// waits for the request's next hook.
    pub async fn call(
        self: &Rc<Self>,
        kept: &mut Option<Guest>,
        view: HookView<'_>,
        now_ms: u64,
    ) -> Result<Verdict, FailureKind> {
        let start = Instant::now();
        let result = if self.module.body_limit().is_some_and(|limit| !view.fits(limit)) {
            Err(FailureKind::BodyTooLarge.into())
        } else if !self.breaker.admits(|| start) {
            Err(FailureKind::Quarantined.into())
        } else {
            self.run(kept, view).await
        };
        let end = Instant::now();
        let outcome = match &result {
            Ok(Verdict::Continue) => Outcome::Continue,
            Ok(Verdict::Edit(edit)) if edit.changes_nothing() => Outcome::Continue,
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
                self.module.failures.note(&self.module.name, view, &error);
                Err(error.kind)
            }
        }
    }

    /// Counts a failure that shows only after the call.
    pub fn count_failure(&self, hook: Hook, kind: FailureKind, now_ms: u64) {
        self.stats.record(hook, Outcome::Failure(kind), Duration::ZERO, now_ms);
    }

    /// Counts a tag that the module left.
    pub fn count_tag(&self, tag: &str) -> Arc<str> {
        self.module.stats.count_tag(&self.stats, tag)
    }

    async fn run(self: &Rc<Self>, kept: &mut Option<Guest>, view: HookView<'_>) -> Result<Verdict, GuestError> {
        match self.module.settings.instance {
            InstanceMode::Request {} => self.run_fresh(kept, view).await,
            InstanceMode::Pooled { max_uses, .. } => self.run_pooled(max_uses, view).await,
            InstanceMode::Single {} => self.run_only(view).await,
        }
    }

    async fn run_fresh(&self, kept: &mut Option<Guest>, view: HookView<'_>) -> Result<Verdict, GuestError> {
        let (guest, verdict) = self.use_guest(kept.take(), view, || {}).await?;
        let is_wanted_again = view.hook() == Hook::Request && self.module.runs_at(Hook::Response);
        *kept = is_wanted_again.then_some(guest);
        Ok(verdict)
    }

    async fn run_pooled(&self, max_uses: Option<u32>, view: HookView<'_>) -> Result<Verdict, GuestError> {
        let mut place = self.place().await?;
        let pooled = self.idle.borrow_mut().pop();
        if pooled.is_some() {
            self.module.stats.idle_guests.fetch_sub(1, Relaxed);
        }
        let (guest, verdict) = self.use_guest(pooled, view, || place.leave()).await?;
        let mut idle = self.idle.borrow_mut();
        if guest.is_fit(&self.module, max_uses) && idle.len() < self.size {
            idle.push(guest);
            self.module.stats.idle_guests.fetch_add(1, Relaxed);
        }
        Ok(verdict)
    }

    async fn place(&self) -> Result<Place<'_>, GuestError> {
        let permit = match self.places.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let wait = tokio::time::timeout(self.module.settings.limits.execution, self.places.acquire());
                wait.await.map_err(|_| FailureKind::Busy)?.expect("the semaphore is never closed")
            }
        };
        Ok(Place { permit: Some(permit), guests: self })
    }

    /// The one guest keeps state that callers rely on, so a client that leaves must not end its call: the
    /// call runs in a task of its own.
    async fn run_only(self: &Rc<Self>, view: HookView<'_>) -> Result<Verdict, GuestError> {
        let (this, view) = (self.clone(), OwnedView::from(view));
        let call = tokio::task::spawn_local(async move {
            let wait = tokio::time::timeout(this.module.settings.limits.execution, this.module.only_guest.lock());
            let mut only = wait.await.map_err(|_| FailureKind::Busy)?;
            let (guest, verdict) = this.use_guest(only.take(), view.view(), || {}).await?;
            *only = Some(guest).filter(|guest| !guest.is_spent());
            Ok(verdict)
        });
        call.await.unwrap_or(Err(FailureKind::Trap.into()))
    }

    /// Calls `guest`, or a new one. It comes back only after a success.
    async fn use_guest(
        &self,
        guest: Option<Guest>,
        view: HookView<'_>,
        lasts: impl FnOnce(),
    ) -> Result<(Guest, Verdict), GuestError> {
        let work = async {
            let mut guest = match guest {
                Some(guest) => guest,
                None => Guest::new(&self.module, &self.caller, view.request_id()).await?,
            };
            let verdict = guest.call(&self.caller, view).await?;
            Ok((guest, verdict))
        };
        self.caller.bounded(self.module.settings.limits.execution, pin!(work), lasts).await
    }
}

impl Drop for ModuleGuests {
    fn drop(&mut self) {
        self.module.stats.idle_guests.fetch_sub(self.idle.get_mut().len() as i64, Relaxed);
        self.module.stats.close(&self.stats);
    }
}

/// A place in a pool. A guest whose call lasts leaves it to others, so that a few guests that never end don't
/// keep everybody waiting; how many may do so is bounded, and so is their memory.
struct Place<'a> {
    /// `None` once it was left.
    permit: Option<SemaphorePermit<'a>>,
    guests: &'a ModuleGuests,
}

impl Place<'_> {
    fn leave(&mut self) {
        let slow = self.guests.slow.get();
        if slow < SLOW_FOR_EACH_PLACE * self.guests.size {
            self.guests.slow.set(slow + 1);
            self.permit = None;
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.permit.is_none() {
            self.guests.slow.set(self.guests.slow.get() - 1);
        }
    }
}

/// A view that outlives its request.
enum OwnedView {
    Request(RequestView),
    Response(ResponseView),
}

impl From<HookView<'_>> for OwnedView {
    fn from(view: HookView<'_>) -> Self {
        match view {
            HookView::Request(view) => Self::Request(view.clone()),
            HookView::Response(view) => Self::Response(view.clone()),
        }
    }
}

impl OwnedView {
    fn view(&self) -> HookView<'_> {
        match self {
            Self::Request(view) => HookView::Request(view),
            Self::Response(view) => HookView::Response(view),
        }
    }
}
