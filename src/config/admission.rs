//! How many requests at once, and how fast.

use std::time::Duration;

use clap::Args;

use super::value::{rate, seconds};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Admission")]
pub struct Admission {
    /// Requests in flight at once [default: 1024 for each core, at least 4096]
    #[arg(long, env = "SMG_MAX_CONCURRENT_REQUESTS", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_concurrent_requests: Option<u32>,
    /// Requests that wait when so many are in flight; 429 beyond
    #[arg(long, env = "SMG_QUEUE_SIZE", default_value_t = 100, value_name = "N")]
    pub queue_size: u32,
    /// Time that a request waits; 503 after
    #[arg(long, env = "SMG_QUEUE_TIMEOUT_SECS", default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub queue_timeout_secs: Duration,
    /// Requests in a second, over all clients; 429 beyond
    #[arg(long, env = "SMG_RATE_LIMIT_TOKENS_PER_SECOND", value_name = "N", value_parser = rate)]
    pub rate_limit_tokens_per_second: Option<f64>,
}

impl Admission {
    /// Requests in flight at once, on a machine with so many cores.
    pub fn limit(&self, cores: u32) -> u32 {
        self.max_concurrent_requests.unwrap_or_else(|| cores.saturating_mul(1024).max(4096))
    }
}
