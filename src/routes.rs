//! Where a request goes: an endpoint of the gateway, or the workers. Decided on the very path that would be
//! forwarded, so that no other spelling of a path means something else here than there.

mod disguise;
mod overrides;
mod stored;

pub use self::overrides::{Override, Overrides};
pub use self::stored::{Object, Stored};

/// What a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/health` and `/liveness`: the process answers.
    Alive,
    /// `/readiness`: somebody can serve requests.
    Ready,
    /// `/metrics`
    Metrics,
    /// The admin API: `/wasm` and `/workers`, and what is below them.
    Admin,
    /// Operations that mean all workers, such as `/flush_cache`.
    EveryWorker,
    /// Another spelling of such an operation, which a worker would take for it. Nobody gets it.
    Disguised,
    /// `/v1/models`, and one model below it: what the workers offer together.
    Models,
    /// Objects that one worker keeps, such as `/v1/responses` and what is below it.
    Stored,
    /// Everything else.
    Workers,
}

/// What is before the id in the path of one model. An id may have a `/` in it.
pub const MODEL: &str = "/v1/models/";

/// Routes a request by its path, as it was sent.
pub fn route(path: &str) -> Route {
    // First, because almost all paths begin with it.
    if let Some(below) = path.strip_prefix("/v1/") {
        return match below {
            // The most frequent paths, which need no further look.
            "chat/completions" | "completions" | "embeddings" | "messages" => Route::Workers,
            "models" => Route::Models,
            _ if disguise::hides(path, is_operation) => Route::Disguised,
            // Without an id it is a worker's.
            "models/" => Route::Workers,
            _ if below.starts_with("models/") => Route::Models,
            _ => match Stored::below_v1(below) {
                Stored::Other => Route::Workers,
                Stored::Collection(_) | Stored::Object(_) => Route::Stored,
            },
        };
    }
    match path {
        "/health" | "/liveness" => Route::Alive,
        "/readiness" => Route::Ready,
        "/metrics" => Route::Metrics,
        "/wasm" | "/workers" => Route::Admin,
        _ if is_operation(path) => Route::EveryWorker,
        _ if disguise::hides(path, is_operation) => Route::Disguised,
        _ if path.starts_with("/wasm/") || path.starts_with("/workers/") => Route::Admin,
        _ => Route::Workers,
    }
}

fn is_operation(path: &str) -> bool {
    matches!(path, "/flush_cache" | "/start_profile" | "/stop_profile" | "/get_loads" | "/engine_metrics")
}

/// Paths that have a metric label of their own; all others share one, so that callers can't invent series.
const LABELLED: [&str; 22] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/rerank",
    "/v1/classify",
    "/v1/messages",
    "/v1/audio/transcriptions",
    "/v1/tokenize",
    "/v1/detokenize",
    "/v1/models",
    "/generate",
    "/rerank",
    "/tokenize",
    "/detokenize",
    "/get_server_info",
    "/get_model_info",
    "/health",
    "/liveness",
    "/readiness",
    "/metrics",
    "/wasm",
];

/// The `path` label of a request: a position in [`LABELLED`], or behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label(u8);

impl Label {
    /// Labels that there are.
    pub const COUNT: usize = LABELLED.len() + 1;
    /// Of a path without a label of its own.
    pub const OTHER: Self = Self(LABELLED.len() as u8);

    pub fn of(path: &str) -> Self {
        LABELLED.iter().position(|known| *known == path).map_or(Self::OTHER, |at| Self(at as u8))
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    pub fn text(self) -> &'static str {
        LABELLED.get(self.index()).copied().unwrap_or("other")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_spelling_is_ours() {
        for (path, wanted) in [
            ("/health", Route::Alive),
            ("/liveness", Route::Alive),
            ("/readiness", Route::Ready),
            ("/metrics", Route::Metrics),
            ("/wasm", Route::Admin),
            ("/wasm/0", Route::Admin),
            ("/workers/x", Route::Admin),
            ("/v1/models", Route::Models),
            ("/v1/models/org/name", Route::Models),
            ("/v1/models/", Route::Workers),
            ("/v1/modelsx", Route::Workers),
            ("/v1/chat/completions", Route::Workers),
            ("/v1/responses", Route::Stored),
            ("/v1/responses/resp_1/cancel", Route::Stored),
            ("/v1/", Route::Workers),
            ("/flush_cache", Route::EveryWorker),
            ("/engine_metrics", Route::EveryWorker),
            ("/flush%5Fcache", Route::Disguised),
            ("/v1/../flush_cache", Route::Disguised),
            ("/v1/models/../../flush_cache", Route::Disguised),
            ("/v1/files/..%2f..%2fflush_cache", Route::Disguised),
            ("/wasmx", Route::Workers),
            ("//wasm", Route::Workers),
            ("/%77asm", Route::Workers),
            ("/WASM", Route::Workers),
            ("/v1/../wasm", Route::Workers),
            ("/get_server_info", Route::Workers),
            ("*", Route::Workers),
        ] {
            assert_eq!(route(path), wanted, "{path}");
        }
    }

    #[test]
    fn labels_are_a_closed_set() {
        assert_eq!(Label::of("/v1/chat/completions").text(), "/v1/chat/completions");
        assert_eq!((Label::of("/v1/chat/completions/9"), Label::OTHER.text()), (Label::OTHER, "other"));
        assert!(Label::all().all(|label| Label::of(label.text()) == label));
    }
}
