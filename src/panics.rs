//! Panics: each is a mistake of ours, costs the request or the connection whose task it ends, and is counted and
//! logged.
//!
//! There is one hook for all threads of a process, so what it counts is the process's, too.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use tokio::sync::Notify;
use tracing::field;

use crate::metrics::Exposition;
use crate::telemetry::Untrusted;

static COUNT: AtomicU64 = AtomicU64::new(0);
static FATAL: Notify = Notify::const_new();

/// From now on panics are a line of the log each, with a backtrace only if `RUST_BACKTRACE` asks for it.
pub fn install() {
    panic::set_hook(Box::new(note));
}

/// Counted before it is logged: a panic within logging is not logged itself.
fn note(panic: &PanicHookInfo<'_>) {
    COUNT.fetch_add(1, Relaxed);
    let thread = thread::current();
    // It may quote what a stranger has sent.
    let why = Untrusted(panic.payload_as_str().unwrap_or("no text").as_bytes());
    let location = panic.location().map(field::display);
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| field::display(backtrace));
    tracing::error!(thread = thread.name(), location, %why, backtrace, "a panic");
}

pub fn expose(exposition: &mut Exposition) {
    exposition.counter("smg_panics_total", "Panics, in any thread.", &[], COUNT.load(Relaxed) as f64);
}

/// Runs a task that the process can't do without: if it panics, [`fatal`] ends.
pub async fn vital<T>(task: impl Future<Output = T>) -> T {
    let _vital = Vital;
    task.await
}

/// Ends when a [`vital`] task has panicked. One may wait for it.
pub async fn fatal() {
    FATAL.notified().await;
}

/// What holds it is vital; also for threads.
pub struct Vital;

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            FATAL.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
