//! Certificates, files and peers for tests.

mod authority;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client};

pub use self::authority::{Authority, Leaf};
use super::{Accepted, KeyPairFiles, ServerTls, Site, provider};

/// PKCS#8. ring makes no RSA keys.
pub const RSA: &str = include_str!("fixtures/rsa.pem");

pub fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(test)
}

/// A directory that goes when it is dropped.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("smg-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), bytes).expect("the directory can be written");
        self.path(name)
    }

    /// Writes `NAME.pem` and `NAME.key`.
    pub fn write_leaf(&self, name: &str, leaf: &Leaf) -> KeyPairFiles {
        KeyPairFiles {
            chain: self.write(&format!("{name}.pem"), &leaf.chain),
            key: self.write(&format!("{name}.key"), &leaf.key),
        }
    }

    /// A site that serves `leaf` for the names in it.
    pub fn site(&self, name: &str, leaf: &Leaf) -> Site {
        Site { files: self.write_leaf(name, leaf), names: Vec::new() }
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Authority {
    /// A client that trusts this authority, with `alpn` in its order.
    pub fn client(&self, alpn: &[&str], versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(versions);
        let builder = builder.expect("known versions").with_root_certificates(self.roots());
        let mut config = builder.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
        config
    }

    /// A worker that shows `leaf`, and lets in only those who show a certificate of `clients`, if there is one.
    pub fn worker(leaf: &Leaf, alpn: &[&str], clients: Option<&Authority>) -> Arc<ServerConfig> {
        leaf.server(alpn, clients)
    }
}

/// Two ends of a TCP connection.
pub async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let near = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
    (near, listener.accept().await.expect("a connection").0)
}

/// A client of `server` that asks for `name`: both ends after the handshake.
pub async fn meet(
    server: &ServerTls,
    client: &ClientConfig,
    name: &'static str,
) -> (io::Result<Accepted>, io::Result<client::TlsStream<TcpStream>>) {
    let (near, far) = sockets().await;
    let connector = TlsConnector::from(Arc::new(client.clone()));
    let name = ServerName::try_from(name).expect("a name");
    tokio::join!(server.accept(far), connector.connect(name, near))
}

/// The certificate that a client gets to see.
pub async fn shown(server: &ServerTls, client: &ClientConfig, name: &'static str) -> CertificateDer<'static> {
    let stream = meet(server, client, name).await.1.expect("a handshake");
    stream.get_ref().1.peer_certificates().expect("a certificate")[0].clone()
}

/// Puts a new link `name` to `target` in the place of an old one, in one step.
pub fn relink(directory: &Directory, name: &str, target: impl AsRef<Path>) {
    let fresh = directory.path("fresh-link");
    std::os::unix::fs::symlink(target, &fresh).expect("links can be made");
    std::fs::rename(fresh, directory.path(name)).expect("the name can be replaced");
}
