//! A guest: one running instance of a module, and how it is called.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use http::HeaderMap;
use wasmtime::component::Instance;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap};
use wasmtime_wasi::I32Exit;

use super::abi::smg_v1;
use super::engine::{Engine, Pulse};
use super::hook::{Hook, RequestView, ResponseView, Verdict};
use super::host::{self, HostState};
use super::load::Module;
use super::stats::{FailureKind, ModuleStats};
use super::turns::Turns;
use crate::telemetry::Untrusted;

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
pub enum View<'a> {
    Request(&'a RequestView),
    Response(&'a ResponseView),
}

impl View<'_> {
    pub fn hook(&self) -> Hook {
        match self {
            View::Request(_) => Hook::Request,
            View::Response(_) => Hook::Response,
        }
    }

    /// The headers that an edit would change.
    fn headers(&self) -> &HeaderMap {
        match self {
            View::Request(view) => &view.head.headers,
            View::Response(view) => &view.head.headers,
        }
    }

    /// Whether a module that takes bodies of up to `limit` bytes can be shown this.
    pub fn fits(&self, limit: u64) -> bool {
        match self {
            View::Request(view) => view.body.len() as u64 <= limit,
            View::Response(view) => !view.oversized && view.body.len() as u64 <= limit,
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
    /// within its first slice, as nearly all do, arms no timer.
    pub async fn bounded<T>(
        &self,
        limit: Duration,
        mut work: Pin<&mut impl Future<Output = Result<T, GuestError>>>,
    ) -> Result<T, GuestError> {
        let _running = self.pulse.enter();
        let first = poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx))).await;
        self.turns.release();
        if let Poll::Ready(result) = first {
            return result;
        }
        let mut expiry = pin!(tokio::time::sleep(limit));
        poll_fn(|cx| {
            if expiry.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(FailureKind::Timeout.into()));
            }
            let polled = work.as_mut().poll(cx);
            self.turns.release();
            polled
        })
        .await
    }
}

/// One running instance of a module.
pub struct Guest {
    store: Store<HostState>,
    functions: smg_v1::Functions,
    stats: Arc<ModuleStats>,
    body_limit: u64,
    pub uses: u32,
}

/// A new instance in a store of its own. Code may run: start functions, initialisers.
pub async fn instantiate(module: &Module, caller: &Caller) -> Result<(Store<HostState>, Instance), GuestError> {
    let limits = &module.settings.limits;
    let mut store = host::store(&module.engine, &module.name, limits, &module.prints, &module.stats, &caller.turns);
    match module.pre.instantiate_async(&mut store).await {
        Ok(instance) => Ok((store, instance)),
        // Not the module's fault: as many guests exist as there can be.
        Err(error) if error.is::<PoolConcurrencyLimitError>() => Err(GuestError::new(FailureKind::Busy, error)),
        Err(error) => Err(GuestError::new(FailureKind::Instantiate, error)),
    }
}

impl Guest {
    pub async fn new(module: &Module, caller: &Caller) -> Result<Self, GuestError> {
        let (mut store, instance) = instantiate(module, caller).await?;
        let functions = module.exports.bind(&instance, &mut store);
        let functions = functions.map_err(|error| GuestError::new(FailureKind::Instantiate, error))?;
        module.stats.guests.fetch_add(1, Relaxed);
        let (stats, body_limit) = (module.stats.clone(), module.settings.limits.body_bytes);
        Ok(Self { store, functions, stats, body_limit, uses: 0 })
    }

    /// Calls a hook. After an error the guest must not be used again.
    pub async fn call(&mut self, caller: &Caller, view: View<'_>) -> Result<Verdict, GuestError> {
        self.uses += 1;
        self.store.set_epoch_deadline(1);
        self.store.data_mut().begin_call(&caller.turns);
        let result = match view {
            View::Request(view) => self.functions.on_request(&mut self.store, view, self.body_limit).await,
            View::Response(view) => self.functions.on_response(&mut self.store, view, self.body_limit).await,
        };
        self.store.data_mut().end_call();
        let verdict = result.map_err(GuestError::of_call)?;
        if let Verdict::Edit(edit) = &verdict {
            edit.check_fits(view.headers()).map_err(|error| GuestError::new(FailureKind::Output, error.into()))?;
        }
        Ok(verdict)
    }

    pub fn memory_bytes(&self) -> usize {
        self.store.data().memory_bytes()
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
    pub fn note(&self, module: &str, hook: Hook, error: &GuestError) {
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
            target: "smg::modules", %module, hook = hook.label(), kind = error.kind.label(), unlogged,
            cause = %Untrusted(cause.as_bytes()), "a module failed",
        );
    }
}
