//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446): [`ServerTls`] for clients, [`ClientTls`] for workers, [`connect_unverified`]
//! for `smg health`.
//!
//! Certificates and keys are files that may be replaced at any time. Both sides look at theirs on the control plane
//! ([`ServerTls::watch`], [`ClientTls::watch`]) and take what is new whole or not at all; connections that are open
//! keep what they began with.
//!
//! All of it runs on one cryptographic provider, ring, that is named here: rustls' process-wide default is neither
//! used nor set. What shards share is read through one atomic pointer, with two exceptions inside rustls, both once
//! a handshake and never while something is computed: the keys for session tickets are behind a lock that is taken
//! to write every six hours, and the tickets of workers are behind a mutex.

mod client;
mod files;
mod server;
mod unverified;
mod watch;

#[cfg(test)]
pub(crate) mod fixtures;

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;

pub use self::client::{ClientFiles, ClientTls, ConnectError};
pub use self::files::{FileError, KeyPairFiles};
pub use self::server::{Accepted, ServerTls, ServerTlsError, Site};
pub use self::unverified::connect_unverified;

/// Time between two looks at the files.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What is spoken on a connection, as ALPN agrees on it (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    Http1,
    Http2,
}

impl Alpn {
    /// The registered name.
    pub fn id(self) -> &'static [u8] {
        match self {
            Alpn::Http1 => b"http/1.1",
            Alpn::Http2 => b"h2",
        }
    }

    /// What was agreed on; a peer that doesn't know ALPN speaks HTTP/1.1.
    fn agreed(id: Option<&[u8]>) -> Self {
        if id == Some(Alpn::Http2.id()) { Alpn::Http2 } else { Alpn::Http1 }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
