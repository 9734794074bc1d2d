//! The composition root: builds every part, owns the tasks and threads, and knows the real addresses.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_local};
use tracing_appender::non_blocking::NonBlocking;

use crate::access_log::{self, Format};
use crate::admin::{Admin, Reloads, every_worker, models};
use crate::admission::Admission;
use crate::client::Offers;
use crate::config::{Config, ListenAddress, ModuleFile};
use crate::fleet::Fleet;
use crate::gateway::accept::Via;
use crate::gateway::control::Control;
use crate::gateway::{Owners, Shared};
use crate::keys::Keys;
use crate::listeners::{self, ListenError, Listener, Reception, Speaks};
use crate::modules::{Cache, CacheError, Defaults, Engine, EngineError, LoadError, Loader, ModuleMetrics};
use crate::panics::vital;
use crate::pressure::{Lookout, Pressure};
use crate::registry::{self, DeployError, Deployment, Origin, Registry, SectionError};
use crate::reload::{self, Reload, ReloadError, Reloaded, Watches};
use crate::routes::Overrides;
use crate::scrape;
use crate::shard::{Message, Shard};
use crate::snapshot::{Publisher, Snapshot};
use crate::tls::{Alpn, FileError, ServerTlsError};
use crate::trace::Tracer;
use crate::trace::export::{Exporter, Pace};
use crate::trace::target::{Environment, EnvironmentError};
use crate::workers::connector::Connector;
use crate::workers::names::NetError;

