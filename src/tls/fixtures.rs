//! Certificates, files and peers for tests.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client};

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

/// A certificate with its key, as PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leaf {
    pub chain: String,
    pub key: String,
}

impl Leaf {
    pub fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.chain.as_bytes()).expect("a certificate")
    }

    pub fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key")
    }
}

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let mut params = CertificateParams::new([]).expect("no names");
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn leaf(&self, names: &[&str]) -> Leaf {
        self.leaf_with(names, KeyPair::generate().expect("a key"), |_| {})
    }

    pub fn leaf_with(&self, names: &[&str], key: KeyPair, change: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        change(&mut params);
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Leaf { chain: certificate.pem(), key: key.serialize_pem() }
    }

    pub fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        Arc::new(roots)
    }

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
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.expect("known versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), provider()).build();
                builder.with_client_cert_verifier(verifier.expect("a root"))
            }
        };
        let mut config = builder.with_single_cert(vec![leaf.der()], leaf.key_der()).expect("a pair");
        config.alpn_protocols = alpn.iter().map(|id| id.as_bytes().to_vec()).collect();
        Arc::new(config)
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
