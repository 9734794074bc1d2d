//! The keys that are flags too. A value goes through clap's own parser of the flag, so what a flag takes is written
//! once, where the flag is.
//!
//! A value from the file becomes the flag's default: command line, then environment, then file, then built-in
//! default is clap's own order. clap does not ask of defaults what else must be there, so that is asked here; flags
//! that need each other must both be in the file, or neither.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Args, Command};

use super::decode::NO_VALUE;
use super::hint::hint;
use super::node::{Entry, Node, Value};
use super::problem::{Path, Problem, Report};
use crate::config::Config;

/// A file can't name another one.
const COMMAND_LINE_ONLY: [&str; 1] = ["config"];

/// What a file says of the flags: each one's values, all of them valid.
#[derive(Clone, Default)]
pub struct Flags(BTreeMap<String, Vec<String>>);

/// Every flag, without its environment variable, which has no say in whether a file is right.
pub(super) struct Known(Command);

impl Known {
    pub fn new() -> Self {
        let command = Config::augment_args(Command::new("smg").no_binary_name(true));
        Self(command.mut_args(|arg| arg.env(Resettable::Reset).required(false)))
    }

    /// The flags that a file may set.
    pub fn flags(&self) -> impl Iterator<Item = &Arg> {
        let is_key = |arg: &&Arg| match arg.get_action() {
            ArgAction::Set | ArgAction::Append | ArgAction::SetTrue => {
                arg.get_long().is_some_and(|long| !COMMAND_LINE_ONLY.contains(&long))
            }
            _ => false,
        };
        self.0.get_arguments().filter(is_key)
    }

    pub fn keys(&self) -> Vec<String> {
        self.flags().filter_map(Arg::get_long).map(key_of).collect()
    }

    /// The flag of a key, and its long name.
    fn flag(&self, key: &str) -> Option<(&Arg, &str)> {
        self.flags().filter_map(|arg| Some((arg, arg.get_long()?))).find(|(_, long)| key_of(long) == key)
    }

    /// Takes a key over if it is a flag; reports what is wrong with its values.
    pub fn take(&self, entry: &Entry, document: &Node, flags: &mut Flags, report: &mut Report) -> Taken {
        let Some((flag, long)) = self.flag(&entry.key) else { return Taken::NotAFlag };
        let path = Path::Key(&Path::Root, &entry.key);
        let nodes = match &entry.node.value {
            Value::List(nodes) if takes_many(flag) => {
                self.check(flag, nodes, &|index| Path::Item(&path, index), report);
                nodes.as_slice()
            }
            _ => {
                let nodes = std::slice::from_ref(&entry.node);
                self.check(flag, nodes, &|_| path, report);
                nodes
            }
        };
        let values = nodes.iter().filter_map(Node::text);
        for key in self.needs(flag, values.clone().next()).iter().filter(|key| document.get(key).is_none()) {
            report.add(Problem::new(entry.line, path, format_args!("it needs `{key}` beside it")));
        }
        let values = values.flat_map(|value| parts(flag, value));
        flags.0.insert(long.to_owned(), values.collect());
        Taken::Flag
    }

    /// Reports the values that are wrong. A command line costs as much as many values on it, so a right list takes
    /// one, and a wrong one is halved until the mistakes are found.
    fn check<'p>(&self, flag: &Arg, nodes: &[Node], path: &dyn Fn(usize) -> Path<'p>, report: &mut Report) {
        let values: Result<Vec<&str>, String> = nodes.iter().map(|node| self.scalar(flag, node)).collect();
        let Err(why) = values.and_then(|values| self.parse(flag, &values)) else { return };
        if report.is_full() {
            return;
        }
        match nodes {
            [] => {}
            [node] => report.add(Problem::new(node.line, path(0), why)),
            _ => {
                let half = nodes.len() / 2;
                self.check(flag, &nodes[..half], path, report);
                self.check(flag, &nodes[half..], &|index| path(half + index), report);
            }
        }
    }

    /// The text of one value.
    fn scalar<'n>(&self, flag: &Arg, node: &'n Node) -> Result<&'n str, String> {
        match node.text() {
            Some(_) if node.is_null() => Err(NO_VALUE.to_owned()),
            Some(text) => Ok(text),
            None if takes_many(flag) => Err("it must be a list of strings".to_owned()),
            None => Err(self.not_one(flag, node)),
        }
    }

    /// What to say of a list where one value is wanted: the value, if the list's items make one.
    fn not_one(&self, flag: &Arg, node: &Node) -> String {
        let Value::List(items) = &node.value else { return "it must be one value, not a map".to_owned() };
        let meant: Option<Vec<&str>> = items.iter().map(Node::text).collect();
        let meant = meant.map(|items| items.join(",")).filter(|meant| !is_secret(flag) && !meant.is_empty());
        match meant.filter(|meant| self.parse(flag, &[meant]).is_ok()) {
            Some(meant) => format!("it must be one value, not a list: `{meant}`"),
            None => "it must be one value, not a list".to_owned(),
        }
    }

    /// The keys that must be there when this flag is.
    fn needs(&self, flag: &Arg, value: Option<&str>) -> Vec<String> {
        let (Some(long), Some(value)) = (flag.get_long(), value) else { return Vec::new() };
        let line = match flag.get_action() {
            ArgAction::SetTrue if value == "true" => format!("--{long}"),
            ArgAction::SetTrue => return Vec::new(),
            _ => format!("--{long}={value}"),
        };
        let error = match self.0.clone().try_get_matches_from([line]) {
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => error,
            _ => return Vec::new(),
        };
        match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::Strings(names)) => names.iter().filter_map(|name| long_in(name)).map(key_of).collect(),
            _ => Vec::new(),
        }
    }

    /// Asks clap, with a command line that has nothing but these values.
    fn parse(&self, flag: &Arg, values: &[&str]) -> Result<(), String> {
        if matches!(flag.get_action(), ArgAction::SetTrue) {
            return match values {
                ["true" | "false"] => Ok(()),
                _ => Err(format!("it must be true or false, not `{}`", values.join(" "))),
            };
        }
        let long = flag.get_long().unwrap_or_default();
        let line = values.iter().map(|value| format!("--{long}={value}"));
        match self.0.clone().try_get_matches_from(line) {
            Ok(_) => Ok(()),
            // What other flags must be there is not this value's fault.
            Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => Ok(()),
            Err(error) => Err(reason(flag, values, &error)),
        }
    }
}

