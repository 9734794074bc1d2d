//! What can be asked for: `NAME` or `NAME:ARG`, several separated by `|`, done from left to right.
//!
//! Their edits add up. A behaviour that answers by itself (`reject`, `alias`, …) ends the list and drops the edits.
//!
//! A number is a status, an exit code, milliseconds, MiB (`leak-mb`), bytes (`body-size`, `big-header`, `claim`, `stdout`,
//! `random`) or how many there shall be (`headers`, `alias`, `pollables`, `poll`). What is found out is set as a header.
//! `body`, `remember`, `remove-header` and `bad-utf8` take TEXT, `set-header` and `add-header` NAME=VALUE:
//! in these `%XX` stands for any byte, so that CR, LF, NUL and `|` can be said. Spaces around a behaviour are dropped.

use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::edits::{self, Edits};
use crate::smg::gateway::middleware_types::Header;
use crate::{raw, resources, sandbox, state};

/// What the guest is shown of a request or a response.
pub struct Seen<'a> {
    /// Method, path, query and request id of a request, or the status of a response, separated by spaces.
    pub meta: String,
    pub headers: &'a [Header],
    pub body: &'a [u8],
}

pub enum Answer {
    Edit(Edits),
    Reject(u16),
    Raw(raw::Area),
}

/// An unknown behaviour, or an argument that is missing or no number.
#[derive(Debug, PartialEq, Eq)]
pub struct Misspelt;

/// Does everything that the lines of the header named `header` ask for.
pub fn run(header: &str, seen: &Seen) -> Result<Answer, Misspelt> {
    let mut edits = Edits::default();
    for line in seen
        .headers
        .iter()
        .filter(|line| line.name.eq_ignore_ascii_case(header))
    {
        for behaviour in line.value.split('|') {
            let (name, arg) = match behaviour.trim().split_once(':') {
                Some((name, arg)) => (name, Arg(Some(arg))),
                None => (behaviour.trim(), Arg(None)),
            };
            if let Some(answer) = one(name, arg, seen, &mut edits)? {
                return Ok(answer);
            }
        }
    }
    Ok(Answer::Edit(edits))
}

/// Does one thing: the list of all there is. Some never return; some answer for the whole call.
fn one(name: &str, arg: Arg, seen: &Seen, edits: &mut Edits) -> Result<Option<Answer>, Misspelt> {
    match name {
        // Time.
        "spin" => resources::spin(),
        "spin-ms" => resources::spin_for(arg.millis()?),
        "sleep-ms" => std::thread::sleep(arg.millis()?),

        // Ends of a guest.
        "trap" => std::process::abort(),
        "panic" => panic!("panicked as asked"),
        "exit" => std::process::exit(arg.number()?),
        "recurse" => resources::recurse(),

        // Memory.
        "grow" => resources::grow(),
        "leak-mb" => resources::leak_mib(arg.number()?),
        "gigabyte" => edits.body(resources::largest_body()),

        // Answers, good and bad.
        "reject" => return Ok(Some(Answer::Reject(arg.number()?))),
        "status" => edits.status(arg.number()?),
        "body" => edits.body(arg.bytes()?),
        "body-size" => edits.body(vec![b'b'; arg.number()?]),
        "set-header" => {
            let (name, value) = arg.pair()?;
            edits.set(name, value);
        }
        "add-header" => {
            let (name, value) = arg.pair()?;
            edits.add(name, value);
        }
        "remove-header" => edits.remove(arg.text()?),
        "headers" => edits.flood(arg.number()?),
        "big-header" => edits.set("x-big", "a".repeat(arg.number()?)),

        // Answers that break the canonical ABI, or bend it.
        "alias" => return Ok(Some(Answer::Raw(raw::alias(arg.number()?)))),
        "claim" => return Ok(Some(Answer::Raw(raw::claim(arg.number()?)))),
        "wild" => return Ok(Some(Answer::Raw(raw::wild()))),
        "misaligned" => return Ok(Some(Answer::Raw(raw::misaligned()))),
        "bad-utf8" => return Ok(Some(Answer::Raw(raw::bytes(arg.bytes()?)))),
        "variant" => return Ok(Some(Answer::Raw(raw::variant(arg.number()?)))),

        // What the host grants.
        "stdout" => sandbox::print(arg.number()?),
        "random" => edits.set("x-random", sandbox::random(arg.number()?)),
        "pollables" => edits.set("x-pollables", sandbox::keep_pollables(arg.number()?)),
        "poll" => edits.set("x-polled", sandbox::poll(arg.number()?)),
        "fs" => edits.set("x-fs", sandbox::files()),
        "env" => edits.set("x-env", sandbox::environment()),

        // What outlives a call.
        "remember" => state::remember(arg.text()?),
        "recall" => edits.set("x-recall", state::recall()),
        "count" => edits.set("x-count", state::count()),

        // What the guest is shown.
        "echo-headers" => edits.set("x-seen", edits::listed(seen.headers)),
        "echo-body" => {
            edits.set("x-body-len", seen.body.len().to_string());
            edits.set("x-body-sum", edits::sum(seen.body).to_string());
        }
        "meta" => edits.set("x-meta", seen.meta.clone()),

        _ => return Err(Misspelt),
    }
    Ok(None)
}

