//! Modules: whether they run, what a guest may use, and what is deployed at start.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::{bytes, milliseconds, stack_size};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "WebAssembly modules")]
pub struct Wasm {
    /// Run modules, and offer the admin API to deploy them
    #[arg(long, env = "SMG_ENABLE_WASM")]
    pub enable_wasm: bool,
    #[command(flatten)]
    pub guest: GuestLimits,
    /// Instances that a pooled module keeps, unless its deployment says otherwise
    #[arg(long, env = "SMG_WASM_POOL_SIZE", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub wasm_pool_size: u32,
    /// What a failing module does to its request, unless its deployment says otherwise
    #[arg(long, env = "SMG_WASM_ON_FAILURE", value_enum, default_value_t = FailurePolicy::Closed)]
    pub wasm_on_failure: FailurePolicy,
    /// Module to deploy at start, for both hooks it exports; the gateway doesn't start if it can't be
    #[arg(long, env = "SMG_WASM_MODULE", value_name = "NAME=FILE", num_args = 1.., value_delimiter = ',')]
    pub wasm_module: Vec<ModuleFile>,
    /// Keep compiled modules in this directory, which only the gateway's user can write to, for the next start
    #[arg(long, env = "SMG_WASM_CACHE_DIR", value_name = "DIRECTORY")]
    pub wasm_cache_dir: Option<PathBuf>,
    /// Deploy files from below this directory only [default: anywhere but system directories]
    #[arg(long, env = "SMG_WASM_MODULE_DIR", value_name = "DIRECTORY")]
    pub wasm_module_dir: Option<PathBuf>,
}

/// What one guest may use at most.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "WebAssembly modules")]
pub struct GuestLimits {
    /// Most memory of a guest, in pages of 64 KiB
    #[arg(long, env = "SMG_WASM_MAX_MEMORY_PAGES", default_value_t = 1024, value_name = "PAGES", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub wasm_max_memory_pages: u32,
    /// Longest a guest may take for one call, host calls included
    #[arg(long, env = "SMG_WASM_MAX_EXECUTION_TIME_MS", default_value = "1000", value_name = "MS", value_parser = milliseconds)]
    pub wasm_max_execution_time_ms: Duration,
    /// Most stack of a guest
    #[arg(long, env = "SMG_WASM_MAX_STACK_SIZE", default_value_t = 1_048_576, value_name = "BYTES", value_parser = stack_size)]
    pub wasm_max_stack_size: u32,
    /// Largest body that is shown to a guest
    #[arg(long, env = "SMG_WASM_MAX_BODY_SIZE", default_value_t = 10_485_760, value_name = "BYTES", value_parser = bytes)]
    pub wasm_max_body_size: u64,
}

/// What happens to a request when one of its guests fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailurePolicy {
    /// The request is answered with an error
    Closed,
    /// The request goes on as if the module were not there
    Open,
}

/// A module deployed at start: `NAME=FILE`.
#[derive(Debug, Clone)]
pub struct ModuleFile {
    pub name: String,
    pub file: PathBuf,
}

impl FromStr for ModuleFile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => {
                Ok(Self { name: name.to_owned(), file: PathBuf::from(file) })
            }
            _ => Err("it must be NAME=FILE"),
        }
    }
}
