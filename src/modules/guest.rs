//! A guest: one running instance of a module, and how it is called.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};
use wasmtime_wasi::I32Exit;

use super::abi::Functions;
use super::engine::{Engine, Pulse};
use super::hook::{Hook, RequestView, ResponseView, Verdict};
use super::host::{self, HostState};
use super::load::Module;
use super::outcome::FailureKind;
use super::stats::ModuleStats;
use super::turns::Turns;
use crate::telemetry::Untrusted;

/// Processor time after its first slice that makes a call a long one.
const LASTING: Duration = Duration::from_micros(100);
/// Time after which it is one in any case.
const PATIENCE: Duration = Duration::from_millis(50);
/// Time between two log lines about the failures of one module.
const FAILURE_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why a guest failed.
#[derive(Debug)]
pub struct GuestError {
    pub kind: FailureKind,
    cause: Option<wasmtime::Error>,
}

impl GuestError {
    fn new(kind: FailureKind, cause: wasmtime::Error) -> Self {
        Self { kind, cause: Some(cause) }
    }

    /// Whether a call failed in the guest, by its own end, or in what it handed over.
    fn of_call(cause: wasmtime::Error) -> Self {
        let kind = match cause.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => FailureKind::Stack,
            Some(_) => FailureKind::Trap,
            None if cause.is::<I32Exit>() => FailureKind::Exit,
            None => FailureKind::Output,
        };
        Self::new(kind, cause)
    }

    /// Whether the system had something in use that may be free in a moment (EBUSY).
    pub fn is_of_busy_system(&self) -> bool {
        let mut io_errors = self.cause.iter().flat_map(|cause| cause.chain()).filter_map(|cause| cause.downcast_ref());
        io_errors.any(|error: &io::Error| error.kind() == io::ErrorKind::ResourceBusy)
    }
}

impl From<FailureKind> for GuestError {
    fn from(kind: FailureKind) -> Self {
        Self { kind, cause: None }
    }
}

impl fmt::Display for GuestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{}: {cause:#}", self.kind.label()),
            None => f.write_str(self.kind.label()),
        }
    }
}

impl std::error::Error for GuestError {}

/// What a call is about.
#[derive(Clone, Copy)]
pub enum HookView<'a> {
    Request(&'a RequestView),
    Response(&'a ResponseView),
}

impl HookView<'_> {
    pub fn hook(&self) -> Hook {
        match self {
            HookView::Request(_) => Hook::Request,
            HookView::Response(_) => Hook::Response,
        }
    }

    /// The headers that an edit would change.
    fn headers(&self) -> &HeaderMap {
        match self {
            HookView::Request(view) => &view.head.headers,
            HookView::Response(view) => &view.head.headers,
        }
    }

    pub fn request_id(&self) -> &HeaderValue {
        match self {
            HookView::Request(view) => &view.request_id,
            HookView::Response(view) => &view.request_id,
        }
    }

    /// Whether a module that takes bodies of up to `limit` bytes can be shown this.
    pub fn fits(&self, limit: u64) -> bool {
        match self {
            HookView::Request(view) => view.body.len() as u64 <= limit,
            HookView::Response(view) => !view.oversized && view.body.len() as u64 <= limit,
        }
    }
}

/// A thread's means of calling guests.
#[derive(Clone)]
pub struct Caller {
    pulse: Pulse,
    turns: Turns,
}

impl Caller {
    pub fn new(engine: &Engine) -> Self {
        Self { pulse: engine.pulse(), turns: Turns::default() }
    }

    /// Runs guest code with its wall-clock limit, which covers what the guest waits for. A call that ends
    /// within its first slice, as nearly all do, arms no timer. `lasts` is told of one that goes on computing, or
    /// that is not done in a while: the first slice can be short, by the tick or by other threads, and says nothing.
    pub async fn bounded<T>(
        &self,
        limit: Duration,
        mut work: Pin<&mut impl Future<Output = Result<T, GuestError>>>,
        lasts: impl FnOnce(),
    ) -> Result<T, GuestError> {
        let mut running = self.pulse.enter();
        let begin = Instant::now();
        if let Poll::Ready(result) = poll_fn(|cx| Poll::Ready(self.slice(cx, &mut work))).await {
            return result;
        }
        running.ran(begin.elapsed());
        let mut timer = pin!(tokio::time::sleep(PATIENCE.min(limit)));
        let (mut computed, mut lasts) = (Duration::ZERO, Some(lasts));
        poll_fn(|cx| {
            while timer.as_mut().poll(cx).is_ready() {
                if begin.elapsed() >= limit {
                    return Poll::Ready(Err(FailureKind::Timeout.into()));
                }
                lasts.take().into_iter().for_each(|lasts| lasts());
                timer.as_mut().reset((begin + limit).into());
            }
            let begin = thread_time();
            let polled = self.slice(cx, &mut work);
            let slice = thread_time().saturating_sub(begin);
            running.ran(slice);
            computed += slice;
            if computed >= LASTING {
                lasts.take().into_iter().for_each(|lasts| lasts());
            }
            polled
        })
        .await
    }

