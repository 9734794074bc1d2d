//! Finds an object's id in JSON or in a stream of server-sent events that arrives in pieces. Only the name or id that is
//! being read is buffered.
//!
//! The scan does not validate. In malformed JSON it finds nothing, or an id that no worker knows.

use memchr::memchr2;

use super::owners::LONGEST_ID;

/// The fields to look for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Fields of the outermost object whose value is an id.
    pub own: &'static [&'static str],
    /// Fields of it whose value is an object that has an `id`.
    pub within: &'static [&'static str],
}

/// The fields in a worker's answer with a new object.
const CREATED: Wanted = Wanted { own: &["id"], within: &[] };
/// The fields in an event: `response.created` has the object in a field, other events are the object.
const CREATED_EVENT: Wanted = Wanted { own: &["id"], within: &["response"] };
/// References to an object that the same worker must have: a response continues another one or a conversation, a batch
/// and a fine-tuning job read a file.
pub const REFERENCE: Wanted = Wanted {
    own: &["previous_response_id", "conversation", "input_file_id", "training_file"],
    within: &["conversation"],
};

/// The result of scanning a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Scan {
    More,
    Found(Vec<u8>),
    /// There is no id, and none will come.
    Nothing,
}

/// Scans a worker's answer for the id of a new object.
#[derive(Debug)]
pub enum AnswerScan {
    Json(JsonScan),
    Events(EventScan),
}

impl AnswerScan {
    /// For an answer of this media type, if it can have an id.
    pub fn of(media_type: &[u8]) -> Option<Self> {
        if media_type.eq_ignore_ascii_case(b"application/json") {
            return Some(Self::Json(JsonScan::new(CREATED)));
        }
        let is_events = media_type.eq_ignore_ascii_case(b"text/event-stream");
        is_events.then(|| Self::Events(EventScan::new()))
    }

    pub fn feed(&mut self, piece: &[u8]) -> Scan {
        match self {
            Self::Json(scan) => scan.feed(piece),
            Self::Events(scan) => scan.feed(piece),
        }
    }
}

/// Reads one JSON text.
#[derive(Debug)]
pub struct JsonScan {
    wanted: Wanted,
    /// Number of open objects and arrays.
    depth: u32,
    /// Whether the object at depth 2 is searched for its `id`.
    is_within: bool,
    /// Whether the next string at a searched depth is a name.
    expects_name: bool,
    name: Name,
    /// The last field of the outermost object that is wanted.
    field: &'static str,
    string: Option<Text>,
    is_escaped: bool,
    kept: Vec<u8>,
}

/// The field whose value comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    Id,
    Within,
    /// Its value is an id, or an object that has one.
    Either,
    Other,
}

/// The role of the current string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Name,
    Id,
    Skipped,
}

impl JsonScan {
    pub fn new(wanted: Wanted) -> Self {
        Self {
            wanted,
            depth: 0,
            is_within: false,
            expects_name: false,
            name: Name::Other,
            field: "",
            string: None,
            is_escaped: false,
            kept: Vec::new(),
        }
    }

    pub fn feed(&mut self, mut piece: &[u8]) -> Scan {
        while !piece.is_empty() {
            let (found, rest) = match self.string {
                Some(kind) => self.in_string(kind, piece),
                None => self.between(piece),
            };
            match found {
                Scan::More => piece = rest,
                found => return found,
            }
        }
        Scan::More
    }

