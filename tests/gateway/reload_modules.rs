//! The section `modules` of the configuration file while the gateway runs: what it brings, changes and takes away.

use crate::support::{
    Client, Component, ConfigFile, Files, Gate, Gateway, Module, Worker, bomb, eventually, guest, locals, obliging,
};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

/// A worker, the modules `a`, `b` and `c`, each of which marks what it sees with its name, and a configuration file.
struct Setting {
    worker: Worker,
    file: ConfigFile,
}

impl Setting {
    fn new(modules: &str) -> Self {
        Self::before(obliging(), modules)
    }

    fn before(worker: Worker, modules: &str) -> Self {
        let files = Files::new();
        for mark in ["a", "b", "c"] {
            files.component(mark, &Component::marking(mark));
        }
        let setting = Setting { worker, file: ConfigFile::beside(files, "") };
        setting.write(modules);
        setting
    }

    /// Writes the file, with `@a` for the path of the module `a`.
    fn write(&self, text: &str) {
        let directory = format!("{}/", self.file.files.root().display());
        let text = text.replace('@', &directory);
        self.file.rewrite(format!("worker_urls: [{}]\nenable_wasm: true\n{text}\n", self.worker.url()));
    }
}

/// The modules' names and uuids, in the order of the chain.
fn listed(gateway: &Gateway) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let modules = gateway.modules()["modules"].take();
    let modules = modules.as_array().expect("a list").iter();
    modules.map(|module| (text(&module["module_meta"]["name"]), text(&module["module_uuid"]))).collect()
}

/// The marks of a request, in order.
fn marks(gateway: &Gateway, path: &str) -> String {
    marks_of(&gateway.get(path).json())
}

fn marks_of(seen: &Value) -> String {
    let headers = seen["headers"].as_array().expect("a list of pairs").iter();
    let marks = headers.filter(|pair| pair[0].as_str().is_some_and(|name| name.eq_ignore_ascii_case("x-request-mark")));
    marks.map(|pair| pair[1].as_str().expect("a value").to_owned()).collect()
}

#[test]
fn what_the_file_names_comes_changes_and_goes_and_what_the_admin_api_deployed_stays() {
    let setting = Setting::new("modules: [{name: a, file: @a.wasm}]");
    let gateway = setting.file.gateway().start();
    gateway.deploy("c", &setting.file.files.named("c.wasm"), &["OnRequest"]);
    assert_eq!(marks(&gateway, "/"), "ac");
    let before = listed(&gateway);
    for (text, at_root, below_v1) in [
        // Those of the file come before those of the admin API, as after a restart.
        ("modules: [{name: a, file: @a.wasm}, {name: b, file: @b.wasm}]", "abc", "abc"),
        ("modules: [{name: b, file: @b.wasm}, {name: a, file: @a.wasm}]", "bac", "bac"),
        ("modules: [{name: b, file: @b.wasm, match: {paths: [/v1/*]}}, {name: a, file: @a.wasm}]", "ac", "bac"),
        ("modules: [{name: b, file: @b.wasm, order: 1}, {name: a, file: @a.wasm}]", "acb", "acb"),
        ("modules: [{name: a, file: @b.wasm}]", "bc", "bc"),
        ("", "c", "c"),
        ("modules: [{name: a, file: @a.wasm}]", "ac", "ac"),
    ] {
        setting.write(text);
        let said = gateway.reload();
        assert!(said.contains("reloaded") && said.contains("modules"), "{text}: {said}");
        assert_eq!((marks(&gateway, "/"), marks(&gateway, "/v1/x")), (at_root.into(), below_v1.into()), "{text}");
    }
    let after = listed(&gateway);
    assert_eq!(after[1], before[1], "the admin API's is the very same");
    assert_ne!(after[0].1, before[0].1);
    for module in &after {
        gateway.remove(&module.1);
    }
    assert_eq!(marks(&gateway, "/"), "");
    gateway.reload();
    assert_eq!(marks(&gateway, "/"), "a", "the file still names it");
}

#[test]
fn one_module_that_can_not_be_deployed_and_nothing_has_changed() {
    let setting = Setting::new("modules: [{name: a, file: @a.wasm}]");
    let gateway = setting.file.gateway().start();
    gateway.deploy("c", &setting.file.files.named("c.wasm"), &["OnRequest"]);
    setting.file.files.write("broken.wasm", "\0asm");
    let before = listed(&gateway);
    for (modules, why) in [
        ("{name: b, file: @b.wasm}, {name: broken, file: @broken.wasm}", "module broken"),
        ("{name: b, file: @b.wasm}, {name: gone, file: @gone.wasm}", "no such file"),
        ("{name: a, file: @b.wasm}, {name: c, file: @a.wasm}", "already deployed"),
        ("{name: b, file: @b.wasm}, {name: twin, file: @b.wasm}", "allow_duplicate"),
        ("{name: b, file: @b.wasm, limits: {memory_pages: few}}", "limits.memory_pages"),
        ("{name: b, file: @b.wasm, limits: {memory_pages: 0}}", "limits.memory_pages"),
        ("{name: b, file: @b.wasm, nonsense: 1}", "nonsense"),
    ] {
        setting.write(&format!("max_payload_size: 1\nmodules: [{modules}]"));
        let said = gateway.reload();
        assert!(said.contains("not taken") && said.contains(why), "{modules}: {said}");
        assert_eq!((listed(&gateway), marks(&gateway, "/")), (before.clone(), "ac".to_owned()), "{modules}");
        assert_eq!(gateway.request("POST", "/", &[], b"12").status, 200, "{modules}");
    }
    setting.write("max_payload_size: 1\nmodules: [{name: b, file: @b.wasm}]");
    assert!(gateway.reload().contains("reloaded"), "a good file is taken after bad ones");
    assert_eq!((marks(&gateway, "/"), gateway.request("POST", "/", &[], b"12").status), ("bc".to_owned(), 413));
}

