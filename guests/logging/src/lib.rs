//! Tells the worker what the gateway knows of a request, and clients to come back when a worker broke.

wit_bindgen::generate!({ path: "../../wit/v1", world: "smg" });

use exports::smg::gateway::middleware_on_request::{Guest as OnRequest, Request};
use exports::smg::gateway::middleware_on_response::{Guest as OnResponse, Response};
use smg::gateway::middleware_types::{Action, Header, ModifyAction};

struct Logging;
export!(Logging);

impl OnRequest for Logging {
    fn on_request(req: Request) -> Action {
        let now = req.now_epoch_ms.to_string();
        let mut edit = unchanged();
        edit.headers_set = vec![
            header("x-request-id", &req.request_id),
            header("x-wasm-processed", "true"),
            header("x-processed-at", &now),
        ];
        if is_under(&req.path, "/api") || is_under(&req.path, "/v1") {
            edit.headers_set.push(header("x-api-route", "true"));
        } else {
            // A client could have sent it, and the worker believes it.
            edit.headers_remove.push("x-api-route".to_owned());
        }
        Action::Modify(edit)
    }
}

impl OnResponse for Logging {
    fn on_response(resp: Response) -> Action {
        match resp.status {
            500 => Action::Modify(ModifyAction {
                status: Some(503),
                ..unchanged()
            }),
            _ => Action::Continue,
        }
    }
}

fn unchanged() -> ModifyAction {
    ModifyAction {
        status: None,
        headers_set: Vec::new(),
        headers_add: Vec::new(),
        headers_remove: Vec::new(),
        body_replace: None,
    }
}

fn header(name: &str, value: &str) -> Header {
    Header {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

/// Whether `path` is `prefix` or lies below it: `/v1` and `/v1/models`, not `/v1x`.
fn is_under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> Request {
        Request {
            method: "GET".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: Vec::new(),
            body: Vec::new(),
            request_id: "r-1".to_owned(),
            now_epoch_ms: 1_700_000_000_123,
        }
    }

    fn edit(action: Action) -> ModifyAction {
        match action {
            Action::Modify(edit) => edit,
            other => panic!("expected an edit, got {other:?}"),
        }
    }

    #[test]
    fn a_request_is_marked() {
        let edit = edit(Logging::on_request(request("/v1/models")));
        let set: Vec<_> = edit
            .headers_set
            .iter()
            .map(|h| (h.name.as_str(), h.value.as_str()))
            .collect();
        assert_eq!(
            set,
            [
                ("x-request-id", "r-1"),
                ("x-wasm-processed", "true"),
                ("x-processed-at", "1700000000123"),
                ("x-api-route", "true"),
            ]
        );
    }

    #[test]
    fn a_forged_api_route_is_dropped() {
        let edit = edit(Logging::on_request(request("/v1x")));
        assert_eq!(edit.headers_set.len(), 3);
        assert_eq!(edit.headers_remove, ["x-api-route"]);
    }

    #[test]
    fn only_a_500_becomes_503() {
        let answer = |status| {
            Logging::on_response(Response {
                status,
                headers: Vec::new(),
                body: Vec::new(),
            })
        };
        assert_eq!(edit(answer(500)).status, Some(503));
        for status in [200, 404, 501, 503] {
            assert!(matches!(answer(status), Action::Continue), "{status}");
        }
    }
}
