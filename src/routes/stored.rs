//! Paths of objects that workers keep: responses, conversations, files and others of the OpenAI API, and the batches of
//! Anthropic's.

/// What a path means among those of stored objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored<'a> {
    /// None of them.
    Other,
    /// All objects of a kind: a POST makes one.
    Collection,
    /// One object, or something of it. Its id as it is in the path.
    Object(&'a str),
}

/// Names that stand where an id would, and are operations.
const OPERATIONS: [&str; 6] = ["input_tokens", "compact", "runs", "characters", "edits", "extensions"];

impl<'a> Stored<'a> {
    pub fn of(path: &'a str) -> Self {
        path.strip_prefix("/v1/").map_or(Self::Other, Self::below_v1)
    }

    /// The same without what all begin with. Every request comes here.
    pub(super) fn below_v1(path: &'a str) -> Self {
        let (kind, rest) = match path.split_once('/') {
            Some((kind, rest)) => (kind, Some(rest)),
            None => (path, None),
        };
        match (kind, rest) {
            ("chat", Some(rest)) => match rest.strip_prefix("completions/") {
                Some(rest) => Self::object(rest),
                None => Self::Other,
            },
            ("fine_tuning", Some(rest)) => Self::nested(rest, "jobs"),
            ("messages", Some(rest)) => Self::nested(rest, "batches"),
            (
                "responses" | "conversations" | "files" | "batches" | "threads" | "assistants" | "vector_stores"
                | "uploads" | "containers" | "evals" | "videos",
                rest,
            ) => rest.map_or(Self::Collection, Self::object),
            _ => Self::Other,
        }
    }

    fn nested(path: &'a str, kind: &str) -> Self {
        match path.strip_prefix(kind) {
            Some("") => Self::Collection,
            Some(rest) => rest.strip_prefix('/').map_or(Self::Other, Self::object),
            None => Self::Other,
        }
    }

    fn object(path: &'a str) -> Self {
        let id = path.split('/').next().unwrap_or_default();
        if id.is_empty() || OPERATIONS.contains(&id) { Self::Other } else { Self::Object(id) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_their_collections_are_told_apart() {
        for (path, wanted) in [
            ("/v1/responses", Stored::Collection),
            ("/v1/responses/resp_1", Stored::Object("resp_1")),
            ("/v1/responses/resp_1/cancel", Stored::Object("resp_1")),
            ("/v1/responses/resp_1/", Stored::Object("resp_1")),
            ("/v1/responses/", Stored::Other),
            ("/v1/responses//cancel", Stored::Other),
            ("/v1/responses/input_tokens", Stored::Other),
            ("/v1/responsesx", Stored::Other),
            ("/v1/threads/runs", Stored::Other),
            ("/v1/threads/thread_1/runs", Stored::Object("thread_1")),
            ("/v1/fine_tuning/jobs", Stored::Collection),
            ("/v1/fine_tuning/jobs/ft-1/events", Stored::Object("ft-1")),
            ("/v1/fine_tuning/jobsx/1", Stored::Other),
            ("/v1/fine_tuning", Stored::Other),
            ("/v1/messages", Stored::Other),
            ("/v1/messages/batches", Stored::Collection),
            ("/v1/messages/batches/b/results", Stored::Object("b")),
            ("/v1/messages/count_tokens", Stored::Other),
            ("/v1/chat/completions", Stored::Other),
            ("/v1/chat/completions/", Stored::Other),
            ("/v1/chat/completions/c/messages", Stored::Object("c")),
            ("/v1/files/f/content", Stored::Object("f")),
            ("/v2/files/f", Stored::Other),
            ("/v1", Stored::Other),
            ("/", Stored::Other),
        ] {
            assert_eq!(Stored::of(path), wanted, "{path}");
        }
    }
}
