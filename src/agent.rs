//! `smg agent`: the process that the Sentinel (now Zentinel) proxy asks about each request and response, as a
//! drop-in for the original, on the same guests as the gateway's.
//!
//! The proxy connects to a Unix socket and speaks one of two versions of its protocol, [`v1`] or [`v2`]; both
//! come down to the same [`event`]s and [`reply`]s. Everything runs on one thread; guests that don't finish
//! quickly take turns ([`crate::modules`]).

mod event;
mod frame;
mod module;
mod reply;
mod v1;
mod v2;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use clap::builder::BoolishValueParser;
use http::Response;
use http::header::{self, HeaderValue};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_local};

use self::frame::{FrameError, Frames};
use self::module::CurrentModule;
use self::reply::Reply;
use crate::config::value::address;
use crate::config::{FailurePolicy, GuestLimits, Log};
use crate::listeners::hint;
use crate::metrics::{self, Exposition, now_ms};
use crate::modules::{Engine, EngineError, FailureKind, Hook, LoadError, Loader, ModuleGuests, ModuleMetrics};
use crate::panics::{self, vital};
use crate::registry::FileError;
use crate::run::Stop;
use crate::scrape;
use crate::telemetry::Untrusted;
use crate::unix_socket::{Bound, InUse, SocketError};

/// Connections at once; a proxy opens ten at most.
const MOST_CONNECTIONS: usize = 256;
/// Time that a peer may take to read what was written to it.
const WRITE_TIME: Duration = Duration::from_secs(10);
/// Time between two looks whether a peer is still there while a guest works for it.
const GONE_LOOK: Duration = Duration::from_millis(50);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time that what is in flight gets to finish after SIGTERM.
const GRACE: Duration = Duration::from_secs(30);

/// What can be set; names, environment and defaults are those of the original.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Unix socket to listen on
    #[arg(long, env = "AGENT_SOCKET", default_value = "/tmp/sentinel-wasm.sock", value_name = "PATH")]
    pub socket: PathBuf,
    /// Module to run; loaded anew when the file changes, and on SIGHUP
    #[arg(long, env = "WASM_MODULE", value_name = "FILE")]
    pub module: PathBuf,
    /// What the module's `on_configure` is given, as a JSON object
    #[arg(long, env = "WASM_MODULE_CONFIG", value_name = "JSON")]
    pub module_config: Option<ModuleConfig>,
    /// Instances that are kept
    #[arg(long, env = "WASM_POOL_SIZE", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub pool_size: u32,
    /// Log every event, as --log-level=debug does
    #[arg(short, long, env = "WASM_VERBOSE", value_parser = BoolishValueParser::new())]
    pub verbose: bool,
    /// Let a request pass when the module fails, rather than block it
    #[arg(long, env = "FAIL_OPEN", value_parser = BoolishValueParser::new())]
    pub fail_open: bool,
    /// Address of the listener for /metrics, when --metrics-port is given
    #[arg(long, env = "WASM_METRICS_HOST", default_value = "127.0.0.1", value_name = "ADDRESS", value_parser = address)]
    pub metrics_host: IpAddr,
    /// Serve /metrics on this port
    #[arg(long, env = "WASM_METRICS_PORT", value_name = "PORT")]
    pub metrics_port: Option<u16>,
    #[command(flatten)]
    pub guest: GuestLimits,
    #[command(flatten)]
    pub log: Log,
}

/// A configuration for the module.
#[derive(Debug, Clone, Default)]
pub struct ModuleConfig(pub serde_json::Map<String, serde_json::Value>);

impl FromStr for ModuleConfig {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_str(text).map(Self)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("modules can't be loaded: {0}")]
    Loader(LoadError),
    #[error("{}: {cause}", path.display())]
    File { path: PathBuf, cause: FileError },
    #[error("{}: {cause}", path.display())]
    Module { path: PathBuf, cause: LoadError },
    #[error("{}: a component; this runs core modules of the Sentinel interface", path.display())]
    Component { path: PathBuf },
    #[error("{}: {cause}", path.display())]
    Socket { path: PathBuf, cause: SocketError },
    #[error("can't listen on {address} for metrics (--metrics-host, --metrics-port): {cause}{}", hint(.cause))]
    Metrics { address: SocketAddr, cause: io::Error },
    #[error("a part that the agent can't do without has panicked; the log says where")]
    Panicked,
}

impl AgentError {
    /// Whether the module is at fault.
    pub fn is_module(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Module { .. } | Self::Component { .. })
    }
}

