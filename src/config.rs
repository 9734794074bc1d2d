//! What an operator can set. The structs here are what was typed, already in the types the program uses;
//! every option has its default, its unit and its environment variable in one place.

mod worker_url;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use http::header::HeaderName;

pub use self::worker_url::{WorkerUrl, WorkerUrls};

/// Everything a gateway needs to run.
#[derive(Debug, Clone, Args)]
pub struct Config {
    #[command(flatten)]
    pub listen: Listen,
    #[command(flatten)]
    pub workers: Workers,
    #[command(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    pub access: Access,
    #[command(flatten)]
    pub wasm: Wasm,
    #[command(flatten)]
    pub log: Log,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct Listen {
    /// Address to listen on
    #[arg(long, env = "SMG_HOST", default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub host: IpAddr,
    /// Port of the data plane and the admin API; 0 takes a free one
    #[arg(long, env = "SMG_PORT", default_value_t = 30000)]
    pub port: u16,
    /// Data-plane threads [default: one for each core]
    #[arg(long, env = "SMG_SHARDS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: Option<u16>,
    /// Address of the second listener for /metrics, when --prometheus-port is given
    #[arg(long, env = "SMG_PROMETHEUS_HOST", default_value = "0.0.0.0", value_name = "ADDRESS")]
    pub prometheus_host: IpAddr,
    /// Serve /metrics, to everybody who can connect, on this port too
    #[arg(long, env = "SMG_PROMETHEUS_PORT", value_name = "PORT")]
    pub prometheus_port: Option<u16>,
    /// Time that requests in flight get to finish after SIGTERM
    #[arg(long, env = "SMG_SHUTDOWN_GRACE_PERIOD_SECS", default_value = "180", value_name = "SECONDS", value_parser = seconds)]
    pub shutdown_grace_period_secs: Duration,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
pub struct Workers {
    /// Model servers, as http://HOST:PORT; several with spaces, commas or by repeating the option
    #[arg(long = "worker-urls", env = "SMG_WORKER_URLS", value_name = "URL", num_args = 1..)]
    pub worker_urls: Vec<WorkerUrls>,
    /// How a worker is chosen
    #[arg(long, env = "SMG_POLICY", value_enum, default_value_t = Policy::PowerOfTwo)]
    pub policy: Policy,
    /// Close idle connections to workers after this time; stay below the workers' own keep-alive
    #[arg(long, env = "SMG_UPSTREAM_POOL_IDLE_TIMEOUT_SECS", default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    pub upstream_pool_idle_timeout_secs: Duration,
    /// Failed checks in a row that take a worker out
    #[arg(long, env = "SMG_HEALTH_FAILURE_THRESHOLD", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub health_failure_threshold: u32,
    /// Passed checks in a row that bring it back
    #[arg(long, env = "SMG_HEALTH_SUCCESS_THRESHOLD", default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub health_success_threshold: u32,
    /// Time a check may take
    #[arg(long, env = "SMG_HEALTH_CHECK_TIMEOUT_SECS", default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub health_check_timeout_secs: Duration,
    /// Time between two checks of a worker
    #[arg(long, env = "SMG_HEALTH_CHECK_INTERVAL_SECS", default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub health_check_interval_secs: Duration,
    /// Path that is asked; any status below 500 passes
    #[arg(long, env = "SMG_HEALTH_CHECK_ENDPOINT", default_value = "/health", value_name = "PATH", value_parser = origin_form)]
    pub health_check_endpoint: String,
    /// Take every worker as healthy, without asking
    #[arg(long, env = "SMG_DISABLE_HEALTH_CHECK")]
    pub disable_health_check: bool,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Time for a whole request, to the last byte of its answer
    #[arg(long, env = "SMG_REQUEST_TIMEOUT_SECS", default_value = "1800", value_name = "SECONDS", value_parser = seconds)]
    pub request_timeout_secs: Duration,
    /// Largest request body; 413 above
    #[arg(long, env = "SMG_MAX_PAYLOAD_SIZE", default_value_t = 536_870_912, value_name = "BYTES")]
    pub max_payload_size: u64,
    /// Time a client has to send a request's head
    #[arg(long, env = "SMG_HEADER_READ_TIMEOUT_SECS", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub header_read_timeout_secs: Duration,
    /// Time a client's connection may stay idle between requests
    #[arg(long, env = "SMG_IDLE_CONNECTION_TIMEOUT_SECS", default_value = "90", value_name = "SECONDS", value_parser = seconds)]
    pub idle_connection_timeout_secs: Duration,
    /// Request headers that may carry the request's id; the first that is present wins
    #[arg(
        long, env = "SMG_REQUEST_ID_HEADERS", value_name = "NAME", num_args = 1.., value_delimiter = ',',
        default_values = ["x-request-id", "x-correlation-id", "x-trace-id", "request-id"],
    )]
    pub request_id_headers: Vec<HeaderName>,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Access")]
pub struct Access {
    /// Key that callers must send as `Authorization: Bearer KEY`; also admits to the admin API
    #[arg(long, env = "SMG_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<Secret>,
    /// Key for the admin API; without any key it answers only this machine
    #[arg(long, env = "SMG_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    pub admin_key: Option<Secret>,
}

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
    #[arg(long, env = "SMG_WASM_MAX_STACK_SIZE", default_value_t = 1_048_576, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(16_384..=67_108_864))]
    pub wasm_max_stack_size: u32,
    /// Largest body that is shown to a guest
    #[arg(long, env = "SMG_WASM_MAX_BODY_SIZE", default_value_t = 10_485_760, value_name = "BYTES")]
    pub wasm_max_body_size: u64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct Log {
    /// off, error, warn, info (one line for each request), debug, trace; or a filter such as warn,smg::guest=info
    #[arg(long, env = "SMG_LOG_LEVEL", default_value = "info", value_name = "LEVEL", value_parser = log_filter)]
    pub log_level: String,
    /// One JSON object a line
    #[arg(long, env = "SMG_LOG_JSON")]
    pub log_json: bool,
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

/// How a worker is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Policy {
    /// One after the other
    RoundRobin,
    /// Any
    Random,
    /// The less loaded of two random ones
    PowerOfTwo,
    /// The one with the fewest requests in flight
    LeastLoad,
}

/// Policy names of the peer gateway that are not offered yet, for a message that says so.
pub const LATER_POLICIES: [&str; 6] =
    ["cache_aware", "passthrough", "manual", "consistent_hashing", "prefix_hash", "bucket"];

/// A value that is compared, never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The bytes, to compare in constant time.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("a key must not be empty"),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err("a key is visible ASCII without spaces"),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl Workers {
    /// The workers in the order given, each once.
    pub fn urls(&self) -> Vec<WorkerUrl> {
        let mut urls: Vec<WorkerUrl> = Vec::new();
        for url in self.worker_urls.iter().flat_map(|value| &value.0) {
            if !urls.contains(url) {
                urls.push(url.clone());
            }
        }
        urls
    }
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

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let wrong = "it must be a number of seconds greater than 0, such as 30 or 0.5";
    let seconds: f64 = text.parse().map_err(|_| wrong)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration >= Duration::from_millis(1) && seconds <= 1e9 => Ok(duration),
        _ => Err(wrong),
    }
}

fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    match text.parse::<u64>() {
        Ok(ms @ 1..=3_600_000) => Ok(Duration::from_millis(ms)),
        _ => Err("it must be a whole number of milliseconds from 1 to 3600000"),
    }
}

fn origin_form(text: &str) -> Result<String, &'static str> {
    let is_path = text.starts_with('/') && text.parse::<http::uri::PathAndQuery>().is_ok();
    if is_path { Ok(text.to_owned()) } else { Err("it must be a path that starts with /") }
}

fn log_filter(text: &str) -> Result<String, String> {
    // A filter takes any bare word for the name of a target.
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    if let Some(word) = text.split(',').find(|part| !part.contains('=') && !is_level(part)) {
        return Err(format!("`{word}` is not one of off, error, warn, info, debug, trace"));
    }
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(why) => Err(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let secret: Secret = "hunter2".parse().expect("a secret");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!("".parse::<Secret>().is_err());
    }

    #[test]
    fn times_take_fractions_and_refuse_nonsense() {
        assert_eq!(seconds("0.25"), Ok(Duration::from_millis(250)));
        for bad in ["0", "-1", "nan", "inf", "1e300", "x", ""] {
            assert!(seconds(bad).is_err(), "{bad}");
        }
    }
}
