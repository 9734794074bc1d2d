//! `smg check`: says what is wrong with a configuration file, without starting anything.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Args, Command};

use super::check_module;
use crate::config::file::{ParseError, Unset};
use crate::config::{Config, file};

/// What a file with problems ends the process with.
const HAS_PROBLEMS: u8 = 2;

/// The flags that a file may set. The environment has no say in whether it is right.
fn command() -> Command {
    Config::augment_args(Command::new("smg")).mut_args(|arg| arg.env(Resettable::Reset))
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Check {
    pub fn run(self) -> ExitCode {
        let line = ["smg".into(), "--config".into(), self.file.clone().into_os_string()];
        match file::parse(command(), &line, check_module, Unset::Note) {
            Ok((_, file)) => {
                if let Some(notes) = file.map(|file| file.notes).filter(|notes| !notes.is_empty()) {
                    eprintln!("{notes}");
                }
                println!("{}: ok", self.file.display());
                return ExitCode::SUCCESS;
            }
            Err(ParseError::File(problems)) => eprintln!("{problems}"),
            Err(ParseError::CommandLine(error)) => eprint!("{error}"),
        }
        ExitCode::from(HAS_PROBLEMS)
    }
}