/// Calls to the control plane that may wait for it.
const MOST_CALLS: usize = 256;
/// Time between two looks at memory and file descriptors.
const LOOK_OUT: Duration = Duration::from_millis(250);
/// How long a gateway that takes over from another waits for its workers before it takes connections.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// Time between two looks whether a drain is complete.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("can't start a thread: {0}")]
    Thread(io::Error),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("modules can't be loaded: {0}")]
    Loader(LoadError),
    #[error("certificates for workers: {0}")]
    Certificates(#[source] FileError),
    #[error("certificates: {0}")]
    ServerTls(#[from] ServerTlsError),
    #[error("traces: {0}")]
    Traces(#[from] EnvironmentError),
    #[error("names can't be resolved: {0}")]
    Resolver(#[source] NetError),
    #[error("--wasm-cache-dir: {0}")]
    Cache(#[from] CacheError),
    #[error("--wasm-module, or `modules` of the file, needs --enable-wasm")]
    ModuleWithoutWasm,
    #[error("--wasm-module {}={}: {cause}{}", module.name, module.file.display(), place(&module.file))]
    Module { module: ModuleFile, cause: DeployError },
    #[error(transparent)]
    FileModule(#[from] SectionError),
}

/// Where a relative path leads.
fn place(file: &Path) -> String {
    match file.is_absolute() {
        true => String::new(),
        false => format!("; relative to the working directory, the path is {}", registry::absolute(file).display()),
    }
}

/// A running gateway. It belongs to the control plane's thread.
pub struct App {
    /// Those of the listeners; the first is the one of `--host` and `--port`.
    pub addresses: Vec<ListenAddress>,
    /// Those of them that have the admin API.
    pub admin_addresses: Vec<ListenAddress>,
    pub metrics_address: Option<SocketAddr>,
    pub publisher: Arc<Publisher>,
    /// Its sockets outlive it.
    pub is_handed_over: bool,
    shared: Arc<Shared>,
    shards: Rc<RefCell<Vec<Shard>>>,
    stop: watch::Sender<bool>,
    acceptors: Vec<JoinHandle<()>>,
    admin: Rc<Admin>,
    reload: Reload,
    exporter: Option<Exporter>,
}

impl App {
    /// Starts everything and deploys the modules that the configuration names. Must be called, and kept, on
    /// a local runtime: the control plane.
    pub async fn start(config: Config, log: NonBlocking) -> Result<Self, StartError> {
        let has_modules = !config.wasm.wasm_module.is_empty() || !config.sections.modules.is_empty();
        if !config.wasm.enable_wasm && has_modules {
            return Err(StartError::ModuleWithoutWasm);
        }
        let listeners = listeners::all(&config).await?;
        let is_handed_over = listeners.iter().any(|listener| listener.is_handed_over);
        let speaks_tls = listeners.iter().any(|listener| listener.serves.speaks == Speaks::Tls);
        let needs_key = listeners.iter().any(|listener| listener.needs_key);
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.address.clone()).collect();
        let admin = listeners.iter().filter(|listener| listener.serves.offers != Offers::DataPlane);
        let admin_addresses = admin.map(|listener| listener.address.clone()).collect();
        let metrics_address = config.listen.prometheus_port.map(|port| (config.listen.prometheus_host, port).into());
        let metrics_listener = metrics_address.map(listeners::plain).transpose()?;
        let metrics_address = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let connector = Arc::new(Connector::new(&config).map_err(StartError::Certificates)?);
        let tls = Arc::new(ArcSwapOption::new(reload::server_tls(&config)?));
        let resolver = reload::resolver(&config).map_err(StartError::Resolver)?;
        let config = Arc::new(config);
        let publisher = Arc::new(Publisher::new(Snapshot {
            config: config.clone(),
            keys: Arc::new(Keys::new(&config, None)),
            overrides: Arc::new(Overrides::new(&config.sections.routes)),
            rate: reload::rate(&config),
            connector: connector.clone(),
            pools: Vec::new(),
            modules: Vec::new(),
            began: Instant::now(),
        }));
        let own = addresses.iter().filter_map(ListenAddress::tcp).chain(metrics_address).collect();
        let fleet = Fleet::new(publisher.clone(), resolver, own);
        let wasm = wasm(&config, &publisher)?;
        let exporter = exporter(&config, &publisher)?;
        let (calls, called) = mpsc::channel(MOST_CALLS);
        let (models, asked) = mpsc::channel(models::MOST_WAITING);
        let (operations, operated) = mpsc::channel(every_worker::MOST_WAITING);
        let shared = Arc::new(Shared {
            publisher: publisher.clone(),
            engine: wasm.as_ref().map(|wasm| wasm.engine.clone()),
            control: Control { calls, models, operations },
            via: Via::new(&format!("smg-{:016x}", fastrand::u64(..))),
            stopping: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            shards: shard_count(&config),
            admission: Admission::new(reload::admission_settings(&config)),
            pressure: Arc::default(),
            owners: Owners::default(),
            log: access_log::Output {
                fields: config.log.log_fields.clone(),
                format: if config.log.log_json { Format::Json } else { Format::Text },
                writer: log,
            },
            tracer: exporter.as_ref().map(|(tracer, _)| tracer.clone()),
        });
        let shards = (0..shared.shards).map(|number| Shard::start(number, shared.clone()));
        let shards: Vec<_> = shards.collect::<io::Result<_>>().map_err(StartError::Thread)?;
        let admin = Rc::new(Admin {
            publisher: publisher.clone(),
            registry: wasm.map(|wasm| wasm.registry),
            fleet: fleet.clone(),
            admission: shared.admission.clone(),
            pressure: shared.pressure.clone(),
            traces: exporter.as_ref().map(|(_, exporter)| exporter.counts.clone()),
            shards: shards.iter().map(|shard| shard.metrics.clone()).collect(),
            reloads: Reloads::default(),
        });
        if let Some(registry) = &admin.registry {
            deploy_at_start(registry, &config, &publisher).await?;
        }
        if listeners.iter().any(|listener| listener.is_shared) {
            // Until then those who connect wait, or are served by the gateway that was here before.
            fleet.joined(TAKE_OVER).await;
        }
        spawn_local(vital(admin.clone().run(called)));
        spawn_local(vital(models::answer(publisher.clone(), fleet.clone(), asked)));
        spawn_local(vital(every_worker::answer(publisher.clone(), operated)));
        let watches = Watches::default();
        watches.follow_workers(&connector);
        watches.follow_clients(tls.load_full().as_ref());
        if let Some(listener) = metrics_listener {
            let admin = admin.clone();
            spawn_local(vital(scrape::serve(listener, move || admin.metrics())));
        }
        let shards = Rc::new(RefCell::new(shards));
        spawn_local(vital(look_out(shared.pressure.clone(), shards.clone())));
        let stop = watch::Sender::new(false);
        let reception = Reception { shards: shards.clone(), tls: tls.clone(), pressure: shared.pressure.clone() };
        let accept = |listener: Listener| spawn_local(vital(listener.accept(reception.clone(), stop.subscribe())));
        let acceptors = listeners.into_iter().map(accept).collect();
        let registry = admin.registry.clone();
        let reload =
            Reload { fleet, registry, tls, admission: shared.admission.clone(), speaks_tls, needs_key, watches };
        Ok(Self {
            addresses,
            admin_addresses,
            metrics_address,
            publisher,
            is_handed_over,
            shared,
            shards,
            stop,
            acceptors,
            admin,
            reload,
            exporter: exporter.map(|(_, exporter)| exporter),
        })
    }

    /// Deploys one module object as `POST /wasm` takes it; the text says why not.
    pub async fn deploy(&self, module: &serde_json::Value) -> Result<(), String> {
        self.admin.deploy(module).await
    }

    /// Takes over a new configuration, or says why not and changes nothing. One at a time; dropped half-way, it has
    /// changed nothing.
    pub async fn reload(&self, config: Config) -> Result<Reloaded, ReloadError> {
        let before = self.publisher.current().config.clone();
        self.reload.apply(&before, config).await
    }

    /// What became of configurations that were read again.
    pub fn reloads(&self) -> &Reloads {
        &self.admin.reloads
    }

    /// Goes on accepting and serving for a while after it was told to stop, and says so: those who send requests here
    /// need time to hear of it. Ends early at `hurry`.
    pub async fn announce_stop(&self, delay: Duration, hurry: impl Future<Output = ()>) {
        self.shared.stopping.store(true, Relaxed);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = hurry => {}
        }
    }

    /// Takes nothing new and waits until what is in flight is finished, but no longer than `grace` and not
    /// past `hurry`; then ends the shards.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        self.shared.stopping.store(true, Relaxed);
        self.shared.draining.store(true, Relaxed);
        self.stop.send_replace(true);
        for acceptor in self.acceptors {
            if acceptor.await.is_err() {
                tracing::error!("a listener ended with a panic");
            }
        }
        self.shards.borrow().iter().for_each(|shard| shard.tell(Message::Drain));
        let connections = || -> u64 { self.shards.borrow().iter().map(Shard::load).sum() };
        let drained = async {
            let start = Instant::now();
            while connections() > 0 && start.elapsed() < grace {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        tokio::select! {
            () = drained => {}
            () = hurry => {}
        }
        match connections() {
            0 => tracing::info!("drained"),
            left => tracing::warn!(connections = left, "ending with connections still open"),
        }
        self.shards.take().into_iter().for_each(Shard::stop);
        if let Some(exporter) = self.exporter {
            exporter.finish().await;
        }
    }
}

/// What sends traces to a collector, if there is one.
fn exporter(config: &Config, publisher: &Arc<Publisher>) -> Result<Option<(Tracer, Exporter)>, StartError> {
    let Some(endpoint) = config.traces.otlp_endpoint.clone() else { return Ok(None) };
    let environment = Environment::read(|name| std::env::var(name).ok(), uuid::Uuid::new_v4().to_string())?;
    let publisher = publisher.clone();
    let connect = async move |host: &str, stream: TcpStream| {
        let connector = publisher.current().connector.clone();
        connector.tls().connect(host, stream, Alpn::Http1).await.map_err(io::Error::other)
    };
    let ratio = config.traces.otlp_sample_ratio;
    Ok(Some(Exporter::start(endpoint, environment, ratio, Pace::default(), connect)))
}

/// Looks how much of the process's resources is used.
async fn look_out(pressure: Arc<Pressure>, shards: Rc<RefCell<Vec<Shard>>>) {
    let mut lookout = Lookout::new();
    loop {
        let connections = shards.borrow().iter().map(Shard::load).sum();
        for change in lookout.look(&pressure, connections) {
            let (resource, level) = (change.resource.label(), change.to.label());
            tracing::warn!(resource, level, share = change.share, "resources");
        }
        tokio::time::sleep(LOOK_OUT).await;
    }
}

/// What runs modules, when they are enabled.
struct Wasm {
    engine: Arc<Engine>,
    registry: Arc<Registry>,
}

fn wasm(config: &Config, publisher: &Arc<Publisher>) -> Result<Option<Wasm>, StartError> {
    if !config.wasm.enable_wasm {
        return Ok(None);
    }
    let engine = Arc::new(Engine::new(&config.wasm.guest)?);
    let metrics = Arc::<ModuleMetrics>::default();
    // The very program that runs, whatever has become of its file since it was started.
    let mut loader =
        Loader::new(engine.clone(), metrics.clone(), "/proc/self/exe".into()).map_err(StartError::Loader)?;
    if let Some(directory) = &config.wasm.wasm_cache_dir {
        loader = loader.with_cache(Cache::open(directory, &engine)?);
    }
    let (defaults, directory) = (Defaults::from(&config.wasm), config.wasm.wasm_module_dir.clone());
    let registry = Registry::new(loader, defaults, directory, publisher.clone(), metrics);
    Ok(Some(Wasm { engine, registry: Arc::new(registry) }))
}

/// The modules of `--wasm-module`, then those of the file.
async fn deploy_at_start(registry: &Registry, config: &Config, publisher: &Publisher) -> Result<(), StartError> {
    for module in &config.wasm.wasm_module {
        let deployment = Deployment {
            name: module.name.clone(),
            file: registry::absolute(&module.file),
            hooks: None,
            settings: registry.defaults().draft(),
            allow_duplicate: true,
        };
        let deployed = registry.deploy(deployment, Origin::Flags).await;
        deployed.map_err(|cause| StartError::Module { module: module.clone(), cause })?;
    }
    let staged = reload::stage(registry, config).await?;
    staged.commit(|modules| publisher.update(|next| next.modules = modules));
    Ok(())
}

fn shard_count(config: &Config) -> u16 {
    config.listen.shards.unwrap_or_else(|| u16::try_from(reload::cores()).unwrap_or(1024).min(1024))
}
