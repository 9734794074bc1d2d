//! The interface of the Sentinel (now Zentinel) proxy's WASM agent: core modules that take and give JSON in
//! their own memory.
//!
//! A call is: `alloc(len)`, the JSON is written there, the handler, `dealloc` of the input, the result is read,
//! `dealloc` of the result. The result packs pointer and length into 64 bits; both are untrusted.
//!
//! Beyond the original, a module may export `on_configure(ptr, len) -> i32`: it is called once for each
//! instance with the deployment's `config` as JSON, and refuses it with anything but 0.

mod imports;
mod input;
mod output;

use wasmtime::{AsContext, ExternType, FuncType, InstancePre, Linker, Memory, Module, Store, TypedFunc, ValType};

pub use self::imports::linker;
use crate::modules::hook::{Hook, RequestView, ResponseView, Verdict};
use crate::modules::host::HostState;
use crate::modules::load::LoadError;
use crate::modules::settings::{HeaderCase, Settings};

const MEMORY: &str = "memory";
const ALLOC: &str = "alloc";
const DEALLOC: &str = "dealloc";
const INITIALIZE: &str = "_initialize";
const CONFIGURE: &str = "on_configure";

/// The longest JSON that is taken from a guest.
const MAX_OUTPUT: usize = 1 << 20;

type Handler = TypedFunc<(i32, i32), i64>;

/// The export that handles a hook.
pub fn handler(hook: Hook) -> &'static str {
    match hook {
        Hook::Request => "on_request_headers",
        Hook::Response => "on_response_headers",
    }
}

/// Why the result of a call was refused.
#[derive(Debug, thiserror::Error)]
enum ResultError {
    #[error("alloc of {0} bytes gave no memory")]
    Alloc(usize),
    #[error("{length} bytes at {pointer} are not within the memory of {memory} bytes")]
    OutOfBounds { pointer: u32, length: u32, memory: usize },
    #[error("a result of {0} bytes is over the limit of {MAX_OUTPUT}")]
    TooLarge(u32),
    #[error("the configuration was refused with {0}")]
    Configuration(i32),
}

/// A core module's code with its imports resolved.
#[derive(Clone)]
pub struct Linked {
    pre: InstancePre<HostState>,
    handlers: [bool; 2],
    initializes: bool,
    configures: bool,
}

impl Linked {
    pub fn new(module: &Module, linker: &Linker<HostState>) -> Result<Self, LoadError> {
        let exports = Exports(module);
        let handlers = Hook::ALL.map(|hook| exports.has_function(handler(hook), "(i32, i32) -> i64"));
        let [request, response] = handlers;
        let handlers = [request?, response?];
        let mut missing = Vec::new();
        if !exports.has_memory()? {
            missing.push("a memory `memory`");
        }
        if !exports.has_function(ALLOC, "(i32) -> i32")? {
            missing.push("`alloc(i32) -> i32`");
        }
        if !exports.has_function(DEALLOC, "(i32, i32)")? {
            missing.push("`dealloc(i32, i32)`");
        }
        if handlers == [false, false] {
            missing.push("one of `on_request_headers` and `on_response_headers`, both (i32, i32) -> i64");
        }
        if !missing.is_empty() {
            return Err(LoadError::UnknownInterface(missing.join(", ")));
        }
        let initializes = exports.has_function(INITIALIZE, "()")?;
        let configures = exports.has_function(CONFIGURE, "(i32, i32) -> i32")?;
        let pre = linker.instantiate_pre(module).map_err(LoadError::Import)?;
        Ok(Self { pre, handlers, initializes, configures })
    }

    pub fn exports(&self, hook: Hook) -> bool {
        self.handlers[hook as usize]
    }

    pub async fn instantiate(&self, store: &mut Store<HostState>, settings: &Settings) -> wasmtime::Result<Functions> {
        let instance = self.pre.instantiate_async(&mut *store).await?;
        if self.initializes {
            instance.get_typed_func::<(), ()>(&mut *store, INITIALIZE)?.call_async(&mut *store, ()).await?;
        }
        let mut handlers = [None, None];
        for hook in Hook::ALL.into_iter().filter(|hook| self.exports(*hook)) {
            handlers[hook as usize] = Some(instance.get_typed_func(&mut *store, handler(hook))?);
        }
        let memory = instance.get_memory(&mut *store, MEMORY).expect("the export was seen when it was linked");
        let mut functions = Functions {
            memory,
            alloc: instance.get_typed_func(&mut *store, ALLOC)?,
            dealloc: instance.get_typed_func(&mut *store, DEALLOC)?,
            handlers,
            header_case: settings.header_case.unwrap_or_default(),
            spent: false,
        };
        if self.configures {
            let configure = instance.get_typed_func(&mut *store, CONFIGURE)?;
            functions.configure(store, &configure, settings.config.to_string().as_bytes()).await?;
        }
        Ok(functions)
    }
}

/// The exports of a module, asked for by name.
struct Exports<'a>(&'a Module);

