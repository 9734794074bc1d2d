//! Modules: WebAssembly files that change what happens to a request.
//!
//! A module is compiled, checked and pre-linked once, on the control plane ([`load`], [`compile`]); a shard
//! then makes guests of it ([`guest`], [`pool`]) and calls them at hooks. What a guest asks for arrives as a
//! [`Verdict`], whatever the interface ([`abi`]) it was written for. wasmtime is named nowhere else.

mod abi;
mod breaker;
mod cache;
mod chain;
mod compile;
mod edit;
mod engine;
mod guest;
mod hook;
mod host;
mod load;
mod outcome;
mod pool;
mod settings;
mod stats;
mod turns;

pub use abi::Abi;
pub use cache::{Cache, CacheError};
pub use chain::{FAILED, FAILED_OPEN, GuestFailure, Visit};
pub use compile::{CompileArgs, Compiler, compile_process};
pub use edit::{Edit, EditError, FieldEdits};
pub use engine::{Engine, EngineError};
pub use guest::HookView;
pub use hook::{Answer, Hook, RequestHead, RequestView, ResponseHead, ResponseView, Verdict};
pub use load::{LoadError, Loader, Module, sha256};
pub use outcome::{FailureKind, Outcome};
pub use pool::{ModuleGuests, ShardGuests};
pub use settings::{
    Defaults, Draft, FailurePolicies, HeaderCase, InstanceMode, Limits, Match, Settings, Streaming, UselessSetting,
};
pub use stats::{ModuleMetrics, Totals};
