//! `smg demo`: a gateway, two echo workers and four modules on this machine, and what to try with them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::spawn_local;

use super::Cli;
use crate::app::{App, StartError};
use crate::config::Config;
use crate::config::value::milliseconds_or_none;
use crate::echo::Echo;
use crate::panics;
use crate::run::Stop;
use crate::telemetry::{self, LogError};

/// The modules that the demo deploys: name, instance mode, file. The rate limiter counts in its own memory, so
/// there must be exactly one of it.
const MODULES: [(&str, &str, &[u8]); 4] = [
    ("guard", "pooled", include_bytes!("../../guests/dist/sentinel-guard.wasm")),
    ("auth", "request", include_bytes!("../../guests/dist/auth.wasm")),
    ("ratelimit", "single", include_bytes!("../../guests/dist/ratelimit.wasm")),
    ("logging", "request", include_bytes!("../../guests/dist/logging.wasm")),
];

#[derive(Debug, clap::Args)]
pub struct Demo {
    /// Port of the gateway
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// Pause before each token of a streamed answer, in milliseconds
    #[arg(long, default_value = "50", value_name = "MS", value_parser = milliseconds_or_none)]
    token_delay_ms: Duration,
}

#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("the log can't be set up: {0}")]
    Log(#[from] LogError),
    #[error("module {name}: {why}")]
    Module { name: &'static str, why: String },
}

impl Demo {
    pub fn run(self) -> ExitCode {
        match self.serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("smg: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn serve(self) -> Result<(), DemoError> {
        let mut config = self.config();
        let log = telemetry::start(&config.log)?;
        panics::install();
        let runtime = Builder::new_current_thread().enable_all().build_local(Default::default())?;
        runtime.block_on(async {
            let mut stop = Stop::new()?;
            let directory = Directory::new()?;
            let workers = [self.worker("echo-1").await?, self.worker("echo-2").await?];
            let urls = workers.map(|address| format!("http://{address}")).join(",");
            config.workers.worker_urls = vec![urls.parse().expect("addresses make worker URLs")];
            let app = App::start(config, log.writer.clone()).await?;
            deploy(&app, &directory.0).await?;
            self.introduce(&workers, &directory.0);
            stop.asked().await;
            println!("stopping");
            app.drain(Duration::from_secs(2), stop.asked()).await;
            Ok(())
        })
    }

    async fn worker(&self, model: &str) -> io::Result<SocketAddr> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let echo = Echo { model: model.to_owned(), token_delay: self.token_delay_ms };
        spawn_local(echo.serve(listener));
        Ok(address)
    }

    fn config(&self) -> Config {
        let port = format!("--port={}", self.port);
        let line = ["smg", "--host=127.0.0.1", &port, "--enable-wasm", "--log-level=warn"];
        Cli::try_parse_from(line).expect("the demo's own command line is right").config
    }

    fn introduce(&self, workers: &[SocketAddr; 2], directory: &Path) {
        let url = format!("http://localhost:{}", self.port);
        let [first, second] = workers;
        println!("gateway on {url}, workers on http://{first} and http://{second}");
        println!("modules guard, auth, ratelimit and logging are deployed, from {}", directory.display());
        println!("\nTry:");
        println!("  curl -i {url}/v1/models");
        println!("      401: the auth module wants a key");
        println!("  curl -i {url}/v1/models -H 'x-api-key: secret-api-key-12345'");
        println!("      200: what both workers offer");
        println!("  curl -N {url}/v1/chat/completions -H 'x-api-key: secret-api-key-12345' \\");
        println!(
            "      -d '{{\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"one token after the other\"}}]}}'"
        );
        println!("  curl -i '{url}/v1/models?q=1+union+select+2'");
        println!("      403: the guard, a module of the Sentinel proxy's kind, sees an attack");
        println!("  curl {url}/wasm");
        println!("      the modules, and what they have done; Prometheus metrics are on {url}/metrics");
        println!("\nCtrl-C stops it.");
    }
}

async fn deploy(app: &App, directory: &Path) -> Result<(), DemoError> {
    for (name, mode, wasm) in MODULES {
        let file = directory.join(format!("{name}.wasm"));
        std::fs::write(&file, wasm)?;
        let module = json!({
            "name": name,
            "file_path": file,
            "module_type": "Middleware",
            "attach_points": [{"Middleware": "OnRequest"}, {"Middleware": "OnResponse"}],
            "instance": {"mode": mode},
        });
        app.deploy(&module).await.map_err(|why| DemoError::Module { name, why })?;
    }
    Ok(())
}

/// A directory for the modules' files; removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("smg-demo-{}-{:08x}", std::process::id(), fastrand::u32(..)));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left in the directory for temporary files does no harm.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
