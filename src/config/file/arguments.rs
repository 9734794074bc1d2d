//! The command line and the file that it names, as one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use super::flags::hide_secrets;
use super::problem::{Problem, Problems, Report, Unset};
use super::{FileConfig, Module, load, together};
use crate::config::Wasm;

/// The flag that names the file, and its id.
const CONFIG: &str = "config";

/// Says everything that is wrong with a module object, where these settings bound what a module may ask for.
pub type CheckModule = fn(&Module, &Wasm) -> Vec<Problem>;

/// Why there is nothing to start with.
#[derive(Debug)]
pub enum ParseError {
    /// What to print, of help too.
    CommandLine(clap::Error),
    /// Every problem of the file.
    File(Problems),
}

impl From<clap::Error> for ParseError {
    fn from(error: clap::Error) -> Self {
        Self::CommandLine(error)
    }
}

/// What to print, with exit code 2 if it is an error.
impl From<ParseError> for clap::Error {
    fn from(error: ParseError) -> Self {
        match error {
            ParseError::CommandLine(error) => error,
            ParseError::File(problems) => {
                let text = format!("the configuration file has mistakes\n{problems}\n");
                clap::Error::raw(ErrorKind::ValueValidation, text)
            }
        }
    }
}

/// Parses a command line; a file that it or the environment names says the defaults. For a reload, call it again
/// with the same command line.
pub fn parse(
    command: Command,
    arguments: &[OsString],
    check: CheckModule,
    unset: Unset,
) -> Result<(ArgMatches, Option<FileConfig>), ParseError> {
    let alone = matches(command.clone(), arguments)?;
    let Some(path) = of_command(&alone).try_get_one::<PathBuf>(CONFIG).ok().flatten() else {
        return Ok((alone, None));
    };
    let mut report = Report::new(unset);
    let Some(mut file) = load(path, &mut report) else { return Err(ParseError::File(report.problems(path))) };
    let takes_file = |command: &Command| command.get_arguments().any(|arg| arg.get_id() == CONFIG);
    let with_file = |command: Command| match takes_file(&command) {
        true => file.flags.as_defaults(command),
        false => command,
    };
    let merged = matches(with_file(command).mut_subcommands(with_file), arguments);
    // Where the file's flags are wrong, those without it have to do.
    together::check(&file, of_command(merged.as_ref().unwrap_or(&alone)), check, &mut report)?;
    match report.is_empty() {
        true => {
            file.notes = report.problems(path);
            Ok((merged?, Some(file)))
        }
        false => Err(ParseError::File(report.problems(path))),
    }
}

fn matches(mut command: Command, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let matches = command.try_get_matches_from_mut(arguments);
    matches.map_err(|error| hide_secrets(&command, error))
}

/// Of the command that was asked for: other commands are not to fail because the environment names a file.
fn of_command(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, matches)| matches)
}
