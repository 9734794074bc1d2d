//! From bytes to a module that is ready to make guests: compiled, its exports and imports checked, linked.
//! All of it happens on the control plane, before a deployment is accepted.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::abi::{Abi, Linked, Linkers};
use super::cache::Cache;
use super::compile::{CompileError, Compiler};
use super::engine::Engine;
use super::guest::{self, Caller, Guest, GuestError};
use super::hook::Hook;
use super::host::PrintLimit;
use super::settings::Settings;
use super::stats::{ModuleMetrics, ModuleStats, Registration};

/// Attempts to make the first guest of a module.
const MOST_ATTEMPTS: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the file is empty")]
    Empty,
    #[error("not a WebAssembly component, such as `cargo build --target wasm32-wasip2` makes, and not a core module")]
    NotWasm,
    #[error(
        "not a component, and as a core module of no interface that is known here, since it does not export {0}; \
         a component is built for wasm32-wasip2, or made with `wasm-tools component new`"
    )]
    UnknownInterface(String),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the module can't be loaded: {0:#}")]
    Load(wasmtime::Error),
    #[error("the module imports what is not offered: {0:#}")]
    Import(wasmtime::Error),
    #[error("the module does not export `{export}`, which attach point {} needs", hook.attach_point())]
    MissingExport { hook: Hook, export: &'static str },
    #[error("an export has the wrong type: {0:#}")]
    ExportType(wasmtime::Error),
    #[error("the export `{name}` must be {signature}")]
    ExportSignature { name: &'static str, signature: &'static str },
    #[error("the module can't be instantiated: {0}")]
    Instantiate(GuestError),
}

/// A deployed module: code that guests are made of, and its settings.
pub struct Module {
    pub id: Uuid,
    pub name: Arc<str>,
    pub sha256: String,
    pub size: u64,
    /// The hooks it runs at.
    pub hooks: Vec<Hook>,
    pub settings: Settings,
    pub stats: Arc<ModuleStats>,
    pub(super) engine: Arc<Engine>,
    pub(super) linked: Linked,
    pub(super) prints: Arc<PrintLimit>,
    pub(super) failures: Arc<guest::FailureLog>,
    /// The guest of a module with exactly one.
    pub(super) only_guest: Arc<Mutex<Option<Guest>>>,
    registration: Arc<Registration>,
}

impl Module {
    pub fn abi(&self) -> Abi {
        self.linked.abi()
    }

    pub fn runs_at(&self, hook: Hook) -> bool {
        self.hooks.contains(&hook)
    }

    /// The largest body that it is shown; `None` if it is never shown one.
    pub fn body_limit(&self) -> Option<u64> {
        self.abi().shows_bodies().then_some(self.settings.limits.body_bytes)
    }
}

