//! Paths of objects that workers keep: responses, conversations, files and others of the OpenAI API, and the batches of
//! Anthropic's.

/// What a path means among those of stored objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored<'a> {
    /// None of them.
    Other,
    /// All objects of this kind: a POST makes one.
    Collection(&'static str),
    /// One object, or a part of it.
    Object(Object<'a>),
}

/// An object in a path. Objects of different kinds may have the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<'a> {
    pub kind: &'static str,
    /// As it is in the path.
    pub id: &'a str,
    /// The path behind the id.
    pub rest: &'a str,
}

/// Kinds that have their name directly below `/v1/`.
const KINDS: [&str; 11] = [
    "responses",
    "conversations",
    "files",
    "batches",
    "threads",
    "assistants",
    "vector_stores",
    "uploads",
    "containers",
    "evals",
    "videos",
];

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
                Some(rest) => Self::object("chat/completions", rest),
                None => Self::Other,
            },
            ("fine_tuning", Some(rest)) => Self::nested("fine_tuning/jobs", rest, "jobs"),
            ("messages", Some(rest)) => Self::nested("messages/batches", rest, "batches"),
            _ => match KINDS.iter().find(|known| **known == kind) {
                Some(kind) => rest.map_or(Self::Collection(kind), |rest| Self::object(kind, rest)),
                None => Self::Other,
            },
        }
    }

    fn nested(kind: &'static str, path: &'a str, name: &str) -> Self {
        match path.strip_prefix(name) {
            Some("") => Self::Collection(kind),
            Some(rest) => rest.strip_prefix('/').map_or(Self::Other, |rest| Self::object(kind, rest)),
            None => Self::Other,
        }
    }

    fn object(kind: &'static str, path: &'a str) -> Self {
        let (id, rest) = path.split_at(path.find('/').unwrap_or(path.len()));
        if id.is_empty() || OPERATIONS.contains(&id) { Self::Other } else { Self::Object(Object { kind, id, rest }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object<'a>(kind: &'static str, id: &'a str, rest: &'a str) -> Stored<'a> {
        Stored::Object(Object { kind, id, rest })
    }

    #[test]
    fn objects_and_their_collections_are_told_apart() {
        for (path, wanted) in [
            ("/v1/responses", Stored::Collection("responses")),
            ("/v1/responses/resp_1", object("responses", "resp_1", "")),
            ("/v1/responses/resp_1/cancel", object("responses", "resp_1", "/cancel")),
            ("/v1/responses/resp_1/", object("responses", "resp_1", "/")),
            ("/v1/responses/", Stored::Other),
            ("/v1/responses//cancel", Stored::Other),
            ("/v1/responses/input_tokens", Stored::Other),
            ("/v1/responsesx", Stored::Other),
            ("/v1/threads/runs", Stored::Other),
            ("/v1/threads/thread_1/runs", object("threads", "thread_1", "/runs")),
            ("/v1/fine_tuning/jobs", Stored::Collection("fine_tuning/jobs")),
            ("/v1/fine_tuning/jobs/ft-1/events", object("fine_tuning/jobs", "ft-1", "/events")),
            ("/v1/fine_tuning/jobsx/1", Stored::Other),
            ("/v1/fine_tuning", Stored::Other),
            ("/v1/messages", Stored::Other),
            ("/v1/messages/batches", Stored::Collection("messages/batches")),
            ("/v1/messages/batches/b/results", object("messages/batches", "b", "/results")),
            ("/v1/messages/count_tokens", Stored::Other),
            ("/v1/chat/completions", Stored::Other),
            ("/v1/chat/completions/", Stored::Other),
            ("/v1/chat/completions/c/messages", object("chat/completions", "c", "/messages")),
            ("/v1/files/f/content", object("files", "f", "/content")),
            ("/v2/files/f", Stored::Other),
            ("/v1", Stored::Other),
            ("/", Stored::Other),
        ] {
            assert_eq!(Stored::of(path), wanted, "{path}");
        }
    }
}
