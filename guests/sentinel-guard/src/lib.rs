//! Turns away requests that look like an attack, and adds security headers to responses: an example of the Sentinel
//! ABI, in which a host passes JSON to a core module.
//!
//! [`abi`] is what any module of this ABI needs and nothing about this one; [`guard`] is what this one decides.

mod abi;
mod config;
mod guard;
mod messages;
mod path;
mod pattern;

use std::cell::RefCell;

use guard::Guard;
use messages::{Answer, Request, Response};

thread_local! {
    /// The deployment's, once it is configured.
    static GUARD: RefCell<Guard> = RefCell::default();
}

/// An error refuses the deployment.
fn on_configure(input: &[u8]) -> Result<(), config::Refused> {
    GUARD.set(config::parse(input)?);
    Ok(())
}

fn on_request_headers(request: &Request) -> Answer {
    GUARD.with_borrow(|guard| guard.on_request(request))
}

fn on_response_headers(_response: &Response) -> Answer {
    guard::secured_response()
}
