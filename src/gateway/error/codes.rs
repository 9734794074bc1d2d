//! Every code that `x-smg-error-code` can have. `docs/errors.md` is made from this table; a test compares them.

/// A code, and what those who meet it want to know.
pub struct Code {
    pub name: &'static str,
    /// The statuses of the answers that carry it.
    pub statuses: &'static str,
    pub meaning: &'static str,
    pub retry: Retry,
}

/// Whether it makes sense to send the request again.
#[derive(Clone, Copy)]
pub enum Retry {
    /// It will be refused again.
    No,
    /// After the seconds of `Retry-After`.
    AfterThat,
    /// Nothing has been done yet.
    Yes,
    /// It may have been carried out.
    IfTwiceIsFine,
    /// That is for the module to say.
    Module,
}

impl Retry {
    pub fn text(self) -> &'static str {
        match self {
            Retry::No => "no",
            Retry::AfterThat => "after `Retry-After`",
            Retry::Yes => "yes",
            Retry::IfTwiceIsFine => "if it may be carried out twice",
            Retry::Module => "as the module says",
        }
    }
}

const fn code(name: &'static str, statuses: &'static str, retry: Retry, meaning: &'static str) -> Code {
    Code { name, statuses, meaning, retry }
}

/// In the order in which a request can meet them; then those of the admin API.
pub static CODES: &[Code] = &[
    code(
        "invalid_request",
        "400",
        Retry::No,
        "the head can't be read in only one way, or breaks HTTP's rules; or the body names its model twice, far apart",
    ),
    code("uri_too_long", "414", Retry::No, "the target is too long"),
    code("request_header_fields_too_large", "431", Retry::No, "the header has too many fields, or is too long"),
    code("http_version_not_supported", "505", Retry::No, "the version of HTTP is not offered"),
    code("method_not_implemented", "501", Retry::No, "`CONNECT`, `TRACE`, or a method that is too long"),
    code(
        "not_found",
        "404",
        Retry::No,
        "this listener is for the admin API alone, or not for it; or the path is outside `/v1`, and the workers' base paths name a version",
    ),
    code("invalid_api_key", "401", Retry::No, "no key, one that is not known, or several that differ"),
    code(
        "forbidden",
        "403",
        Retry::No,
        "the key's role, the page's origin or the place it comes from does not allow it",
    ),
    code("method_not_allowed", "405", Retry::No, "`Allow` names the methods that there are"),
    code(
        "request_body_too_large",
        "413",
        Retry::No,
        "the body is larger than `--max-payload-size`, than a module may be shown, or than what is held to find its model",
    ),
    code("invalid_request_body", "400", Retry::No, "the body is incomplete or broken"),
    code("request_timeout", "408", Retry::Yes, "the body did not arrive in time"),
    code("loop_detected", "508", Retry::No, "the request has come through this gateway before"),
    code("rate_limit_exceeded", "429", Retry::AfterThat, "more requests than a rate limit allows"),
    code("concurrency_limit_exceeded", "429", Retry::AfterThat, "the key has too many requests in flight"),
    code("admission_queue_full", "429", Retry::AfterThat, "too many requests are in flight and wait"),
    code(
        "admission_queue_timeout",
        "503",
        Retry::AfterThat,
        "the request waited for longer than `--queue-timeout-secs`",
    ),
    code(
        "overloaded",
        "503",
        Retry::AfterThat,
        "memory or descriptors are nearly used up, or the control plane is busy",
    ),
    code("shutting_down", "503", Retry::AfterThat, "the gateway ends"),
    code("wasm_module_rejected", "400 to 599", Retry::Module, "a module has rejected the request, or the answer to it"),
    code(
        "wasm_module_failed",
        "503, or what `on_failure` says",
        Retry::IfTwiceIsFine,
        "a module failed, and is not to be done without",
    ),
    code(
        "unsupported_content_encoding",
        "415",
        Retry::No,
        "the model decides where the body goes, and its coding is not known; `Accept-Encoding` names those that are",
    ),
    code("model_not_found", "404", Retry::No, "no worker serves the model"),
    code("no_available_workers", "503", Retry::AfterThat, "no worker is healthy, or every breaker is open"),
    code("upstream_connect_timeout", "504", Retry::Yes, "the worker can't be reached in time"),
    code("upstream_connection_failed", "502", Retry::Yes, "the worker can't be reached"),
    code(
        "upstream_bad_response",
        "502",
        Retry::IfTwiceIsFine,
        "the worker's answer is not valid, or broke off before its head",
    ),
    code(
        "upstream_first_byte_timeout",
        "504",
        Retry::IfTwiceIsFine,
        "the worker did not begin to answer in `--first-byte-timeout-secs`",
    ),
    code("upstream_timeout", "504", Retry::IfTwiceIsFine, "the worker did not answer in `--request-timeout-secs`"),
    code(
        "upstream_stalled",
        "504",
        Retry::IfTwiceIsFine,
        "the worker fell silent in an answer that a module is to see",
    ),
    code("invalid_json", "400", Retry::No, "admin API: the body is not JSON"),
    code("unsupported_media_type", "415", Retry::No, "admin API: the content type must be `application/json`"),
    code("invalid_field", "422", Retry::No, "admin API: a field is unknown, missing or wrong"),
    code("precondition_failed", "412", Retry::No, "admin API: it has changed since it was read; read it again"),
    code("invalid_worker", "400", Retry::No, "admin API: the URL, or another value, can't be a worker's"),
    code("worker_exists", "409", Retry::No, "admin API: the worker is there already"),
    code("too_many_workers", "409", Retry::No, "admin API: there are as many workers as there can be"),
    code("worker_draining", "409", Retry::No, "admin API: the worker is being removed"),
    code("worker_not_found", "404", Retry::No, "admin API: there is no worker with this id or URL"),
    code(
        "workers_failed",
        "502",
        Retry::IfTwiceIsFine,
        "admin API: of an operation for all workers; the body says what each worker said",
    ),
    code("internal_error", "500", Retry::No, "admin API: the gateway could not make the answer"),
    code("wasm_not_enabled", "503", Retry::No, "admin API: the gateway runs without `--enable-wasm`"),
    code("module_not_deployed", "400", Retry::No, "admin API: a module was not deployed; its `add_result` says why"),
    code("invalid_uuid", "400", Retry::No, "admin API: a module's id is a uuid"),
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
        "| code | status | meaning | send it again |\n|---|---|---|---|\n".to_owned() + &rows.collect::<String>()
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
        assert!(written == wanted, "docs/errors.md is made by UPDATE_DOCS=1 cargo test --lib error::codes");
    }

    #[test]
    fn a_code_is_there_once() {
        let mut names: Vec<_> = CODES.iter().map(|code| code.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CODES.len());
    }
}
