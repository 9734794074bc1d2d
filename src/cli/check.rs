//! `smg check`: says what is wrong with a configuration file, without starting anything.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::config::file;

/// What a file with problems ends the process with.
const HAS_PROBLEMS: u8 = 2;

#[derive(Debug, clap::Args)]
pub struct Check {
    /// Configuration file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl Check {
    pub fn run(self) -> ExitCode {
        match file::load(&self.file) {
            Ok(_) => {
                println!("{}: ok", self.file.display());
                ExitCode::SUCCESS
            }
            Err(problems) => {
                eprintln!("{problems}");
                ExitCode::from(HAS_PROBLEMS)
            }
        }
    }
}