/// Serves until SIGTERM or SIGINT, then finishes what is in flight; a second signal ends that. Must be called
/// on a local runtime.
pub async fn run(options: Options) -> Result<(), AgentError> {
    let (mut stop, hangup) = (Stop::new()?, signal(SignalKind::hangup())?);
    let counts = Rc::<Counts>::default();
    let modules = Arc::<ModuleMetrics>::default();
    let engine = Arc::new(Engine::new(&options.guest)?);
    // Whatever takes the executable's place while we run, this is still the one that we are.
    let loader = Loader::new(engine.clone(), modules.clone(), "/proc/self/exe".into()).map_err(AgentError::Loader)?;
    let module = Rc::new(CurrentModule::load(&options, &engine, loader).await?);
    serve_metrics(&options, modules, counts.clone()).await?;
    let socket = Bound::new(&options.socket, InUse::Refuse).await;
    let socket = socket.map_err(|cause| AgentError::Socket { path: options.socket.clone(), cause })?;
    say(format_args!("listening on {}", options.socket.display()));

    spawn_local(vital(module.clone().watch()));
    spawn_local(vital(reload_on_hangup(module.clone(), hangup)));
    let (draining, drain) = watch::channel(false);
    let agent = Rc::new(Agent { module, counts, drain });
    let mut connections = JoinSet::new();
    let ended = tokio::select! {
        () = accept(&socket.listener, &agent, &mut connections) => Ok(()),
        () = stop.asked() => Ok(()),
        () = panics::fatal() => Err(AgentError::Panicked),
    };
    // New connections are refused from here on, and a successor can have the path.
    drop(socket);
    tracing::info!(connections = agent.counts.connections.get(), "draining");
    draining.send_replace(true);
    let finished = async { while connections.join_next().await.is_some() {} };
    tokio::select! {
        () = finished => tracing::info!("drained"),
        () = tokio::time::sleep(GRACE) => tracing::warn!("ending with connections still open"),
        () = stop.asked() => {}
    }
    ended
}

async fn serve_metrics(options: &Options, modules: Arc<ModuleMetrics>, counts: Rc<Counts>) -> Result<(), AgentError> {
    let Some(port) = options.metrics_port else { return Ok(()) };
    let address = SocketAddr::new(options.metrics_host, port);
    let listener = TcpListener::bind(address).await.map_err(|cause| AgentError::Metrics { address, cause })?;
    say(format_args!("metrics on http://{}/metrics", listener.local_addr()?));
    let metrics = move || {
        let mut exposition = Exposition::default();
        modules.expose(&mut exposition);
        counts.expose(&mut exposition);
        panics::expose(&mut exposition);
        let mut response = Response::new(Bytes::from(exposition.render()));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(metrics::TEXT_FORMAT));
        response
    };
    spawn_local(vital(scrape::serve(listener, metrics)));
    Ok(())
}

/// A line on standard output, where nobody may be reading.
fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

async fn reload_on_hangup(module: Rc<CurrentModule>, mut hangup: Signal) {
    while hangup.recv().await.is_some() {
        module.reload().await;
    }
}

