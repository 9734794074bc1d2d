//! Reload on SIGHUP and when the file has changed: whole or not at all, while requests are in flight.

use crate::support::{Authority, Client, ConfigFile, Files, Gate, Gateway, Worker, eventually, holds_for};
use rustix::process::Signal;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

fn before(worker: &Worker) -> String {
    format!("worker_urls: [{}]\n", worker.url())
}

/// What a caller sees of its key, a route, a limit and the workers.
fn seen(gateway: &Gateway) -> (u16, u16, u16) {
    let with_key = gateway.with_key("k-a", "GET", "/").status;
    let closed = gateway.request("POST", "/closed", &[("Authorization", "Bearer k-a")], b"12345").status;
    (with_key, closed, gateway.get("/").status)
}

#[test]
fn one_file_brings_keys_routes_and_workers_at_once() {
    let (old, new) = (Worker::echo(), Worker::echo());
    let file = ConfigFile::new(before(&old));
    let gateway = file.gateway().start();
    assert_eq!(seen(&gateway), (200, 200, 200));
    file.rewrite(format!(
        "{}keys: [{{name: a, role: caller, key: k-a}}]\nroutes: [{{path: /closed, max_payload_size: 1}}]\n",
        before(&new)
    ));
    let said = gateway.reload();
    for part in ["workers", "routes", "keys"] {
        assert!(said.contains(part), "{said}");
    }
    eventually(LIMIT, || gateway.get("/readiness").json()["total_workers"] == 1);
    let taken = old.requests().len();
    assert_eq!(seen(&gateway), (200, 413, 401));
    assert_eq!((old.requests().len(), new.requests().len()), (taken, 1), "the old worker gets nothing new");
    file.rewrite(before(&old));
    gateway.reload();
    eventually(LIMIT, || gateway.get("/").status == 200);
    assert_eq!(seen(&gateway), (200, 200, 200));
}

#[test]
fn a_broken_file_changes_nothing_and_the_log_says_why() {
    let worker = Worker::echo();
    let good = format!("{}keys: [{{name: a, role: caller, key: k-a}}]\n", before(&worker));
    let file = ConfigFile::new(&good);
    let mut gateway = file.gateway().start();
    let bad_certificate = "certificates: [{cert: /nowhere.pem, key: /nowhere.key}]\n";
    for (text, why) in [
        ("policy: nonsense\n".to_owned(), "policy"),
        (
            "keys: [{name: b, role: caller, key: s3cret-b}, {name: b, role: caller, key: c}]\n".to_owned(),
            "keys[1].name",
        ),
        (format!("max_payload_size: 1\n{bad_certificate}"), "/nowhere.pem"),
        (format!("max_payload_size: 1\n{}ca_cert_paths: [/nowhere.ca]\n", before(&worker)), "/nowhere.ca"),
        ("\u{0}".to_owned(), "smg.yaml"),
    ] {
        file.rewrite(&text);
        let said = gateway.reload();
        assert!(said.contains("not taken") && said.contains(why), "{text:?}: {said}");
        assert_eq!(seen(&gateway), (200, 200, 401), "{text:?}");
    }
    std::fs::remove_file(&file.path).expect("it was there");
    assert!(gateway.reload().contains("not taken"));
    assert_eq!(seen(&gateway), (200, 200, 401));
    assert!(gateway.is_running() && !gateway.log().contains("s3cret"));
    file.rewrite(&good);
    assert!(gateway.reload().contains("reloaded"), "a good file is taken after bad ones");
}

#[test]
fn a_changed_file_is_taken_without_a_signal() {
    let worker = Worker::echo();
    let file = ConfigFile::new(before(&worker));
    let gateway = file.gateway().start();
    file.rewrite(format!("{}max_payload_size: 3\n", before(&worker)));
    assert!(gateway.next_reload(0).contains("limits"));
    assert_eq!(gateway.request("POST", "/", &[], b"1234").status, 413);
    file.rewrite("max_payload_size: few\n");
    assert!(gateway.next_reload(1).contains("not taken"));
    let count = |outcome| gateway.metrics().sum("smg_reloads_total", &[("outcome", outcome)]);
    assert_eq!((count("taken"), count("refused")), (1.0, 1.0));
    assert_eq!(gateway.request("POST", "/", &[], b"123").status, 200);
}