    /// The kind of the object whose id was found in a creation's references.
    pub fn kind_referred_to(&self) -> &'static str {
        match self.field {
            "previous_response_id" => "responses",
            "conversation" => "conversations",
            _ => "files",
        }
    }

    fn in_string<'p>(&mut self, kind: Text, piece: &'p [u8]) -> (Scan, &'p [u8]) {
        if std::mem::take(&mut self.is_escaped) {
            return (Scan::More, &piece[1..]);
        }
        let at = memchr2(b'"', b'\\', piece);
        let text = &piece[..at.unwrap_or(piece.len())];
        if kind != Text::Skipped {
            let room = LONGEST_ID + 1 - self.kept.len();
            self.kept.extend_from_slice(&text[..text.len().min(room)]);
        }
        let Some(at) = at else { return (Scan::More, &[]) };
        if piece[at] == b'\\' {
            // None of the names needs an escape, and ids with escapes are ignored.
            (self.is_escaped, self.string) = (true, Some(Text::Skipped));
            return (Scan::More, &piece[at + 1..]);
        }
        self.string = None;
        match kind {
            Text::Id if !self.kept.is_empty() && self.kept.len() <= LONGEST_ID => {
                return (Scan::Found(std::mem::take(&mut self.kept)), &[]);
            }
            Text::Name => self.name = self.named(),
            Text::Id | Text::Skipped => {}
        }
        (Scan::More, &piece[at + 1..])
    }

    /// The field whose name has been read.
    fn named(&mut self) -> Name {
        if self.depth == 2 {
            return if self.kept == b"id" { Name::Id } else { Name::Other };
        }
        let find = |names: &[&'static str]| names.iter().copied().find(|name| name.as_bytes() == self.kept);
        let (own, within) = (find(self.wanted.own), find(self.wanted.within));
        self.field = own.or(within).unwrap_or_default();
        match (own.is_some(), within.is_some()) {
            (true, true) => Name::Either,
            (true, false) => Name::Id,
            (false, true) => Name::Within,
            (false, false) => Name::Other,
        }
    }

    /// Whether fields at this depth are searched.
    fn is_searched(&self) -> bool {
        self.depth == 1 || (self.depth == 2 && self.is_within)
    }

    fn between<'p>(&mut self, piece: &'p [u8]) -> (Scan, &'p [u8]) {
        let (byte, rest) = (piece[0], &piece[1..]);
        match byte {
            b'"' => {
                self.kept.clear();
                let kind = match self.name {
                    _ if !self.is_searched() => Text::Skipped,
                    _ if self.expects_name => Text::Name,
                    Name::Id | Name::Either => Text::Id,
                    Name::Within | Name::Other => Text::Skipped,
                };
                self.string = Some(kind);
            }
            b'{' | b'[' => {
                if self.depth == 0 && byte == b'[' {
                    return (Scan::Nothing, rest);
                }
                self.is_within |= self.depth == 1 && byte == b'{' && matches!(self.name, Name::Within | Name::Either);
                self.depth += 1;
                if self.is_searched() {
                    (self.expects_name, self.name) = (true, Name::Other);
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.is_within &= self.depth > 1;
                if self.depth == 0 {
                    return (Scan::Nothing, rest);
                }
            }
            b',' if self.is_searched() => (self.expects_name, self.name) = (true, Name::Other),
            b':' if self.is_searched() => self.expects_name = false,
            _ => {}
        }
        (Scan::More, rest)
    }
}

/// Scans server-sent events (WHATWG HTML section 9.2.6) for the first id.
#[derive(Debug)]
pub struct EventScan(Line);

#[derive(Debug)]
enum Line {
    /// The line so far is this many bytes of `data:`.
    Beginning(usize),
    Data(Box<JsonScan>),
    Other,
}

const DATA: &[u8] = b"data:";

impl EventScan {
    pub fn new() -> Self {
        Self(Line::Beginning(0))
    }

    pub fn feed(&mut self, mut piece: &[u8]) -> Scan {
        while let Some(first) = piece.first() {
            match &mut self.0 {
                _ if matches!(first, b'\r' | b'\n') => {
                    (self.0, piece) = (Line::Beginning(0), &piece[1..]);
                }
                Line::Beginning(so_far) if *first == DATA[*so_far] => {
                    *so_far += 1;
                    if *so_far == DATA.len() {
                        self.0 = Line::Data(Box::new(JsonScan::new(CREATED_EVENT)));
                    }
                    piece = &piece[1..];
                }
                Line::Beginning(_) => self.0 = Line::Other,
                Line::Data(scan) => {
                    let (line, rest) = piece.split_at(line_end(piece));
                    match scan.feed(line) {
                        Scan::Found(id) => return Scan::Found(id),
                        Scan::Nothing => self.0 = Line::Other,
                        Scan::More => {}
                    }
                    piece = rest;
                }
                Line::Other => piece = &piece[line_end(piece)..],
            }
        }
        Scan::More
    }
}

