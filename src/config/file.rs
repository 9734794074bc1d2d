//! The configuration file: everything that the flags say, and lists that they can't.
//!
//! A key without a section of its own is the flag of the same name with `_` for `-`. Sections are structs, one file
//! for each. A file is taken whole or not at all, and every mistake in it is reported at once, with its line and path.
//! Paths of other files in it are relative to the working directory, as on the command line.

mod arguments;
mod brackets;
mod decode;
mod flags;
mod hint;
mod keys;
mod listeners;
mod modules;
mod node;
mod pools;
mod problem;
mod routes;
mod section;
mod together;
mod worker_keys;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path as FilePath;

use sha2::{Digest, Sha256};

use self::flags::{Known, Taken};
use self::hint::hint;
use self::keys::Environment;
use self::node::{Node, Value};
use self::problem::{Path, Report};
use self::together::Lines;

use super::{Sections, environment};

pub use self::arguments::{CheckModule, ParseError, parse};
pub use self::flags::Flags;
pub use self::hint::nearest;
pub use self::keys::{Key, KeyDigest, Role};
pub use self::listeners::{Certificate, Listener};
pub use self::modules::Module;
pub use self::pools::{Pool, PoolWorker};
pub use self::problem::{Problem, Problems, Unset};
pub use self::routes::{Route, RouteModules};

/// Bytes of the largest file.
pub const LARGEST: u64 = 1 << 20;

/// The keys that are no flags.
const SECTIONS: [&str; 6] = ["listeners", "certificates", "pools", "routes", "modules", "keys"];

/// What a file says, checked.
#[derive(Debug, Clone)]
pub struct FileConfig {
    pub flags: Flags,
    pub sections: Sections,
    /// Of the file's bytes, to see whether it changed.
    pub digest: FileDigest,
    /// Environment variables of ours that it names.
    pub variables: BTreeSet<String>,
    /// What is no mistake, but worth saying.
    pub notes: Problems,
    lines: Lines,
}

/// SHA-256 of a file's bytes.
pub type FileDigest = [u8; 32];

/// Reads a file. As with [`understand`], what comes of it is of use only if nothing was reported.
fn load(path: &FilePath, report: &mut Report) -> Option<FileConfig> {
    match read(path) {
        Ok(bytes) => {
            let asked = RefCell::<BTreeSet<String>>::default();
            let environment = |name: &str| {
                // Others are not ours to judge; some write a key itself where its variable belongs.
                if name.starts_with(environment::PREFIX) {
                    asked.borrow_mut().insert(name.to_owned());
                }
                std::env::var_os(name)
            };
            let file = understand(&bytes, &environment, report);
            file.map(|file| FileConfig { variables: asked.take(), ..file })
        }
        Err(error) => {
            report.add(Problem::new(0, "", format_args!("it can't be read: {error}")));
            None
        }
    }
}

/// The file's bytes, at most one more than it may have.
pub(super) fn read(path: &FilePath) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn digest(bytes: &[u8]) -> FileDigest {
    Sha256::digest(bytes).into()
}

/// Nothing, or something that is of use only if nothing was reported.
fn understand(bytes: &[u8], environment: Environment<'_>, report: &mut Report) -> Option<FileConfig> {
    if bytes.len() as u64 > LARGEST {
        report.add(Problem::new(0, "", format_args!("it is larger than {LARGEST} bytes")));
        return None;
    }
    let Ok(text) = str::from_utf8(bytes) else {
        report.add(Problem::new(0, "", "it is not UTF-8"));
        return None;
    };
    let document = Node::read(text, report)?;
    let flags = flags(&document, report);
    let sections = Sections {
        listeners: Listener::read(&document, report),
        certificates: Certificate::read(&document, report),
        pools: Pool::read(&document, environment, report),
        routes: Route::read(&document, report),
        modules: Module::read(&document, report),
        keys: Key::read(&document, environment, report),
    };
    Some(FileConfig {
        flags,
        sections,
        digest: digest(bytes),
        variables: BTreeSet::new(),
        notes: Problems::default(),
        lines: Lines::of(&document),
    })
}

/// The keys that are flags; reports those that are nothing.
fn flags(document: &Node, report: &mut Report) -> Flags {
    let mut flags = Flags::default();
    let entries = match &document.value {
        Value::Map(entries) => entries.as_slice(),
        _ if document.is_null() => &[],
        Value::List(_) | Value::Scalar { .. } => {
            report.add(Problem::new(document.line, "", "it must be a map of keys and values"));
            &[]
        }
    };
    let known = Known::new();
    for entry in entries.iter().filter(|entry| !SECTIONS.contains(&entry.key.as_str())) {
        if known.take(entry, document, &mut flags, report) == Taken::NotAFlag {
            let keys = known.keys();
            let hint = hint(&entry.key, keys.iter().map(String::as_str).chain(SECTIONS));
            let path = Path::Key(&Path::Root, &entry.key);
            report.add(Problem::new(entry.line, path, format_args!("no such key{hint}")));
        }
    }
    flags
}

#[cfg(test)]
mod tests;