    fn slice<F: Future>(&self, cx: &mut Context<'_>, work: &mut Pin<&mut F>) -> Poll<F::Output> {
        let polled = work.as_mut().poll(cx);
        self.turns.release();
        polled
    }
}

/// Processor time of this thread, which goes on only while it runs.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// One running instance of a module.
pub struct Guest {
    store: Store<HostState>,
    functions: Functions,
    stats: Arc<ModuleStats>,
    body_limit: u64,
    uses: u32,
    /// Linear memory that it began with.
    initial_memory: usize,
}

/// A new instance in a store of its own, made for a request if there is one. Code may run: start functions,
/// initialisers.
pub async fn instantiate(
    module: &Module,
    caller: &Caller,
    request_id: Option<&HeaderValue>,
) -> Result<(Store<HostState>, Functions), GuestError> {
    let limits = &module.settings.limits;
    let mut store = host::store(&module.engine, &module.name, limits, &module.prints, &module.stats, &caller.turns);
    store.data_mut().begin_start(request_id);
    match module.linked.instantiate(&mut store, &module.settings).await {
        Ok(functions) => Ok((store, functions)),
        // Not the module's fault: as many guests exist as there can be.
        Err(error) if error.is::<PoolConcurrencyLimitError>() => Err(GuestError::new(FailureKind::Busy, error)),
        Err(error) => Err(GuestError::new(FailureKind::Instantiate, error)),
    }
}

impl Guest {
    pub async fn new(module: &Module, caller: &Caller, request_id: &HeaderValue) -> Result<Self, GuestError> {
        let (store, functions) = instantiate(module, caller, Some(request_id)).await?;
        module.stats.guests.fetch_add(1, Relaxed);
        let (stats, body_limit) = (module.stats.clone(), module.settings.limits.body_bytes);
        let initial_memory = store.data().memory_bytes();
        Ok(Self { store, functions, stats, body_limit, uses: 0, initial_memory })
    }

    /// Calls a hook. After an error the guest must not be used again.
    pub async fn call(&mut self, caller: &Caller, view: HookView<'_>) -> Result<Verdict, GuestError> {
        self.uses = self.uses.saturating_add(1);
        self.store.set_epoch_deadline(1);
        self.store.data_mut().begin_call(&caller.turns, view.request_id());
        let result = match view {
            HookView::Request(view) => self.functions.on_request(&mut self.store, view, self.body_limit).await,
            HookView::Response(view) => self.functions.on_response(&mut self.store, view, self.body_limit).await,
        };
        self.store.data_mut().end_call();
        let verdict = result.map_err(GuestError::of_call)?;
        if let Verdict::Edit(edit) = &verdict {
            edit.fields
                .check_fits(view.headers())
                .map_err(|error| GuestError::new(FailureKind::Output, error.into()))?;
        }
        Ok(verdict)
    }

    pub fn is_spent(&self) -> bool {
        self.functions.is_spent()
    }

    /// Whether it may go back into a pool. A guest whose memory keeps growing starts anew before it fails.
    pub fn is_fit(&self, module: &Module, max_uses: Option<u32>) -> bool {
        let most = module.settings.limits.memory_pages as usize * 65_536;
        let memory = self.store.data().memory_bytes();
        !self.is_spent()
            && max_uses.is_none_or(|max| self.uses < max)
            && (memory <= most / 4 * 3 || memory == self.initial_memory)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.stats.guests.fetch_sub(1, Relaxed);
    }
}

/// Logs the first failure of a module, then a count for each interval.
#[derive(Default)]
pub struct FailureLog(Mutex<Option<FailureWindow>>);

struct FailureWindow {
    start: Instant,
    unlogged: u64,
}

impl FailureLog {
    pub fn note(&self, module: &str, view: HookView<'_>, error: &GuestError) {
        let now = Instant::now();
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let unlogged = match &mut *window {
            Some(window) if now.duration_since(window.start) < FAILURE_LOG_INTERVAL => {
                window.unlogged += 1;
                return;
            }
            Some(window) => window.unlogged,
            None => 0,
        };
        *window = Some(FailureWindow { start: now, unlogged: 0 });
        drop(window);
        let (module, cause) = (Untrusted(module.as_bytes()), error.to_string());
        tracing::warn!(
            target: "smg::modules", %module, hook = view.hook().label(), id = %Untrusted(view.request_id().as_bytes()),
            kind = error.kind.label(), unlogged, cause = %Untrusted(cause.as_bytes()), "a module failed",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot seal")]
    struct Refused(#[source] io::Error);

    #[test]
    fn a_busy_system_is_seen_behind_other_errors() {
        let of = |kind| GuestError::new(FailureKind::Instantiate, Refused(io::Error::from(kind)).into());
        assert!(of(io::ErrorKind::ResourceBusy).is_of_busy_system());
        assert!(!of(io::ErrorKind::OutOfMemory).is_of_busy_system());
        assert!(!GuestError::from(FailureKind::Busy).is_of_busy_system());
    }
}
