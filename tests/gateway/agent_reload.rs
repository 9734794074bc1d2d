//! The agent's module changes with its file, while events are answered.

use crate::support::{Agent, Decision, Event, FOR_EVER, Files, Proxy, Sentinel, Version, eventually, guest, holds_for};
use rustix::process::Signal;
use serde_json::json;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A module that tells its version by a tag.
fn tagging(version: &str) -> Sentinel {
    let reply = json!({ "decision": "allow", "tags": [version] });
    Sentinel::replying(&reply, &reply)
}

/// Puts `module` into the place of the file `m.wasm` at once; its path.
fn put(files: &Files, module: &Sentinel) -> String {
    let next = files.sentinel("next", module);
    std::fs::rename(next, files.path("m.wasm")).expect("our directory");
    files.named("m.wasm")
}

#[track_caller]
fn version(proxy: &mut Proxy) -> String {
    let reply = proxy.ask(&Event::request());
    assert_eq!(reply.decision, Decision::Allow, "{reply:?}");
    reply.audit.tags.concat()
}

#[track_caller]
fn becomes(proxy: &mut Proxy, wanted: &str) {
    eventually(Duration::from_secs(10), || version(proxy) == wanted);
}

#[test]
fn a_file_that_is_replaced_is_loaded() {
    let files = Files::new();
    let agent = Agent::running(&put(&files, &tagging("v1"))).start();
    let mut proxies = Version::BOTH.map(|version| agent.connect(version));
    for next in ["v2", "v3"] {
        proxies.iter_mut().for_each(|proxy| assert_ne!(version(proxy), next));
        put(&files, &tagging(next));
        proxies.iter_mut().for_each(|proxy| becomes(proxy, next));
        agent.wait_for_log("the module was replaced");
    }
}

#[test]
fn a_file_that_is_written_anew_in_its_place_is_loaded() {
    let files = Files::new();
    let agent = Agent::running(&put(&files, &tagging("v1"))).start();
    let mut proxy = agent.connect(Version::V1);
    assert_eq!(version(&mut proxy), "v1");
    std::fs::copy(files.sentinel("next", &tagging("v2")), files.path("m.wasm")).expect("our directory");
    becomes(&mut proxy, "v2");
}

#[test]
fn a_link_that_is_turned_elsewhere_is_followed() {
    let files = Files::new();
    let turn = |to: String| {
        std::os::unix::fs::symlink(to, files.path("turned")).expect("our directory");
        std::fs::rename(files.path("turned"), files.path("current")).expect("our directory");
    };
    turn(files.sentinel("v1", &tagging("v1")));
    let second = files.sentinel("v2", &tagging("v2"));
    let agent = Agent::running(&files.named("current")).start();
    let mut proxy = agent.connect(Version::V2);
    assert_eq!(version(&mut proxy), "v1");
    turn(second);
    becomes(&mut proxy, "v2");
}

#[test]
fn a_hangup_looks_at_once_and_keeps_what_has_not_changed() {
    let agent = Agent::running(&guest("sentinel-hostile")).arg("--pool-size=1").start();
    let mut proxy = agent.connect(Version::V2);
    let mut count = || format!("{:?}", proxy.ask(&Event::request().doing("count")).response_headers);
    assert!(count().contains("\"1\""));
    agent.signal(Signal::HUP);
    agent.wait_for_log("the module has not changed");
    assert!(count().contains("\"2\""), "the guests are still the same");
}

#[test]
fn a_hangup_loads_a_file_that_changed() {
    let files = Files::new();
    let agent = Agent::running(&put(&files, &tagging("v1"))).start();
    let mut proxy = agent.connect(Version::V2);
    assert_eq!(version(&mut proxy), "v1");
    put(&files, &tagging("v2"));
    agent.signal(Signal::HUP);
    becomes(&mut proxy, "v2");
}

#[test]
fn a_broken_file_leaves_the_old_module_and_says_why() {
    let files = Files::new();
    let agent = Agent::running(&put(&files, &tagging("v1"))).start();
    let mut proxy = agent.connect(Version::V2);
    let write = |bytes: &[u8]| {
        std::fs::rename(files.write("next", bytes), files.path("m.wasm")).expect("our directory");
    };
    let broken = wat::parse_str(tagging("v2").without("alloc").text()).expect("a module");
    let spinning = wat::parse_str(tagging("v2").function("_initialize", FOR_EVER).text()).expect("a module");
    let component = std::fs::read(guest("minimal")).expect("the guest");
    for (bytes, reason) in [
        (&b"nonsense"[..], "not a core module"),
        (&broken[..40], "not valid"),
        (&broken, "alloc"),
        (&spinning, "timeout"),
        (&component, "interface"),
        (b"", "empty"),
    ] {
        write(bytes);
        let line = agent.wait_for_log(reason);
        assert!(line.contains("ERROR") && line.contains("m.wasm"), "{line}");
        assert_eq!(version(&mut proxy), "v1", "{reason}");
    }
    std::fs::remove_file(files.path("m.wasm")).expect("it is there");
    agent.signal(Signal::HUP);
    agent.wait_for_log("No such file");
    assert_eq!(version(&mut proxy), "v1");
    put(&files, &tagging("v3"));
    becomes(&mut proxy, "v3");
}

