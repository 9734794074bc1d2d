//! Answers over HTTP/2, checked while they come.

use super::h2_frames::{Code, Frame};
use super::hpack;
use super::message::{Headers, latin1};

/// How a stream stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamEnd {
    /// More may come.
    #[default]
    Open,
    /// Whole, as END_STREAM says.
    Clean,
    Reset(Code),
    /// The connection ended first, or a GOAWAY says that the stream was never looked at.
    Lost,
}

/// What has come of an answer. `status` is 0 before its head.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    pub trailers: Headers,
    pub interim: Vec<u16>,
    pub end: StreamEnd,
    /// A reset after the end, which tells the client to stop its upload.
    pub reset_after: Option<Code>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    /// Asserts that the request was refused: answered with one of `statuses`, or not at all.
    #[track_caller]
    pub fn assert_refused(&self, statuses: &[u16]) {
        let refused = matches!(self.end, StreamEnd::Reset(_) | StreamEnd::Lost) && self.status == 0;
        assert!(refused || statuses.contains(&self.status), "{self:?}");
    }

    /// Takes a header block: a head, interim or final, or trailers.
    #[track_caller]
    pub(super) fn take_block(&mut self, head: &Frame, block: &[u8]) {
        assert!(!head.has(Frame::PADDED | Frame::PRIORITISED), "neither is asked for");
        assert_eq!(self.end, StreamEnd::Open, "{head:?} out of order");
        let fields = hpack::decode(block).unwrap_or_else(|e| panic!("{e} in {head:?}"));
        let fields: Vec<_> = fields.iter().map(|(name, value)| (latin1(name), latin1(value))).collect();
        let ends = head.has(Frame::END_STREAM);
        match &fields[..] {
            [(name, status), rest @ ..] if name == ":status" => {
                assert_eq!(self.status, 0, "a second head");
                let status = status.parse().expect("a status is a number");
                if (100..200).contains(&status) {
                    assert!(!ends, "an interim answer ends nothing");
                    self.interim.push(status);
                } else {
                    (self.status, self.headers) = (status, headers(rest));
                }
            }
            rest => {
                assert!(ends && self.status >= 200, "no status in {fields:?}");
                self.trailers = headers(rest);
            }
        }
        if ends {
            self.finish();
        }
    }

    #[track_caller]
    pub(super) fn take_data(&mut self, frame: &Frame) {
        assert!(!frame.has(Frame::PADDED), "no padding is asked for");
        assert!(self.status >= 200 && self.end == StreamEnd::Open, "{frame:?} out of order");
        self.body.extend(&frame.payload);
        if frame.has(Frame::END_STREAM) {
            self.finish();
        }
    }

    pub(super) fn take_reset(&mut self, code: Code) {
        match self.end {
            StreamEnd::Open => self.end = StreamEnd::Reset(code),
            _ => self.reset_after = Some(code),
        }
    }

    /// Where a length was promised and a body came, they agree (RFC 9113 section 8.1.1).
    fn finish(&mut self) {
        let length = self.headers.get("content-length").map(|length| length.parse().expect("a number"));
        assert!(self.body.is_empty() || length.is_none_or(|l: usize| l == self.body.len()), "{self:?}");
        self.end = StreamEnd::Clean;
    }
}

/// Fields as RFC 9113 section 8.2 wants them.
fn headers(fields: &[(String, String)]) -> Headers {
    for (name, value) in fields {
        assert!(!name.contains(|c: char| c.is_ascii_uppercase() || c == ':'), "{name:?} is no field name");
        assert!(!value.contains(['\r', '\n', '\0']), "{name}: {value:?}");
        let hop_by_hop = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];
        assert!(!hop_by_hop.contains(&name.as_str()), "{name}: {value} belongs to a connection of HTTP/1.1");
    }
    let lines: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    Headers::parse(lines.iter().map(String::as_str)).unwrap_or_else(|e| panic!("{e}"))
}