#[test]
fn what_is_the_same_goes_on_and_other_bytes_are_another_module() {
    let setting = Setting::new("modules: [{name: a, file: @a.wasm, order: 1}]");
    let gateway = setting.file.gateway().start();
    let before = listed(&gateway);
    setting.write("\n# The same\nmax_payload_size: 9\nmodules:\n- order: 1\n  file: @a.wasm\n  name: a");
    let said = gateway.reload();
    assert!(said.contains("limits") && !said.contains("modules"), "{said}");
    assert_eq!(listed(&gateway), before);
    setting.file.files.component("a", &Component::marking("new"));
    assert!(gateway.reload().contains("modules"));
    assert_ne!(listed(&gateway), before);
    assert_eq!(marks(&gateway, "/"), "new");
    std::fs::remove_file(setting.file.files.path("a.wasm")).expect("it was there");
    let said = gateway.reload();
    assert!(said.contains("reloaded") && !said.contains("modules"), "{said}");
    assert_eq!(marks(&gateway, "/"), "new", "it runs, and a change elsewhere must not wait for its file");
}

#[test]
fn a_request_in_flight_finishes_with_the_module_that_it_began_with() {
    let finish = Gate::new();
    let wait = finish.clone();
    let worker = Worker::new(move |_, conn| {
        wait.wait_within(LIMIT);
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    });
    let setting = Setting::before(worker, "modules: [{name: a, file: @a.wasm}]");
    let gateway = setting.file.gateway().start();
    let mut client = gateway.connect();
    client.send_request("GET", "/", &[], b"");
    setting.worker.wait_for_request();
    setting.write("");
    gateway.reload();
    assert!(listed(&gateway).is_empty());
    finish.open();
    assert_eq!(client.read_response().headers.all("x-response-mark"), ["a"]);
    assert!(gateway.get("/").headers.all("x-response-mark").is_empty());
}

#[test]
fn no_request_sees_the_modules_of_one_file_and_the_routes_of_another() {
    let both = "modules: [{name: a, file: @a.wasm}, {name: b, file: @b.wasm}]\nroutes: [{path: /x, modules: all}]";
    let turned = "modules: [{name: b, file: @b.wasm}, {name: a, file: @a.wasm}]\nroutes: [{path: /x, modules: [a]}]";
    let setting = Setting::new(both);
    let gateway = setting.file.gateway().start();
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut client = gateway.connect();
                while !over.load(Ordering::Relaxed) {
                    let seen = marks_of(&client.get("/x").json());
                    over.fetch_or(seen != "ab" && seen != "a", Ordering::Relaxed);
                    assert!(seen == "ab" || seen == "a", "{seen:?}");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for turn in 0..40 {
            let already = answered.load(Ordering::Relaxed);
            setting.write([turned, both][turn % 2]);
            assert!(gateway.reload().contains("reloaded"));
            eventually(LIMIT, || answered.load(Ordering::Relaxed) > already || over.load(Ordering::Relaxed));
        }
        over.store(true, Ordering::Relaxed);
    });
}

/// Has a module of so many functions compiled; a client whose deployment waits for that.
fn while_compiling(setting: &Setting, gateway: &Gateway, functions: usize) -> Client {
    let code = b"\x20\x00\x41\x01\x6a\x21\x00".repeat(20);
    setting.file.files.write("bomb.wasm", bomb(functions, &locals(1), &code));
    setting.write("max_payload_size: 1\nmodules: [{name: bomb, file: @bomb.wasm}]");
    gateway.signal(rustix::process::Signal::HUP);
    let body = json!({ "modules": [Module::new("minimal", &guest("minimal")).json()] }).to_string();
    let mut waiting = None;
    eventually(LIMIT, || {
        let mut client = gateway.connect();
        client.send_request("POST", "/wasm", &[("Content-Type", "application/json")], body.as_bytes());
        let waits = client.is_silent_for(Duration::from_millis(300));
        client.set_patience(Duration::from_secs(30));
        if waits {
            waiting = Some(client);
        } else {
            gateway.remove(client.read_response().json()["modules"][0]["add_result"]["Success"].as_str().expect("it"));
        }
        waits
    });
    waiting.expect("the loop above ended with it")
}

#[test]
fn a_reload_waits_for_the_one_before_it_and_requests_for_neither() {
    let setting = Setting::new("modules: [{name: a, file: @a.wasm}]");
    let gateway = setting.file.gateway().start();
    let mut waiting = while_compiling(&setting, &gateway, 6_000);
    assert_eq!((marks(&gateway, "/"), gateway.reloads().len()), ("a".to_owned(), 0));
    setting.write("modules: [{name: b, file: @b.wasm}]");
    gateway.signal(rustix::process::Signal::HUP);
    assert!(gateway.next_reload(0).contains("module bomb"));
    assert!(gateway.next_reload(1).contains("reloaded"));
    assert_eq!(waiting.read_response().status, 200);
    let names: Vec<_> = listed(&gateway).into_iter().map(|(name, _)| name).collect();
    assert_eq!((names.join(" ").as_str(), marks(&gateway, "/").as_str()), ("b minimal", "b"));
}

#[test]
fn who_ends_the_gateway_does_not_wait_for_a_compilation() {
    let setting = Setting::new("");
    let mut gateway = setting.file.gateway().arg("--shutdown-grace-period-secs=0.1").start();
    let _waiting = while_compiling(&setting, &gateway, 100_000);
    gateway.terminate();
    assert!(gateway.wait_exit(Duration::from_secs(5)).success());
    assert_eq!(gateway.reloads().len(), 0);
}
