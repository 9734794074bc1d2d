//! Runs a gateway as a process: log, start, what it says about itself, signals, drain.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{App, StartError};
use crate::config::environment::{self, Unknown};
use crate::config::file::{self, FileDigest};
use crate::config::{Config, ListenAddress, Watch};
use crate::panics;
use crate::reload::Reloaded;
use crate::snapshot::Snapshot;
use crate::telemetry::{self, LogError, Untrusted};

/// Lines about misspelt names that a start or a reload may cost.
const MOST_WARNINGS: usize = 20;
/// How long a gateway that binds its own sockets goes on accepting after SIGTERM, unless it is told otherwise: load
/// balancers and Kubernetes send requests to it until they have heard that it goes.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("the log can't be set up: {0}")]
    Log(#[from] LogError),
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("a part that the gateway can't do without has panicked; the log says where")]
    Panicked,
}

/// Serves until SIGTERM or SIGINT, then drains; after SIGTERM it goes on serving for a while first. Each further signal
/// ends what it is at: that while, or the drain. A panic in a part that the gateway can't do without ends it, too, which
/// is an error then. SIGHUP and a changed file make it read
/// its configuration again, as `read` does.
pub fn until_told_to_stop(config: Config, read: impl Fn() -> Result<Config, String>) -> Result<(), RunError> {
    let log = telemetry::start(&config.log)?;
    panics::install();
    let control = Builder::new_current_thread().enable_all().build_local(Default::default())?;
    control.block_on(async {
        let mut stop = Stop::new()?;
        let mut watch = Watch::new(config.config.clone().zip(config.digest))?;
        let introduction = Introduction::new(&config);
        warn_of_unknown_variables(&config.variables);
        let app = App::start(config, log.writer.clone()).await?;
        introduction.print(&app);
        warn_of_open_admin_api(&app);
        warn_of_unknown_modules(&app.publisher.current());
        tell_supervisor("READY=1");
        let ended = {
            let mut ended = pin!(async {
                tokio::select! {
                    signal = stop.signal() => Ok(signal),
                    () = panics::fatal() => Err(RunError::Panicked),
                }
            });
            loop {
                tokio::select! {
                    ended = &mut ended => break ended,
                    _ = watch.changed() => tokio::select! {
                        ended = &mut ended => break ended,
                        loaded = reload(&app, &log.level, read()) => loaded.into_iter().for_each(|digest| watch.loaded(digest)),
                    },
                }
            }
        };
        tell_supervisor("STOPPING=1");
        let config = app.publisher.current().config.clone();
        let mut has_panicked = ended.is_err();
        let delay = ended.as_ref().map_or(Duration::ZERO, |signal| drain_delay(&config, *signal, app.is_handed_over));
        if !delay.is_zero() {
            tracing::info!(seconds = delay.as_secs_f64(), "told to stop; requests are served a little longer");
            let hurry = async {
                tokio::select! {
                    () = stop.asked() => {}
                    () = panics::fatal() => has_panicked = true,
                }
            };
            app.announce_stop(delay, hurry).await;
        }
        tracing::info!("draining");
        app.drain(config.listen.shutdown_grace_period_secs, stop.asked()).await;
        // Also one that came during the drain.
        has_panicked |= panics::fatal().now_or_never().is_some();
        if has_panicked { Err(RunError::Panicked) } else { Ok(()) }
    })
}

/// How long the gateway goes on accepting after it was told to stop. A socket that was handed over goes on accepting by
/// itself, and whoever presses Ctrl-C does not want to wait.
fn drain_delay(config: &Config, signal: StopSignal, is_handed_over: bool) -> Duration {
    match signal {
        StopSignal::Interrupt => Duration::ZERO,
        StopSignal::Terminate => {
            let usual = if is_handed_over { Duration::ZERO } else { DRAIN_DELAY };
            config.listen.drain_delay_secs.unwrap_or(usual)
        }
    }
}

/// Takes over what was read, or says why not; what the file was, if that is so.
async fn reload(app: &App, level: &telemetry::Level, read: Result<Config, String>) -> Option<FileDigest> {
    let config = match read {
        Ok(config) => config,
        Err(why) => {
            app.reloads().refused.add(1);
            tracing::error!(%why, "the new configuration is not taken; the old one stays");
            return None;
        }
    };
    let digest = config.digest;
    let had_keys = !app.publisher.current().keys.is_empty();
    match app.reload(config).await {
        Ok(Reloaded { changed, needs_restart }) => {
            app.reloads().taken.add(1);
            if let Err(error) = level.set(&app.publisher.current().config.log.log_level) {
                tracing::error!(%error, "the log goes on as before");
            }
            let changed = if changed.is_empty() { "nothing".to_owned() } else { changed.join(",") };
            tracing::info!(changed, "the configuration is reloaded");
            if !needs_restart.is_empty() {
                tracing::warn!(settings = needs_restart.join(","), "these settings change with a restart only");
            }
            warn_of_unknown_modules(&app.publisher.current());
            if had_keys {
                warn_of_open_admin_api(app);
            }
            digest
        }
        Err(error) => {
            app.reloads().refused.add(1);
            let error = error.to_string();
            let error = Untrusted(error.as_bytes());
            tracing::error!(%error, "the new configuration is not taken; the old one stays");
            None
        }
    }
}

/// A module that a route names may come later, by the admin API. Until then the route's requests go without it, which
/// must not pass unseen where a name is misspelt and the module is one that keeps strangers out.
fn warn_of_unknown_modules(snapshot: &Snapshot) {
    let deployed: Vec<_> = snapshot.modules.iter().map(|module| &*module.name).collect();
    for (route, module) in snapshot.overrides.unknown_modules(&deployed).take(MOST_WARNINGS) {
        let meant = file::nearest(module, deployed.iter().copied()).unwrap_or_default();
        tracing::warn!(route, module, meant, "a route names a module that is not deployed");
    }
}

