//! Heads of HTTP/1 messages, as they came: order, case and repetition kept, bytes shown as Latin-1.

/// Header fields in the order and case in which they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The field's only value; `None` if it is absent, a panic if it is repeated.
    #[track_caller]
    pub fn get(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} is repeated: {all:?}");
        all.first().copied()
    }

    /// Each value of the field, in order.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(n, _): &&(String, String)| n.eq_ignore_ascii_case(name);
        self.0.iter().filter(same).map(|(_, v)| v.as_str()).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Reads header lines; `Err` says which line is none.
    pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self, String> {
        lines.map(field).collect::<Result<_, _>>().map(Headers)
    }
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or(format!("no colon in {line:?}"))?;
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!("bad field name in {line:?}"));
    }
    let value = value.trim_matches([' ', '\t']);
    if value.contains(|c: char| c != '\t' && c.is_control() && (c as u32) < 0x80) {
        return Err(format!("control character in {line:?}"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// A message head: its first line and its fields.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub line: String,
    pub headers: Headers,
    pub raw: String,
}

impl Head {
    /// Parses strictly: CRLF only, no folding. `raw` ends with the empty line.
    pub fn parse(raw: &[u8]) -> Result<Self, String> {
        let raw = latin1(raw);
        let text = raw.strip_suffix("\r\n\r\n").ok_or("no empty line at the end")?;
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = Headers::parse(lines)?;
        Ok(Head { line, headers, raw })
    }
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

impl Framing {
    /// What the fields say; `otherwise` when they say nothing. Both fields at once, or a value of either that
    /// is not plain, is an error: a proxy must never send that on.
    pub fn of(headers: &Headers, otherwise: Framing) -> Result<Framing, String> {
        let (lengths, codings) = (headers.all("content-length"), headers.all("transfer-encoding"));
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(otherwise),
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(Framing::Chunked),
            ([length], []) if length.bytes().all(|b| b.is_ascii_digit()) => {
                length.parse().map(Framing::Length).map_err(|e| format!("content-length {length:?}: {e}"))
            }
            _ => Err(format!("ambiguous framing: content-length {lengths:?}, transfer-encoding {codings:?}")),
        }
    }
}

/// Bytes as text, one character for each.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| b as char).collect()
}
