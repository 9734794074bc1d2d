//! Which modules should exist: the list, how it changes, and what is told about it.
//!
//! A change builds everything that can fail first and publishes last; a change that fails leaves no trace.

mod file;
mod section;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use uuid::Uuid;

pub use self::file::{FileError, read_trusted};
pub use self::section::{SectionError, Staged};
use crate::modules::{
    Abi, Defaults, Draft, Hook, LoadError, Loader, Module, ModuleMetrics, Totals, UselessSetting, sha256,
};
use crate::snapshot::Publisher;

/// Modules that can be deployed at once; it also bounds the labels of metrics.
const MOST_MODULES: usize = 1000;
/// Deployments that may wait for the one that is compiling.
const MOST_WAITING: usize = 32;
const MAX_NAME: usize = 128;

#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    #[error("{0}")]
    Field(String),
    #[error("the name must be 1 to {MAX_NAME} characters without control characters")]
    Name,
    #[error("a module named `{name}` is already deployed as {id}")]
    NameTaken { name: String, id: Uuid },
    #[error(
        "Duplicate SHA256: these bytes are already deployed as `{name}` ({id}); \"allow_duplicate\": true accepts them"
    )]
    Duplicate { name: String, id: Uuid },
    #[error("{MOST_MODULES} modules are deployed, which is the most there can be")]
    TooMany,
    #[error("{MOST_WAITING} deployments are waiting already; try again")]
    Busy,
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Setting(#[from] UselessSetting),
}

/// What a deployment asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    pub name: String,
    pub file: PathBuf,
    /// `None`: all that the module exports.
    pub hooks: Option<Vec<Hook>>,
    pub settings: Draft,
    pub allow_duplicate: bool,
}

/// Who named a module, and where it stands among others of the same `order`: where a restart would put it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// `--wasm-module`, with a number that counts up.
    Flags(u64),
    /// The section `modules` of the configuration file, with the place in it.
    File(usize),
    /// `POST /wasm`, with a number that counts up.
    AdminApi(u64),
}

/// A module that exists, as the registry knows it.
#[derive(Clone)]
pub struct Entry {
    pub module: Arc<Module>,
    pub created: SystemTime,
    pub asked: Arc<Deployment>,
    origin: Origin,
}

impl Entry {
    fn position(&self) -> (i64, Origin) {
        (self.module.settings.order.unwrap_or(0), self.origin)
    }

    fn is_of_file(&self) -> bool {
        matches!(self.origin, Origin::File(_))
    }
}

/// The registry.
pub struct Registry {
    loader: Loader,
    defaults: Defaults,
    directory: Option<PathBuf>,
    publisher: Arc<Publisher>,
    metrics: Arc<ModuleMetrics>,
    entries: Mutex<Vec<Entry>>,
    /// Held by the deployment that is being prepared: one compiles at a time.
    preparing: tokio::sync::Mutex<()>,
    waiting: AtomicUsize,
    number: AtomicU64,
    pub deployed: AtomicU64,
    pub refused: AtomicU64,
}

