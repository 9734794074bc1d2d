//! How much and how long.

use std::time::Duration;

use clap::Args;
use http::header::HeaderName;

use super::value::{bytes, seconds, seconds_or_none};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits")]
pub struct Limits {
    /// Time for a whole request, to the last byte of its answer
    #[arg(long, env = "SMG_REQUEST_TIMEOUT_SECS", default_value = "1800", value_name = "SECONDS", value_parser = seconds)]
    pub request_timeout_secs: Duration,
    /// Largest request body; 413 above
    #[arg(long, env = "SMG_MAX_PAYLOAD_SIZE", default_value_t = 536_870_912, value_name = "BYTES", value_parser = bytes)]
    pub max_payload_size: u64,
    /// Largest part of a request body that is held while the model that it names is looked for; 413 above
    #[arg(long, env = "SMG_MAX_SCANNED_REQUEST_BYTES", default_value_t = 67_108_864, value_name = "BYTES", value_parser = bytes)]
    pub max_scanned_request_bytes: u64,
    /// Time a client has to send a request's head
    #[arg(long, env = "SMG_HEADER_READ_TIMEOUT_SECS", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub header_read_timeout_secs: Duration,
    /// Time a client's connection may stay idle between requests
    #[arg(long, env = "SMG_IDLE_CONNECTION_TIMEOUT_SECS", default_value = "90", value_name = "SECONDS", value_parser = seconds)]
    pub idle_connection_timeout_secs: Duration,
    /// Request headers that may carry the request's id; the first that is present wins
    #[arg(
        long, env = "SMG_REQUEST_ID_HEADERS", value_name = "NAME", num_args = 1.., value_delimiter = ',',
        default_value = "x-request-id",
    )]
    pub request_id_headers: Vec<HeaderName>,
    /// Time that a worker may take until its answer begins; without it, the whole request's
    #[arg(long, env = "SMG_FIRST_BYTE_TIMEOUT_SECS", value_name = "SECONDS", value_parser = seconds)]
    pub first_byte_timeout_secs: Option<Duration>,
    /// Time that a worker may be silent in the middle of an answer, and a client in the middle of a body: sending none of its own, or taking nothing of its answer
    #[arg(long, env = "SMG_STREAM_BODY_STALL_TIMEOUT_SECS", default_value = "300", value_name = "SECONDS", value_parser = seconds)]
    pub stream_body_stall_timeout_secs: Duration,
    /// Send a comment to the client of an event stream when its worker has been silent for this time; 0 sends none
    #[arg(long, env = "SMG_SSE_KEEPALIVE_SECS", default_value = "15", value_name = "SECONDS", value_parser = seconds_or_none)]
    pub sse_keepalive_secs: Duration,
    /// Do not add `X-Accel-Buffering: no`, which stops nginx from buffering, to event streams without that field
    #[arg(long, env = "SMG_DISABLE_ACCEL_BUFFERING_HEADER")]
    pub disable_accel_buffering_header: bool,
}
