//! What somebody who makes a mistake is told: what was found, what is accepted, and which flag or key it is about.

use crate::support::{ConfigFile, Files, Gateway, Module, Ran, Worker, guest, run};

/// Asserts this exit code and a message with each of `words`.
#[track_caller]
fn says(ran: &Ran, code: i32, words: &[&str]) {
    let missing: Vec<_> = words.iter().filter(|word| !ran.stderr.contains(**word)).collect();
    assert!(ran.code == Some(code) && missing.is_empty(), "{:?}, no {missing:?} in {}", ran.code, ran.stderr);
}

#[test]
fn sizes_and_times_take_units_on_the_command_line_and_in_files() {
    let worker = Worker::echo();
    let largest = |gateway: &Gateway, path: &str| {
        let taken = |size: &&usize| gateway.request("POST", path, &[], &vec![b'a'; **size]).status == 200;
        [1000, 1024, 1025].iter().rfind(taken).copied()
    };
    let flags = ["--max-payload-size=1kB", "--request-timeout-secs=5m", "--retry-initial-backoff-ms=1s"];
    let gateway = Gateway::builder().worker(&worker).args(flags).start();
    assert_eq!(largest(&gateway, "/"), Some(1000));
    let gateway = Gateway::builder().worker(&worker).env("SMG_MAX_PAYLOAD_SIZE", "1KiB").start();
    assert_eq!(largest(&gateway, "/"), Some(1024));
    let file = ConfigFile::new(format!(
        "worker_urls: [{}]\nmax_payload_size: 1MiB\nrequest_timeout_secs: 90s\nwasm_max_execution_time_ms: 2s\n\
         enable_wasm: true\nroutes:\n- {{path: /small, max_payload_size: 1KiB, first_byte_timeout_secs: 500ms}}\n\
         modules:\n- name: m\n  file: {}\n  limits: {{body_bytes: 2MB, execution_ms: 1s}}\n",
        worker.url(),
        guest("minimal"),
    ));
    let gateway = file.gateway().start();
    assert_eq!((largest(&gateway, "/small"), largest(&gateway, "/")), (Some(1024), Some(1025)));
    let limits = &gateway.modules()["modules"][0]["module_meta"]["settings"]["limits"];
    assert_eq!((&limits["body_bytes"], &limits["execution_ms"]), (&2_000_000.into(), &1000.into()));
    let module = Module::new("n", &guest("minimal")).set("allow_duplicate", true.into());
    gateway.add(&module.set("limits", serde_json::json!({"body_bytes": "64KiB"})));
    for (flag, words) in [
        ("--max-payload-size=10M", ["--max-payload-size", "10M", "10MB"]),
        ("--request-timeout-secs=5 minutes", ["--request-timeout-secs", "5 minutes", "5m"]),
        ("--wasm-max-execution-time-ms=2h", ["--wasm-max-execution-time-ms", "2h", "2s"]),
        ("--wasm-max-stack-size=1kB", ["--wasm-max-stack-size", "16384", "64MiB"]),
    ] {
        says(&run(&[flag], &[]), 2, &words);
    }
    says(&ConfigFile::new("max_payload_size: 10M\n").check(), 2, &[":1: max_payload_size: ", "10MB"]);
}

#[test]
fn a_host_may_be_localhost_and_other_names_are_refused_with_what_is_accepted() {
    let gateway = Gateway::builder().without_defaults().arg("--host").arg("localhost").arg("--port=0").start_unready();
    assert_eq!(gateway.get("/health").status, 200);
    says(&run(&["--host=gateway.example", "--port=0"], &[]), 2, &["--host", "gateway.example", "localhost", "0.0.0.0"]);
    says(&run(&["--prometheus-host=everywhere"], &[]), 2, &["--prometheus-host", "localhost"]);
}

