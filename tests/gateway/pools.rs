//! `pools`: which workers serve which model, under which names, and how they are chosen.

use crate::support::{ConfigFile, Gateway, Response, Worker};
use serde_json::json;
use std::collections::HashMap;

fn named(name: &'static str) -> Worker {
    Worker::new(move |_, conn| conn.answer(200, name))
}

fn ask(gateway: &Gateway, model: &str) -> Response {
    gateway.post_json("/v1/chat/completions", &json!({ "model": model, "messages": [] }))
}

#[test]
fn a_request_goes_to_the_pool_of_its_model_or_of_another_name_for_it() {
    let (llama, qwen) = (named("llama"), named("qwen"));
    let file = ConfigFile::new(format!(
        "pools:\n- {{model: llama-3, aliases: [llama, gpt-4], workers: [{}]}}\n- {{model: qwen, workers: [{}]}}\n",
        llama.url(),
        qwen.url()
    ));
    let gateway = file.gateway().start();
    gateway.wait_for_workers(2);
    for (model, worker) in [("llama-3", "llama"), ("llama", "llama"), ("gpt-4", "llama"), ("qwen", "qwen")] {
        assert_eq!(ask(&gateway, model).text(), worker, "{model}");
    }
    for unknown in ["llama-", "Llama-3", "none"] {
        ask(&gateway, unknown).assert_error(404, "model_not_found");
    }
}

#[test]
fn a_pool_without_a_healthy_worker_does_not_borrow_from_another() {
    let (mut llama, qwen) = (named("llama"), named("qwen"));
    llama.stop();
    let text = format!(
        "pools:\n- {{model: llama, workers: [{}]}}\n- {{model: qwen, workers: [{}]}}\n",
        llama.url(),
        qwen.url()
    );
    let gateway = ConfigFile::new(text).gateway().start();
    assert_eq!(ask(&gateway, "llama").status, 503);
    assert_eq!(ask(&gateway, "qwen").text(), "qwen");
}

#[test]
fn each_pool_has_a_policy_of_its_own() {
    let (one, two, three, four) = (named("1"), named("2"), named("3"), named("4"));
    let text = format!(
        "policy: round_robin\nslow_start_secs: 0\npools:\n\
         - {{model: turns, workers: [{}, {{url: \"{}\", priority: 60, cost: 0.5}}]}}\n\
         - {{model: sticks, policy: consistent_hashing, workers: [{}, {}]}}\n",
        one.url(),
        two.url(),
        three.url(),
        four.url()
    );
    let gateway = ConfigFile::new(text).gateway().arg("--shards=1").start();
    gateway.wait_for_workers(4);
    let counts = |model: &str| {
        let mut counts = HashMap::<String, usize>::new();
        for _ in 0..8 {
            let body = json!({ "model": model }).to_string();
            let headers = [("Content-Type", "application/json"), ("X-SMG-Routing-Key", "user-1")];
            *counts.entry(gateway.request("POST", "/", &headers, body.as_bytes()).text()).or_default() += 1;
        }
        counts
    };
    assert_eq!(counts("turns"), HashMap::from([("1".to_owned(), 4), ("2".to_owned(), 4)]));
    assert_eq!(counts("sticks").len(), 1);
    let workers = gateway.get("/workers").json();
    let dear = workers["workers"].as_array().expect("a list").iter().find(|worker| worker["url"] == two.url());
    let dear = dear.expect("it is listed");
    assert_eq!((&dear["priority"], &dear["cost"]), (&json!(60), &json!(0.5)));
}