#[derive(Clone, Copy)]
struct Arg<'a>(Option<&'a str>);

impl Arg<'_> {
    fn number<T: FromStr>(self) -> Result<T, Misspelt> {
        self.0.and_then(|arg| arg.parse().ok()).ok_or(Misspelt)
    }

    fn millis(self) -> Result<Duration, Misspelt> {
        self.number().map(Duration::from_millis)
    }

    /// Percent-decoded; what is no valid escape stays as it is.
    fn bytes(self) -> Result<Vec<u8>, Misspelt> {
        self.0
            .map(|arg| percent_decode_str(arg).collect())
            .ok_or(Misspelt)
    }

    fn text(self) -> Result<String, Misspelt> {
        self.bytes()
            .and_then(|bytes| String::from_utf8(bytes).map_err(|_| Misspelt))
    }

    /// `NAME=VALUE`, split at the first `=`; an escaped one belongs to the name.
    fn pair(self) -> Result<(String, String), Misspelt> {
        let (name, value) = self.0.and_then(|arg| arg.split_once('=')).ok_or(Misspelt)?;
        Ok((Arg(Some(name)).text()?, Arg(Some(value)).text()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(line: &str) -> Result<Edits, Misspelt> {
        let headers = [Header {
            name: "X-Hostile".to_owned(),
            value: line.to_owned(),
        }];
        let seen = Seen {
            meta: "GET /a b=c r-1".to_owned(),
            headers: &headers,
            body: b"abc",
        };
        run("x-hostile", &seen).map(|answer| match answer {
            Answer::Edit(edits) => edits,
            _ => panic!("expected an edit of {line}"),
        })
    }

    #[test]
    fn edits_add_up() {
        let edits =
            edit("status:204 | set-header:a%0d=b=c|add-header:=|remove-header:%7C|echo-body|meta")
                .unwrap();
        let expected = [
            ("a\r", "b=c"),
            ("x-body-len", "3"),
            ("x-body-sum", "294"),
            ("x-meta", "GET /a b=c r-1"),
        ];
        assert_eq!(edits.set_lines(), expected);
    }

    #[test]
    fn any_byte_can_be_said() {
        let bytes = |arg| Arg(Some(arg)).bytes().unwrap();
        assert_eq!(bytes("a%0d%0A%00%7c%FFz"), b"a\r\n\0|\xffz");
        for text in ["", "%", "%4", "%zz", "100%", "a=b c"] {
            assert_eq!(bytes(text), text.as_bytes(), "{text}");
        }
    }

    #[test]
    fn without_the_header_nothing_happens() {
        let seen = Seen {
            meta: String::new(),
            headers: &[],
            body: b"",
        };
        assert!(
            matches!(run("x-hostile", &seen), Ok(Answer::Edit(edits)) if edits.set_lines().is_empty())
        );
    }

    #[test]
    fn a_rejection_ends_the_list() {
        let headers = [Header {
            name: "x-hostile".to_owned(),
            value: "count|reject:403|nonsense".to_owned(),
        }];
        let seen = Seen {
            meta: String::new(),
            headers: &headers,
            body: b"",
        };
        assert!(matches!(run("x-hostile", &seen), Ok(Answer::Reject(403))));
    }

    #[test]
    fn misspelt_behaviours_are_told() {
        for line in [
            "",
            "spinn",
            "status",
            "status:",
            "status:-1",
            "status:65536",
            "set-header:a",
            "set-header:a=%ff",
            "body",
            "count|",
        ] {
            assert_eq!(edit(line).err(), Some(Misspelt), "{line}");
        }
    }
}
