//! Connections to workers as they are made: TCP, and TLS on it for https.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use super::dial::{DialError, dial};
use crate::config::{Config, Scheme};
use crate::stream::Stream;
use crate::tls::{self, Alpn, ClientFiles, ClientTls, FileError, KeyPairFiles};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("TLS: {0}")]
    Tls(#[from] tls::ConnectError),
    #[error("no TLS handshake in time")]
    TlsTimeout,
    #[error("no HTTP/2: {0}")]
    Http2(#[from] hyper::Error),
}

impl ConnectError {
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Dial(DialError::Timeout) | Self::TlsTimeout)
    }

    /// See [`DialError::is_local`].
    pub fn is_local(&self) -> bool {
        matches!(self, Self::Dial(error) if error.is_local())
    }
}

/// How workers are connected to; shared by all shards.
pub struct Connector {
    tls: Arc<ClientTls>,
    /// Time for a connection, and again for its handshake.
    limit: Duration,
    /// What is spoken.
    pub alpn: Alpn,
}

impl Connector {
    pub fn new(config: &Config) -> Result<Self, FileError> {
        let files = &config.tls;
        let identity = files.client_cert_path.clone().zip(files.client_key_path.clone());
        let identity = identity.map(|(chain, key)| KeyPairFiles { chain, key });
        let tls = Arc::new(ClientTls::new(ClientFiles { roots: files.ca_cert_paths.clone(), identity })?);
        let alpn = if files.upstream_http2 { Alpn::Http2 } else { Alpn::Http1 };
        Ok(Self { tls, limit: config.workers.connect_timeout_secs, alpn })
    }

    pub fn tls(&self) -> &Arc<ClientTls> {
        &self.tls
    }

    /// Connects to a worker, and says at which of its addresses.
    pub async fn connect(&self, worker: &Worker, alpn: Alpn) -> Result<(Stream, SocketAddr), ConnectError> {
        let (stream, peer) = dial(&worker.addresses, self.limit).await?;
        if worker.url.scheme() == Scheme::Http {
            return Ok((Stream::Plain(stream), peer));
        }
        let shaking = self.tls.connect(worker.url.host(), stream, alpn);
        let stream = tokio::time::timeout(self.limit, shaking).await.map_err(|_| ConnectError::TlsTimeout)??;
        Ok((stream, peer))
    }
}