#[test]
fn a_stream_in_flight_is_not_touched_by_a_reload_that_removes_its_worker_and_its_key() {
    let finish = Gate::new();
    let (old, new) = (Worker::streaming(&finish), Worker::echo());
    let keys = "keys: [{name: a, role: caller, key: k-a}, {name: b, role: admin, key: k-b}]\n";
    let file = ConfigFile::new(format!("{}{keys}", before(&old)));
    let gateway = file.gateway().start();
    let mut client = gateway.connect();
    client.begin_stream(&[("Authorization", "Bearer k-a")]);
    file.rewrite(format!("{}keys: [{{name: b, role: admin, key: k-b}}]\nrequest_timeout_secs: 0.1\n", before(&new)));
    gateway.reload();
    eventually(LIMIT, || gateway.with_key("k-b", "GET", "/").status == 200 && !new.requests().is_empty());
    assert_eq!(gateway.with_key("k-a", "GET", "/").status, 401);
    let listed = || gateway.with_key("k-b", "GET", "/workers").json()["workers"].as_array().map(Vec::len);
    holds_for(Duration::from_millis(300), || listed() == Some(2));
    finish.open();
    client.end_stream();
    eventually(LIMIT, || listed() == Some(1));
}

#[test]
fn workers_stand_where_a_restart_would_put_them() {
    let [one, two, three, four, added] = [(); 5].map(|()| Worker::echo());
    let text = |workers: &[&Worker]| {
        let urls: Vec<_> = workers.iter().map(|worker| worker.url()).collect();
        format!("policy: passthrough\nworker_urls: [{}]\n", urls.join(", "))
    };
    let file = ConfigFile::new(text(&[&one]));
    let gateway = file.gateway().start();
    assert_eq!(gateway.post_json("/workers", &serde_json::json!({"url": added.url()})).status, 202);
    for order in [&[&one, &two, &three, &four][..], &[&three, &one, &four, &two]] {
        file.rewrite(text(order));
        gateway.reload();
        let list = gateway.get("/workers").json();
        let listed = list["workers"].as_array().expect("a list").iter();
        let listed: Vec<_> = listed.map(|worker| worker["url"].as_str().expect("a url")).collect();
        let expected: Vec<_> = order.iter().chain([&&added]).map(|worker| worker.url()).collect();
        assert_eq!(listed, expected);
        gateway.wait_for_workers(5);
        let taken = order[0].requests().len();
        gateway.get("/");
        assert_eq!(order[0].requests().len(), taken + 1, "the first of the file is the first of the pool");
    }
}

#[test]
fn a_rate_that_changes_holds_at_once() {
    let worker = Worker::echo();
    let text = |rate: &str| format!("{}rate_limit_tokens_per_second: {rate}\n", before(&worker));
    let file = ConfigFile::new(text("0.01"));
    let gateway = file.gateway().start();
    assert_eq!((gateway.get("/").status, gateway.get("/").status), (200, 429));
    file.rewrite(text("1000"));
    gateway.reload();
    assert_eq!([(); 20].map(|()| gateway.get("/").status), [200; 20]);
    file.rewrite(text("0.01"));
    gateway.reload();
    assert_eq!((gateway.get("/").status, gateway.get("/").status), (200, 429));
    file.rewrite(before(&worker));
    gateway.reload();
    assert_eq!([(); 20].map(|()| gateway.get("/").status), [200; 20]);
}

