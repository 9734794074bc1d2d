//! Modules that are dear to compile: bounded in time and memory, one at a time, and no burden to anybody else.
//! Cases 12 and 13 of section 3.

use crate::support::{Files, Gateway, Module, Timings, Worker, bomb, eventually, guest, locals};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// No locals, and code that leaves nothing behind.
const NO_LOCALS: &[u8] = &[0];
const CONST_DROP: &[u8] = b"\x41\x00\x1a";
const BLOCK: &[u8] = b"\x02\x40";
const END: &[u8] = b"\x0b";

/// Deploys a module on a connection of its own while `meanwhile` runs; its answer, and how long it took.
fn deploying<T>(gateway: &Gateway, module: &Module, meanwhile: impl FnOnce() -> T) -> (Value, Duration, T) {
    let mut client = gateway.connect();
    client.set_patience(Duration::from_secs(60));
    let body = json!({ "modules": [module.json()] }).to_string();
    let start = Instant::now();
    client.send_request("POST", "/wasm", &[("Content-Type", "application/json")], body.as_bytes());
    let result = meanwhile();
    let answer = client.read_response().json();
    (answer["modules"][0]["add_result"].clone(), start.elapsed(), result)
}

/// How long `count` requests on one connection take.
#[track_caller]
fn timed(gateway: &Gateway, count: usize) -> Timings {
    let mut client = gateway.connect();
    Timings::of(count, || assert_eq!(client.get("/").status, 200))
}

#[test]
fn what_is_too_large_to_compile_is_refused_with_the_reason() {
    let worker = Worker::echo();
    let mut gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::new("minimal", &guest("minimal")));
    let files = Files::new();
    let huge = files.write("huge.wasm", b"\0asm\x0d\0\x01\0");
    std::fs::File::options().write(true).open(&huge).unwrap().set_len(100 << 20).unwrap();
    let targets = [&b"\x02\x40\x41\x00\x0e"[..], b"\xf0\xff\x03", &[0; 65_521], END].concat();
    for (what, file, wanted) in [
        ("a file of 100 MiB", huge, "larger than"),
        (
            "a million functions and one",
            files.write("functions.wasm", bomb(1_000_001, NO_LOCALS, b"")),
            "functions count",
        ),
        (
            "a function of 7.5 MB",
            files.write("function.wasm", bomb(1, NO_LOCALS, &CONST_DROP.repeat(2_500_000))),
            "compil",
        ),
        ("50,001 locals", files.write("locals.wasm", bomb(1, &locals(50_001), b"")), "locals"),
        ("50,000 locals", files.write("most.wasm", bomb(1, &locals(50_000), b"")), "export"),
        ("65,520 targets of one branch", files.write("targets.wasm", bomb(1, NO_LOCALS, &targets)), "export"),
        (
            "3,000,000 calls in a function",
            files.write("calls.wasm", bomb(1, NO_LOCALS, &b"\x10\x00".repeat(3_000_000))),
            "compil",
        ),
    ] {
        let before = gateway.memory();
        let (result, took, others) = deploying(&gateway, &Module::new("bomb", &file), || timed(&gateway, 50));
        assert!(result["Error"].as_str().is_some_and(|error| error.contains(wanted)), "{what}: {result}");
        assert!(took < Duration::from_secs(31), "{what}: {took:?}");
        assert!(others.usual() < Duration::from_millis(250), "{what}: requests take {others}");
        assert!(gateway.memory() < before + 64 * MIB, "{what}: {} MiB -> {} MiB", before / MIB, gateway.memory() / MIB);
    }
    assert!(gateway.is_running());
}

#[test]
fn a_compilation_that_does_not_end_is_ended() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::new("minimal", &guest("minimal")));
    let files = Files::new();
    let deep = [BLOCK.repeat(500_000), END.repeat(500_000)].concat();
    let module = Module::new("bomb", &files.write("deep.wasm", bomb(1, NO_LOCALS, &deep)));
    let before = gateway.memory();
    let (result, took, others) = deploying(&gateway, &module, || timed(&gateway, 200));
    let error = result["Error"].as_str().unwrap_or_default();
    assert!(error.contains("compiling") && !error.contains("valid"), "it may well be valid: {result}");
    assert!(took > Duration::from_secs(5) && took < Duration::from_secs(40), "{took:?}");
    assert!(others.usual() < Duration::from_millis(250), "requests take {others}");
    assert!(gateway.memory() < before + 64 * MIB, "{} MiB -> {} MiB", before / MIB, gateway.memory() / MIB);
    gateway.add(&Module::hostile());
}

