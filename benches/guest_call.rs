//! What the call of a guest costs: one on-request hook, in each instance mode, and a chain of five.
//!
//! The request is the one of the side-by-side comparison: a chat completion of 168 bytes with ten headers.
//!
//! For `benches/instructions.py`, which counts under valgrind: `SMG_CALLS` makes so many calls of the guest and in the
//! mode that the arguments name, and nothing else; `SMG_COMPILER` is the program that compiles the guests, for code must
//! be compiled for the processor that runs it, which is valgrind's then.

use std::hint::black_box;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Parser;
use criterion::{Criterion, criterion_group};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Uri};
use smg::config::Config;
use smg::modules::{
    Abi, Defaults, Draft, Engine, Hook, InstanceMode, Loader, Module, ModuleGuests, ModuleMetrics, RequestHead,
    RequestView, ShardGuests, Visit,
};
use tokio::runtime::{Builder, LocalRuntime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HEADERS: [(&str, &str); 10] = [
    ("host", "127.0.0.1:3000"),
    ("content-type", "application/json"),
    ("content-length", "168"),
    ("x-api-key", "secret-api-key-12345"),
    ("user-agent", "bench/1.0"),
    ("accept", "*/*"),
    ("x-forwarded-for", "127.0.0.1"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "127.0.0.1:3000"),
    ("x-request-id", "0123456789abcdef0123456789abcdef"),
];

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    config: Config,
}

/// One shard's worth of guests.
struct Bench {
    runtime: LocalRuntime,
    engine: Arc<Engine>,
    loader: Loader,
    defaults: Defaults,
}

impl Bench {
    fn new() -> Self {
        let config = Line::parse_from(["bench", "--enable-wasm"]).config;
        let engine = Arc::new(Engine::new(&config.wasm.guest).expect("an engine"));
        let compiler = std::env::var_os("SMG_COMPILER").unwrap_or_else(|| env!("CARGO_BIN_EXE_smg").into());
        let loader = Loader::new(engine.clone(), Arc::<ModuleMetrics>::default(), compiler.into());
        let runtime = Builder::new_current_thread().enable_all().build_local(Default::default()).expect("a runtime");
        Self { runtime, engine, loader: loader.expect("a loader"), defaults: Defaults::from(&config.wasm) }
    }

    fn module(&self, guest: &str, instance: InstanceMode) -> Arc<Module> {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("guests/dist/{guest}.wasm"));
        let wasm = std::fs::read(file).expect("a guest that is built");
        let abi = Abi::of(&wasm).expect("WebAssembly");
        let draft = Draft { instance: Some(instance), ..self.defaults.draft() };
        let settings = draft.settings(abi).expect("settings");
        let loading = self.loader.load(guest, wasm, "", Some(vec![Hook::Request]), settings);
        Arc::new(self.runtime.block_on(loading).expect("a module"))
    }

    fn chain(&self, modules: &[Arc<Module>]) -> Vec<Rc<ModuleGuests>> {
        ShardGuests::new(&self.engine, 1).arrange(modules)
    }
}

fn view() -> RequestView {
    let headers: HeaderMap =
        HEADERS.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
    let head = RequestHead { method: Method::POST, uri: Uri::from_static("/v1/chat/completions"), headers };
    let request_id = HeaderValue::from_static("0123456789abcdef0123456789abcdef");
    RequestView {
        head: Rc::new(head),
        body: Bytes::from(vec![b'a'; 168]),
        request_id,
        client: HeaderValue::from_static("127.0.0.1"),
        received_ms: 1_700_000_000_000,
    }
}

fn guest_call(criterion: &mut Criterion) {
    let bench = Bench::new();
    let pooled = InstanceMode::Pooled { size: Some(1), max_uses: None };
    let modes = [("pooled", pooled), ("single", InstanceMode::Single {}), ("request", InstanceMode::Request {})];
    let mut group = criterion.benchmark_group("on-request");
    for (name, mode) in modes {
        for guest in ["minimal", "auth"] {
            let chain = bench.chain(&[bench.module(guest, mode)]);
            group.bench_function(format!("{guest}, {name}"), |bencher| call(bencher, &bench, &chain));
        }
    }
    let five: Vec<_> = (0..5).map(|_| bench.module("auth", pooled)).collect();
    let chain = bench.chain(&five);
    group.bench_function("auth five times, pooled", |bencher| call(bencher, &bench, &chain));
    // Of the Sentinel interface: JSON both ways. The first answers with nothing, the others with JSON.
    for guest in ["sentinel-hostile", "sentinel-c", "sentinel-guard"] {
        let chain = bench.chain(&[bench.module(guest, pooled)]);
        group.bench_function(format!("{guest}, pooled"), |bencher| call(bencher, &bench, &chain));
    }
    group.finish();
}

fn call(bencher: &mut criterion::Bencher, bench: &Bench, chain: &[Rc<ModuleGuests>]) {
    bencher.iter_custom(|calls| call_times(bench, chain, calls));
}

/// Many calls in each entry of the runtime: entering it costs as much as a call.
fn call_times(bench: &Bench, chain: &[Rc<ModuleGuests>], calls: u64) -> Duration {
    bench.runtime.block_on(async {
        let mut view = view();
        let start = Instant::now();
        for _ in 0..calls {
            let mut visit = Visit::new(chain, &view.head, view.received_ms, |_| true);
            let answer = visit.on_request(&mut view).await;
            assert!(black_box(answer).is_ok_and(|answer| answer.is_none()));
        }
        start.elapsed()
    })
}

criterion_group!(benches, guest_call);

fn main() {
    let Some(calls) = std::env::var_os("SMG_CALLS") else {
        benches();
        return Criterion::default().configure_from_args().final_summary();
    };
    let calls = calls.to_str().and_then(|calls| calls.parse().ok()).expect("SMG_CALLS is a number");
    let arguments: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with("--")).collect();
    let [guest, mode] = &arguments[..] else { panic!("SMG_CALLS needs a guest and a mode") };
    let instance = match mode.as_str() {
        "pooled" => InstanceMode::Pooled { size: Some(1), max_uses: None },
        _ => InstanceMode::Request {},
    };
    let bench = Bench::new();
    call_times(&bench, &bench.chain(&[bench.module(guest, instance)]), calls);
}