/// Without a key the admin API is for callers on this machine, and a proxy there that adds no field of its own looks like
/// one. Where nobody else can connect, there is no need for such a proxy.
fn warn_of_open_admin_api(app: &App) {
    if !app.publisher.current().keys.is_empty() {
        return;
    }
    let is_exposed = |address: &&ListenAddress| address.tcp().is_some_and(|tcp| !tcp.ip().to_canonical().is_loopback());
    let exposed: Vec<_> = app.admin_addresses.iter().filter(is_exposed).map(ToString::to_string).collect();
    if !exposed.is_empty() {
        tracing::warn!(
            listeners = exposed.join(","),
            "the admin API is open without a key to this machine, and so to whomever a proxy on it lets through: set \
             --admin-key, or give it a listener of its own, see docs/operations.md"
        );
    }
}

/// A misspelt variable must not pass for the setting that it was meant to be.
pub fn warn_of_unknown_variables(named: &BTreeSet<String>) {
    for Unknown { name, meant } in environment::unknown(named).into_iter().take(MOST_WARNINGS) {
        let variable = Untrusted(name.as_bytes());
        let meant = meant.unwrap_or_default();
        tracing::warn!(%variable, meant, "nothing reads this environment variable");
    }
}

/// Tells systemd how far it is, if it was started by it (sd_notify(3)).
fn tell_supervisor(state: &str) {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let told = UnixDatagram::unbound().and_then(|datagram| match socket.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => datagram.send_to_addr(state.as_bytes(), &SocketAddr::from_abstract_name(name)?),
        None => datagram.send_to(state.as_bytes(), &socket),
    });
    if let Err(error) = told {
        tracing::warn!(%error, "the supervisor can't be told");
    }
}

/// What asked a process to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignal {
    Terminate,
    Interrupt,
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

    pub async fn signal(&mut self) -> StopSignal {
        tokio::select! {
            _ = self.term.recv() => StopSignal::Terminate,
            _ = self.interrupt.recv() => StopSignal::Interrupt,
        }
    }

    pub async fn asked(&mut self) {
        self.signal().await;
    }
}

/// What a gateway says about itself once it listens.
struct Introduction {
    /// Of the listeners.
    schemes: Vec<&'static str>,
    /// Which of them are for the admin API; without any it answers on all.
    admin_only: Vec<usize>,
    workers: Vec<String>,
    admin: &'static str,
    wasm: bool,
}

impl Introduction {
    fn new(config: &Config) -> Self {
        let scheme = |tls: bool| if tls { "https" } else { "http" };
        let others = config.sections.listeners.iter().map(|listener| scheme(listener.tls));
        let schemes = std::iter::once(scheme(config.tls.tls_cert_path.is_some())).chain(others).collect();
        let file = config.sections.listeners.iter().enumerate();
        let admin_only = file.filter(|(_, listener)| listener.admin).map(|(at, _)| at + 1).collect();
        let admin = if config.has_keys() {
            "open to whoever has a key"
        } else {
            "open to this machine only; --admin-key opens it to others"
        };
        let of_pools = config.sections.pools.iter().flat_map(|pool| &pool.workers).map(|worker| &worker.url);
        let workers = config.workers.urls().iter().chain(of_pools).map(ToString::to_string).collect();
        Self { schemes, admin_only, workers, admin, wasm: config.wasm.enable_wasm }
    }

    fn print(&self, app: &App) {
        let mut text = String::new();
        let urls: Vec<_> =
            app.addresses.iter().zip(&self.schemes).map(|(address, scheme)| url(scheme, address)).collect();
        urls.iter().for_each(|url| text += &format!("listening on {url}\n"));
        if let Some(address) = app.metrics_address {
            text += &format!("metrics on http://{address}/metrics\n");
        }
        match self.workers.as_slice() {
            [] => text += "workers: none; every request gets a 503\n",
            workers => text += &format!("workers: {}; each joins when it answers\n", workers.join(" ")),
        }
        let only: Vec<_> = self.admin_only.iter().map(|at| urls[*at].as_str()).collect();
        match only.is_empty() {
            true => text += &format!("admin API: {}\n", self.admin),
            false => text += &format!("admin API: on {} alone; {}\n", only.join(" "), self.admin),
        }
        text += &match (self.wasm, app.publisher.current().modules.len()) {
            (false, _) => "modules: off; --enable-wasm turns them on\n".to_owned(),
            (true, count) => format!("modules: {count} deployed\n"),
        };
        // Nobody may be reading.
        let _ = io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush());
    }
}

fn url(scheme: &str, address: &ListenAddress) -> String {
    match address {
        ListenAddress::Tcp(_) => format!("{scheme}://{address}"),
        ListenAddress::Unix(_) => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_goes_on_accepting_after_sigterm_where_others_must_hear_of_it() {
        use StopSignal::{Interrupt, Terminate};
        for (flags, signal, is_handed_over, seconds) in [
            (&[][..], Terminate, false, 5.0),
            (&[], Terminate, true, 0.0),
            (&[], Interrupt, false, 0.0),
            (&["--drain-delay-secs=0"], Terminate, false, 0.0),
            (&["--drain-delay-secs=2.5"], Terminate, true, 2.5),
            (&["--drain-delay-secs=2.5"], Interrupt, false, 0.0),
        ] {
            let delay = drain_delay(&Config::of(flags), signal, is_handed_over);
            assert_eq!(delay.as_secs_f64(), seconds, "{flags:?} {signal:?} {is_handed_over}");
        }
    }
}
