//! TLS for both ends of a test: an authority, its certificates as files, and sockets that shake hands.

use super::authority::{Authority, Leaf};
use super::files::Files;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, CommonState, ProtocolVersion, RootCertStore, ServerConfig};
use rustls::{DEFAULT_VERSIONS, ServerConnection, StreamOwned, SupportedProtocolVersion};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long a handshake may wait for bytes.
const PATIENCE: Duration = Duration::from_secs(10);

impl Authority {
    /// Writes its certificate; the absolute path, as `--ca-cert-paths` takes it.
    pub fn write(&self, files: &Files, name: &str) -> String {
        files.write(name, self.pem())
    }

    /// A client that trusts only this authority and wants to talk to `name`.
    pub fn client(&self, name: &str) -> Caller {
        let name = ServerName::try_from(name.to_owned()).expect("a name or an address");
        Caller { roots: self.roots(), name, alpn: Vec::new(), versions: DEFAULT_VERSIONS.to_vec(), sni: true }
    }
}

impl Leaf {
    /// Writes `NAME.pem` and `NAME.key`; their absolute paths.
    pub fn write(&self, files: &Files, name: &str) -> (String, String) {
        (files.write(&format!("{name}.pem"), &self.chain), files.write(&format!("{name}.key"), &self.key))
    }

    /// A server that shows this certificate, see [`Leaf::server`].
    pub fn acceptor(&self, alpn: &[&str], clients: Option<&Authority>) -> Acceptor {
        Acceptor(self.server(alpn, clients))
    }
}

/// How a client shakes hands.
#[derive(Clone)]
pub struct Caller {
    roots: Arc<RootCertStore>,
    name: ServerName<'static>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    sni: bool,
}

impl Caller {
    pub fn alpn(mut self, alpn: &[&str]) -> Self {
        self.alpn = ids(alpn);
        self
    }

    /// Offers only this one, such as `&rustls::version::TLS12`.
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    /// Does not say whom it wants to talk to.
    pub fn without_sni(mut self) -> Self {
        self.sni = false;
        self
    }

    /// The first bytes that it sends.
    pub fn hello(self) -> Vec<u8> {
        let mut hello = Vec::new();
        self.connection().expect("a name").write_tls(&mut hello).expect("a vector takes everything");
        hello
    }

    pub fn connect(self, stream: TcpStream) -> io::Result<Channel> {
        let mut tls = StreamOwned::new(self.connection()?, patient(stream)?);
        tls.conn.complete_io(&mut tls.sock)?;
        Ok(Channel::Client(Box::new(tls)))
    }

    fn connection(self) -> io::Result<ClientConnection> {
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&self.versions);
        let builder = builder.expect("known versions").with_root_certificates(self.roots);
        let mut config = builder.with_no_client_auth();
        (config.alpn_protocols, config.enable_sni) = (self.alpn, self.sni);
        ClientConnection::new(Arc::new(config), self.name).map_err(io::Error::other)
    }
}

/// How a server shakes hands.
#[derive(Clone)]
pub struct Acceptor(Arc<ServerConfig>);

impl Acceptor {
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.0.clone()
    }

    pub fn accept(&self, stream: TcpStream) -> io::Result<Channel> {
        let connection = ServerConnection::new(self.0.clone()).map_err(io::Error::other)?;
        let mut tls = StreamOwned::new(connection, patient(stream)?);
        tls.conn.complete_io(&mut tls.sock)?;
        Ok(Channel::Server(Box::new(tls)))
    }
}

/// A socket, or TLS on it, to read from and write to.
pub enum Channel {
    Plain(TcpStream),
    Client(Box<StreamOwned<ClientConnection, TcpStream>>),
    Server(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Channel {
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Channel::Plain(tcp) => tcp,
            Channel::Client(tls) => &tls.sock,
            Channel::Server(tls) => &tls.sock,
        }
    }

    /// Says that nothing more comes, and ends the connection; an end of the socket alone is a cut in TLS.
    pub fn end(&mut self) {
        match self {
            Channel::Plain(_) => {}
            Channel::Client(tls) => tls.conn.send_close_notify(),
            Channel::Server(tls) => tls.conn.send_close_notify(),
        }
        let _ = self.flush();
        let _ = self.tcp().shutdown(Shutdown::Both);
    }

    /// What both ends agreed to speak.
    pub fn alpn(&self) -> Option<String> {
        self.state().alpn_protocol().map(|id| String::from_utf8_lossy(id).into_owned())
    }

    pub fn version(&self) -> ProtocolVersion {
        self.state().protocol_version().expect("the handshake is over")
    }

    /// The certificate that the other end has shown.
    pub fn peer(&self) -> Option<CertificateDer<'static>> {
        self.state().peer_certificates().map(|chain| chain[0].clone().into_owned())
    }

    fn state(&self) -> &CommonState {
        match self {
            Channel::Plain(_) => panic!("there is no TLS on this connection"),
            Channel::Client(tls) => &tls.conn,
            Channel::Server(tls) => &tls.conn,
        }
    }
}

impl From<TcpStream> for Channel {
    fn from(tcp: TcpStream) -> Self {
        Channel::Plain(tcp)
    }
}

impl Read for Channel {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(tcp) => tcp.read(into),
            Channel::Client(tls) => tls.read(into),
            Channel::Server(tls) => tls.read(into),
        }
    }
}

impl Write for Channel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Channel::Plain(tcp) => tcp.write(bytes),
            Channel::Client(tls) => tls.write(bytes),
            Channel::Server(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Channel::Plain(tcp) => tcp.flush(),
            Channel::Client(tls) => tls.flush(),
            Channel::Server(tls) => tls.flush(),
        }
    }
}

fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn ids(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|id| id.as_bytes().to_vec()).collect()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
