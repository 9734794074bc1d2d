//! The work of `guests/auth` as a proxy-wasm filter, so that Envoy can be measured with a module: requests below
//! `/v1` and `/api` need a key, in `Authorization: Bearer` or `x-api-key`.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{Action, LogLevel};

const KEY: &str = "secret-api-key-12345";

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_http_context(|_, _| Box::new(Auth));
}}

struct Auth;

impl Context for Auth {}

impl HttpContext for Auth {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let path = self.get_http_request_header(":path").unwrap_or_default();
        if !path.starts_with("/v1") && !path.starts_with("/api") {
            return Action::Continue;
        }
        let bearer = self.get_http_request_header("authorization");
        let bearer = bearer.as_deref().and_then(|value| value.strip_prefix("Bearer "));
        if bearer == Some(KEY) || self.get_http_request_header("x-api-key").as_deref() == Some(KEY) {
            return Action::Continue;
        }
        self.send_http_response(401, vec![], Some(b"unauthorized"));
        Action::Pause
    }
}
