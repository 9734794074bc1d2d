//! From bytes to a module that is ready to make guests: compiled, its exports and imports checked, linked.
//! All of it happens on the control plane, before a deployment is accepted.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use uuid::Uuid;
use wasmtime::component::{Component, InstancePre, Linker};

use super::abi::smg_v1;
use super::compile::{CompileError, Compiler};
use super::engine::Engine;
use super::guest::{self, Caller, Guest, GuestError};
use super::hook::Hook;
use super::host::{self, HostState, PrintLimit};
use super::settings::Settings;
use super::stats::{ModuleMetrics, ModuleStats};

const MAGIC: &[u8] = b"\0asm";
const COMPONENT_VERSION: &[u8] = &[0x0d, 0, 1, 0];
const CORE_VERSION: &[u8] = &[1, 0, 0, 0];

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("the file is empty")]
    Empty,
    #[error("not a WebAssembly component, such as `cargo build --target wasm32-wasip2` makes")]
    NotWasm,
    #[error(
        "not a component: this is a core module of an interface that is not known here; \
         build it for wasm32-wasip2, or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the component can't be loaded: {0:#}")]
    Load(wasmtime::Error),
    #[error("the component imports what is not offered: {0:#}")]
    Import(wasmtime::Error),
    #[error("the component does not export `{interface}`, which attach point {} needs", hook.attach_point())]
    MissingExport { hook: Hook, interface: &'static str },
    #[error("an export has the wrong type: {0:#}")]
    ExportType(wasmtime::Error),
    #[error("the component can't be instantiated: {0}")]
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
    pub(super) pre: InstancePre<HostState>,
    pub(super) exports: smg_v1::Exports,
    pub(super) prints: Arc<PrintLimit>,
    pub(super) failures: guest::FailureLog,
    /// The guest of a module with exactly one.
    pub(super) only_guest: Arc<Mutex<Option<Guest>>>,
    metrics: Arc<ModuleMetrics>,
}

impl Module {
    /// How host and guest talk.
    pub fn abi(&self) -> &'static str {
        "smg-v1"
    }

    pub fn runs_at(&self, hook: Hook) -> bool {
        self.hooks.contains(&hook)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        self.metrics.retire(&self.stats);
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
    linker: Arc<Linker<HostState>>,
    caller: Caller,
    metrics: Arc<ModuleMetrics>,
}

impl Loader {
    /// `executable` is a `smg` of this very build, which compiles.
    pub fn new(engine: Arc<Engine>, metrics: Arc<ModuleMetrics>, executable: PathBuf) -> Result<Self, LoadError> {
        let mut linker = Linker::new(&engine.engine);
        host::link(&mut linker).map_err(LoadError::Load)?;
        let compiler = Compiler::new(executable, engine.tuning);
        let caller = Caller::new(&engine);
        Ok(Self { engine, compiler, linker: Arc::new(linker), caller, metrics })
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
        check_kind(&wasm)?;
        let (digest, size) = (sha256.to_owned(), wasm.len() as u64);
        let artefact = self.compiler.compile(wasm).await?;
        let (engine, linker) = (self.engine.clone(), self.linker.clone());
        let linking = spawn_blocking(move || link(&engine, &linker, &artefact));
        let (pre, exports) = linking.await.expect("linking does not panic")?;
        let hooks = attach(&exports, hooks)?;
        let module = Module {
            id: Uuid::new_v4(),
            name: name.into(),
            sha256: digest,
            size,
            hooks,
            settings,
            stats: self.metrics.register(name),
            engine: self.engine.clone(),
            pre,
            exports,
            prints: Arc::default(),
            failures: guest::FailureLog::default(),
            only_guest: Arc::default(),
            metrics: self.metrics.clone(),
        };
        self.try_out(&module).await?;
        Ok(module)
    }

    /// Makes one guest and throws it away: what can't be instantiated, or has exports of another type, is
    /// refused now and not at the first request.
    async fn try_out(&self, module: &Module) -> Result<(), LoadError> {
        let making = pin!(guest::instantiate(module, &self.caller));
        let made = self.caller.bounded(module.settings.limits.execution, making).await;
        let (mut store, instance) = made.map_err(LoadError::Instantiate)?;
        module.exports.check(&instance, &mut store).map_err(LoadError::ExportType)
    }
}

/// Loads what was compiled and resolves its imports; takes long for a large module.
fn link(
    engine: &Engine,
    linker: &Linker<HostState>,
    artefact: &[u8],
) -> Result<(InstancePre<HostState>, smg_v1::Exports), LoadError> {
    #[expect(unsafe_code, reason = "loading what was compiled in another process")]
    // SAFETY: the artefact was just made by a process of this very executable with the same settings and
    // reached us through a pipe. Nothing from outside gets here.
    let component = unsafe { Component::deserialize(&engine.engine, artefact) };
    let component = component.map_err(LoadError::Load)?;
    let pre = linker.instantiate_pre(&component).map_err(LoadError::Import)?;
    Ok((pre, smg_v1::Exports::find(&component)))
}

fn check_kind(wasm: &[u8]) -> Result<(), LoadError> {
    match wasm {
        [] => Err(LoadError::Empty),
        _ if !wasm.starts_with(MAGIC) => Err(LoadError::NotWasm),
        _ if wasm[4..].starts_with(COMPONENT_VERSION) => Ok(()),
        _ if wasm[4..].starts_with(CORE_VERSION) => Err(LoadError::CoreModule),
        _ => Err(LoadError::NotWasm),
    }
}

/// The hooks to run at, each of which must be exported.
fn attach(exports: &smg_v1::Exports, hooks: Option<Vec<Hook>>) -> Result<Vec<Hook>, LoadError> {
    let missing = |hook| LoadError::MissingExport { hook, interface: smg_v1::interface(hook) };
    let Some(hooks) = hooks else {
        let exported: Vec<_> = Hook::ALL.into_iter().filter(|hook| exports.has(*hook)).collect();
        return if exported.is_empty() { Err(missing(Hook::Request)) } else { Ok(exported) };
    };
    match hooks.iter().find(|hook| !exports.has(**hook)) {
        Some(hook) => Err(missing(*hook)),
        None => Ok(hooks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_eight_bytes() {
        assert!(check_kind(b"\0asm\x0d\0\x01\0rest").is_ok());
        assert!(matches!(check_kind(b"\0asm\x01\0\0\0"), Err(LoadError::CoreModule)));
        assert!(matches!(check_kind(b""), Err(LoadError::Empty)));
        for other in [&b"\0asm"[..], b"\x7fELF\x02\x01\x01\0", b"(module)", b"\0asm\x02\0\0\0"] {
            assert!(matches!(check_kind(other), Err(LoadError::NotWasm)), "{other:?}");
        }
    }
}
