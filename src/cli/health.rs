//! `smg health`: asks a gateway whether it is alive; for container health checks, without another program.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Builder;

use crate::config::value::seconds;
use crate::stream::Stream;
use crate::tls::{self, Alpn, ClientFiles, ClientTls, ConnectError, FileError};

/// What tells a gateway to speak TLS tells its health check, which has the same environment in a container.
const CERTIFICATE: &str = "SMG_TLS_CERT_PATH";

#[derive(Debug, clap::Args)]
pub struct Health {
    /// Host of the gateway
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port of the gateway
    #[arg(long, env = "SMG_PORT", default_value_t = 30000)]
    port: u16,
    /// What to ask: /health, /liveness or /readiness
    #[arg(long, default_value = "/health")]
    path: String,
    /// Time limit for the answer
    #[arg(long, default_value = "3", value_name = "SECONDS", value_parser = seconds)]
    timeout_secs: Duration,
    /// Ask by TLS. Whose certificate it is does not matter on this machine, unless there are --ca-cert-paths
    /// [default: true if SMG_TLS_CERT_PATH is set]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    tls: Option<bool>,
    /// Authorities (PEM) that sign the gateway's certificate, instead of the system's; it must be for --host
    #[arg(long, value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    ca_cert_paths: Vec<PathBuf>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum HealthError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("--ca-cert-paths: {0}")]
    Authorities(#[from] FileError),
    #[error("TLS: {0}")]
    Tls(#[from] ConnectError),
    #[error("not in time")]
    Late,
}

impl Health {
    pub fn run(self) -> ExitCode {
        match self.ask_in_time() {
            Ok(head) if head.starts_with(b"HTTP/1.1 200") => ExitCode::SUCCESS,
            Ok(head) if head.starts_with(b"HTTP/") => {
                let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
                eprintln!("smg: {}", String::from_utf8_lossy(line));
                ExitCode::FAILURE
            }
            Ok(_) => {
                eprintln!("smg: what answers is not HTTP; --tls asks by TLS");
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("smg: no answer: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn ask_in_time(&self) -> Result<Vec<u8>, HealthError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let asked = runtime.block_on(async { tokio::time::timeout(self.timeout_secs, self.ask()).await });
        // A name that is still being looked up must not keep the process.
        runtime.shutdown_background();
        asked.unwrap_or(Err(HealthError::Late))
    }

    /// The first bytes of the answer.
    async fn ask(&self) -> Result<Vec<u8>, HealthError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        let address = tcp.peer_addr()?;
        let mut stream = if self.speaks_tls() { self.shake_hands(tcp).await? } else { Stream::Plain(tcp) };
        let request = format!("GET {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n", self.path);
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        let read = stream.take(1024).read_to_end(&mut head).await;
        if head.is_empty() {
            read?;
        }
        Ok(head)
    }

    fn speaks_tls(&self) -> bool {
        self.tls.unwrap_or_else(|| std::env::var_os(CERTIFICATE).is_some_and(|path| !path.is_empty()))
    }

    /// A certificate is for the name that clients use, and hardly ever for the loopback address that is asked here.
    /// Nothing secret is sent, and whoever could answer in the gateway's place is on this machine already.
    async fn shake_hands(&self, tcp: TcpStream) -> Result<Stream, HealthError> {
        if self.ca_cert_paths.is_empty() && tcp.peer_addr()?.ip().to_canonical().is_loopback() {
            return Ok(tls::connect_unverified(&self.host, tcp).await?);
        }
        let client = ClientTls::new(ClientFiles { roots: self.ca_cert_paths.clone(), identity: None })?;
        Ok(client.connect(&self.host, tcp, Alpn::Http1).await?)
    }
}
