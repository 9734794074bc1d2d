//! The composition root: builds every part, owns the tasks and threads, and knows the real addresses.

use std::cell::RefCell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::net::TcpListener as AsyncListener;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use crate::admin::Admin;
use crate::admission::{Admission, AdmissionSettings};
use crate::config::Config;
use crate::fleet::Fleet;
use crate::gateway::Shared;
use crate::gateway::accept::Via;
use crate::gateway::record::CountedConnection;
use crate::modules::{Cache, CacheError, Defaults, Engine, EngineError, LoadError, Loader, ModuleMetrics};
use crate::rate::Rate;
use crate::registry::{self, DeployError, Deployment, Registry};
use crate::scrape;
use crate::shard::{Arrival, Message, Shard};
use crate::snapshot::{Publisher, Snapshot};
use crate::tls::{self, FileError, KeyPairFiles, ServerTls, ServerTlsError, Site};
use crate::workers::connector::Connector;
use crate::workers::names::Resolver;

/// Calls to the control plane that may wait for it.
const MOST_CALLS: usize = 256;
/// Pause after a refused accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time between two looks whether a drain is complete.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("can't listen on {address}: {cause}")]
    Listen { address: SocketAddr, cause: io::Error },
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
    #[error("names can't be resolved: {0}")]
    Resolver(String),
    #[error("--wasm-cache-dir: {0}")]
    Cache(#[from] CacheError),
    #[error("--wasm-module needs --enable-wasm")]
    ModuleWithoutWasm,
    #[error("--wasm-module {name}: {cause}")]
    Module { name: String, cause: DeployError },
}

/// A running gateway. It belongs to the control plane's thread.
pub struct App {
    pub address: SocketAddr,
    pub metrics_address: Option<SocketAddr>,
    pub publisher: Arc<Publisher>,
    shared: Arc<Shared>,
    shards: Rc<RefCell<Vec<Shard>>>,
    acceptor: tokio::task::JoinHandle<()>,
    admin: Rc<Admin>,
}

impl App {
    /// Starts everything and deploys the modules that the configuration names. Must be called, and kept, on
    /// a local runtime: the control plane.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        if !config.wasm.enable_wasm && !config.wasm.wasm_module.is_empty() {
            return Err(StartError::ModuleWithoutWasm);
        }
        let listener = listen(SocketAddr::new(config.listen.host, config.listen.port))?;
        let metrics_listener =
            config.listen.prometheus_port.map(|port| listen(SocketAddr::new(config.listen.prometheus_host, port)));
        let metrics_listener = metrics_listener.transpose()?;
        let connector = Arc::new(Connector::new(&config).map_err(StartError::Certificates)?);
        let tls = server_tls(&config)?;
        let address = listener.local_addr().map_err(StartError::Thread)?;
        let config = Arc::new(config);
        let publisher = Arc::new(Publisher::new(Snapshot {
            config: config.clone(),
            connector: connector.clone(),
            pools: Vec::new(),
            modules: Vec::new(),
            began: Instant::now(),
        }));
        let servers: Vec<_> = config.workers.dns_servers.iter().map(|server| server.0).collect();
        let resolver = Resolver::new(&servers).map_err(|cause| StartError::Resolver(cause.to_string()))?;
        let fleet = Fleet::new(publisher.clone(), resolver, Arc::from([address]));
        let wasm = wasm(&config, &publisher)?;
        if let Some(wasm) = &wasm {
            deploy_at_start(&wasm.registry, &config).await?;
        }
        let (control, calls) = mpsc::channel(MOST_CALLS);
        let shared = Arc::new(Shared {
            publisher: publisher.clone(),
            engine: wasm.as_ref().map(|wasm| wasm.engine.clone()),
            control,
            via: Via::new(&format!("smg-{:016x}", fastrand::u64(..))),
            draining: AtomicBool::new(false),
            shards: shard_count(&config),
            admission: Admission::new(admission_settings(&config)),
            rate: config.admission.rate_limit_tokens_per_second.map(|rate| Rate::new(rate, burst(rate))),
        });
        let shards = (0..shared.shards).map(|number| Shard::start(number, shared.clone()));
        let shards: Vec<_> = shards.collect::<io::Result<_>>().map_err(StartError::Thread)?;
        let metrics = shards.iter().map(|shard| shard.metrics.clone()).collect();
        let registry = wasm.map(|wasm| wasm.registry);
        let admin = Rc::new(Admin {
            publisher: publisher.clone(),
            registry,
            fleet,
            admission: shared.admission.clone(),
            shards: metrics,
            models: Default::default(),
        });
        spawn_local(admin.clone().run(calls));
        spawn_local(connector.tls().clone().watch(tls::WATCH_INTERVAL));
        if let Some(tls) = &tls {
            spawn_local(tls.clone().watch(tls::WATCH_INTERVAL));
        }

        let metrics_address = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        if let Some(listener) = metrics_listener {
            let admin = admin.clone();
            spawn_local(scrape::serve(listener, move || admin.metrics()));
        }
        let shards = Rc::new(RefCell::new(shards));
        let acceptor = spawn_local(accept(listener, tls, shards.clone()));
        Ok(Self { address, metrics_address, publisher, shared, shards, acceptor, admin })
    }

    /// Deploys one module object as `POST /wasm` takes it; the text says why not.
    pub async fn deploy(&self, module: &serde_json::Value) -> Result<(), String> {
        self.admin.deploy(module).await
    }

    /// Takes nothing new and waits until what is in flight is finished, but no longer than `grace` and not
    /// past `hurry`; then ends the shards.
    pub async fn drain(self, grace: Duration, hurry: impl Future<Output = ()>) {
        self.shared.draining.store(true, Relaxed);
        self.acceptor.abort();
        self.shards.borrow().iter().for_each(|shard| shard.tell(Message::Drain));
        let drained = async {
            let start = Instant::now();
            while self.connections() > 0 && start.elapsed() < grace {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        tokio::select! {
            () = drained => {}
            () = hurry => {}
        }
        match self.connections() {
            0 => tracing::info!("drained"),
            left => tracing::warn!(connections = left, "ending with connections still open"),
        }
        self.shards.take().into_iter().for_each(Shard::stop);
    }

    fn connections(&self) -> u64 {
        self.shards.borrow().iter().map(Shard::load).sum()
    }
}

fn listen(address: SocketAddr) -> Result<AsyncListener, StartError> {
    let bound = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        AsyncListener::from_std(listener)
    });
    bound.map_err(|cause| StartError::Listen { address, cause })
}

