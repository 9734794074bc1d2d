//! One health check of a worker, and why it was not passed.

use std::time::Duration;

use http::{Method, Request};

use crate::config::Workers;
use crate::telemetry;
use crate::workers::client::{self, FetchError};
use crate::workers::connector::{ConnectError, Connector};
use crate::workers::dial::{DialError, dial};
use crate::workers::http2;
use crate::workers::link::LinkError;
use crate::workers::{Health, Worker};

/// What a worker that was late gets to take a connection.
const LAST_TRY: Duration = Duration::from_secs(1);

/// Why a check was not passed.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error("the health check was answered with {0}")]
    Status(u16),
    #[error("no answer in time")]
    Timeout,
    #[error("no connection in time")]
    NoConnection,
    #[error(transparent)]
    Fetch(#[from] FetchError),
}

impl CheckError {
    /// The worker took no connection, as far as could be found out.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NoConnection => true,
            // It takes connections, and is slow in what follows.
            Self::Fetch(FetchError::Connect(ConnectError::TlsTimeout)) => false,
            Self::Fetch(FetchError::Connect(_)) => true,
            Self::Status(_) | Self::Timeout | Self::Fetch(_) => false,
        }
    }

    /// The failed connect, if it was that.
    fn dial(&self) -> Option<&DialError> {
        match self {
            Self::Fetch(FetchError::Connect(ConnectError::Dial(error))) => Some(error),
            _ => None,
        }
    }

    /// See [`DialError::is_refused`].
    pub fn is_refused(&self) -> bool {
        self.dial().is_some_and(DialError::is_refused)
    }

    /// See [`DialError::is_refused_at_once`].
    pub fn is_refused_at_once(&self) -> bool {
        self.dial().is_some_and(DialError::is_refused_at_once)
    }

    /// See [`DialError::is_local`].
    pub fn is_local(&self) -> bool {
        self.dial().is_some_and(DialError::is_local)
    }

    /// It with what caused it, in one line of bounded length: some of it is what the worker says.
    pub fn told(&self) -> String {
        telemetry::told(self)
    }
}

/// A worker passes if it answers with any status below 500, or over HTTP/2 with a reset of the stream, as gRPC servers
/// do: a server without such an endpoint is alive too. A worker with a base path is one of a host's several services, or
/// a hosted one, and its models are the only thing that all of those can be asked for.
pub async fn check(connector: &Connector, worker: &Worker, config: &Workers) -> Result<(), CheckError> {
    if worker.health() == Health::Refusing {
        // Requests are still sent there: if it is silent by now, they must not wait for it much longer.
        dial(&worker.addresses, LAST_TRY).await.map_err(|error| match error {
            DialError::Timeout => CheckError::NoConnection,
            error => FetchError::Connect(error.into()).into(),
        })?;
    }
    let path = if worker.url.has_base_path() { "/v1/models" } else { &config.health_check_endpoint };
    let asked = ask(connector, worker, path);
    match tokio::time::timeout(config.health_check_timeout_secs, asked).await {
        Err(_) => Err(late(worker).await),
        Ok(Ok(status @ 500..)) => Err(CheckError::Status(status)),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(FetchError::Send(LinkError::Http2(error)))) if http2::is_reset(&error) => Ok(()),
        Ok(Err(error)) => Err(error.into()),
    }
}

/// Which part of a check took too long: its time may have been over before that for a connection.
async fn late(worker: &Worker) -> CheckError {
    match dial(&worker.addresses, LAST_TRY).await {
        Ok(_) => CheckError::Timeout,
        Err(error) if error.is_local() => FetchError::Connect(error.into()).into(),
        Err(_) => CheckError::NoConnection,
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

    #[test]
    fn whether_a_worker_takes_connections_is_told_from_how_its_check_failed() {
        let dialled = |error| CheckError::from(FetchError::Connect(ConnectError::Dial(error)));
        let refused = dialled(DialError::Io(io::ErrorKind::ConnectionRefused.into()));
        let routeless = dialled(DialError::Io(io::ErrorKind::HostUnreachable.into()));
        let slow = CheckError::from(FetchError::Connect(ConnectError::TlsTimeout));
        let closed = CheckError::from(FetchError::Send(LinkError::Message(MessageError::Incomplete)));
        for (error, expected) in [
            (refused, (true, true, true)),
            (routeless, (true, true, false)),
            (dialled(DialError::Timeout), (true, false, false)),
            (CheckError::NoConnection, (true, false, false)),
            (CheckError::Timeout, (false, false, false)),
            (CheckError::Status(503), (false, false, false)),
            (slow, (false, false, false)),
            (closed, (false, false, false)),
        ] {
            let found = (error.is_unreachable(), error.is_refused(), error.is_refused_at_once());
            assert_eq!(found, expected, "{error:?}");
        }
    }

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
