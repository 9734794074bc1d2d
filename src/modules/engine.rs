//! The one wasmtime engine, its settings, and the thread that ticks while guests run.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::config::GuestLimits;
use crate::panics::Vital;

/// Time between two ticks; a guest that is still running at a tick yields.
const TICK: Duration = Duration::from_millis(1);
/// The same while there are slow guests: ten more that begin at once are to keep nobody waiting for long.
const SHORT_TICK: Duration = Duration::from_micros(100);
/// Time that a guest must have run for, in all its slices, to be one of those.
const SLOW: Duration = Duration::from_micros(500);
/// Ticks without any guest after which the thread goes to sleep until there is one.
const QUIET_TICKS: u32 = 3;

const PAGE: u64 = 65_536;
const GIB: u64 = 1 << 30;
/// Room that a 32-bit memory can address; reserving it whole makes bounds checks free.
const WHOLE_MEMORY: u64 = 4 * GIB;
const GUARD: u64 = 32 << 20;
/// Guests that can exist at once where address space is plentiful.
const MOST_GUESTS: u32 = 4096;
/// Stack for host functions that a guest calls.
const STACK_FOR_HOST: usize = 1 << 20;
/// Memory of a finished guest that stays resident, to be wiped rather than mapped anew.
const KEEP_RESIDENT: usize = 2 << 20;
/// Finished guests whose memory stays resident.
const WARM_SLOTS: u32 = 64;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the WebAssembly engine can't be set up")]
    Setup(#[source] wasmtime::Error),
}

/// What the code of a module depends on: whoever compiles and whoever runs it must agree on these.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Tuning {
    /// Address space set aside for each memory, in bytes
    #[arg(long)]
    pub memory_reservation: u64,
    /// Largest memory, in bytes
    #[arg(long)]
    pub max_memory: u64,
    /// Largest stack of a guest, in bytes
    #[arg(long)]
    pub max_stack: u32,
}

impl Tuning {
    /// As arguments for [`CompileArgs`](super::CompileArgs).
    pub fn arguments(&self) -> [String; 3] {
        [
            format!("--memory-reservation={}", self.memory_reservation),
            format!("--max-memory={}", self.max_memory),
            format!("--max-stack={}", self.max_stack),
        ]
    }

    /// The settings that code is compiled for.
    pub fn config(&self) -> Config {
        let mut config = Config::new();
        config
            .memory_reservation(self.memory_reservation)
            .memory_guard_size(GUARD)
            .max_wasm_stack(self.max_stack as usize)
            .async_stack_size(self.max_stack as usize + STACK_FOR_HOST)
            .epoch_interruption(true)
            .concurrency_support(false)
            .wasm_backtrace_max_frames(None)
            .wasm_memory64(false);
        config
    }

    /// The same, with address space for `guests` at once.
    fn running(&self, guests: u32) -> Config {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(guests)
            .total_core_instances(guests.saturating_mul(4))
            .total_memories(guests)
            .total_tables(guests.saturating_mul(4))
            .total_stacks(guests)
            .max_core_instances_per_component(16)
            .max_memories_per_component(1)
            .max_tables_per_component(8)
            .max_tables_per_module(8)
            .max_memory_size(self.max_memory as usize)
            .table_elements(20_000)
            .max_unused_warm_slots(WARM_SLOTS)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(KEEP_RESIDENT)
            .pagemap_scan(Enabled::Auto);
        let mut config = self.config();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        config
    }
}

/// The engine and the ticking thread; one for each process that runs guests.
pub struct Engine {
    pub(super) engine: wasmtime::Engine,
    pub(super) tuning: Tuning,
    ticker: Arc<Ticker>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Sets the engine up for the limits in force. Where the system refuses the address space, smaller
    /// reservations serve the same limits, with slower memory access and fewer guests at once.
    pub fn new(limits: &GuestLimits) -> Result<Self, EngineError> {
        let max_memory = u64::from(limits.wasm_max_memory_pages) * PAGE;
        let address_space = rustix::process::getrlimit(rustix::process::Resource::As).current;
        let tight = |guests| (max_memory, guests);
        let choices = match address_space {
            None => vec![(WHOLE_MEMORY, MOST_GUESTS), tight(1024), tight(128), tight(16)],
            Some(limit) => {
                let each = max_memory + GUARD + u64::from(limits.wasm_max_stack_size) + (1 << 20);
                let fitting = u32::try_from(limit / 2 / each).unwrap_or(MOST_GUESTS).clamp(1, MOST_GUESTS);
                vec![tight(fitting), tight(fitting.div_ceil(4)), tight(1)]
            }
        };
        let mut refused = None;
        for (memory_reservation, guests) in choices {
            let tuning = Tuning { memory_reservation, max_memory, max_stack: limits.wasm_max_stack_size };
            match wasmtime::Engine::new(&tuning.running(guests)) {
                Ok(engine) => {
                    if memory_reservation < WHOLE_MEMORY {
                        tracing::warn!(guests, "address space is limited: smaller reservations, fewer guests at once");
                    }
                    return Ok(Self::ticking(engine, tuning));
                }
                Err(error) => refused = Some(error),
            }
        }
        Err(EngineError::Setup(refused.expect("there is a choice, and none was taken")))
    }

