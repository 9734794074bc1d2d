//! Workers that a reload brings, replaces and takes away, and those that were removed over the API before it.

use crate::support::{ConfigFile, Gateway, Worker, eventually, holds_for};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(8);

fn naming(workers: &[&Worker]) -> String {
    let urls: Vec<_> = workers.iter().map(|worker| worker.url()).collect();
    format!("worker_urls: [{}]\n", urls.join(", "))
}

fn listed(gateway: &Gateway) -> Vec<String> {
    let list = gateway.get("/workers").json();
    let urls = list["workers"].as_array().expect("a list").iter();
    urls.map(|worker| worker["url"].as_str().expect("a URL").to_owned()).collect()
}

fn urls(workers: &[&Worker]) -> Vec<String> {
    workers.iter().map(|worker| worker.url()).collect()
}

/// A worker that fails its checks until it is told otherwise, as one that loads its model does.
fn loading() -> Worker {
    let worker = Worker::echo();
    worker.set_health(503);
    worker
}

#[track_caller]
fn remove(gateway: &Gateway, worker: &Worker) {
    let list = gateway.get("/workers").json();
    let mut all = list["workers"].as_array().expect("a list").iter();
    let one = all.find(|one| one["url"] == worker.url()).expect("it is there");
    let path = format!("/workers/{}", one["id"].as_str().expect("an id"));
    assert_eq!(gateway.request("DELETE", &path, &[], b"").status, 202);
    eventually(LIMIT, || gateway.get(&path).status == 404);
}

#[test]
fn a_worker_serves_until_the_one_in_its_place_is_ready() {
    let (old, new) = (Worker::echo(), loading());
    let file = ConfigFile::new(naming(&[&old]));
    let gateway = file.gateway().start();
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut client = gateway.connect();
                while !is_over.load(Ordering::SeqCst) {
                    client.send_request("POST", "/", &[], b"x");
                    assert_eq!(client.read_response().status, 200);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        let more = || {
            let before = answered.load(Ordering::SeqCst);
            eventually(LIMIT, || answered.load(Ordering::SeqCst) > before + 10);
        };
        more();
        file.rewrite(naming(&[&new]));
        assert!(gateway.reload().contains("workers"));
        more();
        assert_eq!(listed(&gateway), urls(&[&new, &old]), "the new one has its place already");
        gateway.wait_for_log("leaves when one in its place is ready");
        // Another reload changes nothing of it.
        file.rewrite(format!("{}queue_size: 7\n", naming(&[&new])));
        gateway.reload();
        more();
        assert!(new.requests().is_empty() && gateway.get("/readiness").status == 200);
        new.set_health(200);
        eventually(LIMIT, || listed(&gateway) == urls(&[&new]));
        assert!(gateway.wait_for_log("the worker is drained").contains("a worker in its place is ready"));
        more();
        is_over.store(true, Ordering::SeqCst);
    });
    assert!(!new.requests().is_empty());
}

#[test]
fn a_worker_that_is_to_be_replaced_may_restart_meanwhile() {
    let (mut old, new) = (Worker::echo(), loading());
    let file = ConfigFile::new(naming(&[&old]));
    let gateway = file.gateway().start();
    file.rewrite(naming(&[&new]));
    gateway.reload();
    old.stop();
    eventually(LIMIT, || {
        gateway.get("/");
        gateway.get("/readiness").status == 503
    });
    let old = Worker::echo_on(old.address);
    eventually(LIMIT, || gateway.get("/").status == 200);
    assert_eq!(listed(&gateway), urls(&[&new, &old]));
    // Nor does it leave when the one in its place is given up.
    remove(&gateway, &new);
    holds_for(Duration::from_millis(300), || gateway.get("/").status == 200);
    assert_eq!(listed(&gateway), urls(&[&old]));
    assert!(!gateway.log().contains(&format!("{} reason", old.url())), "{}", gateway.log());
}

#[test]
fn a_removal_over_the_api_holds_when_the_file_only_changes_an_order_or_a_key() {
    let (one, two) = (Worker::echo(), Worker::echo());
    let pools = |models: [&str; 2], key: &str| {
        let pool = |model: &str| {
            let (one, two) = (one.url(), two.url());
            format!("- {{model: {model}, workers: [{one}, {{url: \"{two}\", api_key: {key}}}]}}\n")
        };
        format!("pools:\n{}{}", pool(models[0]), pool(models[1]))
    };
    let file = ConfigFile::new(pools(["m", "n"], "old-key"));
    let gateway = file.gateway().start_unready();
    gateway.wait_for_workers(2);
    remove(&gateway, &two);
    for text in [pools(["n", "m"], "old-key"), pools(["n", "m"], "new-key")] {
        file.rewrite(text);
        assert!(!gateway.reload().contains("nothing"));
        assert_eq!(listed(&gateway), urls(&[&one]));
    }
    file.rewrite(pools(["n", "k"], "new-key"));
    gateway.reload();
    assert_eq!(listed(&gateway), urls(&[&one, &two]));
}

