//! Names of workers: resolved on the control plane, looked up again when the answer's time to live has passed,
//! and kept at the last good addresses while that fails.
//!
//! No request waits for a name, but those that come before the first look-up has ended. A worker whose URL has
//! an address costs nothing here.

mod course;
mod followed;
mod resolver;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tracing::{info, warn};

pub use self::resolver::{NameError, NetError, Resolver};

use self::course::{Course, News};
use super::Worker;
use super::guard::Guard;

/// Keeps one worker's addresses current for ever; returns at once if its URL has an address. Another resolver is asked
/// at once. For the control plane's local runtime.
pub async fn follow(worker: Arc<Worker>, mut resolver: watch::Receiver<Rc<Resolver>>, guard: Guard) {
    let (host, port) = (worker.url.host(), worker.url.port());
    if host.parse::<IpAddr>().is_ok() {
        return;
    }
    let mut course = Course::new(port, guard);
    loop {
        let current = resolver.borrow_and_update().clone();
        let found = tokio::select! {
            found = current.look_up(host) => found,
            Ok(()) = resolver.changed() => continue,
        };
        let (news, pause) = course.after(found);
        match news {
            News::Same => {}
            News::Moved { old } => {
                worker.addresses.publish(course.addresses());
                // What could not be reached there may be reachable here.
                worker.check_passed();
                info!(worker = %worker.label, ?old, new = ?course.addresses(), "the worker's addresses changed");
            }
            News::Again => info!(worker = %worker.label, "the worker's name is resolved again"),
            News::Failing(why) => {
                let kept = course.addresses();
                warn!(worker = %worker.label, error = %Causes(&why), ?kept, "the worker's name is not resolved");
                worker.addresses.fail(why);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = resolver.changed() => {}
        }
    }
}

/// An error with what caused it, in one line.
struct Causes<'a>(&'a NameError);

impl std::fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut error: &dyn std::error::Error = self.0;
        write!(f, "{error}")?;
        while let Some(cause) = error.source() {
            write!(f, ": {cause}")?;
            error = cause;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/gateway/support/dns.rs"]
mod dns;
#[cfg(test)]
mod tests;