async fn accept(listener: &UnixListener, agent: &Rc<Agent>, connections: &mut JoinSet<()>) {
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok(_) if connections.len() >= MOST_CONNECTIONS => {
                tracing::warn!("a connection was refused: there are {MOST_CONNECTIONS} already");
            }
            Ok((stream, _)) => drop(connections.spawn_local(agent.clone().serve(stream))),
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What all connections share.
struct Agent {
    module: Rc<CurrentModule>,
    counts: Rc<Counts>,
    /// Becomes true when nothing new is to be taken.
    drain: watch::Receiver<bool>,
}

/// Why a connection was ended.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the first frame is of no version of the protocol that is known")]
    UnknownProtocol,
    #[error("a frame is not what the protocol says: {0}")]
    Protocol(String),
    #[error("the peer did not read what was written to it in time")]
    SlowPeer,
    #[error("writing failed: {0}")]
    Write(#[from] io::Error),
}

impl Agent {
    async fn serve(self: Rc<Self>, stream: UnixStream) {
        let _open = OpenConnection::new(&self.counts);
        if let Err(error) = self.converse(stream).await {
            let error = error.to_string();
            tracing::warn!(error = %Untrusted(error.as_bytes()), "a connection was ended");
        }
    }

    /// The first byte after a frame's length tells the protocol's versions apart.
    async fn converse(self: &Rc<Self>, stream: UnixStream) -> Result<(), ConnectionError> {
        let peer = Peer::of(&stream)?;
        let (reader, writer) = stream.into_split();
        let mut frames = Frames::new(reader);
        let mut drain = self.drain.clone();
        let first = tokio::select! {
            first = frames.next() => first?,
            _ = drain.wait_for(|draining| *draining) => None,
        };
        match first {
            None => Ok(()),
            Some(first) if first[0] == b'{' => v1::serve(self, first, frames, writer, &peer).await,
            Some(first) if first[0] == v2::HANDSHAKE => v2::serve(self, first, frames, writer, &peer).await,
            Some(_) => Err(ConnectionError::UnknownProtocol),
        }
    }
}

impl Agent {
    /// What the module decides about the event that the proxy knows by `id`; logged and counted.
    async fn decide(&self, protocol: &'static str, hook: Hook, id: &str, payload: &[u8]) -> Reply {
        let guests = self.module.guests();
        let reply = match event::read(hook, payload) {
            Ok(_) if !guests.module.runs_at(hook) => Reply::allow(),
            Ok(event) => match guests.call(&mut None, event.view(), now_ms()).await {
                Ok(verdict) => Reply::of_verdict(hook, verdict),
                Err(kind) => failed(&guests, hook, id, kind, "the module failed"),
            },
            Err(error) => failed(&guests, hook, id, FailureKind::Output, &error.to_string()),
        };
        reply.tags().iter().for_each(|tag| drop(guests.count_tag(tag)));
        self.counts.event(protocol, event::name(hook), reply.label());
        let (event, decision) = (event::name(hook), reply.label());
        tracing::debug!(id = %Untrusted(id.as_bytes()), protocol, event, decision, tags = ?reply.tags());
        reply
    }

    /// The answer to a `configure` event.
    async fn configure(&self, payload: &[u8]) -> Reply {
        self.apply(payload).await.map_or_else(|error| Reply::refused(error.to_string()), |()| Reply::allow())
    }

    /// Applies the configuration that a payload has, if it has one that makes sense.
    async fn apply(&self, payload: &[u8]) -> Result<(), LoadError> {
        let configuration = match event::configuration(payload) {
            Ok(Some(configuration)) => configuration,
            Ok(None) => return Ok(()),
            Err(error) => {
                let error = error.to_string();
                tracing::warn!(error = %Untrusted(error.as_bytes()), "a configuration is not an object and was ignored");
                return Ok(());
            }
        };
        self.module.configure(configuration).await.inspect_err(|error| {
            let cause = error.to_string();
            tracing::error!(cause = %Untrusted(cause.as_bytes()), "a configuration was refused by the module");
        })
    }
}

/// What a failure is answered with, by the policy in force. Each has its line in the log, as each request of the
/// gateway has.
fn failed(guests: &ModuleGuests, hook: Hook, id: &str, kind: FailureKind, why: &str) -> Reply {
    let module = &guests.module;
    let policy = module.settings.on_failure.of(hook);
    let (id, event, kind_label) = (Untrusted(id.as_bytes()), event::name(hook), kind.label());
    tracing::error!(%id, event, kind = kind_label, ?policy, why = %Untrusted(why.as_bytes()), "an event was not judged");
    match policy {
        FailurePolicy::Open => Reply::failed_open(kind),
        FailurePolicy::Closed => {
            Reply::failed_closed(kind, module.settings.failure_status, module.abi().failure_text())
        }
    }
}

/// Whoever is at the other end of a connection. One that has closed it for good waits for no answer; one that has
/// only finished sending may.
struct Peer(OwnedFd);

impl Peer {
    fn of(stream: &UnixStream) -> io::Result<Self> {
        stream.as_fd().try_clone_to_owned().map(Self)
    }

    /// Waits until the connection is closed in both directions.
    async fn gone(&self) {
        loop {
            tokio::time::sleep(GONE_LOOK).await;
            let mut sockets = [PollFd::new(&self.0, PollFlags::empty())];
            let looked = rustix::event::poll(&mut sockets, Some(&Timespec::default()));
            if looked.is_ok() && sockets[0].revents().contains(PollFlags::HUP) {
                return;
            }
        }
    }
}

/// What is counted of connections and events.
#[derive(Default)]
struct Counts {
    connections: Cell<u64>,
    events: RefCell<BTreeMap<[&'static str; 3], u64>>,
}

impl Counts {
    fn event(&self, protocol: &'static str, event: &'static str, decision: &'static str) {
        *self.events.borrow_mut().entry([protocol, event, decision]).or_default() += 1;
    }

    fn expose(&self, exposition: &mut Exposition) {
        let help = "Connections of proxies that are open.";
        exposition.gauge("smg_agent_connections", help, &[], self.connections.get() as f64);
        for ([protocol, event, decision], count) in &*self.events.borrow() {
            let labels = [("protocol", *protocol), ("event", event), ("decision", decision)];
            exposition.counter("smg_agent_events_total", "Events that were answered.", &labels, *count as f64);
        }
    }
}

/// Counts a connection while it is open.
struct OpenConnection(Rc<Counts>);

impl OpenConnection {
    fn new(counts: &Rc<Counts>) -> Self {
        counts.connections.set(counts.connections.get() + 1);
        Self(counts.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
    }
}
