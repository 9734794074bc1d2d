//! Where the gateway listens, and how it ends.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use super::value::{address, seconds, seconds_or_none};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Listening")]
pub struct Listen {
    /// Address to listen on
    #[arg(long, env = "SMG_HOST", default_value = "0.0.0.0", value_name = "ADDRESS", value_parser = address)]
    pub host: IpAddr,
    /// Port of the data plane and the admin API; 0 takes a free one
    #[arg(long, env = "SMG_PORT", default_value_t = 30000)]
    pub port: u16,
    /// Let other processes listen on the same address: for a new gateway that takes over from this one
    #[arg(long, env = "SMG_REUSE_PORT")]
    pub reuse_port: bool,
    /// Data-plane threads [default: one for each core]
    #[arg(long, env = "SMG_SHARDS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub shards: Option<u16>,
    /// Address of the second listener for /metrics, when --prometheus-port is given
    #[arg(long, env = "SMG_PROMETHEUS_HOST", default_value = "0.0.0.0", value_name = "ADDRESS", value_parser = address)]
    pub prometheus_host: IpAddr,
    /// Serve /metrics, to everybody who can connect, on this port too
    #[arg(long, env = "SMG_PROMETHEUS_PORT", value_name = "PORT")]
    pub prometheus_port: Option<u16>,
    /// Time after SIGTERM in which the gateway still accepts, reports that it isn't ready, and closes HTTP/1.1
    /// connections after each answer [default: 5; 0 with inherited sockets]
    #[arg(long, env = "SMG_DRAIN_DELAY_SECS", value_name = "SECONDS", value_parser = seconds_or_none)]
    pub drain_delay_secs: Option<Duration>,
    /// Time that requests in flight get to finish after SIGTERM
    #[arg(long, env = "SMG_SHUTDOWN_GRACE_PERIOD_SECS", default_value = "180", value_name = "SECONDS", value_parser = seconds)]
    pub shutdown_grace_period_secs: Duration,
}