/// The flag's long name, from how clap writes it: `--long <VALUE>`.
fn long_in(named: &str) -> Option<&str> {
    named.strip_prefix("--").and_then(|named| named.split([' ', '=', '[']).next())
}

/// clap checks that a default is valid before it takes it apart.
fn parts(flag: &Arg, value: &str) -> Vec<String> {
    match flag.get_value_delimiter() {
        Some(delimiter) => value.split(delimiter).map(str::to_owned).collect(),
        None => vec![value.to_owned()],
    }
}

/// Whether a key is a flag.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Flag,
    NotAFlag,
}

impl Flags {
    /// The command with the file's values in place of the built-in defaults.
    #[must_use]
    pub fn as_defaults(&self, command: Command) -> Command {
        command.mut_args(|arg| match arg.get_long().and_then(|long| self.0.get(long)) {
            Some(values) => {
                let is_secret = is_secret(&arg);
                arg.default_values(values.clone()).required(false).hide_default_value(is_secret)
            }
            None => arg,
        })
    }
}

/// Some of the values are secrets.
impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

pub(super) fn key_of(long: &str) -> String {
    long.replace('-', "_")
}

pub(super) fn takes_many(flag: &Arg) -> bool {
    let is_many = flag.get_num_args().is_some_and(|range| range.max_values() > 1);
    is_many || matches!(flag.get_action(), ArgAction::Append)
}

/// A flag whose value is hidden in the help must not be shown anywhere else.
fn is_secret(flag: &Arg) -> bool {
    flag.is_hide_env_values_set()
}

/// What is wrong with a value, without the name of the flag, which the path says.
fn reason(flag: &Arg, values: &[&str], error: &clap::Error) -> String {
    let why = error.source().map(ToString::to_string);
    let value = values.join(", ");
    if is_secret(flag) {
        let why = why.filter(|why| !values.iter().any(|value| why.contains(value)));
        return why.unwrap_or_else(|| "its value is not valid".to_owned());
    }
    if let Some(ContextValue::Strings(names)) = error.get(ContextKind::ValidValue).filter(|_| why.is_none()) {
        let hint = hint(&value, names.iter().map(String::as_str));
        return format!("it must be one of {}, not `{value}`{hint}", names.join(", "));
    }
    match why {
        Some(why) if why.starts_with("it must") || why.contains(&value) => why,
        Some(why) => format!("`{value}` is not valid: {why}"),
        None => format!("`{value}` is not valid"),
    }
}

/// Takes the value out of an error about a secret flag, wherever the value came from.
pub fn hide_secrets(command: &Command, error: clap::Error) -> clap::Error {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else { return error };
    let long = long_in(named);
    let commands = std::iter::once(command).chain(command.get_subcommands());
    let mut flags = commands.flat_map(Command::get_arguments);
    let Some(flag) = flags.find(|flag| long.is_some() && flag.get_long() == long && is_secret(flag)) else {
        return error;
    };
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    // There is nothing to hide, and clap says that it is missing.
    if value.is_empty() && error.kind() == ErrorKind::InvalidValue {
        return error;
    }
    let why = reason(flag, &[value], &error);
    clap::Error::raw(error.kind(), format!("{named}: {why}\n"))
}
