//! When a request is sent again, and when a worker is left alone.

use std::time::Duration;

use clap::Args;

use super::value::{bytes, factor, milliseconds, seconds, share};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Retries")]
pub struct Retries {
    /// Attempts at a request, the first included
    #[arg(long, env = "SMG_RETRY_MAX_RETRIES", default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub retry_max_retries: u32,
    /// Pause after the first attempt
    #[arg(long, env = "SMG_RETRY_INITIAL_BACKOFF_MS", default_value = "50", value_name = "MS", value_parser = milliseconds)]
    pub retry_initial_backoff_ms: Duration,
    /// Longest pause
    #[arg(long, env = "SMG_RETRY_MAX_BACKOFF_MS", default_value = "30000", value_name = "MS", value_parser = milliseconds)]
    pub retry_max_backoff_ms: Duration,
    /// How many times longer each pause is than the one before
    #[arg(long, env = "SMG_RETRY_BACKOFF_MULTIPLIER", default_value = "1.5", value_name = "FACTOR", value_parser = factor)]
    pub retry_backoff_multiplier: f64,
    /// Share by which a pause may be longer or shorter
    #[arg(long, env = "SMG_RETRY_JITTER_FACTOR", default_value = "0.2", value_name = "SHARE", value_parser = share)]
    pub retry_jitter_factor: f64,
    /// Also retry requests that a worker may have carried out, whatever their method, and after 500 on another worker
    #[arg(long, env = "SMG_RETRY_NON_IDEMPOTENT")]
    pub retry_non_idempotent: bool,
    /// Send no request twice
    #[arg(long, env = "SMG_DISABLE_RETRIES")]
    pub disable_retries: bool,
    /// Largest part of a request body to keep for retries, or to read the prompt from
    #[arg(long, env = "SMG_MAX_BUFFERED_REQUEST_BYTES", default_value_t = 1_048_576, value_name = "BYTES", value_parser = bytes)]
    pub max_buffered_request_bytes: u64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Circuit breakers")]
pub struct Breakers {
    /// Failures in a row after which a worker is left alone
    #[arg(long, env = "SMG_CB_FAILURE_THRESHOLD", default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cb_failure_threshold: u32,
    /// Successful trials that bring it back
    #[arg(long, env = "SMG_CB_SUCCESS_THRESHOLD", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cb_success_threshold: u32,
    /// Time for which it is left alone
    #[arg(long, env = "SMG_CB_TIMEOUT_DURATION_SECS", default_value = "60", value_name = "SECONDS", value_parser = seconds)]
    pub cb_timeout_duration_secs: Duration,
    /// Failures in a row that began longer ago don't count
    #[arg(long, env = "SMG_CB_WINDOW_DURATION_SECS", default_value = "120", value_name = "SECONDS", value_parser = seconds)]
    pub cb_window_duration_secs: Duration,
    /// Never leave a worker alone
    #[arg(long, env = "SMG_DISABLE_CIRCUIT_BREAKER")]
    pub disable_circuit_breaker: bool,
}
