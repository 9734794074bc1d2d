//! Flags, environment variables and subcommands.

use crate::support::{Builder, Gateway, Worker, eventually, run};
use serde_json::Value;
use std::time::Duration;

const FLAGS: [&str; 34] = [
    "--host",
    "--port",
    "--worker-urls",
    "--enable-wasm",
    "--policy",
    "--shards",
    "--request-timeout-secs",
    "--upstream-pool-idle-timeout-secs",
    "--max-payload-size",
    "--header-read-timeout-secs",
    "--idle-connection-timeout-secs",
    "--shutdown-grace-period-secs",
    "--health-failure-threshold",
    "--health-success-threshold",
    "--health-check-timeout-secs",
    "--health-check-interval-secs",
    "--health-check-endpoint",
    "--api-key",
    "--admin-key",
    "--prometheus-host",
    "--prometheus-port",
    "--log-level",
    "--log-json",
    "--wasm-max-memory-pages",
    "--wasm-max-execution-time-ms",
    "--wasm-max-stack-size",
    "--wasm-max-body-size",
    "--wasm-pool-size",
    "--wasm-on-failure",
    "--wasm-module",
    "--wasm-module-dir",
    "--wasm-cache-dir",
    "--help",
    "--version",
];

/// Starts without the usual flags, on a loopback port of its own.
fn bare() -> Builder {
    Gateway::builder().without_defaults().arg("--host=127.0.0.1").arg("--port=0")
}

fn listed_urls(gateway: &Gateway) -> Vec<String> {
    let body = gateway.get("/workers").json();
    let workers = body["workers"].as_array().unwrap_or_else(|| panic!("no list in {body}"));
    let mut urls: Vec<String> = workers.iter().map(|w| w["url"].as_str().unwrap_or_default().to_owned()).collect();
    urls.sort_unstable();
    urls
}

/// Asserts exit code 2 and a message with each of `words`.
#[track_caller]
fn refused(args: &[&str], env: &[(&str, &str)], words: &[&str]) {
    let complaint = accepted(args, env, words);
    assert!(complaint.is_none(), "{}", complaint.unwrap_or_default());
}

/// What is wrong with how these were refused, if anything.
fn accepted(args: &[&str], env: &[(&str, &str)], words: &[&str]) -> Option<String> {
    let output = run(args, env);
    let missing: Vec<_> = words.iter().filter(|word| !output.stderr.contains(**word)).collect();
    let well = output.code == Some(2) && missing.is_empty();
    (!well).then(|| format!("{args:?} {env:?}: code {:?}, no {missing:?} in {:?}", output.code, output.stderr))
}

#[test]
fn worker_urls_take_every_form() {
    let workers = [Worker::echo(), Worker::echo()];
    let [a, b] = workers.each_ref().map(Worker::url);
    let mut both = vec![a.clone(), b.clone()];
    both.sort_unstable();
    let forms: [(&str, Vec<String>, &[String]); 7] = [
        ("one with =", vec![format!("--worker-urls={a}")], std::slice::from_ref(&a)),
        ("two words", vec!["--worker-urls".into(), a.clone(), b.clone()], &both),
        ("= then a word", vec![format!("--worker-urls={a}"), b.clone()], &both),
        ("repeated", vec![format!("--worker-urls={a}"), format!("--worker-urls={b}")], &both),
        ("a comma", vec![format!("--worker-urls={a},{b}")], &both),
        ("a duplicate", vec![format!("--worker-urls={a}"), format!("--worker-urls={a}")], std::slice::from_ref(&a)),
        ("a trailing slash", vec![format!("--worker-urls={a}/,{a}")], std::slice::from_ref(&a)),
    ];
    for (form, args, expected) in forms {
        let gateway = args.into_iter().fold(bare(), Builder::arg).start();
        let listed: Vec<String> = listed_urls(&gateway).iter().map(|u| u.trim_end_matches('/').to_owned()).collect();
        assert_eq!(listed, expected, "{form}");
    }
}

#[test]
fn every_listed_worker_gets_requests() {
    let workers = [Worker::echo(), Worker::echo()];
    let [a, b] = workers.each_ref().map(Worker::url);
    let gateway = bare().arg("--policy=round_robin").arg("--worker-urls").arg(a).arg(b).start();
    eventually(Duration::from_secs(8), || {
        gateway.get("/");
        workers.iter().all(|w| !w.requests().is_empty())
    });
}

#[test]
fn flags_also_come_from_the_environment() {
    let workers = [Worker::echo(), Worker::echo()];
    let [a, b] = workers.each_ref().map(Worker::url);
    let from_environment = |urls: String| {
        Gateway::builder()
            .without_defaults()
            .env("SMG_HOST", "127.0.0.1")
            .env("SMG_PORT", "0")
            .env("SMG_WORKER_URLS", urls)
            .env("SMG_MAX_PAYLOAD_SIZE", "3")
            .start()
    };
    assert_eq!(listed_urls(&from_environment(a.clone())), std::slice::from_ref(&a));
    let gateway = from_environment(format!("{a},{b}"));
    assert_eq!(listed_urls(&gateway).len(), 2);
    assert_eq!(gateway.request("POST", "/", &[], b"1234").status, 413);
}

#[test]
fn a_flag_wins_over_its_environment_variable() {
    let worker = Worker::echo();
    let gateway =
        Gateway::builder().worker(&worker).arg("--max-payload-size=10").env("SMG_MAX_PAYLOAD_SIZE", "1").start();
    assert_eq!(gateway.request("POST", "/", &[], b"12345").status, 200);
}

