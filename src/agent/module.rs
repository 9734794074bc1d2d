//! The one module that an agent runs: loaded at start, replaced when its file changes, its settings changed by
//! the proxy. Whatever fails to take its place leaves it as it is.

use std::cell::{Cell, RefCell};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;

use super::event::Configuration;
use super::{AgentError, Options};
use crate::config::FailurePolicy;
use crate::modules::{
    Abi, Defaults, Draft, Engine, FailurePolicies, InstanceMode, Limits, LoadError, Loader, Module, ModuleGuests,
    Settings, ShardGuests, sha256,
};
use crate::registry::{FileError, read_trusted};
use crate::telemetry::Untrusted;

/// Time between two looks at the module's file.
const LOOK: Duration = Duration::from_millis(500);

/// The module in force, and how it changes.
pub struct CurrentModule {
    path: PathBuf,
    loader: Loader,
    shard: ShardGuests,
    guests: RefCell<Rc<ModuleGuests>>,
    /// What the flags say, and what it is until the proxy says otherwise.
    settings: Settings,
    /// The file as it was last read.
    seen: Cell<Option<Identity>>,
    /// Held while a module is loaded, and while one takes the place of another.
    reloading: Mutex<()>,
    replacing: Mutex<()>,
}

impl CurrentModule {
    pub async fn load(options: &Options, engine: &Engine, loader: Loader) -> Result<Self, AgentError> {
        let path = options.module.clone();
        let name = path.file_stem().map_or_else(|| "module".to_owned(), |stem| stem.to_string_lossy().into_owned());
        let seen = Cell::new(identity(&path));
        let wasm = read(path.clone()).await.map_err(|cause| AgentError::File { path: path.clone(), cause })?;
        let failed = |cause| AgentError::Module { path: path.clone(), cause };
        if Abi::of(&wasm).map_err(failed)? != Abi::Sentinel {
            return Err(AgentError::Component { path });
        }
        let settings = settings(options);
        let sha256 = sha256(&wasm);
        let module = loader.load(&name, wasm, &sha256, None, settings.clone()).await.map_err(failed)?;
        let shard = ShardGuests::new(engine, 1);
        let guests = RefCell::new(arrange(&shard, module));
        let (reloading, replacing) = Default::default();
        Ok(Self { path, loader, shard, guests, settings, seen, reloading, replacing })
    }

    /// The guests of the module in force; a call that has begun keeps those that it began with.
    pub fn guests(&self) -> Rc<ModuleGuests> {
        self.guests.borrow().clone()
    }

    /// Looks at the file for as long as it is polled, and loads it when it changed.
    pub async fn watch(self: Rc<Self>) {
        let mut looks = tokio::time::interval(LOOK);
        loop {
            looks.tick().await;
            let now = identity(&self.path);
            // A file that is away for a moment is about to be replaced.
            if now.is_some() && now != self.seen.get() {
                self.reload().await;
            }
        }
    }

    /// Loads the file, with the settings in force; nothing changes if that fails or the bytes are the same.
    pub async fn reload(&self) {
        let _reloading = self.reloading.lock().await;
        let file = self.path.display();
        match self.load_changed().await {
            Ok(None) => tracing::info!(%file, "the module has not changed"),
            Ok(Some(sha256)) => tracing::info!(%file, sha256, "the module was replaced"),
            Err(error) => {
                let cause = error.to_string();
                tracing::error!(%file, cause = %Untrusted(cause.as_bytes()), "the module was not replaced");
            }
        }
    }

    async fn load_changed(&self) -> Result<Option<String>, ReloadError> {
        self.seen.set(identity(&self.path));
        let wasm = read(self.path.clone()).await?;
        let current = self.guests().module.clone();
        if Abi::of(&wasm)? != current.abi() {
            return Err(ReloadError::OtherInterface);
        }
        let sha256 = sha256(&wasm);
        if sha256 == current.sha256 {
            return Ok(None);
        }
        let mut successor = self.loader.successor(&current, wasm, &sha256).await?;
        // Compiling takes a while, in which the proxy may have said something.
        let _replacing = self.replacing.lock().await;
        let settings = self.guests().module.settings.clone();
        if settings != successor.settings {
            successor = self.loader.with_settings(&successor, settings).await?;
        }
        self.replace(successor);
        Ok(Some(sha256))
    }

    /// Applies what the proxy asks for, and the flags for what it doesn't; refused only if the module refuses
    /// its part.
    pub async fn configure(&self, asked: Configuration) -> Result<(), LoadError> {
        let _replacing = self.replacing.lock().await;
        let current = self.guests().module.clone();
        let settings = configured(self.settings.clone(), asked);
        if settings == current.settings {
            return Ok(());
        }
        let module = self.loader.with_settings(&current, settings).await?;
        let settings = &module.settings;
        tracing::info!(instance = ?settings.instance, on_failure = ?settings.on_failure.request, "configured by the proxy");
        self.replace(module);
        Ok(())
    }

    fn replace(&self, module: Module) {
        *self.guests.borrow_mut() = arrange(&self.shard, module);
    }
}

#[derive(Debug, thiserror::Error)]
enum ReloadError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("it is of another interface than the one before")]
    OtherInterface,
}

fn arrange(shard: &ShardGuests, module: Module) -> Rc<ModuleGuests> {
    shard.arrange(&[Arc::new(module)]).remove(0)
}

async fn read(path: PathBuf) -> Result<Vec<u8>, FileError> {
    spawn_blocking(move || read_trusted(&path)).await.expect("reading a file does not panic")
}

fn settings(options: &Options) -> Settings {
    let on_failure = if options.fail_open { FailurePolicy::Open } else { FailurePolicy::Closed };
    let defaults = Defaults { limits: Limits::from(&options.guest), on_failure, pool_size: options.pool_size };
    let config = Value::Object(options.module_config.clone().unwrap_or_default().0);
    let draft = Draft { config, ..defaults.draft() };
    draft.settings(Abi::Sentinel).expect("the flags say nothing that is not for it")
}

fn configured(mut settings: Settings, asked: Configuration) -> Settings {
    let Configuration { pool_size, fail_open, module } = asked;
    if let (Some(asked), InstanceMode::Pooled { size, .. }) = (pool_size, &mut settings.instance) {
        *size = Some(asked);
    }
    if let Some(open) = fail_open {
        settings.on_failure = FailurePolicies::same(if open { FailurePolicy::Open } else { FailurePolicy::Closed });
    }
    if !module.is_empty() {
        settings.config = Value::Object(module);
    }
    settings
}

/// What changes when a file is written or replaced: device, inode, size, times.
type Identity = [i64; 7];

fn identity(path: &Path) -> Option<Identity> {
    let file = std::fs::metadata(path).ok()?;
    Some([
        file.dev().cast_signed(),
        file.ino().cast_signed(),
        file.size().cast_signed(),
        file.mtime(),
        file.mtime_nsec(),
        file.ctime(),
        file.ctime_nsec(),
    ])
}