#[test]
fn what_needs_a_restart_is_named_and_stays_as_it_is() {
    let worker = Worker::echo();
    let file = ConfigFile::new(before(&worker));
    let gateway = file.gateway().start();
    let rest = "listeners: [{address: \"127.0.0.1:0\"}]\nenable_wasm: true\nmodules: [{name: a, file: /nowhere.wasm}]\n\
                log_json: true\notlp_endpoint: http://127.0.0.1:1\nmax_payload_size: 3\n";
    file.rewrite(format!("{}{rest}", before(&worker)));
    gateway.reload();
    let restart = gateway.wait_for_log("change with a restart only");
    for name in ["listen", "wasm", "modules", "log", "traces"] {
        assert!(restart.contains(name), "{restart}");
    }
    assert!(!restart.contains("limits"), "{restart}");
    assert_eq!(gateway.request("POST", "/", &[], b"1234").status, 413, "the rest holds");
    assert_eq!((gateway.get("/wasm").status, gateway.get("/").status), (503, 200));
}

#[test]
fn sighup_without_a_file_does_not_end_the_process() {
    let worker = Worker::echo();
    let mut gateway = Gateway::before(&worker);
    let mut client = gateway.connect();
    client.get("/");
    gateway.reload();
    gateway.signal(Signal::HUP);
    assert_eq!(client.get("/").status, 200, "and keeps its connections");
    assert!(gateway.is_running());
}

#[test]
fn certificates_change_for_new_connections_and_tls_never_turns_into_plain_text() {
    let (worker, files, authority) = (Worker::echo(), Files::new(), Authority::new());
    let (one, two) = (authority.leaf(&["a.test"]), authority.leaf(&["a.test"]));
    let text = |(chain, key): (String, String)| {
        let listeners = "listeners: [{address: \"127.0.0.1:0\", tls: true}]";
        format!("{}{listeners}\ncertificates: [{{cert: {chain}, key: {key}}}]\n", before(&worker))
    };
    let first = text(one.write(&files, "one"));
    let second = text(two.write(&files, "two"));
    let file = ConfigFile::beside(files, first);
    let gateway = file.gateway().start();
    let tls = gateway.listeners()[1];
    let connect = || Client::connect_tls(tls, authority.client("a.test"));
    let mut kept = connect();
    assert_eq!(kept.channel().peer(), Some(one.der()));
    file.rewrite(second);
    assert!(gateway.reload().contains("tls"));
    assert_eq!(connect().channel().peer(), Some(two.der()));
    assert_eq!(kept.get("/").status, 200, "who is connected stays so");
    file.rewrite(before(&worker));
    let said = gateway.reload();
    assert!(said.contains("not taken") && said.contains("certificate"), "{said}");
    assert_eq!(connect().channel().peer(), Some(two.der()));
}

#[test]
fn fifty_reloads_under_load_lose_no_request() {
    let (one, two) = (Worker::echo(), Worker::echo());
    let both = format!("worker_urls: [{}, {}]\n", one.url(), two.url());
    let texts = [
        before(&one),
        format!("{both}keys: [{{name: a, role: caller, key: k}}]\nqueue_size: 7\n"),
        format!("{}routes: [{{path: /x, retries: false}}]\nrate_limit_tokens_per_second: 1000000\n", before(&one)),
        format!("{both}policy: random\nretry_max_retries: 2\n"),
    ];
    let file = ConfigFile::new(&texts[0]);
    let gateway = file.gateway().start();
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for kept in [true, true, true, false] {
            let (gateway, over, answered) = (&gateway, &over, &answered);
            scope.spawn(move || {
                let mut client = gateway.connect();
                while !over.load(Ordering::Relaxed) {
                    if !kept {
                        client = gateway.connect();
                    }
                    client.send_request("POST", "/x", &[("Authorization", "Bearer k")], b"{}");
                    assert_eq!(client.read_response().status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for turn in 1..=50 {
            let already = answered.load(Ordering::Relaxed);
            file.rewrite(&texts[turn % texts.len()]);
            assert!(gateway.reload().contains("reloaded"));
            eventually(LIMIT, || answered.load(Ordering::Relaxed) > already);
        }
        over.store(true, Ordering::Relaxed);
    });
}
