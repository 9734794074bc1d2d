//! Flags and environment of `smg agent`, with the names of the original's.

use crate::support::{Agent, Decision, Event, Files, Version, executable, guest, run};
use std::time::Duration;

const FLAGS: [&str; 7] =
    ["--socket", "--module", "--pool-size", "--verbose", "--fail-open", "--metrics-host", "--metrics-port"];
const VARIABLES: [&str; 5] = ["AGENT_SOCKET", "WASM_MODULE", "WASM_POOL_SIZE", "WASM_VERBOSE", "FAIL_OPEN"];

#[test]
fn help_lists_every_flag_with_its_variable() {
    let output = run(&["agent", "--help"], &[]);
    assert_eq!(output.code, Some(0));
    let missing: Vec<_> = FLAGS.iter().chain(&VARIABLES).filter(|word| !output.stdout.contains(**word)).collect();
    assert!(missing.is_empty(), "{missing:?} in {}", output.stdout);
    assert!(output.stdout.contains("/tmp/sentinel-wasm.sock"), "{}", output.stdout);
    assert!(run(&["--help"], &[]).stdout.contains("agent"));
}

#[test]
fn all_of_it_comes_from_the_environment_too() {
    let files = Files::new();
    let mut command = executable();
    command.arg("agent").envs([
        ("AGENT_SOCKET", files.named("from-env.sock")),
        ("WASM_MODULE", guest("sentinel-hostile")),
        ("WASM_POOL_SIZE", "7".to_owned()),
        ("WASM_VERBOSE", "true".to_owned()),
        ("FAIL_OPEN", "1".to_owned()),
    ]);
    let agent = Agent::of(command, &files.path("from-env.sock"));
    let reply = agent.connect(Version::V1).ask(&Event::request().doing("trap"));
    assert_eq!((reply.decision.clone(), reply.tags()), (Decision::Allow, vec!["wasm-error", "fail-open"]));
    agent.wait_for_log("DEBUG");
}

#[test]
fn a_flag_that_is_a_variable_takes_every_usual_word() {
    for (value, is_open) in [
        ("1", true),
        ("true", true),
        ("TRUE", true),
        ("yes", true),
        ("on", true),
        ("0", false),
        ("false", false),
        ("no", false),
        ("off", false),
    ] {
        let agent = Agent::running(&guest("sentinel-hostile")).env("FAIL_OPEN", value).start();
        let reply = agent.connect(Version::V2).ask(&Event::request().doing("trap"));
        assert_eq!(reply.decision == Decision::Allow, is_open, "{value}");
    }
}

#[test]
fn a_flag_wins_over_its_variable() {
    let agent = Agent::running(&guest("sentinel-hostile"))
        .env("AGENT_SOCKET", "/nowhere/else.sock")
        .env("WASM_MODULE", "/nowhere/else.wasm")
        .env("FAIL_OPEN", "false")
        .env("WASM_POOL_SIZE", "0x")
        .arg("--pool-size=2")
        .arg("--fail-open")
        .start();
    let reply = agent.connect(Version::V1).ask(&Event::request().doing("trap"));
    assert_eq!(reply.decision, Decision::Allow);
}

#[test]
fn what_is_no_value_ends_with_2_and_names_its_flag() {
    let module = format!("--module={}", guest("sentinel-hostile"));
    for (args, env, word) in [
        (&["--pool-size=0"][..], &[][..], "--pool-size"),
        (&["--pool-size=1025"], &[], "--pool-size"),
        (&["--pool-size=-1"], &[], "--pool-size"),
        (&["--pool-size=four"], &[], "--pool-size"),
        (&["--metrics-port=70000"], &[], "--metrics-port"),
        (&["--fail-open=maybe"], &[], "--fail-open"),
        (&["--bogus"], &[], "--bogus"),
        (&[], &[("FAIL_OPEN", "maybe")], "--fail-open"),
        (&[], &[("WASM_POOL_SIZE", "0")], "--pool-size"),
        (&[], &[("WASM_VERBOSE", "loud")], "--verbose"),
    ] {
        let output = run(&[&["agent", &module], args].concat(), env);
        assert!(
            output.code == Some(2) && output.stderr.contains(word),
            "{args:?} {env:?}: {:?} {}",
            output.code,
            output.stderr
        );
    }
    let output = run(&["agent"], &[]);
    assert!(output.code == Some(2) && output.stderr.contains("--module"), "{}", output.stderr);
}

#[test]
fn verbose_logs_every_event() {
    let quiet = Agent::running(&guest("sentinel-hostile")).start();
    let verbose = Agent::running(&guest("sentinel-hostile")).arg("-v").start();
    let tagged = Event::request().id("c-42").replying(&serde_json::json!({ "decision": "block", "tags": ["t-1"] }));
    for agent in [&quiet, &verbose] {
        agent.connect(Version::V2).ask(&tagged);
    }
    let line = verbose.wait_for_log("c-42");
    for part in ["v2", "request_headers", "block", "t-1"] {
        assert!(line.contains(part), "no {part} in {line}");
    }
    assert!(!quiet.log().contains("c-42"), "{}", quiet.log());
}

#[test]
fn log_json_makes_every_line_json() {
    let agent = Agent::running(&guest("sentinel-hostile")).arg("--log-json").arg("--verbose").start();
    agent.connect(Version::V2).ask(&Event::request().id("c-42").doing("trap"));
    agent.wait_for_log("c-42");
    for line in agent.log().lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|v| v.is_object()), "{line}");
    }
}

#[test]
fn the_limits_of_guests_are_flags_here_too() {
    let agent = Agent::running(&guest("sentinel-hostile"))
        .arg("--wasm-max-execution-time-ms=100")
        .env("SMG_WASM_MAX_MEMORY_PAGES", "100")
        .start();
    let mut proxy = agent.connect(Version::V1);
    let start = std::time::Instant::now();
    assert_eq!(proxy.ask(&Event::request().doing("loop")).decision, Decision::failed());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(proxy.ask(&Event::request().doing("leak-2")).decision, Decision::Allow);
    assert_eq!(proxy.ask(&Event::request().doing("leak-7")).decision, Decision::failed());
}