fn server_tls(config: &Config) -> Result<Option<Arc<ServerTls>>, StartError> {
    let Some((chain, key)) = config.tls.tls_cert_path.clone().zip(config.tls.tls_key_path.clone()) else {
        return Ok(None);
    };
    let site = Site { files: KeyPairFiles { chain, key }, names: Vec::new() };
    Ok(Some(Arc::new(ServerTls::new(vec![site])?)))
}

fn admission_settings(config: &Config) -> AdmissionSettings {
    let limit = config.admission.limit(cores());
    AdmissionSettings { limit, queue: config.admission.queue_size }
}

/// What may come at once: the requests of one second.
fn burst(per_second: f64) -> u32 {
    per_second.ceil().clamp(1.0, f64::from(u32::MAX)) as u32
}

fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1))
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

async fn deploy_at_start(registry: &Registry, config: &Config) -> Result<(), StartError> {
    for module in &config.wasm.wasm_module {
        let deployment = Deployment {
            name: module.name.clone(),
            file: registry::absolute(&module.file),
            hooks: None,
            settings: registry.defaults().draft(),
            allow_duplicate: true,
        };
        let deployed = registry.deploy(deployment).await;
        deployed.map_err(|cause| StartError::Module { name: module.name.clone(), cause })?;
    }
    Ok(())
}

fn shard_count(config: &Config) -> u16 {
    config.listen.shards.unwrap_or_else(|| u16::try_from(cores()).unwrap_or(1024).min(1024))
}

/// Hands each connection to the shard with the fewest.
async fn accept(listener: AsyncListener, tls: Option<Arc<ServerTls>>, shards: Rc<RefCell<Vec<Shard>>>) {
    let mut turn = 0;
    loop {
        let accepted = listener.accept().await.and_then(|(stream, peer)| {
            stream.set_nodelay(true)?;
            Ok((stream.into_std()?, peer))
        });
        match accepted {
            Ok((stream, peer)) => {
                let shards = shards.borrow();
                turn = (turn + 1) % shards.len();
                let turned = shards[turn..].iter().chain(&shards[..turn]);
                let least = turned.min_by_key(|shard| shard.load()).expect("there is a shard");
                let counted = CountedConnection::new(&least.metrics);
                least.tell(Message::Client(Arrival { stream, peer, tls: tls.clone(), counted }));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