#[test]
fn each_pool_waits_for_its_own() {
    let ([a, c, d], b) = ([(); 3].map(|()| Worker::echo()), loading());
    let pools = |of_a: &Worker, of_c: &Worker| {
        let pool = |model: &str, worker: &Worker| format!("- {{model: {model}, workers: [{}]}}\n", worker.url());
        format!("pools:\n{}{}", pool("a", of_a), pool("c", of_c))
    };
    let file = ConfigFile::new(pools(&a, &c));
    let gateway = file.gateway().start_unready();
    gateway.wait_for_workers(2);
    file.rewrite(pools(&b, &d));
    gateway.reload();
    eventually(LIMIT, || listed(&gateway) == urls(&[&b, &d, &a]));
    let ask = |model: &str| gateway.post_json("/x", &serde_json::json!({ "model": model })).status;
    assert_eq!((ask("a"), ask("c")), (200, 200));
    assert_eq!((a.requests().len(), d.requests().len()), (1, 1));
    b.set_health(200);
    eventually(LIMIT, || listed(&gateway) == urls(&[&b, &d]));
    assert_eq!((ask("a"), ask("c"), b.requests().len()), (200, 200, 1));
}

#[test]
fn a_worker_does_not_wait_for_ever_nor_for_nobody() {
    let (old, never) = (Worker::echo(), loading());
    let short = "worker_startup_timeout_secs: 3\n";
    let file = ConfigFile::new(format!("{}{short}", naming(&[&old, &never])));
    let gateway = file.gateway().start();
    file.rewrite(format!("{}{short}", naming(&[&never])));
    gateway.reload();
    assert_eq!(gateway.get("/").status, 200, "the other is not ready yet");
    gateway.wait_for_log("no worker in its place was ready in time");
    eventually(LIMIT, || listed(&gateway) == urls(&[&never]));
    gateway.get("/").assert_error(503, "no_available_workers");
    file.rewrite(naming(&[&old]));
    gateway.reload();
    gateway.wait_for_workers(1);
    file.rewrite("queue_size: 7\n");
    gateway.reload();
    gateway.get("/").assert_error(503, "no_available_workers");
}

#[test]
fn a_worker_that_was_to_be_replaced_stays_if_it_is_named_again_or_added_over_the_api() {
    let (old, new) = (Worker::echo(), loading());
    let file = ConfigFile::new(naming(&[&old]));
    let gateway = file.gateway().start();
    for _ in 0..2 {
        file.rewrite(naming(&[&new]));
        gateway.reload();
        assert_eq!(listed(&gateway), urls(&[&new, &old]));
        file.rewrite(naming(&[&old]));
        gateway.reload();
        eventually(LIMIT, || listed(&gateway) == urls(&[&old]));
        assert_eq!(gateway.get("/").status, 200);
    }
    file.rewrite(naming(&[&new]));
    gateway.reload();
    assert_eq!(gateway.post_json("/workers", &serde_json::json!({"url": old.url()})).status, 202);
    new.set_health(200);
    gateway.wait_for_workers(2);
    holds_for(Duration::from_millis(200), || listed(&gateway).len() == 2);
}

#[test]
fn a_worker_that_was_removed_over_the_api_stays_away_until_the_file_says_something_else_of_it() {
    let (one, two) = (Worker::echo(), Worker::echo());
    let pool = |priority: u32| {
        let (one, two) = (one.url(), two.url());
        format!("pools: [{{model: m, workers: [{one}, {{url: \"{two}\", priority: {priority}}}]}}]\n")
    };
    let file = ConfigFile::new(pool(1));
    let gateway = file.gateway().start_unready();
    gateway.wait_for_workers(2);
    remove(&gateway, &two);
    assert!(gateway.reload().contains("nothing"), "the log says what changed, always");
    assert_eq!(listed(&gateway), urls(&[&one]));
    file.rewrite(format!("{}queue_size: 7\n", pool(1)));
    let said = gateway.reload();
    assert!(said.contains("admission") && !said.contains("pools"), "{said}");
    assert_eq!(listed(&gateway), urls(&[&one]));
    file.rewrite(pool(2));
    assert!(gateway.reload().contains("pools"));
    assert_eq!(listed(&gateway), urls(&[&one, &two]));
    // It also comes back when it was not in the file meanwhile.
    remove(&gateway, &two);
    file.rewrite(naming(&[&one]));
    gateway.reload();
    file.rewrite(naming(&[&one, &two]));
    gateway.reload();
    eventually(LIMIT, || listed(&gateway) == urls(&[&one, &two]));
    // Or when a caller of the API adds it: then it is the caller's.
    remove(&gateway, &two);
    assert_eq!(gateway.post_json("/workers", &serde_json::json!({"url": two.url()})).status, 202);
    file.rewrite(naming(&[&one]));
    gateway.reload();
    assert_eq!(listed(&gateway), urls(&[&one, &two]));
}