    fn ticking(engine: wasmtime::Engine, tuning: Tuning) -> Self {
        let ticker = Arc::new(Ticker::default());
        let thread = {
            let (ticker, engine) = (ticker.clone(), engine.clone());
            thread::Builder::new()
                .name("smg-epoch".into())
                .spawn(move || {
                    // Without it a guest that never ends has its shard for itself.
                    let _vital = Vital;
                    ticker.run(&engine);
                })
                .expect("the system has room for one more thread")
        };
        Self { engine, tuning, ticker, thread: Some(thread) }
    }

    /// A pulse for a thread that is going to run guests.
    pub fn pulse(&self) -> Pulse {
        let beat = Arc::new(Beat::default());
        lock(&self.ticker.beats).push(beat.clone());
        Pulse { beat, ticker: self.ticker.clone(), thread: self.thread.as_ref().map(|thread| thread.thread().clone()) }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.ticker.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// Ticks while a guest runs on any thread, and sleeps otherwise.
#[derive(Default)]
struct Ticker {
    beats: Mutex<Vec<Arc<Beat>>>,
    asleep: AtomicBool,
    stop: AtomicBool,
}

/// Written by one thread, read by the ticker.
#[derive(Default)]
struct Beat {
    running: AtomicU32,
    /// Those of them that have run for long.
    slow: AtomicU32,
    entered: AtomicU64,
}

/// What the ticker sees of all threads.
#[derive(Default)]
struct Guests {
    running: bool,
    slow: bool,
    /// Calls so far.
    entered: u64,
}

impl Ticker {
    fn run(&self, engine: &wasmtime::Engine) {
        let (mut quiet, mut seen) = (0, 0);
        while !self.stop.load(Ordering::SeqCst) {
            let guests = self.look();
            quiet = if guests.running || guests.entered != seen { 0 } else { quiet + 1 };
            seen = guests.entered;
            if quiet < QUIET_TICKS {
                self.wait(guests.slow);
                engine.increment_epoch();
                continue;
            }
            self.asleep.store(true, Ordering::SeqCst);
            // A thread that entered before it could see us asleep has not woken us: look once more.
            if !self.look().running && !self.stop.load(Ordering::SeqCst) {
                thread::park();
            }
            self.asleep.store(false, Ordering::SeqCst);
            quiet = 0;
        }
    }

    /// For the next tick. The first guest to be slow cuts a long wait short.
    fn wait(&self, slow: bool) {
        thread::park_timeout(if slow { SHORT_TICK } else { TICK });
        if !slow && self.look().slow {
            thread::park_timeout(SHORT_TICK);
        }
    }

    fn look(&self) -> Guests {
        let mut guests = Guests::default();
        for beat in &*lock(&self.beats) {
            guests.running |= beat.running.load(Ordering::SeqCst) > 0;
            guests.slow |= beat.slow.load(Ordering::Relaxed) > 0;
            guests.entered += beat.entered.load(Ordering::Relaxed);
        }
        guests
    }
}

/// One thread's part in keeping the ticks going.
#[derive(Clone)]
pub struct Pulse {
    beat: Arc<Beat>,
    ticker: Arc<Ticker>,
    thread: Option<thread::Thread>,
}

impl Pulse {
    /// A guest runs, or waits for its turn, until the guard is dropped.
    pub fn enter(&self) -> Running<'_> {
        let running = self.beat.running.load(Ordering::Relaxed);
        self.beat.running.store(running + 1, Ordering::SeqCst);
        self.beat.entered.store(self.beat.entered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if self.ticker.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        Running { pulse: self, ran: Duration::ZERO }
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.unpark();
        }
    }
}

/// See [`Pulse::enter`].
pub struct Running<'a> {
    pulse: &'a Pulse,
    /// So far, if it did not finish in one slice.
    ran: Duration,
}

impl Running<'_> {
    /// The guest has run for this long and did not finish.
    pub fn ran(&mut self, slice: Duration) {
        let was_slow = self.is_slow();
        self.ran += slice;
        if self.is_slow() && !was_slow {
            let others = self.pulse.beat.slow.load(Ordering::Relaxed);
            self.pulse.beat.slow.store(others + 1, Ordering::Relaxed);
            if others == 0 {
                self.pulse.wake();
            }
        }
    }

    fn is_slow(&self) -> bool {
        self.ran >= SLOW
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Beat { running, slow, .. } = &*self.pulse.beat;
        if self.is_slow() {
            slow.store(slow.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
        }
        running.store(running.load(Ordering::Relaxed) - 1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
