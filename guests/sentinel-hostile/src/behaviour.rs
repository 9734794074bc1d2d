//! What can be asked for, one name in the header `x-hostile`. Spaces around it are dropped.
//!
//! An unknown name gets a block with status 418: no test can pass by accident because a behaviour was misspelt.
//! Unless its line says otherwise, a behaviour that returns at all returns `{"decision":"allow"}`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::answer::Answer;
use crate::blocks::{Alloc, Dealloc};
use crate::{blocks, memory, resources};

/// Which of the two handlers is called.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Request,
    Response,
}

/// What the guest is shown.
pub struct Seen<'a> {
    side: Side,
    /// The input as it came.
    json: &'a str,
    headers: BTreeMap<String, String>,
    /// How many calls of either handler this instance has had, with this one.
    calls: u64,
}

#[derive(Deserialize)]
struct Input {
    headers: BTreeMap<String, String>,
}

impl<'a> Seen<'a> {
    /// # Panics
    ///
    /// When the input is not the JSON of the ABI.
    pub fn parse(side: Side, input: &'a [u8], calls: u64) -> Self {
        let json = std::str::from_utf8(input).expect("the input is UTF-8");
        let Input { headers } =
            serde_json::from_str(json).expect("the input is JSON, with headers");
        Self {
            side,
            json,
            headers,
            calls,
        }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The field that sets headers of what this handler is about.
    fn add_headers(&self) -> &'static str {
        match self.side {
            Side::Request => "add_request_headers",
            Side::Response => "add_response_headers",
        }
    }
}

