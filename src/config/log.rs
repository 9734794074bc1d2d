//! What is logged, and how.

use std::path::PathBuf;

use clap::Args;

use crate::access_log::{DEFAULT_FIELDS, Fields};

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Log")]
pub struct Log {
    /// off, error, warn, info (one line for each request), debug, trace; or a filter such as warn,smg::guest=info
    #[arg(long, env = "SMG_LOG_LEVEL", default_value = "info", value_name = "LEVEL", value_parser = log_filter)]
    pub log_level: String,
    /// One JSON object a line
    #[arg(long, env = "SMG_LOG_JSON")]
    pub log_json: bool,
    /// Write the log into this directory, one file a day, instead of to standard error
    #[arg(long, env = "SMG_LOG_DIR", value_name = "DIRECTORY")]
    pub log_dir: Option<PathBuf>,
    /// Number of files to keep in that directory; the oldest are removed
    #[arg(long, env = "SMG_LOG_MAX_FILES", default_value_t = 14, value_name = "N", value_parser = clap::value_parser!(u16).range(2..))]
    pub log_max_files: u16,
    /// Fields of a request's line, in this order
    #[arg(long, env = "SMG_LOG_FIELDS", default_value = DEFAULT_FIELDS, value_name = "LIST")]
    pub log_fields: Fields,
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
