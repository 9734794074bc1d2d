//! The command line and the file that it names, as one.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Command};

use super::flags::hide_secrets;
use super::{FileConfig, load};

/// The flag that names the file, and its id.
const CONFIG: &str = "config";

/// Parses a command line; a file that it or the environment names says the defaults. For a reload, call it again
/// with the same command line.
///
/// # Errors
///
/// What to print, with exit code 2: about the command line, or every problem of the file.
pub fn parse(command: Command, arguments: &[OsString]) -> Result<(ArgMatches, Option<FileConfig>), clap::Error> {
    let matches = matches(command.clone(), arguments)?;
    let Some(path) = named_file(&matches) else { return Ok((matches, None)) };
    let file = load(&path).map_err(|problems| {
        let text = format!("the configuration file has mistakes\n{problems}\n");
        clap::Error::raw(ErrorKind::ValueValidation, text)
    })?;
    let takes_file = |command: &Command| command.get_arguments().any(|arg| arg.get_id() == CONFIG);
    let with_file = |command: Command| match takes_file(&command) {
        true => file.flags.as_defaults(command),
        false => command,
    };
    let matches = self::matches(with_file(command).mut_subcommands(with_file), arguments)?;
    Ok((matches, Some(file)))
}

fn matches(mut command: Command, arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    let matches = command.try_get_matches_from_mut(arguments);
    matches.map_err(|error| hide_secrets(&command, error))
}

/// Of the command that was asked for: other commands are not to fail because the environment names a file.
fn named_file(matches: &ArgMatches) -> Option<PathBuf> {
    let matches = matches.subcommand().map_or(matches, |(_, matches)| matches);
    matches.try_get_one::<PathBuf>(CONFIG).ok().flatten().cloned()
}
