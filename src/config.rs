//! What an operator can set. The structs here are what was typed, already in the types the program uses;
//! every option has its default, its unit and its environment variable in one place.

mod access;
mod admission;
mod dns_server;
pub mod environment;
pub mod file;
mod limits;
mod listen;
mod listen_address;
mod log;
mod retries;
mod secret;
mod tls;
mod traces;
pub mod value;
mod wasm;
mod watch;
mod worker_url;
mod workers;

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

pub use self::access::Access;
pub use self::admission::Admission;
pub use self::dns_server::DnsServer;
pub use self::limits::Limits;
pub use self::listen::Listen;
pub use self::listen_address::ListenAddress;
pub use self::log::Log;
pub use self::retries::{Breakers, Retries};
pub use self::secret::Secret;
pub use self::tls::Tls;
pub use self::traces::Traces;
pub use self::wasm::{FailurePolicy, GuestLimits, ModuleFile, Wasm};
pub use self::watch::{Cause, Watch};
pub use self::worker_url::{Scheme, TargetError, WorkerUrl, WorkerUrls};
pub use self::workers::{Policy, UpstreamReuse, Workers};

/// The lists of a configuration file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sections {
    pub listeners: Vec<file::Listener>,
    pub certificates: Vec<file::Certificate>,
    pub pools: Vec<file::Pool>,
    pub routes: Vec<file::Route>,
    pub modules: Vec<file::Module>,
    pub keys: Vec<file::Key>,
}

/// Everything a gateway needs to run.
#[derive(Debug, Clone, Args)]
pub struct Config {
    /// YAML file that says what the flags leave open; SIGHUP and changes reload it
    #[arg(long, env = "SMG_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What only a file can say.
    #[arg(skip)]
    pub sections: Sections,
    /// Of the file, as it was read.
    #[arg(skip)]
    pub digest: Option<file::FileDigest>,
    /// Environment variables that the file names.
    #[arg(skip)]
    pub variables: BTreeSet<String>,
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub tls: Tls,
    #[command(flatten)]
    pub workers: Workers,
    #[command(flatten)]
    pub retries: Retries,
    #[command(flatten)]
    pub breakers: Breakers,
    #[command(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    pub admission: Admission,
    #[command(flatten)]
    pub access: Access,
    #[command(flatten)]
    pub wasm: Wasm,
    #[command(flatten)]
    pub log: Log,
    #[command(flatten)]
    pub traces: Traces,
}

impl Config {
    /// Takes over what only a file can say.
    pub fn read(&mut self, file: file::FileConfig) {
        self.sections = file.sections;
        self.digest = Some(file.digest);
        self.variables = file.variables;
    }

    /// Whether there is a key of any kind that callers may present.
    pub fn has_keys(&self) -> bool {
        self.access.admin_key.is_some() || self.access.api_key.is_some() || !self.sections.keys.is_empty()
    }
}

#[cfg(test)]
impl Config {
    /// What these flags mean.
    pub fn of(flags: &[&str]) -> Self {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            config: Config,
        }
        <Line as clap::Parser>::parse_from(["smg"].iter().chain(flags)).config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_may_have_a_unit() {
        let command = Config::augment_args(clap::Command::new("smg"));
        let mut sizes = 0;
        for arg in command.get_arguments() {
            let is_size = arg.get_value_names().is_some_and(|names| names.iter().any(|name| *name == "BYTES"));
            if !is_size {
                continue;
            }
            let long = arg.get_long().expect("sizes have a long name");
            let typed = ["smg".to_owned(), format!("--{long}=1MiB")];
            let parsed = Config::augment_args(clap::Command::new("smg")).try_get_matches_from(typed);
            assert!(parsed.is_ok(), "--{long}: {}", parsed.expect_err("it is an error"));
            sizes += 1;
        }
        assert!(sizes >= 4, "{sizes}");
    }
}
