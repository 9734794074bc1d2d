//! A guest that misbehaves as it is told, for the gateway's own tests.
//!
//! On a request the header `x-hostile` says what to do, on a response the header `x-hostile-response`, which the
//! test's worker sets. [`behaviour`] lists what can be asked for. Without the header the guest continues.

mod behaviour;
mod edits;
mod raw;
mod resources;
mod sandbox;
mod state;

wit_bindgen::generate!({
    path: ["../../wit/v1", "wit"],
    world: "smg:hostile/hostile",
    generate_all,
});

use behaviour::{Answer, Misspelt, Seen};
use exports::smg::gateway::middleware_on_request::{Guest as OnRequest, Request};
use exports::smg::gateway::middleware_on_response::{Guest as OnResponse, Response};
use smg::gateway::middleware_types::Action;

/// Answers 418: no test can pass by accident because a behaviour was misspelt.
const TEAPOT: u16 = 418;

struct Hostile;

impl OnRequest for Hostile {
    fn on_request(req: Request) -> Action {
        let meta = [&req.method[..], &req.path, &req.query, &req.request_id].join(" ");
        let seen = Seen {
            meta,
            headers: &req.headers,
            body: &req.body,
        };
        action(behaviour::run("x-hostile", &seen))
    }
}

impl OnResponse for Hostile {
    fn on_response(resp: Response) -> Action {
        let meta = resp.status.to_string();
        let seen = Seen {
            meta,
            headers: &resp.headers,
            body: &resp.body,
        };
        action(behaviour::run("x-hostile-response", &seen))
    }
}

fn action(answer: Result<Answer, Misspelt>) -> Action {
    match answer {
        Ok(Answer::Edit(edits)) => edits.into_action(),
        Ok(Answer::Reject(status)) => Action::Reject(status),
        Ok(Answer::Raw(area)) => {
            raw::hand_over(area);
            Action::Continue
        }
        Err(Misspelt) => Action::Reject(TEAPOT),
    }
}
