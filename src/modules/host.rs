//! What a guest may ask of us: clocks, random numbers, and a place for what it prints. No files, no sockets,
//! no environment, no arguments.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderValue;
use tracing::{field, info};
use wasmtime::component::{Linker, ResourceTable};
use wasmtime::{AsContextMut, ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult, bindings};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::engine::Engine;
use super::settings::Limits;
use super::stats::ModuleStats;
use super::turns::Turns;
use crate::telemetry::Untrusted;

/// Handles (streams, pollables, …) that a guest may hold.
const MAX_HANDLES: usize = 1024;
/// Random bytes of one request for them.
pub const MAX_RANDOM: u32 = 1 << 16;
/// What a guest may hand over in one call, besides a body.
const MAX_HANDED_OVER: usize = 1 << 20;
/// Elements of all tables of a guest.
const MAX_TABLE_ELEMENTS: usize = 20_000;
/// Bytes a guest may print between two calls, and lines of all guests of a module in a second.
const PRINTED_BYTES: usize = 16_384;
const PRINTED_LINES: u32 = 100;
/// The longest line that is printed whole.
const LINE_BYTES: usize = 1024;

/// The host's side of one guest.
pub struct HostState {
    /// Made when the guest first asks for something: most never do.
    wasi: Option<WasiCtx>,
    table: ResourceTable,
    memory: MemoryLimit,
    printed: Arc<Mutex<Printed>>,
    turns: Turns,
}

impl WasiView for HostState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| wasi(&self.printed));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

fn wasi(printed: &Arc<Mutex<Printed>>) -> WasiCtx {
    WasiCtx::builder()
        .stdout(Printer(printed.clone()))
        .stderr(Printer(printed.clone()))
        .max_random_size(MAX_RANDOM.into())
        .allow_tcp(false)
        .allow_udp(false)
        .build()
}

impl HostState {
    /// Bytes of linear memory in use.
    pub fn memory_bytes(&self) -> usize {
        self.memory.in_use
    }

    /// The guest starts, for this request if there is one.
    pub fn begin_start(&mut self, request_id: Option<&HeaderValue>) {
        lock(&self.printed).request_id = request_id.cloned();
    }

    /// A call begins, for this request: the guest may print again, and takes its turns on this shard.
    pub fn begin_call(&mut self, turns: &Turns, request_id: &HeaderValue) {
        self.turns = turns.clone();
        let mut printed = lock(&self.printed);
        printed.left = PRINTED_BYTES;
        printed.request_id = Some(request_id.clone());
    }

    /// Takes what the guest prints, within bounds.
    pub fn print(&self, bytes: &[u8]) {
        lock(&self.printed).write(bytes);
    }

    /// A call ended: what was printed without a line end is a line too.
    pub fn end_call(&mut self) {
        lock(&self.printed).flush();
    }
}

/// A store for one guest of a module, with every limit set before any guest code runs.
pub fn store(
    engine: &Engine,
    name: &Arc<str>,
    limits: &Limits,
    log: &Arc<PrintLimit>,
    stats: &Arc<ModuleStats>,
    turns: &Turns,
) -> Store<HostState> {
    let printed = Arc::new(Mutex::new(Printed::new(name.clone(), log.clone())));
    let mut table = ResourceTable::new();
    table.set_max_capacity(MAX_HANDLES);
    let memory =
        MemoryLimit { most: limits.memory_pages as usize * 65_536, in_use: 0, tables: 0, stats: stats.clone() };
    let state = HostState { wasi: None, table, memory, printed, turns: turns.clone() };
    let mut store = Store::new(&engine.engine, state);
    store.limiter(|state| &mut state.memory);
    let body = usize::try_from(limits.body_bytes).unwrap_or(usize::MAX);
    store.as_context_mut().set_max_component_handles(2 * MAX_HANDLES);
    store.set_hostcall_fuel(body.saturating_add(MAX_HANDED_OVER));
    store.epoch_deadline_callback(|context| Ok(UpdateDeadline::YieldCustom(1, context.data().turns.next())));
    store.set_epoch_deadline(1);
    store
}