#[test]
fn a_flag_without_its_value_and_a_file_without_its_flag_are_told_from_other_mistakes() {
    for flag in ["--api-key", "--admin-key"] {
        says(&run(&["--port=0", flag], &[]), 2, &[flag, "a value is required"]);
    }
    let file = ConfigFile::new("port: 0\n");
    for arguments in [&["gw.yaml"][..], &["launch", "gw.yaml"], &["--port=0", "conf/gw.yml"], &[&*file.path]] {
        let named = arguments.last().expect("one");
        says(&run(arguments, &[]), 2, &["tip", &format!("--config {named}")]);
    }
    let ran = run(&["cheque"], &[]);
    assert!(ran.code == Some(2) && !ran.stderr.contains("--config"), "{}", ran.stderr);
}

#[test]
fn mistakes_in_a_file_name_what_was_meant() {
    for (text, words) in [
        ("log_fields: [time, id]\n", [":1: log_fields: ", "one value", "`time,id`"]),
        ("modules:\n- {name: a, file_path: /m/a.wasm}\n", [":2: modules[0].file_path: ", "`file`", "enable_wasm"]),
        ("worker_urls: [http://a:1,\n  http://b:2\nport: 1\npolicy: random\n", [":", "not YAML", "`[` of line 1"]),
        ("log_fields: {time: 1}\n", [":1: log_fields: ", "one value", "not a map"]),
    ] {
        says(&ConfigFile::new(text).check(), 2, &words);
    }
    let secret = ConfigFile::new("api_key: [s3cret]\n").check();
    assert!(secret.code == Some(2) && !secret.stderr.contains("s3cret"), "{}", secret.stderr);
}

#[test]
fn check_reports_every_mistake_in_a_module() {
    let file = ConfigFile::new(
        "enable_wasm: true\nmodules:\n- name: a\n  file: /m/a.wasm\n  odrer: 1\n  order: first\n\
         \x20 match: {paths: [/a, v1, v2, /b], methods: [GET, 'A B'], pathz: []}\n\
         \x20 limits: {memory_pages: 9, execution_ms: never, body_bytes: 0}\n  instance: {mode: pooled, size: 0, max_use: 1}\n\
         \x20 on_failure: {OnRequest: shut, status: 200}\n  attach_points: [OnRequest]\n  streaming: all\n\
         - {name: b, file: /m/b.wasm, order: 1.5}\n- {nam: c, file_path: /m/c.wasm, odrer: 1}\nwasm_max_memory_pages: 8\n",
    );
    let checked = file.check();
    let found: Vec<_> = checked.stderr.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    let paths = [
        "attach_points[0]",
        "instance.max_use",
        "instance.size",
        "limits.body_bytes",
        "limits.execution_ms",
        "limits.memory_pages",
        "match.methods[1]",
        "match.paths[1]",
        "match.paths[2]",
        "match.pathz",
        "odrer",
        "on_failure.OnRequest",
        "on_failure.status",
        "order",
        "streaming",
    ];
    let mut wanted: Vec<_> = paths.iter().map(|path| format!("modules[0].{path}")).collect();
    let others = ["modules[1].order", "modules[2]", "modules[2].file_path", "modules[2].nam", "modules[2].odrer"];
    wanted.extend(others.map(str::to_owned));
    let mut sorted = found.clone();
    sorted.sort_unstable();
    assert_eq!((checked.code, sorted), (Some(2), wanted.iter().map(String::as_str).collect()), "{}", checked.stderr);
}

#[test]
fn check_takes_a_key_whose_variable_is_set_elsewhere_and_a_start_does_not() {
    let text =
        "keys:\n- {name: a, role: caller, key_env: SMG_TEAM_A}\n- {name: b, role: caller, key_env: SMG_TEAM_B}\n";
    let file = ConfigFile::new(text);
    let checked = file.check();
    assert_eq!((checked.code, checked.stdout), (Some(0), format!("{}: ok", file.path)));
    let notes: Vec<_> = checked.stderr.lines().collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].starts_with(&format!("{}:2: keys[0].key_env: note: ", file.path)), "{notes:?}");
    let both = run(&["check", &file.path], &[("SMG_TEAM_A", "same"), ("SMG_TEAM_B", "same")]);
    says(&both, 2, &["keys[1].key: the same"]);
    let started = run(&["--port=0", "--config", &file.path], &[("SMG_TEAM_A", "k")]);
    says(&started, 2, &[":3: keys[1].key_env: this environment variable is not set"]);
    let twice =
        ConfigFile::new("keys:\n- {name: a, role: caller, key_env: SMG_A}\n- {name: b, role: boss, key_env: SMG_A}\n");
    says(&twice.check(), 2, &[":2: keys[0].key_env: note: ", ":3: keys[1].role: "]);
}