/// The SHA-256 of a file's bytes, in hexadecimal.
pub fn sha256(wasm: &[u8]) -> String {
    Sha256::digest(wasm).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Loads modules for one engine.
pub struct Loader {
    engine: Arc<Engine>,
    compiler: Compiler,
    linkers: Arc<Linkers>,
    caller: Caller,
    metrics: Arc<ModuleMetrics>,
    cache: Option<Arc<Cache>>,
    /// Modules whose code was compiled, and those whose code was in the cache.
    pub compiled: AtomicU64,
    pub cached: AtomicU64,
}

impl Loader {
    /// `executable` is a `smg` of this very build, which compiles.
    pub fn new(engine: Arc<Engine>, metrics: Arc<ModuleMetrics>, executable: PathBuf) -> Result<Self, LoadError> {
        let linkers = Linkers::new(&engine.engine).map_err(LoadError::Load)?;
        let compiler = Compiler::new(executable, engine.tuning);
        let caller = Caller::new(&engine);
        let linkers = Arc::new(linkers);
        let (cache, compiled, cached) = Default::default();
        Ok(Self { engine, compiler, linkers, caller, metrics, cache, compiled, cached })
    }

    /// Looks for compiled code in `cache` first, and keeps there what it compiles.
    pub fn with_cache(self, cache: Cache) -> Self {
        Self { cache: Some(Arc::new(cache)), ..self }
    }

    /// A module from the bytes of a file and their SHA-256. Without `hooks`, it runs at all it exports.
    pub async fn load(
        &self,
        name: &str,
        wasm: Vec<u8>,
        sha256: &str,
        hooks: Option<Vec<Hook>>,
        settings: Settings,
    ) -> Result<Module, LoadError> {
        self.build(name, self.metrics.register(name), wasm, sha256, hooks, settings).await
    }

    /// The module that takes the place of another: other bytes, but its name, settings and numbers.
    pub async fn successor(&self, of: &Module, wasm: Vec<u8>, sha256: &str) -> Result<Module, LoadError> {
        self.build(&of.name, of.registration.clone(), wasm, sha256, None, of.settings.clone()).await
    }

    async fn build(
        &self,
        name: &str,
        registration: Arc<Registration>,
        wasm: Vec<u8>,
        sha256: &str,
        hooks: Option<Vec<Hook>>,
        settings: Settings,
    ) -> Result<Module, LoadError> {
        let abi = Abi::of(&wasm)?;
        let (digest, size) = (sha256.to_owned(), wasm.len() as u64);
        let linked = match self.link_cached(abi, sha256).await? {
            Some(linked) => linked,
            None => self.compile_and_link(abi, wasm, sha256).await?,
        };
        let hooks = attach(&linked, hooks)?;
        let module = Module {
            id: Uuid::new_v4(),
            name: name.into(),
            sha256: digest,
            size,
            settings,
            stats: registration.stats.clone(),
            engine: self.engine.clone(),
            linked: linked.attached_to(&hooks),
            hooks,
            prints: Arc::default(),
            failures: Arc::default(),
            only_guest: Arc::default(),
            registration,
        };
        self.try_out(&module).await?;
        Ok(module)
    }

    async fn link_cached(&self, abi: Abi, sha256: &str) -> Result<Option<Linked>, LoadError> {
        let Some(cache) = self.cache.clone() else { return Ok(None) };
        let (engine, linkers, sha256) = (self.engine.clone(), self.linkers.clone(), sha256.to_owned());
        let linking = spawn_blocking(move || {
            cache.get(&sha256).map(|artefact| Linked::load(&engine.engine, &linkers, abi, &artefact))
        });
        match linking.await.expect("linking does not panic") {
            None => Ok(None),
            Some(Err(LoadError::Load(error))) => {
                tracing::warn!(%error, "a cached artefact is not for this engine, and is not used");
                Ok(None)
            }
            Some(linked) => {
                self.cached.fetch_add(1, Relaxed);
                linked.map(Some)
            }
        }
    }

    async fn compile_and_link(&self, abi: Abi, wasm: Vec<u8>, sha256: &str) -> Result<Linked, LoadError> {
        let artefact = self.compiler.compile(wasm).await?;
        self.compiled.fetch_add(1, Relaxed);
        let (engine, linkers, sha256) = (self.engine.clone(), self.linkers.clone(), sha256.to_owned());
        let cache = self.cache.clone();
        let linking = spawn_blocking(move || {
            let linked = Linked::load(&engine.engine, &linkers, abi, &artefact)?;
            if let Some(cache) = cache
                && let Err(error) = cache.put(&sha256, &artefact)
            {
                tracing::warn!(%error, "compiled code can't be kept in the cache");
            }
            Ok(linked)
        });
        linking.await.expect("linking does not panic")
    }

    /// The same module with other settings. Its numbers go on; its guests are new.
    pub async fn with_settings(&self, module: &Module, settings: Settings) -> Result<Module, LoadError> {
        let module = Module {
            id: module.id,
            name: module.name.clone(),
            sha256: module.sha256.clone(),
            size: module.size,
            hooks: module.hooks.clone(),
            settings,
            stats: module.stats.clone(),
            engine: module.engine.clone(),
            linked: module.linked.clone(),
            prints: module.prints.clone(),
            failures: module.failures.clone(),
            only_guest: Arc::default(),
            registration: module.registration.clone(),
        };
        self.try_out(&module).await?;
        Ok(module)
    }

    /// Makes one guest and throws it away: what can't be instantiated, or has exports of another type, is
    /// refused now and not at the first request.
    async fn try_out(&self, module: &Module) -> Result<(), LoadError> {
        let mut attempts = 1;
        let (store, functions) = loop {
            let making = pin!(guest::instantiate(module, &self.caller, None));
            match self.caller.bounded(module.settings.limits.execution, making, || {}).await {
                // Its memory image can't be sealed while the kernel holds a page of it, as it does at times.
                Err(error) if error.is_of_busy_system() && attempts < MOST_ATTEMPTS => attempts += 1,
                made => break made.map_err(LoadError::Instantiate)?,
            }
        };
        functions.check(&store).map_err(LoadError::ExportType)
    }
}

/// The hooks to run at. Each that was asked for must be exported, or at least one where the interface is lenient.
fn attach(linked: &Linked, hooks: Option<Vec<Hook>>) -> Result<Vec<Hook>, LoadError> {
    let abi = linked.abi();
    let missing = |hook| LoadError::MissingExport { hook, export: abi.export(hook) };
    let asked = hooks.as_deref().unwrap_or(&Hook::ALL);
    let exported: Vec<_> = asked.iter().copied().filter(|hook| linked.exports(*hook)).collect();
    let is_lenient = hooks.is_none() || abi.tolerates_missing_hooks();
    match asked.iter().find(|hook| !exported.contains(hook)) {
        Some(hook) if exported.is_empty() || !is_lenient => Err(missing(*hook)),
        _ => Ok(exported),
    }
}
