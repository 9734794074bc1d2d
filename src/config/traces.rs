//! Where traces go.

use clap::Args;

use super::value::share;
use crate::trace::target::Endpoint;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Traces")]
pub struct Traces {
    /// Send spans to this OpenTelemetry collector, by OTLP over HTTP with JSON, to /v1/traces unless it has a path
    #[arg(long, env = "SMG_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<Endpoint>,
    /// Share of the requests without a trace of their own that is recorded; a caller's trace says it itself
    #[arg(long, env = "SMG_OTLP_SAMPLE_RATIO", default_value = "1", value_name = "SHARE", value_parser = share)]
    pub otlp_sample_ratio: f64,
}