#[test]
fn launch_and_start_mean_the_same_as_no_subcommand() {
    let worker = Worker::echo();
    for name in ["launch", "start"] {
        let gateway = Gateway::builder().subcommand(name).worker(&worker).start();
        assert_eq!(gateway.get("/").status, 200, "{name}");
    }
}

#[test]
fn a_wrong_value_ends_with_2_and_names_the_flag() {
    let cases = [
        ("--worker-urls=not a url", &["--worker-urls", "not a url"][..]),
        ("--worker-urls=ftp://a", &["--worker-urls", "ftp"]),
        ("--worker-urls=http://", &["--worker-urls"]),
        ("--worker-urls=http://user:pass@a", &["--worker-urls"]),
        ("--worker-urls=localhost:8000", &["--worker-urls"]),
        ("--worker-urls=http://a:99999", &["--worker-urls"]),
        ("--policy=bogus", &["--policy", "bogus", "power_of_two"]),
        ("--port=70000", &["--port", "70000"]),
        ("--port=http", &["--port"]),
        ("--host=not an address", &["--host"]),
        ("--shards=0", &["--shards"]),
        ("--shards=-1", &["--shards"]),
        ("--max-payload-size=abc", &["--max-payload-size", "abc"]),
        ("--request-timeout-secs=-1", &["--request-timeout-secs"]),
        ("--request-timeout-secs=soon", &["--request-timeout-secs"]),
        ("--header-read-timeout-secs=NaN", &["--header-read-timeout-secs"]),
        ("--idle-connection-timeout-secs=inf", &["--idle-connection-timeout-secs"]),
        ("--health-check-interval-secs=0", &["--health-check-interval-secs"]),
        ("--health-failure-threshold=0", &["--health-failure-threshold"]),
        ("--health-check-endpoint=health", &["--health-check-endpoint"]),
        ("--wasm-on-failure=maybe", &["--wasm-on-failure", "closed"]),
        ("--wasm-max-memory-pages=0", &["--wasm-max-memory-pages"]),
        ("--wasm-module=nonsense", &["--wasm-module"]),
        ("--log-level=loud", &["--log-level"]),
        ("--bogus", &["--bogus"]),
    ];
    let complaints = cases.into_iter().filter_map(|(arg, words)| {
        let usual = ["--host=127.0.0.1", "--port=0"].into_iter().filter(|usual| usual[..6] != arg[..6]);
        accepted(&usual.chain([arg]).collect::<Vec<_>>(), &[], words)
    });
    let complaints: Vec<String> = complaints.collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

#[test]
fn a_wrong_environment_variable_ends_with_2_and_names_itself_or_its_flag() {
    refused(&["--host=127.0.0.1"], &[("SMG_PORT", "70000")], &["70000"]);
    refused(&["--host=127.0.0.1", "--port=0"], &[("SMG_WORKER_URLS", "nonsense")], &["nonsense"]);
}

#[test]
fn the_offered_policies_start() {
    let worker = Worker::echo();
    for policy in [
        "round_robin",
        "random",
        "power_of_two",
        "least_load",
        "cache_aware",
        "passthrough",
        "manual",
        "consistent_hashing",
        "prefix_hash",
        "bucket",
    ] {
        let gateway = Gateway::builder().worker(&worker).arg("--policy").arg(policy).start();
        assert_eq!(gateway.get("/").status, 200, "{policy}");
    }
}

#[test]
fn help_lists_every_flag() {
    let output = run(&["--help"], &[]);
    assert_eq!(output.code, Some(0));
    let help = &output.stdout;
    let missing: Vec<_> = FLAGS.iter().filter(|flag| !help.contains(**flag)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_help_of_launch_is_as_complete() {
    let output = run(&["launch", "--help"], &[]);
    let help = &output.stdout;
    assert!(help.contains("--worker-urls") && help.contains("--wasm-module-dir"), "{help}");
}

#[test]
fn version_is_printed() {
    let output = run(&["--version"], &[]);
    assert_eq!(output.stdout.trim(), concat!("smg ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_port_in_use_is_said_and_not_success() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = run(&["--host=127.0.0.1", &format!("--port={port}")], &[]);
    assert!(output.code.is_some_and(|code| code != 0), "{:?}", output.code);
    for word in [&port.to_string(), "--port", "another process listens there"] {
        assert!(output.stderr.contains(word), "{}", output.stderr);
    }
}

#[test]
fn the_health_subcommand_asks_a_running_gateway() {
    let worker = Worker::echo();
    let mut gateway = Gateway::before(&worker);
    let port = gateway.address.port().to_string();
    assert_eq!(run(&["health", "--port", &port], &[]).code, Some(0));
    gateway.terminate();
    gateway.wait_exit(Duration::from_secs(5));
    assert_eq!(run(&["health", "--port", &port], &[]).code, Some(1));
}

#[test]
fn the_start_is_described() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let workers = gateway.wait_for_output("workers: ");
    assert!(workers.contains(&worker.url()), "the workers are not named in {workers}");
    assert!(gateway.wait_for_output("admin API: ").contains("this machine"), "it says who may use the admin API");
}

#[test]
fn log_json_makes_every_log_line_json() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--log-json").start();
    gateway.get("/logged-path");
    gateway.wait_for_log("/logged-path");
    for line in gateway.log().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|v| v.is_object()), "{line}");
    }
}
