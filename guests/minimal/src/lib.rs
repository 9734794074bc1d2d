//! The least a module can be: it lets every request and every response through.

wit_bindgen::generate!({ path: "../../wit/v1", world: "smg" });

use exports::smg::gateway::middleware_on_request::{Guest as OnRequest, Request};
use exports::smg::gateway::middleware_on_response::{Guest as OnResponse, Response};
use smg::gateway::middleware_types::Action;

struct Minimal;
export!(Minimal);

impl OnRequest for Minimal {
    fn on_request(_req: Request) -> Action {
        Action::Continue
    }
}

impl OnResponse for Minimal {
    fn on_response(_resp: Response) -> Action {
        Action::Continue
    }
}
