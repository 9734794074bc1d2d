//! The workers, how one is chosen, and how their health is checked.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::{origin_form, seconds, seconds_or_none};
use super::{DnsServer, Secret, WorkerUrl, WorkerUrls};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
pub struct Workers {
    /// Model servers, as http://HOST:PORT or https://HOST/PATH; several with spaces, commas or by repeating the option
    #[arg(long = "worker-urls", env = "SMG_WORKER_URLS", value_name = "URL", num_args = 1..)]
    pub worker_urls: Vec<WorkerUrls>,
    /// Key to send to workers as `Authorization: Bearer KEY`, in place of the client's key
    #[arg(long, env = "SMG_WORKER_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub worker_api_key: Option<Secret>,
    /// DNS servers for workers' names, as ADDRESS or ADDRESS:PORT [default: those of /etc/resolv.conf]
    #[arg(long, env = "SMG_DNS_SERVERS", value_name = "ADDRESS", num_args = 1.., value_delimiter = ',')]
    pub dns_servers: Vec<DnsServer>,
    /// How a worker is chosen
    #[arg(long, env = "SMG_POLICY", value_enum, default_value_t = Policy::CacheAware)]
    pub policy: Policy,
    /// Close idle connections to workers after this time; stay below the workers' own keep-alive
    #[arg(long, env = "SMG_UPSTREAM_POOL_IDLE_TIMEOUT_SECS", default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    pub upstream_pool_idle_timeout_secs: Duration,
    /// Which keep-alive connections to workers the first request on a client connection may use
    #[arg(long, env = "SMG_UPSTREAM_REUSE", value_enum, default_value_t = UpstreamReuse::Safe)]
    pub upstream_reuse: UpstreamReuse,
    /// Failed checks in a row that take a worker out; one is enough if a request's connection was refused, too
    #[arg(long, env = "SMG_HEALTH_FAILURE_THRESHOLD", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub health_failure_threshold: u32,
    /// Passed checks in a row that bring it back
    #[arg(long, env = "SMG_HEALTH_SUCCESS_THRESHOLD", default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub health_success_threshold: u32,
    /// Time a check may take
    #[arg(long, env = "SMG_HEALTH_CHECK_TIMEOUT_SECS", default_value = "5", value_name = "SECONDS", value_parser = seconds)]
    pub health_check_timeout_secs: Duration,
    /// Time between two checks of a worker; shorter while a change is being confirmed
    #[arg(long, env = "SMG_HEALTH_CHECK_INTERVAL_SECS", default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub health_check_interval_secs: Duration,
    /// Path that checks request; any status below 500 passes. Workers whose URL has a path get /v1/models
    #[arg(long, env = "SMG_HEALTH_CHECK_ENDPOINT", default_value = "/health", value_name = "PATH", value_parser = origin_form)]
    pub health_check_endpoint: String,
    /// Take every worker as healthy, without asking
    #[arg(long, env = "SMG_DISABLE_HEALTH_CHECK")]
    pub disable_health_check: bool,
    /// Time for which a worker that has never answered is waited for before that is an error
    #[arg(long, env = "SMG_WORKER_STARTUP_TIMEOUT_SECS", default_value = "1800", value_name = "SECONDS", value_parser = seconds)]
    pub worker_startup_timeout_secs: Duration,
    /// Longest time between two checks of a worker that has never answered; they begin with one each second
    #[arg(long, env = "SMG_WORKER_STARTUP_CHECK_INTERVAL", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub worker_startup_check_interval: Duration,
    /// Time in which a worker that comes back gets its full share of requests; 0 gives it at once
    #[arg(long, env = "SMG_SLOW_START_SECS", default_value = "30", value_name = "SECONDS", value_parser = seconds_or_none)]
    pub slow_start_secs: Duration,
    /// Time to connect to a worker
    #[arg(long, env = "SMG_CONNECT_TIMEOUT_SECS", default_value = "4", value_name = "SECONDS", value_parser = seconds)]
    pub connect_timeout_secs: Duration,
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

/// Which keep-alive connections the first request on a client connection may use. Later requests may use any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum UpstreamReuse {
    /// Those that have been reused before, or have been silent for a while after their first answer
    Safe,
    /// Any
    Always,
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
    /// The one that has read the longest part of the prompt before, unless it has too much to do
    CacheAware,
    /// The first
    Passthrough,
    /// The one that a request's X-SMG-Routing-Key was bound to first
    Manual,
    /// By X-SMG-Target-Worker or X-SMG-Routing-Key, on a ring
    ConsistentHashing,
    /// By the prompt's first bytes, on a ring with bounded load
    PrefixHash,
    /// By the prompt's length
    Bucket,
}