/// Does what the header asks for: the list of all there is.
pub fn run(seen: &Seen) -> Answer {
    let Some(name) = seen.header("x-hostile").map(str::trim) else {
        return Answer::EMPTY;
    };
    match name {
        // Results that mean allow. The second has a length but no place, the third a place but no length.
        "empty" => return Answer::EMPTY,
        "null-pointer" => return Answer::Area { ptr: 0, len: 5 },
        "zero-length" => return Answer::bytes([]),

        // Results that are no place in memory.
        "length-max" => return at_start(0xffff_ffff),
        "past-end" => return area(memory::past_end(), 16),
        "straddle" => return area(memory::end() - 8, 16),
        "wrap" => return area(0xffff_fff0, 32),

        // Results that are no answer.
        "not-utf8" => return Answer::bytes(*b"{\"decision\":\"allow\",\"body\":\"\xff\"}"),
        "not-json" => return Answer::bytes("allow"),
        "no-decision" => return Answer::bytes(r#"{"tags":["hostile"]}"#),

        // Answers that cost. The depth is in a field that the host does not know.
        "deep" => return Answer::Bytes(deep(100_000)),
        "huge" => return Answer::Bytes(huge(8 << 20)),
        "tags-many" => return Answer::allow_with("tags", tags(1_000)),
        "headers-many" => return Answer::allow_with(seen.add_headers(), headers(10_000)),

        // Ends of a call, or none.
        "trap" => std::process::abort(),
        "loop" => resources::spin(),
        "stack" => resources::recurse(),

        // Memory. `leak-N` is N MiB. After `grow` the instance may have none left for its next input.
        "leak" => resources::leak_mib(64),
        "grow" => resources::grow(),

        // Memory management that fails: `alloc` once, at the next call, and `dealloc` from now on.
        "alloc-zero" => blocks::set_next_alloc(Alloc::Zero),
        "alloc-trap" => blocks::set_next_alloc(Alloc::Traps),
        "alloc-outside" => blocks::set_next_alloc(Alloc::Outside),
        "dealloc-trap" => blocks::set_dealloc(Dealloc::Traps),
        "dealloc-loop" => blocks::set_dealloc(Dealloc::Loops),

        // What outlives a call: how many calls there were, with this one, and blocks the host holds: one, its input.
        "count" => return Answer::allow_with(RESPONSE, one("x-count", seen.calls.to_string())),
        "held" => return Answer::allow_with(RESPONSE, one("x-held", blocks::count().to_string())),

        // What the guest is shown, and an answer made by the test.
        "echo" => {
            let name = match seen.side {
                Side::Request => "x-seen",
                Side::Response => "x-seen-response",
            };
            return Answer::allow_with(seen.add_headers(), one(name, as_header(seen.json)));
        }
        "reply" => {
            return match seen.header("x-reply") {
                Some(reply) => Answer::bytes(reply),
                None => teapot(),
            };
        }

        other => match other.strip_prefix("leak-").map(str::parse) {
            Some(Ok(count)) => resources::leak_mib(count),
            _ => return teapot(),
        },
    }
    Answer::allow()
}

const RESPONSE: &str = "add_response_headers";

fn teapot() -> Answer {
    Answer::bytes(r#"{"decision":"block","status":418,"body":"unknown behaviour"}"#)
}

fn area(ptr: usize, len: usize) -> Answer {
    Answer::Area { ptr, len }
}

/// A length that is too long for a place that is real.
fn at_start(len: usize) -> Answer {
    match Answer::allow() {
        Answer::Area { ptr, .. } => area(ptr, len),
        Answer::Bytes(_) => unreachable!("the answer that allows is static"),
    }
}

fn one(name: &str, value: String) -> Map<String, Value> {
    Map::from_iter([(name.to_owned(), value.into())])
}

fn tags(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("tag-{n}")).collect()
}

fn headers(count: usize) -> Map<String, Value> {
    (0..count)
        .map(|n| (format!("x-many-{n}"), n.to_string().into()))
        .collect()
}

fn deep(depth: usize) -> Vec<u8> {
    let (open, close) = ("[".repeat(depth), "]".repeat(depth));
    format!(r#"{{"decision":"allow","deep":{open}{close}}}"#).into_bytes()
}

/// An answer that allows, `len` bytes long.
fn huge(len: usize) -> Vec<u8> {
    let (start, end) = (r#"{"decision":"allow","body":""#, r#""}"#);
    let filler = "h".repeat(len - start.len() - end.len());
    [start, &filler, end].concat().into_bytes()
}

/// The same JSON in bytes that any header value may have.
fn as_header(json: &str) -> String {
    let mut line = String::new();
    for char in json.chars() {
        match char {
            ' '..='~' => line.push(char),
            // Between tokens; inside of strings they are escaped.
            '\t' | '\r' | '\n' => line.push(' '),
            // Only strings have such characters.
            _ => {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    line.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const INPUT: &str = r#"{"status":200,"correlation_id":"r-1",
        "headers":{"X-HOSTILE":" NAME ","x-reply":"{}","X-Odd":"é😀\n"}}"#;

    fn answer(side: Side, name: &str) -> Answer {
        let input = INPUT.replace("NAME", name);
        run(&Seen::parse(side, input.as_bytes(), 7))
    }

    fn bytes(side: Side, name: &str) -> Vec<u8> {
        match answer(side, name) {
            Answer::Bytes(bytes) => bytes,
            Answer::Area { .. } => panic!("expected bytes for {name}"),
        }
    }

    fn json(side: Side, name: &str) -> Value {
        serde_json::from_slice(&bytes(side, name)).unwrap()
    }

    #[test]
    fn without_the_header_the_result_is_zero() {
        let seen = Seen::parse(Side::Request, br#"{"headers":{}}"#, 1);
        assert_eq!(run(&seen).packed(), 0);
    }

    #[test]
    fn what_is_misspelt_is_no_behaviour() {
        for name in ["", "Trap", "leak-", "leak-x", "leak--1", "trap, trap"] {
            assert_eq!(json(Side::Request, name)["status"], 418, "{name}");
        }
    }

    #[test]
    fn answers_that_cost_are_as_large_as_they_say() {
        let huge = bytes(Side::Request, "huge");
        assert_eq!(huge.len(), 8 << 20);
        assert!(serde_json::from_slice::<Value>(&huge).is_ok());
        let deep = String::from_utf8(bytes(Side::Request, "deep")).unwrap();
        assert!(deep.contains(&format!(
            ":{}{}}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        )));
        let tags = json(Side::Response, "tags-many");
        assert_eq!(tags["tags"].as_array().unwrap().len(), 1_000);
        for (side, field) in [
            (Side::Request, "add_request_headers"),
            (Side::Response, "add_response_headers"),
        ] {
            let headers = json(side, "headers-many");
            assert_eq!(headers[field].as_object().unwrap().len(), 10_000);
        }
    }

    #[test]
    fn an_echo_is_the_input_on_one_line() {
        let input: Value = serde_json::from_str(&INPUT.replace("NAME", "echo")).unwrap();
        for (side, field, name) in [
            (Side::Request, "add_request_headers", "x-seen"),
            (Side::Response, "add_response_headers", "x-seen-response"),
        ] {
            let answer = json(side, "echo");
            let seen = answer[field][name].as_str().unwrap();
            assert!(seen.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            assert_eq!(serde_json::from_str::<Value>(seen).unwrap(), input);
        }
    }

    #[test]
    fn a_reply_is_verbatim() {
        assert_eq!(bytes(Side::Response, "reply"), b"{}");
    }

    #[test]
    fn calls_are_counted() {
        assert_eq!(
            json(Side::Request, "count")["add_response_headers"]["x-count"],
            "7"
        );
    }
}