#[test]
fn deployments_queue_behind_one_that_takes_long_and_the_queue_is_bounded() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let code = b"\x20\x00\x41\x01\x6a\x21\x00".repeat(20);
    let bomb = Module::new("bomb", &files.write("bomb.wasm", bomb(30_000, &locals(1), &code)));
    let second = Module::new("minimal", &guest("minimal"));
    let parent = process_with(&format!("--worker-urls={}", worker.url())).expect("the gateway runs");
    let (result, took, (waited, busy)) = deploying(&gateway, &bomb, || {
        eventually(Duration::from_secs(5), || child_of(parent).is_some());
        let mut queued = gateway.connect();
        queued.set_patience(Duration::from_secs(60));
        let body = json!({ "modules": [second.json()] }).to_string();
        let post = |client: &mut crate::support::Client| {
            client.send_request("POST", "/wasm", &[("Content-Type", "application/json")], body.as_bytes());
        };
        post(&mut queued);
        assert!(queued.is_silent_for(Duration::from_millis(300)), "it waits for the one before it");
        gateway.modules();
        let mut crowd: Vec<_> = (0..40).map(|_| gateway.connect()).collect();
        crowd.iter_mut().for_each(post);
        let refused: Vec<String> = crowd
            .iter_mut()
            .filter_map(|client| {
                let silent = client.is_silent_for(Duration::from_millis(20));
                (!silent).then(|| client.read_response().text())
            })
            .collect();
        queued.set_patience(Duration::from_secs(60));
        (queued.read_response(), refused)
    });
    assert!(result["Error"].as_str().is_some_and(|error| error.contains("export")), "{result}");
    assert!(took > Duration::from_secs(1), "too quick to be a bomb: {took:?}");
    assert_eq!(waited.status, 200, "{}", waited.text());
    assert!(!busy.is_empty() && busy.iter().all(|text| text.contains("waiting")), "{busy:?}");
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn a_compiler_does_not_outlive_a_gateway_that_is_killed() {
    assert_ends_with_its_gateway(Signal::KILL);
}

#[test]
fn a_compiler_does_not_outlive_a_gateway_that_is_told_to_stop() {
    assert_ends_with_its_gateway(Signal::TERM);
}

#[track_caller]
fn assert_ends_with_its_gateway(signal: Signal) {
    let worker = Worker::echo();
    let mut gateway = Gateway::with_modules(&worker).arg("--shutdown-grace-period-secs=0.1").start();
    let files = Files::new();
    let deep = [BLOCK.repeat(500_000), END.repeat(500_000)].concat();
    let module = Module::new("bomb", &files.write("deep.wasm", bomb(1, NO_LOCALS, &deep)));
    let body = json!({ "modules": [module.json()] }).to_string();
    let mut client = gateway.connect();
    client.send_request("POST", "/wasm", &[("Content-Type", "application/json")], body.as_bytes());
    let parent = process_with(&format!("--worker-urls={}", worker.url())).expect("the gateway runs");
    let mut compiler = None;
    eventually(Duration::from_secs(5), || {
        compiler = child_of(parent).filter(|child| computed(*child) > Duration::from_millis(200));
        compiler.is_some()
    });
    let compiler = compiler.expect("the loop above ended with it");
    gateway.signal(signal);
    gateway.wait_exit(Duration::from_secs(5));
    let gone = (0..300).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        !std::path::Path::new(&format!("/proc/{compiler}")).exists()
    });
    if !gone {
        let _ = kill_process(Pid::from_raw(compiler).expect("not zero"), Signal::KILL);
    }
    assert!(gone, "it goes on computing for nobody");
}

/// The process that was started with `argument`.
fn process_with(argument: &str) -> Option<i32> {
    let processes = std::fs::read_dir("/proc")
        .expect("/proc is there")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let started = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())
    };
    processes.into_iter().find(started)
}

/// Processor time that a process has had.
fn computed(pid: i32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(11)?.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.unwrap_or(0))
}

fn child_of(parent: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
