//! One health check of a worker, and why it was not passed.

use std::error::Error;

use http::{Method, Request};

use crate::config::Workers;
use crate::telemetry::Untrusted;
use crate::workers::Worker;
use crate::workers::client::{self, FetchError};
use crate::workers::connector::Connector;
use crate::workers::http2;
use crate::workers::link::LinkError;

/// Why a check was not passed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("the health check was answered with {0}")]
    Status(u16),
    #[error("no answer in time")]
    Timeout,
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl CheckError {
    /// It with what caused it, in one line of bounded length: some of it is what the worker says.
    pub fn told(&self) -> String {
        let mut text = self.to_string();
        let mut error: &dyn Error = self;
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
}

/// A worker passes if it answers with any status below 500, or over HTTP/2 with a reset of the stream, as gRPC servers
/// do: a server without such an endpoint is alive too.
pub async fn check(connector: &Connector, worker: &Worker, config: &Workers) -> Result<(), CheckError> {
    let asked = ask(connector, worker, &config.health_check_endpoint);
    match tokio::time::timeout(config.health_check_timeout_secs, asked).await {
        Err(_) => Err(CheckError::Timeout),
        Ok(Ok(status @ 500..)) => Err(CheckError::Status(status)),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(FetchError::Send(LinkError::Http2(error)))) if http2::is_reset(&error) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
    }
}

async fn ask(connector: &Connector, worker: &Worker, path: &str) -> Result<u16, FetchError> {
    let request = Request::builder().method(Method::GET).uri(path).header("user-agent", "smg-health");
    let request = request.body(()).map_err(FetchError::Request)?;
    Ok(client::fetch(connector, worker, request, 0).await?.status().as_u16())
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::http1::MessageError;
    use crate::workers::dial::DialError;

    #[test]
    fn a_failure_is_told_once_with_its_cause_on_one_line() {
        let refused = FetchError::Connect(DialError::Io(io::ErrorKind::ConnectionRefused.into()).into());
        assert_eq!(CheckError::from(refused).told(), "no connection: connection refused");
        let said = io::Error::other(format!("a\nb{}", "x".repeat(10_000)));
        let strange = FetchError::Send(LinkError::Message(MessageError::Io(said)));
        let told = CheckError::from(strange).told();
        assert!(told.starts_with("no answer: a\\u{a}bxxx") && told.len() < 600, "{told}");
        assert_eq!(CheckError::Status(503).told(), "the health check was answered with 503");
    }
}
