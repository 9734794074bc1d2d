//! TLS with workers.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::{TlsConnector, TlsStream};

use super::files::{self, FileError, KeyPair, KeyPairFiles};
use super::watch::{Contents, Watched};
use super::{Alpn, provider};
use crate::stream::Stream;

/// What workers are trusted by, and who we are to them.
#[derive(Debug, Clone, Default)]
pub struct ClientFiles {
    /// Roots, each file with one or more; with any of them the system's are not trusted.
    pub roots: Vec<PathBuf>,
    /// What workers that ask for it get to see (mTLS).
    pub identity: Option<KeyPairFiles>,
}

/// Why there is no TLS with a worker.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("`{0}` is neither a host name nor an address")]
    Name(String),
    #[error("this system has no root certificates: install its ca-certificates, or give --ca-cert-paths")]
    NoRoots,
    #[error("the worker does not speak HTTP/2")]
    NotHttp2,
    #[error("the handshake failed: {0}")]
    Handshake(#[source] io::Error),
}

/// The gateway's side of TLS with its workers.
pub struct ClientTls {
    connectors: ArcSwap<Connectors>,
    files: ClientFiles,
    provider: Arc<CryptoProvider>,
    /// The roots of the system, if no others are given.
    system: Option<Arc<RootCertStore>>,
    /// Only the watch takes it.
    watched: Mutex<Watched>,
}

/// One for each [`Alpn`]; a new identity means new ones, with no sessions to resume as somebody else.
struct Connectors {
    http1: TlsConnector,
    http2: TlsConnector,
}

impl ClientTls {
    /// Reads the files, or the system's roots (`SSL_CERT_FILE` and `SSL_CERT_DIR` say where, or else the usual
    /// places). A system without roots is no error before a worker needs them.
    pub fn new(files: ClientFiles) -> Result<Self, FileError> {
        let provider = provider();
        let system = files.roots.is_empty().then(|| Arc::new(system_roots()));
        let identity = files.identity.iter().flat_map(|pair| [pair.chain.clone(), pair.key.clone()]);
        let (watched, contents) = Watched::new(files.roots.iter().cloned().chain(identity).collect());
        let connectors = connectors(&files, contents, system.as_ref(), &provider)?;
        let connectors = ArcSwap::from_pointee(connectors);
        Ok(Self { connectors, files, provider, system, watched: Mutex::new(watched) })
    }

    /// Shakes hands with the worker `host`, a name or an address (IPv6 without brackets), and checks that it is that
    /// one. Whoever calls it limits the time.
    ///
    /// A worker that does not accept our identity says so here with TLS 1.2, but with TLS 1.3 only in answer to what
    /// is sent first.
    pub async fn connect(&self, host: &str, stream: TcpStream, alpn: Alpn) -> Result<Stream, ConnectError> {
        let name = ServerName::try_from(host).map_err(|_| ConnectError::Name(host.to_owned()))?.to_owned();
        if self.system.as_ref().is_some_and(|roots| roots.is_empty()) {
            return Err(ConnectError::NoRoots);
        }
        let connector = match (alpn, &**self.connectors.load()) {
            (Alpn::Http1, connectors) => connectors.http1.clone(),
            (Alpn::Http2, connectors) => connectors.http2.clone(),
        };
        let tls = connector.connect(name, stream).await.map_err(ConnectError::Handshake)?;
        if Alpn::agreed(tls.get_ref().1.alpn_protocol()) != alpn {
            return Err(ConnectError::NotHttp2);
        }
        Ok(Stream::Tls(Box::new(TlsStream::Client(tls))))
    }

    /// Looks at the files every `interval` for as long as it is polled, and uses what is new for new connections.
    /// Files that can't be used change nothing, and are logged once. The system's roots are not watched.
    pub async fn watch(self: Arc<Self>, interval: Duration) {
        if self.files.roots.is_empty() && self.files.identity.is_none() {
            return;
        }
        loop {
            tokio::time::sleep(interval).await;
            // Files may be on a volume that is slow or hangs.
            let this = self.clone();
            if spawn_blocking(move || this.look()).await.is_err() {
                tracing::error!("a look at certificates for workers ended with a panic");
            }
        }
    }

    fn look(&self) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(contents) = watched.look() else { return };
        match connectors(&self.files, contents, self.system.as_ref(), &self.provider) {
            Ok(connectors) => {
                self.connectors.store(Arc::new(connectors));
                // A new identity has announced itself.
                if self.files.identity.is_none() {
                    tracing::info!("new root certificates for workers are in use");
                }
            }
            Err(error) => tracing::warn!(%error, "changed certificates for workers are not taken; the old ones stay"),
        }
    }
}

/// `contents` has the roots' files first, then those of the identity.
fn connectors(
    files: &ClientFiles,
    contents: Contents,
    system: Option<&Arc<RootCertStore>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Connectors, FileError> {
    let contents = contents?;
    let (roots, identity) = contents.split_at(files.roots.len());
    let trusted = match system {
        Some(system) => system.clone(),
        None => Arc::new(given_roots(&files.roots, roots)?),
    };
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("the provider has suites for both versions")
        .with_root_certificates(trusted);
    let mut config = match (&files.identity, identity) {
        (Some(pair_files), [chain, key]) => {
            let pair = KeyPair::new(pair_files, chain, key, provider)?;
            pair.announce(pair_files);
            config.with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(pair.certified)))
        }
        _ => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![Alpn::Http1.id().to_vec()];
    let mut http2 = config.clone();
    http2.alpn_protocols = vec![Alpn::Http2.id().to_vec()];
    Ok(Connectors { http1: Arc::new(config).into(), http2: Arc::new(http2).into() })
}

fn given_roots(paths: &[PathBuf], contents: &[Vec<u8>]) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for (path, bytes) in paths.iter().zip(contents) {
        // A bundle may have some that are beyond us.
        if let (0, _) = roots.add_parsable_certificates(files::certificates(path, bytes)?) {
            return Err(FileError::NoRoot(path.clone()));
        }
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::debug!(%error, "some of the system's root certificates can't be read");
    }
    roots.add_parsable_certificates(found.certs);
    roots
}

#[cfg(test)]
mod tests;