fn line_end(piece: &[u8]) -> usize {
    memchr2(b'\r', b'\n', piece).unwrap_or(piece.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id in `text`, cut at every position.
    fn found(text: &str, new: impl Fn() -> Box<dyn FnMut(&[u8]) -> Scan>) -> Option<String> {
        let read = |pieces: &[&[u8]]| {
            let mut feed = new();
            for piece in pieces {
                match feed(piece) {
                    Scan::More => {}
                    Scan::Found(id) => return Some(String::from_utf8(id).expect("text")),
                    Scan::Nothing => return None,
                }
            }
            None
        };
        let whole = read(&[text.as_bytes()]);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(read(&bytes), whole, "{text}");
        for at in 0..text.len() {
            let (before, after) = text.as_bytes().split_at(at);
            assert_eq!(read(&[before, after]), whole, "{text} at {at}");
        }
        whole
    }

    fn in_json(text: &str, wanted: Wanted) -> Option<String> {
        found(text, || {
            let mut scan = JsonScan::new(wanted);
            Box::new(move |piece| scan.feed(piece))
        })
    }

    fn in_events(text: &str) -> Option<String> {
        found(text, || {
            let mut scan = EventScan::new();
            Box::new(move |piece| scan.feed(piece))
        })
    }

    #[test]
    fn the_id_is_that_of_the_outermost_object() {
        for (text, wanted) in [
            (r#"{"id":"a"}"#, Some("a")),
            (r#" { "object" : "response" , "id" : "a" , "x" : 1 }"#, Some("a")),
            (r#"{"x":{"id":"b"},"y":[{"id":"c"},"id"],"id":"a"}"#, Some("a")),
            (r#"{"x":"id","y":"\"id\":\"b\"","z":"\\","id":"a"}"#, Some("a")),
            (r#"{"x":["id","b"],"id":"a"}"#, Some("a")),
            (r#"{"id":null,"x":"b"}"#, None),
            (r#"{"id":1,"x":"b"}"#, None),
            (r#"{"id":["b"]}"#, None),
            (r#"{"id":{"id":"b"}}"#, None),
            (r#"{"id":""}"#, None),
            (r#"{"id":"a\u0062"}"#, None),
            (r#"{"i\u0064":"a"}"#, None),
            (r#"[{"id":"b"}]"#, None),
            (r#"{"response":{"id":"b"}}"#, None),
            (r#"{}{"id":"b"}"#, None),
            (r#""id":"b""#, None),
            (r#"}}}"#, None),
            ("", None),
        ] {
            assert_eq!(in_json(text, CREATED).as_deref(), wanted, "{text}");
        }
        let long = |length| format!("{{\"id\":\"{}\"}}", "x".repeat(length));
        assert_eq!(in_json(&long(LONGEST_ID), CREATED).map(|id| id.len()), Some(LONGEST_ID));
        assert_eq!(in_json(&long(LONGEST_ID + 1), CREATED), None);
        assert_eq!(in_json(&format!("{{\"{}\":\"b\"}}", "id".repeat(400)), CREATED), None);
    }

    #[test]
    fn a_request_names_what_it_continues() {
        for (text, wanted) in [
            (r#"{"model":"m","previous_response_id":"a"}"#, Some("a")),
            (r#"{"previous_response_id":null,"conversation":"a"}"#, Some("a")),
            (r#"{"conversation":{"id":"a"}}"#, Some("a")),
            (r#"{"conversation":{"x":{"id":"b"},"y":[{"id":"c"}],"id":"a"}}"#, Some("a")),
            (r#"{"conversation":[{"id":"b"}],"id":"c"}"#, None),
            (r#"{"conversation":{"x":1},"id":"b"}"#, None),
            (r#"{"input":[{"conversation":"b"}]}"#, None),
        ] {
            assert_eq!(in_json(text, REFERENCE).as_deref(), wanted, "{text}");
        }
    }

    #[test]
    fn an_event_has_it_as_its_own_or_in_its_response() {
        let created = r#"{"type":"response.created","response":{"tools":[{"id":"b"}],"id":"a"}}"#;
        for (text, wanted) in [
            (format!("event: response.created\ndata: {created}\n\n"), Some("a")),
            (format!(":x\r\n\r\nid: 0\r\ndata:{created}\r\n\r\n"), Some("a")),
            (format!("data: {{\"x\":1}}\rdata: {created}\r\r"), Some("a")),
            ("data: {\"id\":\"a\",\"object\":\"thread.run\"}\n\n".to_owned(), Some("a")),
            ("data\ndata: [DONE]\n\n".to_owned(), None),
            ("xdata: {\"id\":\"b\"}\n\n".to_owned(), None),
            ("data: {\"id\":\ndata: \"b\"}\n\n".to_owned(), None),
            ("dat: {\"id\":\"b\"}\n\n".to_owned(), None),
        ] {
            assert_eq!(in_events(&text).as_deref(), wanted, "{text}");
        }
    }
}
