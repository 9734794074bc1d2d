//! TLS with clients.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::Ticketer;
use rustls::pki_types::DnsName;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::files::{FileError, KeyPair, KeyPairFiles};
use super::watch::{Contents, Watched};
use super::{Alpn, provider};
use crate::stream::Stream;

/// A certificate that the gateway shows, and to whom.
#[derive(Debug, Clone)]
pub struct Site {
    pub files: KeyPairFiles,
    /// Host names that clients ask for (SNI), `*.` in front for any one label; none: those in the certificate.
    pub names: Vec<String>,
}

/// Why there can be no TLS for clients.
#[derive(Debug, thiserror::Error)]
pub enum ServerTlsError {
    #[error("no certificate is given")]
    NoSite,
    #[error("`{0}` is not a host name")]
    Name(String),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("no keys for session tickets: {0}")]
    Tickets(#[source] rustls::Error),
}

/// The gateway's side of TLS with its clients.
///
/// Clients with a ticket resume their session, also after a reload, on any shard. Tickets are the only way: those of
/// TLS 1.2 that want a session id kept here shake hands in full.
pub struct ServerTls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
    provider: Arc<CryptoProvider>,
    /// Only the watch takes it.
    loaded: Mutex<Vec<Loaded>>,
}

/// What was read of a site.
struct Loaded {
    position: usize,
    site: Site,
    watched: Watched,
    pair: KeyPair,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Accepted {
    pub stream: Stream,
    pub alpn: Alpn,
}

impl ServerTls {
    /// Reads the files. The first site is also for clients that ask for no name, or for one that no site has; a
    /// later one with the same name as an earlier one is for clients that can't use the earlier one's kind of key.
    pub fn new(sites: Vec<Site>) -> Result<Self, ServerTlsError> {
        if let Some(name) = sites.iter().flat_map(|site| &site.names).find(|name| !is_host_name(name)) {
            return Err(ServerTlsError::Name(name.clone()));
        }
        let provider = provider();
        let loaded = sites.into_iter().enumerate().map(|(at, site)| Loaded::new(at, site, &provider));
        let loaded: Vec<_> = loaded.collect::<Result<_, _>>()?;
        let table = Table::new(&loaded).ok_or(ServerTlsError::NoSite)?;
        let shown = Arc::new(Shown(ArcSwap::from_pointee(table)));
        let mut config = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(rustls::DEFAULT_VERSIONS)
            .expect("the provider has suites for both versions")
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        config.alpn_protocols = [Alpn::Http2, Alpn::Http1].map(|alpn| alpn.id().to_vec()).into();
        config.ticketer = Ticketer::new().map_err(ServerTlsError::Tickets)?;
        // It would be behind a lock that all shards take.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, shown, provider, loaded: Mutex::new(loaded) })
    }

    /// Shakes hands. Whoever calls it limits the time; a dropped handshake closes the connection.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Accepted> {
        let tls = self.acceptor.accept(stream).await?;
        let session = tls.get_ref().1;
        let alpn = Alpn::agreed(session.alpn_protocol());
        Ok(Accepted { stream: Stream::Tls(Box::new(TlsStream::Server(tls))), alpn })
    }

    /// Looks at the files every `interval` for as long as it is polled, and shows what is new to new connections. A
    /// pair that can't be used changes nothing, and is logged once.
    pub async fn watch(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            // Files may be on a volume that is slow or hangs.
            let this = self.clone();
            if spawn_blocking(move || this.look()).await.is_err() {
                tracing::error!("a look at certificates ended with a panic");
            }
        }
    }

    fn look(&self) {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = false;
        for one in loaded.iter_mut() {
            match one.look(&self.provider) {
                None => {}
                Some(Ok(())) => is_new = true,
                Some(Err(error)) => tracing::warn!(%error, "a changed certificate is not taken; the old one stays"),
            }
        }
        if is_new && let Some(table) = Table::new(&loaded) {
            self.shown.0.store(Arc::new(table));
        }
    }
}

impl Loaded {
    fn new(position: usize, site: Site, provider: &CryptoProvider) -> Result<Self, FileError> {
        let (watched, contents) = Watched::new(vec![site.files.chain.clone(), site.files.key.clone()]);
        let pair = load(position, &site, contents, provider)?;
        Ok(Self { position, site, watched, pair })
    }

    /// Takes the pair if it is another one.
    fn look(&mut self, provider: &CryptoProvider) -> Option<Result<(), FileError>> {
        let contents = self.watched.look()?;
        Some(load(self.position, &self.site, contents, provider).map(|pair| self.pair = pair))
    }

    fn names(&self) -> impl Iterator<Item = String> {
        let names = if self.site.names.is_empty() { &self.pair.names } else { &self.site.names };
        names.iter().map(|name| name.to_ascii_lowercase())
    }
}

fn load(position: usize, site: &Site, contents: Contents, provider: &CryptoProvider) -> Result<KeyPair, FileError> {
    let contents = contents?;
    let pair = KeyPair::new(&site.files, &contents[0], &contents[1], provider)?;
    // Only the first is shown to who asks for no name.
    if position > 0 && site.names.is_empty() && pair.names.is_empty() {
        return Err(FileError::NoNames(site.files.chain.clone()));
    }
    pair.announce(&site.files);
    Ok(pair)
}

fn is_host_name(name: &str) -> bool {
    let without_wildcard = name.strip_prefix("*.").unwrap_or(name);
    DnsName::try_from(without_wildcard).is_ok() && !name.ends_with('.')
}

/// The certificates that are shown now.
#[derive(Debug)]
struct Shown(ArcSwap<Table>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().choose(hello.server_name(), hello.signature_schemes()).clone())
    }
}

/// The certificates by name.
#[derive(Debug)]
struct Table {
    default: [Arc<CertifiedKey>; 1],
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// Without the `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
}

impl Table {
    /// `None` without a site.
    fn new(loaded: &[Loaded]) -> Option<Self> {
        let default = [loaded.first()?.pair.certified.clone()];
        let mut table = Self { default, exact: HashMap::new(), wildcard: HashMap::new() };
        for one in loaded {
            for name in one.names() {
                let keys = match name.strip_prefix("*.") {
                    Some(rest) => table.wildcard.entry(rest.to_owned()).or_default(),
                    None => table.exact.entry(name).or_default(),
                };
                keys.push(one.pair.certified.clone());
            }
        }
        Some(table)
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> &Arc<CertifiedKey> {
        let keys = name.and_then(|name| self.find(&name.to_ascii_lowercase())).unwrap_or(&self.default);
        keys.iter().find(|it| it.key.choose_scheme(schemes).is_some()).unwrap_or(&keys[0])
    }

    fn find(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        let by_rest = || self.wildcard.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(by_rest).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
