//! The interfaces that guests are written for. Each file below only translates between its guests' types and
//! the hook vocabulary; nothing outside this folder knows which interface a guest speaks.

mod sentinel;
mod smg_v1;

use wasmtime::component::Component;
use wasmtime::{Engine, Module, Store};

use super::hook::{Hook, RequestView, ResponseView, Verdict};
use super::host::{self, HostState};
use super::load::LoadError;
use super::settings::{InstanceMode, Settings};

const MAGIC: &[u8] = b"\0asm";
const COMPONENT_VERSION: &[u8] = &[0x0d, 0, 1, 0];
const CORE_VERSION: &[u8] = &[1, 0, 0, 0];

/// How host and guest talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abi {
    /// Components with the world `smg` of `smg:gateway` without a version.
    SmgV1,
    /// Core modules with JSON in their memory, as the Sentinel (Zentinel) proxy's agent runs them.
    Sentinel,
}

impl Abi {
    /// Told by the kind of WebAssembly; loading checks that the exports are those of the interface.
    pub fn of(wasm: &[u8]) -> Result<Self, LoadError> {
        match wasm {
            [] => Err(LoadError::Empty),
            _ if !wasm.starts_with(MAGIC) => Err(LoadError::NotWasm),
            _ if wasm[4..].starts_with(COMPONENT_VERSION) => Ok(Self::SmgV1),
            _ if wasm[4..].starts_with(CORE_VERSION) => Ok(Self::Sentinel),
            _ => Err(LoadError::NotWasm),
        }
    }

    pub fn label(self) -> &'static str {
        match self {
            Self::SmgV1 => "smg-v1",
            Self::Sentinel => "sentinel",
        }
    }

    /// What a module must export to run at a hook.
    pub fn export(self, hook: Hook) -> &'static str {
        match self {
            Self::SmgV1 => smg_v1::interface(hook),
            Self::Sentinel => sentinel::handler(hook),
        }
    }

    /// Whether a module may be attached to a hook that it doesn't export, where it then has no say.
    pub fn tolerates_missing_hooks(self) -> bool {
        match self {
            Self::SmgV1 => false,
            Self::Sentinel => true,
        }
    }

    pub fn shows_bodies(self) -> bool {
        match self {
            Self::SmgV1 => true,
            Self::Sentinel => false,
        }
    }

    /// Whether names of header fields are text with a case for its modules.
    pub fn spells_header_names(self) -> bool {
        match self {
            Self::SmgV1 => false,
            Self::Sentinel => true,
        }
    }

    /// Where a deployment doesn't say. Sentinel modules keep what they know in their guests' memory.
    pub fn instance_mode(self) -> InstanceMode {
        match self {
            Self::SmgV1 => InstanceMode::Request {},
            Self::Sentinel => InstanceMode::Pooled { size: None, max_uses: None },
        }
    }

    /// Calls after which a pooled guest is replaced, where a deployment doesn't say; `None` for never.
    pub fn max_uses(self) -> Option<u32> {
        match self {
            Self::SmgV1 => Some(10_000),
            Self::Sentinel => None,
        }
    }

    /// Compiles a module; this is what the compiling process does.
    pub fn precompile(self, engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
        match self {
            Self::SmgV1 => engine.precompile_component(wasm),
            Self::Sentinel => engine.precompile_module(wasm),
        }
    }

    /// Status of the answer when a module fails closed, unless its deployment says otherwise.
    pub fn failure_status(self) -> u16 {
        match self {
            Self::SmgV1 => 503,
            Self::Sentinel => 500,
        }
    }

    /// Body of that answer, where it is not the gateway's own.
    pub fn failure_text(self) -> Option<&'static str> {
        match self {
            Self::SmgV1 => None,
            Self::Sentinel => Some("Wasm Error"),
        }
    }
}

/// What guests of each kind may import.
pub struct Linkers {
    components: wasmtime::component::Linker<HostState>,
    core_modules: wasmtime::Linker<HostState>,
}

impl Linkers {
    pub fn new(engine: &Engine) -> wasmtime::Result<Self> {
        let mut components = wasmtime::component::Linker::new(engine);
        host::link(&mut components)?;
        Ok(Self { components, core_modules: sentinel::linker(engine)? })
    }
}

/// A module's code with its imports resolved: guests are made of it.
#[derive(Clone)]
pub enum Linked {
    SmgV1(smg_v1::Linked),
    Sentinel(sentinel::Linked),
}

