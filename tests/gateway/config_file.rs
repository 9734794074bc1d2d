//! `--config FILE` and `smg check FILE`: what a file says, what is wrong with it, and who wins.

use crate::support::{ConfigFile, Gateway, Worker, run};

/// Four mistakes, in lines 2, 4, 6 and 8.
const BROKEN: &str = "enable_wasm: true\n\
                      max_payload_sise: 10\n\
                      keys:\n\
                      - {name: a, role: boss, key: s3cret-of-a}\n\
                      routes:\n\
                      - path: v1\n\
                      modules:\n\
                      - {name: a, file: /m/a.wasm, on_failure: {status: 200}}\n";

fn shipped(name: &str) -> String {
    format!("{}/config/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let worker = Worker::echo();
    let file = ConfigFile::new(format!("worker_urls: [{}]\nmax_payload_size: 10\n", worker.url()));
    let largest = |gateway: Gateway| {
        let taken = |size: &&usize| gateway.request("POST", "/", &[], &vec![b'a'; **size]).status == 200;
        [5, 10, 20, 30].iter().rfind(taken).copied()
    };
    assert_eq!(largest(file.gateway().start()), Some(10));
    let of_environment = || file.gateway().env("SMG_MAX_PAYLOAD_SIZE", "20");
    assert_eq!(largest(of_environment().start()), Some(20));
    assert_eq!(largest(of_environment().arg("--max-payload-size=5").start()), Some(5));
}

#[test]
fn the_environment_may_name_the_file_and_other_commands_do_not_read_it() {
    let worker = Worker::echo();
    let file = ConfigFile::new(format!("host: 127.0.0.1\nport: 0\nworker_urls: [{}]\n", worker.url()));
    let gateway = Gateway::builder().without_defaults().env("SMG_CONFIG", &file.path).start();
    assert_eq!(gateway.get("/").status, 200);
    let port = gateway.address.port().to_string();
    let health = run(&["health", "--port", &port], &[("SMG_CONFIG", "/nowhere.yaml")]);
    assert_eq!(health.code, Some(0), "{}", health.stderr);
}

#[test]
fn check_says_everything_that_is_wrong_with_line_and_path_and_a_start_says_the_same() {
    let file = ConfigFile::new(BROKEN);
    let checked = file.check();
    assert_eq!((checked.code, checked.stdout.as_str()), (Some(2), ""));
    let lines: Vec<_> = checked.stderr.lines().collect();
    let mistakes =
        [(2, "max_payload_sise"), (4, "keys[0].role"), (6, "routes[0].path"), (8, "modules[0].on_failure.status")];
    assert_eq!(lines.len(), mistakes.len(), "{lines:?}");
    for (line, (number, path)) in lines.iter().zip(mistakes) {
        assert!(line.starts_with(&format!("{}:{number}: {path}: ", file.path)), "{line}");
    }
    assert!(lines[0].contains("max_payload_size"), "what was meant is said: {}", lines[0]);
    let started = run(&["--config", &file.path], &[]);
    assert_eq!(started.code, Some(2));
    assert!(started.stderr.contains(&checked.stderr), "{}", started.stderr);
    assert!(!checked.stderr.contains("s3cret") && !started.stderr.contains("s3cret"));
}

#[test]
fn check_of_a_good_file_says_ok() {
    let file = ConfigFile::new("policy: random\n");
    let checked = file.check();
    assert_eq!((checked.code, checked.stderr.as_str()), (Some(0), ""));
    assert_eq!(checked.stdout, format!("{}: ok", file.path));
}

#[test]
fn a_file_that_cannot_be_read_is_a_mistake() {
    let file = ConfigFile::new("");
    for path in [file.files.named("none.yaml"), file.files.root().display().to_string(), "/dev/null/x".to_owned()] {
        for arguments in [vec!["check", &path], vec!["--config", &path]] {
            let ran = run(&arguments, &[]);
            assert_eq!(ran.code, Some(2), "{arguments:?}");
            assert!(ran.stderr.contains(&path), "{}", ran.stderr);
        }
    }
}

#[test]
fn what_is_right_for_yaml_and_wrong_for_the_gateway_is_said_before_it_listens() {
    for (text, word) in [
        ("pools: [{model: a, workers: [http://h:1]}, {model: b, aliases: [a], workers: [http://h:2]}]", "pools[1]"),
        ("routes: [{path: /a, pool: none}]", "routes[0].pool"),
        ("keys: [{name: a, role: caller, key: k}, {name: b, role: caller, key: k}]", "keys[1].key"),
        ("keys: [{name: a, role: caller, key: k, key_sha256: k}]", "keys[0]"),
        ("modules: [{name: a, file: /m/a.wasm, odrer: 1}]", "modules[0].odrer"),
        ("modules: [{name: a, file: /m/a.wasm, match: {paths: [v1]}}]", "modules[0].match.paths[0]"),
        ("modules: [{name: a, file: f, limits: {memory_pages: 9}}]\nwasm_max_memory_pages: 8", "memory_pages: it must"),
        ("port: 1\nmodules: [{name: a, file: f}]", "2: modules: they need `enable_wasm: true`"),
        (
            "port: 0\nlisteners:\n- address: 127.0.0.1:0\n- address: 127.0.0.1:0\n  tls: true",
            ":5: listeners[1].tls: it needs",
        ),
        ("port: 8\nlisteners:\n- address: 0.0.0.0:8", ":3: listeners[0].address: `host` and `port` are on 0.0.0.0:8"),
        ("listeners: [{address: \"127.0.0.1:30000\"}]", "listeners[0].address: `host` and `port` are on 0.0.0.0:30000"),
        ("prometheus_port: 9\nlisteners: [{address: \"0.0.0.0:9\"}]", "listeners[0].address: `prometheus_port` is on"),
        ("log_fields: time,nonsense", "log_fields"),
        ("cb_failure_threshold: many", "cb_failure_threshold"),
        ("a: *b", ""),
        ("- a list", "map"),
    ] {
        let checked = ConfigFile::new(text).check();
        assert_eq!(checked.code, Some(2), "{text}: {}", checked.stdout);
        assert!(checked.stderr.contains(word), "{text}: {}", checked.stderr);
    }
}

// What the file needs may be on the command line, which wins: a start says of both together what is wrong.
#[test]
fn what_the_file_needs_may_be_on_the_command_line() {
    let text = "listeners: [{address: \"127.0.0.1:9\", tls: true}]\nmodules: [{name: a, file: /nowhere.wasm}]\n";
    let file = ConfigFile::new(text);
    let start = |arguments: &[&str]| run(&[&["--config", &file.path, "--host=127.0.0.1"], arguments].concat(), &[]);
    let alone = start(&["--port=9"]);
    assert_eq!(alone.code, Some(2));
    for word in ["1: listeners[0].tls: ", "1: listeners[0].address: ", "2: modules: "] {
        assert!(alone.stderr.contains(word), "{}", alone.stderr);
    }
    let together = start(&["--port=0", "--enable-wasm", "--tls-cert-path=/nowhere.pem", "--tls-key-path=/nowhere.key"]);
    assert_eq!(together.code, Some(1), "it is the start that fails: {}", together.stderr);
}

// What is shipped as an example is run as a test.
#[test]
fn the_files_that_are_shipped_are_right_and_start_a_gateway() {
    for name in ["minimal.yaml", "full.yaml"] {
        let path = shipped(name);
        let checked = run(&["check", &path], &[]);
        assert_eq!((checked.code, checked.stdout), (Some(0), format!("{path}: ok")));
        let arguments = ["--host=127.0.0.1", "--port=0", "--config", &path].map(str::to_owned);
        let builder = arguments.into_iter().fold(Gateway::builder().without_defaults(), crate::support::Builder::arg);
        assert_eq!(builder.start_unready().get("/health").status, 200, "{name}");
    }
}