/// Links what guests of every component interface may import. Sockets are not among it: a component that
/// imports them is refused when it is deployed.
pub fn link(linker: &mut Linker<HostState>) -> wasmtime::Result<()> {
    use bindings::{cli, filesystem, random};
    use wasmtime_wasi::cli::{WasiCli, WasiCliView};
    use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
    use wasmtime_wasi::random::WasiRandom;

    wasmtime_wasi::p2::add_to_linker_proxy_interfaces_async(linker)?;
    random::insecure::add_to_linker::<_, WasiRandom>(linker, |state: &mut HostState| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(linker, |state: &mut HostState| state.ctx().ctx.random())?;
    filesystem::preopens::add_to_linker::<_, WasiFilesystem>(linker, HostState::filesystem)?;
    filesystem::types::add_to_linker::<_, WasiFilesystem>(linker, HostState::filesystem)?;
    cli::exit::add_to_linker::<_, WasiCli>(linker, HostState::cli)?;
    cli::environment::add_to_linker::<_, WasiCli>(linker, HostState::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(linker, HostState::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(linker, HostState::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(linker, HostState::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(linker, HostState::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(linker, HostState::cli)
}

/// Bounds a guest's memory and tables, and counts the memory while the guest lives.
struct MemoryLimit {
    most: usize,
    in_use: usize,
    tables: usize,
    stats: Arc<ModuleStats>,
}

impl ResourceLimiter for MemoryLimit {
    /// There is one memory. A growth that is refused later on is corrected by the next one.
    fn memory_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > self.most {
            return Ok(false);
        }
        let change = desired as i64 - self.in_use as i64;
        self.stats.memory_bytes.fetch_add(change, Relaxed);
        self.in_use = desired;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let tables = self.tables + (desired - current);
        if tables > MAX_TABLE_ELEMENTS {
            return Ok(false);
        }
        self.tables = tables;
        Ok(true)
    }

    fn instances(&self) -> usize {
        16
    }

    fn tables(&self) -> usize {
        8
    }

    fn memories(&self) -> usize {
        1
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        self.stats.memory_bytes.fetch_sub(self.in_use as i64, Relaxed);
    }
}

/// What one guest has printed since its call began.
struct Printed {
    module: Arc<str>,
    /// Of the request that it works for; none while it is tried out.
    request_id: Option<HeaderValue>,
    limit: Arc<PrintLimit>,
    line: Vec<u8>,
    left: usize,
}

impl Printed {
    fn new(module: Arc<str>, limit: Arc<PrintLimit>) -> Self {
        Self { module, request_id: None, limit, line: Vec::new(), left: PRINTED_BYTES }
    }

    /// Takes what fits into the bounds; the rest is dropped.
    fn write(&mut self, bytes: &[u8]) {
        let taken = &bytes[..bytes.len().min(self.left)];
        self.left -= taken.len();
        for piece in taken.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            let room = LINE_BYTES - self.line.len();
            self.line.extend_from_slice(&text[..text.len().min(room)]);
            if text.len() < piece.len() {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        if self.line.is_empty() {
            return;
        }
        if let Some(skipped) = self.limit.admit(Instant::now()) {
            let id = self.request_id.as_ref().map(|id| field::display(Untrusted(id.as_bytes())));
            info!(target: "smg::guest", module = %Untrusted(self.module.as_bytes()), id, skipped, line = %Untrusted(&self.line));
        }
        self.line.clear();
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Lines that all guests of a module may print in a second.
#[derive(Default)]
pub struct PrintLimit(Mutex<Option<Window>>);

struct Window {
    start: Instant,
    lines: u32,
    skipped: u64,
}

impl PrintLimit {
    /// Lines skipped before this one, or `None` if this one is skipped too.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut window = lock(&self.0);
        let window = window.get_or_insert(Window { start: now, lines: 0, skipped: 0 });
        if now.duration_since(window.start) >= Duration::from_secs(1) {
            (window.start, window.lines) = (now, 0);
        }
        window.lines += 1;
        if window.lines > PRINTED_LINES {
            window.skipped += 1;
            return None;
        }
        Some(std::mem::take(&mut window.skipped))
    }
}

/// Standard output or error of a guest.
struct Printer(Arc<Mutex<Printed>>);

impl IsTerminal for Printer {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Printer {
    /// Used by WASI 0.3 only, which is not linked.
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Printer(self.0.clone()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Printer {
    async fn ready(&mut self) {}
}

impl OutputStream for Printer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        lock(&self.0).write(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(65_536)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