impl Linked {
    /// Loads what [`Abi::precompile`] made and resolves its imports; takes long for a large module.
    pub fn load(engine: &Engine, linkers: &Linkers, abi: Abi, artefact: &[u8]) -> Result<Self, LoadError> {
        match abi {
            Abi::SmgV1 => {
                #[expect(unsafe_code, reason = "loading what was compiled in another process")]
                // SAFETY: the artefact was made by a process of this very executable and reached us through a pipe, or
                // it was kept, whole, where only our own user can write. Nothing from outside gets here.
                let component = unsafe { Component::deserialize(engine, artefact) }.map_err(LoadError::Load)?;
                smg_v1::Linked::new(&component, &linkers.components).map(Self::SmgV1).map_err(LoadError::Import)
            }
            Abi::Sentinel => {
                #[expect(unsafe_code, reason = "loading what was compiled in another process")]
                // SAFETY: as above.
                let module = unsafe { Module::deserialize(engine, artefact) }.map_err(LoadError::Load)?;
                sentinel::Linked::new(&module, &linkers.core_modules).map(Self::Sentinel)
            }
        }
    }

    pub fn abi(&self) -> Abi {
        match self {
            Self::SmgV1(_) => Abi::SmgV1,
            Self::Sentinel(_) => Abi::Sentinel,
        }
    }

    pub fn exports(&self, hook: Hook) -> bool {
        match self {
            Self::SmgV1(linked) => linked.exports(hook),
            Self::Sentinel(linked) => linked.exports(hook),
        }
    }

    /// Its guests will be called at these hooks only: what else it exports is not looked up for each of them.
    pub fn attached_to(mut self, hooks: &[Hook]) -> Self {
        if let Self::SmgV1(linked) = &mut self {
            linked.keep(hooks);
        }
        self
    }

    /// A new instance. Code may run: start functions, initialisers.
    pub async fn instantiate(&self, store: &mut Store<HostState>, settings: &Settings) -> wasmtime::Result<Functions> {
        match self {
            Self::SmgV1(linked) => linked.instantiate(store).await.map(Functions::SmgV1),
            Self::Sentinel(linked) => {
                let functions = linked.instantiate(store, settings).await?;
                Ok(Functions::Sentinel(Box::new(functions)))
            }
        }
    }
}

/// The hook functions of one guest.
pub enum Functions {
    SmgV1(smg_v1::Functions),
    Sentinel(Box<sentinel::Functions>),
}

impl Functions {
    /// Checks what can only be seen of an instance.
    pub fn check(&self, store: &Store<HostState>) -> wasmtime::Result<()> {
        match self {
            Self::SmgV1(functions) => functions.check(store),
            Self::Sentinel(_) => Ok(()),
        }
    }

    /// `limit` bounds the body that the guest may give in place of one that it was shown.
    pub async fn on_request(
        &mut self,
        store: &mut Store<HostState>,
        view: &RequestView,
        limit: u64,
    ) -> wasmtime::Result<Verdict> {
        match self {
            Self::SmgV1(functions) => functions.on_request(store, view, limit).await,
            Self::Sentinel(functions) => functions.on_request(store, view).await,
        }
    }

    pub async fn on_response(
        &mut self,
        store: &mut Store<HostState>,
        view: &ResponseView,
        limit: u64,
    ) -> wasmtime::Result<Verdict> {
        match self {
            Self::SmgV1(functions) => functions.on_response(store, view, limit).await,
            Self::Sentinel(functions) => functions.on_response(store, view).await,
        }
    }

    /// Something failed that doesn't matter to the call, but the guest is not to be used again.
    pub fn is_spent(&self) -> bool {
        match self {
            Self::SmgV1(_) => false,
            Self::Sentinel(functions) => functions.is_spent(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_first_eight_bytes() {
        assert_eq!(Abi::of(b"\0asm\x0d\0\x01\0rest").ok(), Some(Abi::SmgV1));
        assert_eq!(Abi::of(b"\0asm\x01\0\0\0").ok(), Some(Abi::Sentinel));
        assert!(matches!(Abi::of(b""), Err(LoadError::Empty)));
        for other in [&b"\0asm"[..], b"\x7fELF\x02\x01\x01\0", b"(module)", b"\0asm\x02\0\0\0"] {
            assert!(matches!(Abi::of(other), Err(LoadError::NotWasm)), "{other:?}");
        }
    }
}
