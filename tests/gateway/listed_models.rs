//! Workers of which only the URL is known: the models that they list pick them.

use crate::support::{ConfigFile, Gateway, Worker};

/// A worker that answers with its name, and lists `models`.
fn named(name: &'static str, models: &[&'static str]) -> Worker {
    let worker = Worker::new(move |_, conn| conn.answer(200, name));
    worker.set_models(models);
    worker
}

fn before(workers: &[&Worker]) -> Gateway {
    let gateway = Gateway::builder().workers(workers.iter().copied()).start();
    gateway.wait_for_workers(workers.len() as u64);
    gateway
}

/// Who answers a few requests for a model, each once.
fn answerers(gateway: &Gateway, model: &str) -> String {
    let body = format!("{{\"model\":\"{model}\"}}");
    let json = [("Content-Type", "application/json")];
    let mut names: Vec<_> = (0..40).map(|_| gateway.request("POST", "/v1/x", &json, body.as_bytes()).text()).collect();
    names.sort();
    names.dedup();
    names.join(" ")
}

#[test]
fn workers_that_list_different_models_get_the_requests_for_them() {
    let workers = [named("A", &["llama"]), named("B", &["qwen"]), named("C", &["qwen", "adapter"])];
    let gateway = before(&workers.each_ref());
    for (model, names) in [("llama", "A"), ("qwen", "B C"), ("adapter", "C")] {
        assert_eq!(answerers(&gateway, model), names, "{model}");
    }
    let json = [("Content-Type", "application/json")];
    gateway.request("POST", "/v1/x", &json, b"{\"model\":\"zz\"}").assert_error(404, "model_not_found");
    let ready = gateway.get("/readiness").json();
    assert_eq!((&ready["healthy_workers"], &ready["total_workers"]), (&3.into(), &3.into()), "each is counted once");
    let list = gateway.get("/workers").json();
    let of = |name: usize| {
        let worker = list["workers"].as_array().unwrap().iter().find(|worker| worker["url"] == workers[name].url());
        worker.unwrap().clone()
    };
    assert_eq!((&of(0)["model_id"], &of(0)["models"]), (&"llama".into(), &serde_json::json!(["llama"])));
    assert_eq!(of(2)["models"], serde_json::json!(["adapter", "qwen"]));
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("smg_worker_health", &[]), 3.0);
    assert_eq!(metrics.sum("smg_worker_pool_size", &[]), 3.0);
}

// With one model no body is read: one that has not ended reaches the worker.
#[test]
fn workers_that_list_the_same_are_asked_without_a_look_at_the_body() {
    let begun = |request: &crate::support::ReceivedRequest, conn: &mut crate::support::Conn| {
        conn.answer(200, request.target.clone());
    };
    let workers = [Worker::on_head(begun), Worker::on_head(begun)];
    workers.iter().for_each(|worker| worker.set_models(&["llama"]));
    let gateway = Gateway::builder().workers(&workers).arg("--policy=round_robin").start();
    gateway.wait_for_workers(2);
    for _ in 0..4 {
        let mut client = gateway.connect();
        client
            .send("POST /early HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{");
        assert_eq!(client.read_response().text(), "/early");
    }
}

#[test]
fn a_worker_that_comes_back_with_another_model_gets_the_requests_for_that() {
    let workers = [named("A", &["llama"]), named("B", &["qwen"])];
    let checks = ["--health-check-interval-secs=0.1", "--health-failure-threshold=1", "--health-success-threshold=1"];
    let gateway = Gateway::builder().workers(&workers).args(checks).start();
    gateway.wait_for_workers(2);
    assert_eq!(answerers(&gateway, "qwen"), "B");
    workers[1].set_health(503);
    gateway.wait_for_workers(1);
    workers[1].set_models(&["mistral"]);
    workers[1].set_health(200);
    gateway.wait_for_workers(2);
    assert_eq!((answerers(&gateway, "mistral"), answerers(&gateway, "llama")), ("B".into(), "A".into()));
}

#[test]
fn a_worker_in_two_pools_of_the_file_serves_both_models() {
    let workers = [named("A", &[]), named("B", &[])];
    let pools = format!(
        "pools:\n- {{model: base, workers: [{0}, {1}]}}\n- {{model: adapter, workers: [{1}]}}\n",
        workers[0].url(),
        workers[1].url()
    );
    let file = ConfigFile::new(pools);
    let gateway = file.gateway().start();
    gateway.wait_for_workers(2);
    assert_eq!((answerers(&gateway, "base"), answerers(&gateway, "adapter")), ("A B".into(), "B".into()));
}