#[test]
fn a_module_file_that_is_not_there_is_named_with_the_place_where_it_was_looked_for() {
    let start = |module: &str| run(&["--host=127.0.0.1", "--port=0", "--enable-wasm", "--wasm-module", module], &[]);
    let here = std::env::current_dir().expect("there is one").join("guest/auth.wasm").display().to_string();
    says(&start("auth=guest/auth.wasm"), 1, &["auth=guest/auth.wasm", "no such file", "working directory", &here]);
    let absolute = start("auth=/nowhere/auth.wasm");
    says(&absolute, 1, &["auth=/nowhere/auth.wasm", "no such file"]);
    assert!(!absolute.stderr.contains("working directory"), "{}", absolute.stderr);
}

#[test]
fn a_module_refused_for_its_directory_is_told_which_are_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    std::os::unix::fs::symlink("/etc/passwd", files.path("m.wasm")).expect("the directory can be written");
    let why = gateway.refusal(&Module::new("m", &files.named("m.wasm")));
    for word in ["/etc", "/dev", "/run", "--wasm-module-dir"] {
        assert!(why.contains(word), "{why}");
    }
    let gateway = Gateway::with_modules(&worker).arg(format!("--wasm-module-dir={}", files.named(""))).start();
    let why = gateway.refusal(&Module::new("m", &guest("minimal")));
    assert!(why.contains("--wasm-module-dir") && why.contains(files.root().to_str().expect("UTF-8")), "{why}");
}

#[test]
fn a_method_that_a_resource_does_not_have_is_told_before_its_content_type() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for (method, path, allowed) in [
        ("PUT", "/wasm", "GET, POST"),
        ("PATCH", "/wasm", "GET, POST"),
        ("POST", "/wasm/x", "GET, DELETE"),
        ("PUT", "/workers", "GET, POST"),
        ("POST", "/workers/x", "GET, PUT, PATCH, DELETE"),
    ] {
        let answer = gateway.request(method, path, &[], b"{}");
        assert_eq!((answer.status, answer.headers.get("allow")), (405, Some(allowed)), "{method} {path}");
    }
    for (method, path) in [("POST", "/wasm"), ("POST", "/workers"), ("PUT", "/workers/x"), ("PATCH", "/workers/x")] {
        assert_eq!(gateway.request(method, path, &[], b"{}").status, 415, "{method} {path}");
    }
}

#[test]
fn metrics_refused_to_a_stranger_say_how_they_are_served() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    let answer = gateway.request("GET", "/metrics", &[("X-Forwarded-For", "203.0.113.9")], b"");
    assert_eq!(answer.status, 403);
    assert!(answer.text().contains("--prometheus-port"), "{}", answer.text());
    let admin = gateway.request("GET", "/workers", &[("X-Forwarded-For", "203.0.113.9")], b"");
    assert!(admin.status == 403 && !admin.text().contains("--prometheus-port"), "{}", admin.text());
}

#[test]
fn a_port_that_is_taken_names_the_flag_that_chooses_another() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("an address").port();
    let metrics = format!("--prometheus-port={port}");
    let ran = run(&["--host=127.0.0.1", "--port=0", "--prometheus-host=127.0.0.1", &metrics], &[]);
    says(&ran, 1, &["--prometheus-port", &port.to_string()]);
    says(&run(&["echo-worker", &format!("--port={port}")], &[]), 1, &["--port", &port.to_string()]);
    let file = ConfigFile::new(format!("listeners: [{{address: \"127.0.0.1:{port}\"}}]\n"));
    let ran = run(&["--host=127.0.0.1", "--port=0", "--config", &file.path], &[]);
    says(&ran, 1, &["listeners", &port.to_string()]);
}
