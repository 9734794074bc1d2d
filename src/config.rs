//! What an operator can set. The structs here are what was typed, already in the types the program uses;
//! every option has its default, its unit and its environment variable in one place.

mod access;
mod admission;
mod dns_server;
mod limits;
mod listen;
mod log;
mod retries;
mod secret;
mod tls;
mod value;
mod wasm;
mod worker_url;
mod workers;

use clap::Args;

pub use self::access::Access;
pub use self::admission::Admission;
pub use self::dns_server::DnsServer;
pub use self::limits::Limits;
pub use self::listen::Listen;
pub use self::log::Log;
pub use self::retries::{Breakers, Retries};
pub use self::secret::Secret;
pub use self::tls::Tls;
pub use self::wasm::{FailurePolicy, GuestLimits, ModuleFile, Wasm};
pub use self::worker_url::{Scheme, WorkerUrl, WorkerUrls};
pub use self::workers::{Policy, Workers};

/// Everything a gateway needs to run.
#[derive(Debug, Clone, Args)]
pub struct Config {
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
