//! Sixty requests a minute for each caller, then 429.
//!
//! The counters live in guest memory: deploy it in instance mode `single`. Callers are told apart by what they
//! send, and are not checked: put a module that checks keys before this one, or each invented key has a budget of its own.

wit_bindgen::generate!({ path: "../../wit/v1", world: "smg" });

mod caller;
mod limiter;

use std::cell::RefCell;

use exports::smg::gateway::middleware_on_request::{Guest as OnRequest, Request};
use exports::smg::gateway::middleware_on_response::{Guest as OnResponse, Response};
use smg::gateway::middleware_types::Action;

use caller::Caller;
use limiter::Limiter;

struct RateLimit;
export!(RateLimit);

thread_local! {
    static LIMITER: RefCell<Limiter> = RefCell::default();
}

impl OnRequest for RateLimit {
    fn on_request(req: Request) -> Action {
        let caller = Caller::of(&req.headers);
        if LIMITER.with_borrow_mut(|limiter| limiter.admits(caller, req.now_epoch_ms)) {
            Action::Continue
        } else {
            Action::Reject(429)
        }
    }
}

impl OnResponse for RateLimit {
    fn on_response(_resp: Response) -> Action {
        Action::Continue
    }
}
