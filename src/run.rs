//! Runs a gateway as a process: log, start, what it says about itself, signals, drain.

use std::io::{self, Write};

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, StartError};
use crate::config::Config;
use crate::telemetry;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the log can't be set up: {0}")]
    Log(#[from] tracing_subscriber::filter::ParseError),
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends the drain.
pub fn until_told_to_stop(config: Config) -> Result<(), RunError> {
    let _log = telemetry::start(&config.log.log_level, config.log.log_json)?;
    let control = Builder::new_current_thread().enable_all().build_local(Default::default())?;
    control.block_on(async {
        let mut stop = Stop::new()?;
        let grace = config.listen.shutdown_grace_period_secs;
        let introduction = Introduction::new(&config);
        let app = App::start(config).await?;
        introduction.print(&app);
        stop.asked().await;
        tracing::info!("draining");
        app.drain(grace, stop.asked()).await;
        Ok(())
    })
}

/// The signals that ask a process to stop.
pub struct Stop {
    term: Signal,
    interrupt: Signal,
}

impl Stop {
    pub fn new() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub async fn asked(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// What a gateway says about itself once it listens.
struct Introduction {
    workers: Vec<String>,
    admin: &'static str,
    wasm: bool,
}

impl Introduction {
    fn new(config: &Config) -> Self {
        let has_key = config.access.admin_key.is_some() || config.access.api_key.is_some();
        let admin = if has_key {
            "open to whoever has a key"
        } else {
            "open to this machine only; --admin-key opens it to others"
        };
        let workers = config.workers.urls().iter().map(ToString::to_string).collect();
        Self { workers, admin, wasm: config.wasm.enable_wasm }
    }

    fn print(&self, app: &App) {
        let mut text = format!("listening on http://{}\n", app.address);
        if let Some(address) = app.metrics_address {
            text += &format!("metrics on http://{address}/metrics\n");
        }
        match self.workers.as_slice() {
            [] => text += "workers: none; every request gets a 503\n",
            workers => text += &format!("workers: {}; each joins when it answers\n", workers.join(" ")),
        }
        text += &format!("admin API: {}\n", self.admin);
        text += &match (self.wasm, app.publisher.current().modules.len()) {
            (false, _) => "modules: off; --enable-wasm turns them on\n".to_owned(),
            (true, count) => format!("modules: {count} deployed\n"),
        };
        // Nobody may be reading.
        let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    }
}
