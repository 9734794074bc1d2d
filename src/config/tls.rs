//! Certificates: ours for clients, ours for workers, and whom we believe.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub struct Tls {
    /// Certificate chain (PEM) to show clients; with it the port speaks TLS. Read again when the file changes
    #[arg(long, env = "SMG_TLS_CERT_PATH", value_name = "FILE", requires = "tls_key_path")]
    pub tls_cert_path: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "SMG_TLS_KEY_PATH", value_name = "FILE", requires = "tls_cert_path")]
    pub tls_key_path: Option<PathBuf>,
    /// Certificate chain (PEM) to show workers
    #[arg(long, env = "SMG_CLIENT_CERT_PATH", value_name = "FILE", requires = "client_key_path")]
    pub client_cert_path: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "SMG_CLIENT_KEY_PATH", value_name = "FILE", requires = "client_cert_path")]
    pub client_key_path: Option<PathBuf>,
    /// Authorities (PEM) that sign workers' certificates, instead of the system's
    #[arg(long, env = "SMG_CA_CERT_PATHS", value_name = "FILE", num_args = 1.., value_delimiter = ',')]
    pub ca_cert_paths: Vec<PathBuf>,
    /// Speak HTTP/2 to workers: by ALPN with https, with prior knowledge otherwise
    #[arg(long, env = "SMG_UPSTREAM_HTTP2")]
    pub upstream_http2: bool,
}
