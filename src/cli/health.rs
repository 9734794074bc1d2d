//! `smg health`: asks a gateway whether it is alive; for container health checks, without another program.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::time::Duration;

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
    /// Time the answer may take, in seconds
    #[arg(long, default_value_t = 3)]
    timeout_secs: u64,
}

impl Health {
    pub fn run(self) -> ExitCode {
        match self.ask() {
            Ok(head) if head.starts_with(b"HTTP/1.1 200") => ExitCode::SUCCESS,
            Ok(head) => {
                let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
                eprintln!("smg: {}", String::from_utf8_lossy(line));
                ExitCode::FAILURE
            }
            Err(error) => {
                eprintln!("smg: no answer: {error}");
                ExitCode::FAILURE
            }
        }
    }

    /// The first bytes of the answer.
    fn ask(&self) -> io::Result<Vec<u8>> {
        let timeout = Duration::from_secs(self.timeout_secs.max(1));
        let address: SocketAddr =
            (self.host.as_str(), self.port).to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        write!(stream, "GET {} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n", self.path)?;
        let mut head = Vec::new();
        stream.take(1024).read_to_end(&mut head)?;
        Ok(head)
    }
}
