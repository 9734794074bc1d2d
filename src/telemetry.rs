//! Logs: where they go, how they look, and how text from strangers is made safe for them.

mod text;

use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::{EnvFilter, reload};

pub use self::text::{TextFields, is_bare};
use crate::config::Log;

/// Lines that may wait for a slow log reader; past this, lines are dropped rather than requests delayed.
const BUFFERED_LINES: usize = 65_536;

/// Why there can be no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(transparent)]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("--log-dir: {0}")]
    Directory(#[from] tracing_appender::rolling::InitError),
    #[error("can't change the log level: {0}")]
    Reload(#[from] reload::Error),
}

/// Whether the filter lets the lines of requests through. Each request asks, and the subscriber would take a lock to
/// answer. Like the subscriber it is global to the process.
static ACCESS: AtomicBool = AtomicBool::new(false);

/// Whether the log has a line for each request.
pub fn has_access_lines() -> bool {
    ACCESS.load(Relaxed)
}

/// The log as it was started.
pub struct Started {
    /// For those who write lines of their own.
    pub writer: NonBlocking,
    /// Writes out what is left when it is dropped.
    pub guard: WorkerGuard,
    pub level: Level,
}

/// Changes what is logged while the process runs.
pub struct Level(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>);

impl Level {
    /// A level or filter, as `--log-level` takes it.
    pub fn set(&self, level: &str) -> Result<(), LogError> {
        self.0(filter(level)?)?;
        note_access_lines();
        Ok(())
    }
}

fn note_access_lines() {
    ACCESS.store(tracing::enabled!(target: "smg::access", tracing::Level::INFO), Relaxed);
}

fn filter(level: &str) -> Result<EnvFilter, LogError> {
    // The resolver warns of each malformed answer that anybody sends it.
    Ok(EnvFilter::try_new(format!("hickory_net=error,hickory_resolver=error,{level}"))?)
}

/// Starts logging: to standard error, or into one file a day in a directory.
///
/// The writer has a thread of its own: a full disk or a reader that stops reading costs log lines, never
/// requests.
pub fn start(log: &Log) -> Result<Started, LogError> {
    let filter = filter(&log.log_level)?;
    let builder = NonBlockingBuilder::default().buffered_lines_limit(BUFFERED_LINES).lossy(true);
    let (writer, guard): (NonBlocking, WorkerGuard) = match &log.log_dir {
        None => builder.finish(io::stderr()),
        Some(directory) => {
            let files = RollingFileAppender::builder().rotation(Rotation::DAILY);
            let files = files.max_log_files(usize::from(log.log_max_files));
            builder.finish(files.filename_prefix("smg").filename_suffix("log").build(directory)?)
        }
    };
    let subscriber = tracing_subscriber::fmt().with_writer(writer.clone()).with_ansi(false);
    let level = if log.log_json {
        let subscriber = subscriber.json().flatten_event(true).with_env_filter(filter).with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.init();
        Level(Box::new(move |filter| handle.reload(filter)))
    } else {
        let subscriber = subscriber.fmt_fields(TextFields).with_env_filter(filter).with_filter_reloading();
        let handle = subscriber.reload_handle();
        subscriber.init();
        Level(Box::new(move |filter| handle.reload(filter)))
    };
    note_access_lines();
    Ok(Started { writer, guard, level })
}

/// That a module ran on a request, and what came of it, for the request's line.
#[derive(Debug, Clone)]
pub struct ModuleRun {
    pub module: Arc<str>,
    /// `continue`, `modify`, `reject` or the kind of its failure, as in metrics.
    pub verdict: &'static str,
}

/// Shows text from outside on one line: control characters and invalid UTF-8 are escaped, and the length is
/// bounded, so that nobody can forge a log line (CWE-117) or fill the log with one request.
pub struct Untrusted<'a>(pub &'a [u8]);

/// Bytes of one untrusted field that are shown.
const SHOWN: usize = 512;

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(SHOWN)];
        for chunk in shown.utf8_chunks() {
            for character in chunk.valid().chars() {
                if character.is_control() || is_format_control(character) {
                    write!(f, "{}", character.escape_unicode())?;
                } else {
                    fmt::Write::write_char(f, character)?;
                }
            }
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        if self.0.len() > SHOWN {
            write!(f, "…({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

/// An error with what caused it, in one line of bounded length: some of it is what strangers say.
pub fn told(mut error: &dyn Error) -> String {
    let mut text = error.to_string();
    while let Some(cause) = error.source() {
        let told = cause.to_string();
        // Some say themselves what caused them.
        if !text.ends_with(&told) {
            text = format!("{text}: {told}");
        }
        error = cause;
    }
    Untrusted(text.as_bytes()).to_string()
}

/// Line separators and the bidirectional controls that reorder what a terminal shows.
fn is_format_control(character: char) -> bool {
    matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A duration in milliseconds with three decimals, for log fields.
pub struct Millis(pub Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0.as_secs_f64() * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn untrusted_text_stays_on_one_line_and_is_bounded() {
        let shown = Untrusted(b"/a\r\n\x1b[31m\xff\xe2\x80\xa8").to_string();
        assert_eq!(shown, "/a\\u{d}\\u{a}\\u{1b}[31m\\xff\\u{2028}");
        let long = Untrusted(&[b'a'; 1 << 20]).to_string();
        assert!(long.len() < 600 && long.ends_with("(1048576 bytes)"));
    }
}