impl Exports<'_> {
    /// `signature` is written as [`LoadError::ExportSignature`] shows it.
    fn has_function(&self, name: &'static str, signature: &'static str) -> Result<bool, LoadError> {
        match self.0.get_export(name) {
            None => Ok(false),
            Some(ExternType::Func(found)) if shown(&found) == signature => Ok(true),
            Some(_) => Err(LoadError::ExportSignature { name, signature }),
        }
    }

    fn has_memory(&self) -> Result<bool, LoadError> {
        match self.0.get_export(MEMORY) {
            None => Ok(false),
            Some(ExternType::Memory(memory)) if !memory.is_64() && !memory.is_shared() => Ok(true),
            Some(_) => Err(LoadError::ExportSignature { name: MEMORY, signature: "a 32-bit memory" }),
        }
    }
}

/// As it is written here and in WebAssembly's own text format's terms: `(i32, i32) -> i64`.
fn shown(function: &FuncType) -> String {
    let list =
        |types: &mut dyn Iterator<Item = ValType>| types.map(|kind| kind.to_string()).collect::<Vec<_>>().join(", ");
    let (parameters, results) = (list(&mut function.params()), list(&mut function.results()));
    if results.is_empty() { format!("({parameters})") } else { format!("({parameters}) -> {results}") }
}

/// The functions of one guest.
pub struct Functions {
    memory: Memory,
    alloc: TypedFunc<i32, i32>,
    dealloc: TypedFunc<(i32, i32), ()>,
    handlers: [Option<Handler>; 2],
    header_case: HeaderCase,
    spent: bool,
}

impl Functions {
    pub fn is_spent(&self) -> bool {
        self.spent
    }

    pub async fn on_request(&mut self, store: &mut Store<HostState>, view: &RequestView) -> wasmtime::Result<Verdict> {
        self.call(Hook::Request, store, &input::request(view, self.header_case)).await
    }

    pub async fn on_response(
        &mut self,
        store: &mut Store<HostState>,
        view: &ResponseView,
    ) -> wasmtime::Result<Verdict> {
        self.call(Hook::Response, store, &input::response(view, self.header_case)).await
    }

    async fn call(&mut self, hook: Hook, store: &mut Store<HostState>, input: &[u8]) -> wasmtime::Result<Verdict> {
        let handler = self.handlers[hook as usize].clone().expect("a module runs only at hooks that it exports");
        let place = self.write(store, input).await?;
        let packed = handler.call_async(&mut *store, place).await?;
        self.release(store, place).await;
        let (pointer, length) = unpack(packed);
        if pointer == 0 || length == 0 {
            return Ok(Verdict::Continue);
        }
        let verdict = output::verdict(hook, self.read(store, pointer, length)?)?;
        self.release(store, (pointer.cast_signed(), length.cast_signed())).await;
        Ok(verdict)
    }

    async fn configure(
        &mut self,
        store: &mut Store<HostState>,
        configure: &TypedFunc<(i32, i32), i32>,
        config: &[u8],
    ) -> wasmtime::Result<()> {
        let place = self.write(store, config).await?;
        let refused = configure.call_async(&mut *store, place).await?;
        self.release(store, place).await;
        if refused == 0 { Ok(()) } else { Err(ResultError::Configuration(refused).into()) }
    }

    /// Where the guest made room for `bytes`, which are there now.
    async fn write(&self, store: &mut Store<HostState>, bytes: &[u8]) -> wasmtime::Result<(i32, i32)> {
        let length = i32::try_from(bytes.len()).map_err(|_| ResultError::Alloc(bytes.len()))?;
        let pointer = self.alloc.call_async(&mut *store, length).await?;
        if pointer == 0 {
            return Err(ResultError::Alloc(bytes.len()).into());
        }
        let at = pointer.cast_unsigned() as usize;
        let memory = self.memory.data_mut(&mut *store);
        let size = memory.len();
        match at.checked_add(bytes.len()).and_then(|end| memory.get_mut(at..end)) {
            Some(room) => room.copy_from_slice(bytes),
            None => {
                let (pointer, length) = (pointer.cast_unsigned(), length.cast_unsigned());
                return Err(ResultError::OutOfBounds { pointer, length, memory: size }.into());
            }
        }
        Ok((pointer, length))
    }

    fn read<'a>(&self, store: &'a Store<HostState>, pointer: u32, length: u32) -> Result<&'a [u8], ResultError> {
        let memory = self.memory.data(store.as_context());
        let (start, size) = (pointer as usize, length as usize);
        match start.checked_add(size).and_then(|end| memory.get(start..end)) {
            None => Err(ResultError::OutOfBounds { pointer, length, memory: memory.len() }),
            Some(_) if size > MAX_OUTPUT => Err(ResultError::TooLarge(length)),
            Some(bytes) => Ok(bytes),
        }
    }

    /// An error here doesn't matter to the call, which is over; but a guest that can't free memory is not kept.
    async fn release(&mut self, store: &mut Store<HostState>, place: (i32, i32)) {
        if !self.spent && self.dealloc.call_async(store, place).await.is_err() {
            self.spent = true;
        }
    }
}

/// Pointer and length.
fn unpack(packed: i64) -> (u32, u32) {
    let packed = packed.cast_unsigned();
    #[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
    let halves = ((packed >> 32) as u32, packed as u32);
    halves
}