impl Registry {
    pub fn new(
        loader: Loader,
        defaults: Defaults,
        directory: Option<PathBuf>,
        publisher: Arc<Publisher>,
        metrics: Arc<ModuleMetrics>,
    ) -> Self {
        Self {
            loader,
            defaults,
            directory,
            publisher,
            metrics,
            entries: Mutex::default(),
            preparing: tokio::sync::Mutex::new(()),
            waiting: AtomicUsize::new(0),
            number: AtomicU64::new(0),
            deployed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// The modules, in the order of the on-request chain.
    pub fn list(&self) -> Vec<Entry> {
        self.entries().clone()
    }

    pub fn find(&self, id: Uuid) -> Option<Entry> {
        self.entries().iter().find(|entry| entry.module.id == id).cloned()
    }

    /// The sum over all modules there ever were.
    pub fn totals(&self) -> Totals {
        self.metrics.totals()
    }

    pub fn metrics(&self) -> &ModuleMetrics {
        &self.metrics
    }

    /// Modules whose code was compiled, and those whose code was in the cache.
    pub fn loaded(&self) -> [(&'static str, u64); 2] {
        [("compiled", self.loader.compiled.load(Relaxed)), ("cache", self.loader.cached.load(Relaxed))]
    }

    /// Deploys a module. When this returns its id, every request that starts runs it. `origin` is given a number.
    pub async fn deploy(&self, asked: Deployment, origin: fn(u64) -> Origin) -> Result<Uuid, DeployError> {
        let name = asked.name.clone();
        let result = self.prepare_and_publish(asked, origin).await;
        match &result {
            Ok(id) => self.note_deployed(&name, *id),
            Err(error) => {
                self.note_refused();
                let (name, error) = (name.as_bytes(), error.to_string());
                let error = crate::telemetry::Untrusted(error.as_bytes());
                tracing::warn!(module = %crate::telemetry::Untrusted(name), %error, "a deployment was refused");
            }
        }
        result
    }

    async fn prepare_and_publish(&self, asked: Deployment, origin: fn(u64) -> Origin) -> Result<Uuid, DeployError> {
        let waiting = Waiting::new(&self.waiting)?;
        let preparing = self.preparing.lock().await;
        drop(waiting);
        let origin = origin(self.number.fetch_add(1, Relaxed));
        let others = self.list();
        check_place(&others, &asked.name)?;
        let bytes = self.read(&asked.file).await?;
        let entry = self.prepare(asked, bytes, origin, &others).await?;
        let id = entry.module.id;
        let mut entries = self.entries();
        entries.push(entry);
        entries.sort_by_key(Entry::position);
        self.publisher.update(|next| next.modules = modules(&entries));
        drop(preparing);
        Ok(id)
    }

    async fn read(&self, file: &Path) -> Result<Bytes, FileError> {
        let (file, directory) = (file.to_owned(), self.directory.clone());
        let read = tokio::task::spawn_blocking(move || {
            let wasm = file::read(&file, directory.as_deref())?;
            Ok(Bytes { sha256: sha256(&wasm), wasm })
        });
        read.await.expect("reading a file does not panic")
    }

    /// Everything that can fail once the file is read. Only who holds `preparing` adds entries, so what is checked
    /// against `others` stays true.
    async fn prepare(
        &self,
        asked: Deployment,
        bytes: Bytes,
        origin: Origin,
        others: &[Entry],
    ) -> Result<Entry, DeployError> {
        let Bytes { wasm, sha256 } = bytes;
        if !asked.allow_duplicate {
            check_duplicate(others, &sha256)?;
        }
        let settings = asked.settings.clone().settings(Abi::of(&wasm)?)?;
        let module = self.loader.load(&asked.name, wasm, &sha256, asked.hooks.clone(), settings).await?;
        Ok(Entry { module: Arc::new(module), created: SystemTime::now(), asked: Arc::new(asked), origin })
    }

    fn note_deployed(&self, name: &str, id: Uuid) {
        self.deployed.fetch_add(1, Relaxed);
        tracing::info!(module = %crate::telemetry::Untrusted(name.as_bytes()), %id, "deployed");
    }

    /// Counts a deployment that was refused.
    pub fn note_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    /// Removes a module; requests in flight finish with it. `false` if there is none with this id.
    pub fn remove(&self, id: Uuid) -> bool {
        let mut entries = self.entries();
        let Some(at) = entries.iter().position(|entry| entry.module.id == id) else { return false };
        let removed = entries.remove(at);
        self.publisher.update(|next| next.modules = modules(&entries));
        drop(entries);
        note_removed(&removed);
        true
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file's bytes, and their digest.
struct Bytes {
    wasm: Vec<u8>,
    sha256: String,
}

fn modules(entries: &[Entry]) -> Vec<Arc<Module>> {
    entries.iter().map(|entry| entry.module.clone()).collect()
}

fn note_removed(Entry { module, .. }: &Entry) {
    tracing::info!(module = %crate::telemetry::Untrusted(module.name.as_bytes()), id = %module.id, "removed");
}

/// Whether a module with this name can stand beside the others.
fn check_place(others: &[Entry], name: &str) -> Result<(), DeployError> {
    check_name(name)?;
    if others.len() >= MOST_MODULES {
        return Err(DeployError::TooMany);
    }
    match others.iter().find(|entry| *entry.module.name == *name) {
        Some(entry) => Err(DeployError::NameTaken { name: name.to_owned(), id: entry.module.id }),
        None => Ok(()),
    }
}

fn check_duplicate(others: &[Entry], sha256: &str) -> Result<(), DeployError> {
    match others.iter().find(|entry| entry.module.sha256 == sha256) {
        Some(entry) => Err(DeployError::Duplicate { name: entry.module.name.to_string(), id: entry.module.id }),
        None => Ok(()),
    }
}

fn check_name(name: &str) -> Result<(), DeployError> {
    let sane = !name.is_empty() && name.chars().count() <= MAX_NAME && !name.chars().any(char::is_control);
    if sane { Ok(()) } else { Err(DeployError::Name) }
}

/// A deployment that waits for its turn.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Result<Self, DeployError> {
        let waiting = Self(count);
        if count.fetch_add(1, Relaxed) < MOST_WAITING { Ok(waiting) } else { Err(DeployError::Busy) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A file path for a deployment at start, made absolute.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