#[test]
fn what_was_configured_holds_for_the_new_module() {
    let files = Files::new();
    let agent = Agent::running(&put(&files, &tagging("v1"))).start();
    let mut proxy = agent.connect(Version::V2);
    proxy.ask(&Event::configure(&json!({ "fail-open": true })));
    put(&files, &Sentinel::default().function("on_request_headers", "(param i32 i32) (result i64) unreachable"));
    eventually(Duration::from_secs(10), || version(&mut proxy) == "wasm-errorfail-open");
}

#[test]
fn an_event_finishes_with_the_module_that_it_began_with() {
    let files = Files::new();
    let quick = "(param i32 i32) (result i64) (i64.const 0)";
    let slow = Sentinel::slow(1000).function("on_response_headers", quick);
    for protocol in Version::BOTH {
        let agent = Agent::running(&put(&files, &slow)).arg("--wasm-max-execution-time-ms=20000").start();
        let (mut proxy, mut other) = (agent.connect(protocol), agent.connect(protocol));
        proxy.send(&Event::request());
        put(&files, &tagging("new"));
        agent.signal(Signal::HUP);
        eventually(Duration::from_secs(10), || other.ask(&Event::response()).tags() == ["new"]);
        let reply = proxy.read();
        assert_eq!((&reply.decision, reply.tags().is_empty()), (&Decision::Allow, true), "the old one's");
    }
}

#[test]
fn fifty_changes_under_load_fail_no_event_and_never_go_back() {
    let files = Files::new();
    let agent = Agent::running(&put(&files, &tagging("1000"))).start();
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for protocol in [Version::V1, Version::V1, Version::V2, Version::V2] {
            let mut proxy = agent.connect(protocol);
            let (done, answered) = (&done, &answered);
            scope.spawn(move || {
                let mut seen = String::new();
                while !done.load(Ordering::SeqCst) {
                    let now = version(&mut proxy);
                    assert!(now >= seen, "{now} after {seen}");
                    seen = now;
                    answered.fetch_add(1, Ordering::SeqCst);
                    // Leaves the compiler a share of the processor.
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
        }
        let mut proxy = agent.connect(Version::V2);
        let changing = || {
            for n in 1001..=1050 {
                put(&files, &tagging(&n.to_string()));
                agent.signal(Signal::HUP);
                eventually(Duration::from_secs(10), || version(&mut proxy) == n.to_string());
            }
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(changing));
        done.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(answered.load(Ordering::SeqCst) > 200, "{answered:?}");
}

#[test]
fn a_change_while_the_agent_starts_is_not_missed() {
    let files = Files::new();
    // Says that it is being tried out, and takes its time for it.
    let print = "(import \"wasi_snapshot_preview1\" \"fd_write\" (func $print (param i32 i32 i32 i32) (result i32)))";
    let slow = tagging("v1")
        .items(print)
        .items("(import \"wasi_snapshot_preview1\" \"clock_time_get\" (func $clock (param i32 i64 i32) (result i32)))")
        .items("(data (i32.const 256) \"\\00\\02\\00\\00\\06\\00\\00\\00\") (data (i32.const 512) \"begun\\0a\")")
        .function(
            "_initialize",
            "(local $end i64)
            (drop (call $print (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 0)))
            (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 8)))
            (local.set $end (i64.add (i64.load (i32.const 8)) (i64.const 700000000)))
            (loop $again (drop (call $clock (i32.const 1) (i64.const 0) (i32.const 8)))
              (br_if $again (i64.lt_u (i64.load (i32.const 8)) (local.get $end))))",
        );
    let agent = Agent::running(&put(&files, &slow)).arg("--wasm-max-execution-time-ms=5000").start_unready();
    agent.wait_for_log("begun");
    put(&files, &tagging("v2"));
    agent.wait_for_output("listening on ");
    becomes(&mut agent.connect(Version::V2), "v2");
}

#[test]
fn a_file_that_does_not_change_is_not_loaded_again() {
    let files = Files::new();
    let agent = Agent::running(&put(&files, &tagging("v1"))).start();
    let mut proxy = agent.connect(Version::V2);
    holds_for(Duration::from_millis(700), || version(&mut proxy) == "v1");
    assert!(!agent.log().contains("module"), "{}", agent.log());
}
