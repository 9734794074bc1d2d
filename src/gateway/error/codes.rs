//! All values of `x-smg-error-code`. `docs/errors.md` is generated from this table; a test compares them.

/// An error code and its documentation.
pub struct Code {
    pub name: &'static str,
    /// The statuses of the answers that carry it.
    pub statuses: &'static str,
    pub meaning: &'static str,
    pub retry: Retry,
}

/// Whether the client may retry the request.
#[derive(Clone, Copy)]
pub enum Retry {
    /// The gateway will refuse the request again.
    No,
    /// After the seconds in `Retry-After`.
    AfterThat,
    /// The request was not carried out.
    Yes,
    /// A worker may have carried out the request.
    IfTwiceIsFine,
    /// The module decides.
    Module,
}

impl Retry {
    pub fn text(self) -> &'static str {
        match self {
            Retry::No => "no",
            Retry::AfterThat => "after `Retry-After`",
            Retry::Yes => "yes",
            Retry::IfTwiceIsFine => "if it is safe to run twice",
            Retry::Module => "as the module says",
        }
    }
}

const fn code(name: &'static str, statuses: &'static str, retry: Retry, meaning: &'static str) -> Code {
    Code { name, statuses, meaning, retry }
}

/// In the order in which a request can fail with them, followed by the codes of the admin API.
pub static CODES: &[Code] = &[
    code(
        "invalid_request",
        "400",
        Retry::No,
        "the head is ambiguous or malformed; or the body has a second `model` after the gateway began to send it",
    ),
    code("uri_too_long", "414", Retry::No, "the target is too long"),
    code("request_header_fields_too_large", "431", Retry::No, "the header section has too many fields or is too long"),
    code("http_version_not_supported", "505", Retry::No, "the HTTP version is not supported"),
    code("method_not_implemented", "501", Retry::No, "`CONNECT`, `TRACE`, or a method that is too long"),
    code(
        "not_found",
        "404",
        Retry::No,
        "this listener does not serve the path; the path is another spelling of one that the gateway answers itself; or it is outside `/v1` and the model's workers serve only `/v1`",
    ),
    code("invalid_api_key", "401", Retry::No, "the key is missing or unknown, or the request has different keys"),
    code(
        "forbidden",
        "403",
        Retry::No,
        "the key's role, the page's origin or the client's address does not allow the request",
    ),
    code("method_not_allowed", "405", Retry::No, "the method is not allowed; `Allow` lists those that are"),
    code(
        "request_body_too_large",
        "413",
        Retry::No,
        "the body exceeds `--max-payload-size`, what a module may be shown, or what is held to find its model",
    ),
    code("invalid_request_body", "400", Retry::No, "the body is incomplete or broken"),
    code("request_timeout", "408", Retry::Yes, "the body did not arrive in time"),
    code("loop_detected", "508", Retry::No, "the request has passed through this gateway before"),
    code("rate_limit_exceeded", "429", Retry::AfterThat, "the rate limit is exceeded"),
    code("concurrency_limit_exceeded", "429", Retry::AfterThat, "the key has too many requests in flight"),
    code("admission_queue_full", "429", Retry::AfterThat, "too many requests are in flight and queued"),
    code(
        "admission_queue_timeout",
        "503",
        Retry::AfterThat,
        "the request was queued for longer than `--queue-timeout-secs`",
    ),
    code(
        "overloaded",
        "503",
        Retry::AfterThat,
        "memory or file descriptors are nearly exhausted, or the control plane is busy",
    ),
    code("shutting_down", "503", Retry::AfterThat, "the gateway is shutting down"),
    code("wasm_module_rejected", "400 to 599", Retry::Module, "a module rejected the request or the answer"),
    code(
        "wasm_module_failed",
        "503, or as `on_failure` says",
        Retry::IfTwiceIsFine,
        "a module failed and its failure policy is closed",
    ),
    code(
        "unsupported_content_encoding",
        "415",
        Retry::No,
        "the model selects the workers, but the body's coding is unknown; `Accept-Encoding` lists the known ones",
    ),
    code("model_not_found", "404", Retry::No, "no worker serves the model"),
    code("no_available_workers", "503", Retry::AfterThat, "no worker is healthy, or every breaker is open"),
    code("upstream_connect_timeout", "504", Retry::Yes, "the gateway can't connect to the worker in time"),
    code("upstream_connection_failed", "502", Retry::Yes, "the gateway can't connect to the worker"),
    code(
        "upstream_bad_response",
        "502",
        Retry::IfTwiceIsFine,
        "the worker's answer is invalid, or ended before its head was complete",
    ),
    code(
        "upstream_first_byte_timeout",
        "504",
        Retry::IfTwiceIsFine,
        "the worker did not begin to answer within `--first-byte-timeout-secs`",
    ),
    code("upstream_timeout", "504", Retry::IfTwiceIsFine, "the worker did not answer within `--request-timeout-secs`"),
    code("upstream_stalled", "504", Retry::IfTwiceIsFine, "the worker stalled in an answer that a module reads"),
    code("invalid_json", "400", Retry::No, "admin API: the body is not JSON"),
    code("unsupported_media_type", "415", Retry::No, "admin API: the content type must be `application/json`"),
    code("invalid_field", "422", Retry::No, "admin API: a field is unknown, missing or wrong"),
    code("precondition_failed", "412", Retry::No, "admin API: the resource has changed since it was read"),
    code("invalid_worker", "400", Retry::No, "admin API: the worker's URL or another value is invalid"),
    code("worker_exists", "409", Retry::No, "admin API: the worker already exists"),
    code("too_many_workers", "409", Retry::No, "admin API: the maximum number of workers is reached"),
    code("worker_draining", "409", Retry::No, "admin API: the worker is being removed"),
    code("worker_not_found", "404", Retry::No, "admin API: there is no worker with this id or URL"),
    code(
        "workers_failed",
        "502",
        Retry::IfTwiceIsFine,
        "admin API: a worker failed an operation for all workers; the body has each worker's answer",
    ),
    code("internal_error", "500", Retry::No, "admin API: the gateway could not produce the answer"),
    code("wasm_not_enabled", "503", Retry::No, "admin API: the gateway runs without `--enable-wasm`"),
    code("module_not_deployed", "400", Retry::No, "admin API: a module was not deployed; its `add_result` says why"),
    code("invalid_uuid", "400", Retry::No, "admin API: the module's id is not a uuid"),
    code("module_not_found", "404", Retry::No, "admin API: there is no module with this id"),
];

pub fn find(name: &str) -> Option<&'static Code> {
    CODES.iter().find(|code| code.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/errors.md");

    fn table() -> String {
        let rows = CODES.iter().map(|code| {
            format!("| `{}` | {} | {} | {} |\n", code.name, code.statuses, code.meaning, code.retry.text())
        });
        "| code | status | meaning | retry |\n|---|---|---|---|\n".to_owned() + &rows.collect::<String>()
    }

    #[test]
    fn the_documented_table_is_made_of_this_one() {
        let written = std::fs::read_to_string(FILE).expect("the file is there");
        let text = written.split("| code |").next().unwrap_or_default();
        let wanted = format!("{text}{}", table());
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(FILE, wanted).expect("the checkout can be written");
            return;
        }
        assert!(written == wanted, "regenerate docs/errors.md: UPDATE_DOCS=1 cargo test --lib error::codes");
    }

    #[test]
    fn a_code_is_there_once() {
        let mut names: Vec<_> = CODES.iter().map(|code| code.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CODES.len());
    }
}
