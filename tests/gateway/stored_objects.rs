//! Objects that a worker keeps, such as stored responses, conversations, files and batches: who asks for one gets it,
//! whichever worker has it.

use crate::support::{
    ConfigFile, Conn, Frame, Gate, Gateway, H2Worker, ReceivedRequest, Response, Worker, eventually, guest,
};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A worker that keeps objects. It knows those that it made, and answers 404 about all others.
struct Store {
    worker: Worker,
    known: Arc<Mutex<HashSet<String>>>,
}

impl Store {
    /// The ids of what it makes begin with `name`.
    fn new(name: &'static str) -> Self {
        let known: Arc<Mutex<HashSet<String>>> = Arc::default();
        let objects = known.clone();
        Store { worker: Worker::new(move |request, conn| store(name, &objects, request, conn)), known }
    }

    /// It has this object, which did not come by way of the gateway.
    fn put(&self, id: &str) {
        self.known.lock().unwrap().insert(id.to_owned());
    }

    fn has(&self, id: &str) -> bool {
        self.known.lock().unwrap().contains(id)
    }

    /// Requests of this method that it got.
    fn count(&self, method: &str) -> usize {
        self.worker.requests().iter().filter(|request| request.method == method).count()
    }
}

fn store(name: &str, known: &Mutex<HashSet<String>>, request: &ReceivedRequest, conn: &mut Conn) {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let path = request.target.split('?').next().unwrap_or_default();
    let segments: Vec<&str> =
        path.split('/').skip(2).filter(|part| !["fine_tuning", "messages"].contains(part)).collect();
    let mut known = known.lock().unwrap();
    match (request.method.as_str(), &segments[..]) {
        ("POST", [_]) => {
            let referred = body["previous_response_id"].as_str().or(body["conversation"].as_str());
            if let Some(other) = referred.or(body["conversation"]["id"].as_str())
                && !known.contains(other)
            {
                return conn.answer(404, format!("{name} does not know {other}"));
            }
            let id = format!("{name}_{}", known.len());
            known.insert(id.clone());
            let object = json!({"id": id, "made_by": name});
            if body["stream"] == true {
                conn.start_events();
                let created = json!({"type": "response.created", "response": object});
                conn.chunk(format!("event: response.created\ndata: {created}\n\n"));
                conn.chunk("data: [DONE]\n\n");
                conn.send("0\r\n\r\n");
            } else {
                conn.answer_json(&object);
            }
        }
        (_, [_, id, ..]) if !known.contains(*id) => {
            conn.send(format!("HTTP/1.1 404 N\r\nContent-Length: {}\r\n\r\nno {id}", 3 + id.len()));
        }
        ("DELETE", [_, id]) => {
            known.remove(*id);
            conn.answer_json(&json!({"id": id, "deleted": true, "by": name}));
        }
        (method, [_, id, rest @ ..]) => {
            let length = request.body.len();
            conn.answer_json(&json!({"id": id, "by": name, "did": [method, rest], "length": length}));
        }
        _ => conn.answer_json(&json!({"by": name})),
    }
}

fn two() -> (Gateway, [Store; 2]) {
    two_with(&[])
}

fn two_with(args: &[&str]) -> (Gateway, [Store; 2]) {
    let stores = [Store::new("a"), Store::new("b")];
    let workers = stores.iter().map(|store| &store.worker);
    let gateway = Gateway::builder().workers(workers).arg("--policy=round_robin").args(args.to_vec()).start();
    gateway.wait_for_workers(2);
    (gateway, stores)
}

#[track_caller]
fn create(gateway: &Gateway, path: &str, body: &Value) -> String {
    let answer = gateway.post_json(path, body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["id"].as_str().expect("an id").to_owned()
}

#[track_caller]
fn assert_made_by(answer: &Response, id: &str) {
    assert_eq!(answer.status, 200, "{id}: {}", answer.text());
    let by = answer.json()["by"].as_str().expect("a name").to_owned();
    assert!(id.starts_with(&by), "{by} answers about {id}");
}

#[test]
fn each_object_is_asked_for_at_the_worker_that_made_it() {
    for kind in [
        "responses",
        "conversations",
        "files",
        "batches",
        "threads",
        "assistants",
        "vector_stores",
        "uploads",
        "containers",
        "evals",
        "videos",
        "fine_tuning/jobs",
        "messages/batches",
    ] {
        let (gateway, stores) = two();
        let path = format!("/v1/{kind}");
        let ids: Vec<_> = (0..20).map(|_| create(&gateway, &path, &json!({"model": "m"}))).collect();
        assert!(stores.iter().all(|store| store.count("POST") > 0), "{kind}: both make some");
        for id in &ids {
            for below in ["", "/input_items?limit=3", "/content"] {
                assert_made_by(&gateway.get(&format!("{path}/{id}{below}")), id);
            }
            assert_made_by(&gateway.post_json(&format!("{path}/{id}/cancel"), &json!({})), id);
        }
        for id in &ids {
            assert_made_by(&gateway.request("DELETE", &format!("{path}/{id}"), &[], b""), id);
        }
        let count = |method| stores.iter().map(|store| store.count(method)).sum::<usize>();
        assert_eq!((count("GET"), count("POST"), count("DELETE")), (60, 40, 20), "{kind}: nobody else was asked");
        let gone = gateway.get(&format!("{path}/{}", ids[0]));
        assert_eq!((gone.status, gone.text()), (404, format!("no {}", ids[0])));
    }
}

#[test]
fn a_streamed_creation_is_known_as_soon_as_it_says_its_id() {
    let go_on = Gate::new();
    let wait = go_on.clone();
    let maker = Worker::new(move |request, conn| match request.method.as_str() {
        "POST" => {
            conn.start_events();
            // The id comes in two pieces.
            conn.chunk("event: response.created\r\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp");
            conn.chunk("_1\",\"status\":\"in_progress\"}}\r\n\r\n");
            wait.wait();
            conn.chunk("data: [DONE]\n\n");
            conn.send("0\r\n\r\n");
        }
        _ => conn.answer(200, "the maker"),
    });
    let other = Worker::new(|request, conn| conn.answer(if request.method == "POST" { 500 } else { 200 }, "the other"));
    let gateway = Gateway::builder().worker(&maker).worker(&other).arg("--policy=passthrough").start();
    gateway.wait_for_workers(2);
    let mut client = gateway.connect();
    client.send_request("POST", "/v1/responses", &[JSON], b"{\"stream\":true}");
    client.read_until("_1");
    for _ in 0..10 {
        assert_eq!(gateway.get("/v1/responses/resp_1").text(), "the maker");
    }
    go_on.open();
    client.read_until("[DONE]");
    assert!(other.requests().is_empty());
}

#[test]
fn nobody_diverts_the_requests_for_an_object_of_another_caller() {
    // Workers that let callers choose ids.
    let obliging = |name: &'static str| {
        Worker::new(move |request, conn| match request.method.as_str() {
            "POST" => conn.answer_json(&serde_json::from_slice(&request.body).expect("JSON")),
            _ => conn.answer(200, name),
        })
    };
    let workers = [obliging("a"), obliging("b")];
    let gateway = Gateway::builder().workers(&workers).arg("--policy=round_robin").start();
    gateway.wait_for_workers(2);
    create(&gateway, "/v1/responses", &json!({"id": "resp_1"}));
    let made_by = gateway.get("/v1/responses/resp_1").text();
    for _ in 0..4 {
        create(&gateway, "/v1/responses", &json!({"id": "resp_1"}));
        assert_eq!(gateway.get("/v1/responses/resp_1").text(), made_by);
    }
    assert!(workers.iter().all(|worker| worker.requests().iter().any(|request| request.method == "POST")));
}

#[test]
fn nobody_makes_the_owner_of_an_object_forgotten() {
    // Workers that let callers choose ids. Only the first one keeps responses under `r`; the second has what an
    // attacker put there.
    let keeper = Worker::new(|request, conn| match (request.method.as_str(), request.target.as_str()) {
        ("POST", "/v1/responses") => conn.answer_json(&json!({"id": "r"})),
        (_, "/v1/responses/r") | ("DELETE", "/v1/responses/r/input_items/xr") => conn.answer(200, "the keeper"),
        _ => conn.answer(404, "no"),
    });
    let other = Worker::new(|_, conn| conn.answer(200, "the attacker's"));
    let gateway = Gateway::builder().worker(&keeper).worker(&other).arg("--policy=passthrough").start();
    gateway.wait_for_workers(2);
    assert_eq!(create(&gateway, "/v1/responses", &json!({})), "r");
    for (method, path) in [
        ("GET", "/v1/files/r"),
        ("GET", "/v1/responses/r/nothing/r"),
        ("GET", "/v1/responses/r/"),
        ("DELETE", "/v1/responses/r/input_items/xr"),
        ("POST", "/v1/responses/r/cancel"),
    ] {
        gateway.request(method, path, &[], b"");
        let asked = other.requests().len();
        for _ in 0..3 {
            assert_eq!(gateway.get("/v1/responses/r").text(), "the keeper", "{method} {path}");
        }
        assert_eq!(other.requests().len(), asked, "{method} {path}: it is known who has it");
    }
}

#[test]
fn what_changes_an_unknown_object_is_carried_out_by_one_worker() {
    for method in ["DELETE", "PUT", "PATCH", "POST"] {
        let (gateway, stores) = two();
        stores.iter().for_each(|store| store.put("both"));
        assert_eq!(gateway.request(method, "/v1/files/both", &[], b"").status, 200);
        assert_eq!(stores.iter().map(|store| store.count(method)).sum::<usize>(), 1, "{method}");
    }
}

#[test]
fn an_object_that_the_gateway_has_not_seen_is_found() {
    let (gateway, [first, second]) = two();
    second.put("b_old");
    for _ in 0..2 {
        assert_made_by(&gateway.get("/v1/responses/b_old"), "b");
    }
    assert_eq!(first.count("GET"), 1, "then it is known who has it");
    first.put("a_old");
    assert_made_by(&gateway.post_json("/v1/responses/a_old/cancel", &json!({})), "a");
    second.put("b_file");
    assert_made_by(&gateway.request("DELETE", "/v1/files/b_file", &[], b""), "b");
    assert!(!second.has("b_file"));
    // Nobody has it: a worker's own words.
    for (method, path) in
        [("GET", "/v1/files/none"), ("DELETE", "/v1/batches/none"), ("POST", "/v1/responses/none/cancel")]
    {
        let answer = gateway.request(method, path, &[], b"");
        assert_eq!((answer.status, answer.text().as_str()), (404, "no none"), "{method} {path}");
        assert!(!answer.headers.has("x-smg-error-code"));
    }
}

#[test]
fn a_part_that_is_not_there_does_not_make_the_whole_forgotten() {
    let keeper = Worker::new(|request, conn| match request.target.as_str() {
        "/v1/threads" => conn.answer_json(&json!({"id": "t", "object": "thread"})),
        path if path.ends_with("/none") => conn.answer(404, "no such message"),
        _ => conn.answer(200, "kept"),
    });
    let other = Worker::new(|_, conn| conn.answer(404, "no such thread"));
    let gateway = Gateway::builder().worker(&keeper).worker(&other).arg("--policy=passthrough").start();
    gateway.wait_for_workers(2);
    assert_eq!(create(&gateway, "/v1/threads", &json!({})), "t");
    for method in ["GET", "DELETE"] {
        let answer = gateway.request(method, "/v1/threads/t/messages/none", &[], b"");
        assert_eq!((answer.status, answer.text().as_str()), (404, "no such message"), "the keeper knows best");
    }
    assert_eq!(gateway.request("DELETE", "/v1/threads/t/messages/m", &[], b"").status, 200);
    let asked = other.requests().len();
    assert_eq!(gateway.get("/v1/threads/t").text(), "kept");
    assert_eq!(other.requests().len(), asked, "it is known who has it");
}

#[test]
fn what_is_no_object_goes_to_one_worker_as_before() {
    let (gateway, stores) = two();
    let paths =
        ["/v1/responses", "/v1/files?limit=2", "/v1/responses/", "/v1/files//x", "/v1/other/x", "/v1/fine_tuning/x"];
    for path in paths {
        gateway.get(path);
    }
    for path in ["/v1/responses/input_tokens", "/v1/responses/compact", "/v1/threads/runs", "/v1/chat/completions"] {
        gateway.post_json(path, &json!({}));
    }
    let total: usize = stores.iter().map(|store| store.worker.requests().len()).sum();
    assert_eq!(total, paths.len() + 4);
}

#[test]
fn a_body_comes_with_the_question_and_nothing_is_done_twice() {
    let (gateway, stores) = two();
    // Both would do it.
    stores.iter().for_each(|store| store.put("shared"));
    let item = json!({"items": ["x".repeat(1000)]});
    let answer = gateway.post_json("/v1/conversations/shared/items", &item);
    assert_eq!(answer.json()["length"], item.to_string().len());
    assert_eq!(stores.iter().map(|store| store.count("POST")).sum::<usize>(), 1);
    stores[1].put("b_conv");
    let answer = gateway.post_json("/v1/conversations/b_conv/items", &item);
    assert_eq!(answer.json()["length"], item.to_string().len());
    assert_made_by(&answer, "b");
}

#[test]
fn a_worker_that_fails_is_not_taken_for_one_that_has_nothing() {
    let broken = Worker::new(|request, conn| match request.method.as_str() {
        "GET" => conn.cut(),
        _ => conn.answer(500, "broken"),
    });
    let store = Store::new("a");
    let gateway = Gateway::builder().worker(&store.worker).worker(&broken).arg("--disable-circuit-breaker").start();
    gateway.wait_for_workers(2);
    gateway.get("/v1/responses/unknown").assert_error(502, "upstream_bad_response");
    let answer = gateway.request("DELETE", "/v1/responses/unknown", &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (500, "broken"));
    // One that has it is believed, whatever became of the others.
    store.put("a_1");
    assert_made_by(&gateway.get("/v1/responses/a_1"), "a_1");
    eventually(LIMIT, || gateway.get("/workers").json()["stats"]["total_load"] == 0);
}

#[test]
fn an_answer_that_says_more_than_not_found_is_passed_on() {
    let refuses = Worker::new(|_, conn| conn.answer(400, "it can't be cancelled"));
    let (first, last) = (Store::new("a"), Store::new("c"));
    let workers = [&first.worker, &refuses, &last.worker];
    let gateway = Gateway::builder().workers(workers).start();
    gateway.wait_for_workers(3);
    let answer = gateway.post_json("/v1/responses/x/cancel", &json!({}));
    assert_eq!((answer.status, answer.text().as_str()), (400, "it can't be cancelled"));
    last.put("x");
    assert_eq!(gateway.post_json("/v1/responses/x/cancel", &json!({})).json()["by"], "c");
}

#[test]
fn a_response_that_continues_another_goes_to_the_worker_that_has_the_other() {
    let (gateway, _stores) = two();
    let conversations: Vec<_> = (0..2).map(|_| create(&gateway, "/v1/conversations", &json!({}))).collect();
    assert_ne!(conversations[0], conversations[1], "each worker made one");
    for id in &conversations {
        for body in [
            json!({"model": "m", "input": "x", "conversation": id}),
            json!({"input": "x".repeat(100_000), "conversation": {"x": [1, {"id": "other"}], "id": id}}),
            json!({"conversation": id, "stream": false, "input": "\"conversation\":\"other\""}),
        ] {
            let mut last = create(&gateway, "/v1/responses", &body);
            for _ in 0..4 {
                last = create(&gateway, "/v1/responses", &json!({"input": "y", "previous_response_id": last}));
            }
        }
    }
    // One that nobody knows goes where any goes.
    let answer = gateway.post_json("/v1/responses", &json!({"previous_response_id": "none"}));
    assert_eq!(answer.status, 404);
}

#[test]
fn a_worker_that_is_gone_takes_what_it_had_along() {
    let (gateway, [first, mut second]) = two_with(&["--disable-retries"]);
    let ids: Vec<_> = (0..2).map(|_| create(&gateway, "/v1/responses", &json!({}))).collect();
    let of_second = ids.iter().find(|id| second.has(id)).expect("it made one").clone();
    // It may come back: nobody else is asked, and nobody says that there is no such thing.
    second.worker.stop();
    let answer = gateway.get(&format!("/v1/responses/{of_second}"));
    assert!(matches!(answer.status, 502 | 503), "{}", answer.text());
    assert_eq!(first.count("GET"), 0);
    let workers = gateway.get("/workers").json();
    let listed = workers["workers"].as_array().expect("a list").iter().find(|it| it["url"] == second.worker.url());
    let id = listed.expect("it is listed")["id"].as_str().expect("an id").to_owned();
    assert_eq!(gateway.request("DELETE", &format!("/workers/{id}"), &[], b"").status, 202);
    eventually(LIMIT, || gateway.get(&format!("/v1/responses/{of_second}")).status == 404);
}

#[test]
fn what_an_unhealthy_worker_has_is_not_said_to_be_missing() {
    let checks = ["--health-check-interval-secs=0.1", "--health-failure-threshold=1"];
    let (gateway, stores) = two_with(&checks);
    let id = create(&gateway, "/v1/responses", &json!({}));
    let (owner, other) = if stores[0].has(&id) { (&stores[0], &stores[1]) } else { (&stores[1], &stores[0]) };
    owner.worker.set_health(503);
    gateway.wait_for_workers(1);
    gateway.get(&format!("/v1/responses/{id}")).assert_error(503, "no_available_workers");
    let next = gateway.post_json("/v1/responses", &json!({"previous_response_id": id}));
    next.assert_error(503, "no_available_workers");
    assert!(other.worker.requests().is_empty());
    owner.worker.set_health(200);
    gateway.wait_for_workers(2);
    assert_made_by(&gateway.get(&format!("/v1/responses/{id}")), &id);
}

#[test]
fn modules_see_these_requests_and_ids_are_learned_though_they_read_the_answer() {
    let stores = [Store::new("a"), Store::new("b")];
    let workers = stores.iter().map(|store| &store.worker);
    let gateway = Gateway::builder().workers(workers).arg("--enable-wasm").start();
    gateway.wait_for_workers(2);
    gateway.deploy("logging", &guest("logging"), &["OnRequest", "OnResponse"]);
    let ids: Vec<_> = (0..4).map(|_| create(&gateway, "/v1/responses", &json!({}))).collect();
    for id in &ids {
        assert_made_by(&gateway.get(&format!("/v1/responses/{id}")), id);
    }
    let seen: Vec<_> = stores.iter().flat_map(|store| store.worker.requests()).collect();
    assert_eq!(seen.iter().filter(|request| request.method == "GET").count(), 4, "nobody else was asked");
    assert!(seen.iter().all(|request| request.headers.get("x-wasm-processed") == Some("true")));
    stores[0].put("a_old");
    gateway.deploy("auth", &guest("auth"), &["OnRequest"]);
    let before = stores.iter().map(|store| store.count("GET")).sum::<usize>();
    assert_eq!(gateway.get("/v1/responses/a_old").status, 401);
    assert_eq!(stores.iter().map(|store| store.count("GET")).sum::<usize>(), before);
}

#[test]
fn workers_over_http2_are_learned_from_and_asked_alike() {
    let keeper = |name: &'static str| {
        H2Worker::new(move |request, stream| match (request.method.as_str(), request.path.as_str()) {
            ("POST", _) => {
                stream.head(200, &[("content-type", "text/event-stream")]);
                stream.data("data: {\"type\":\"response.created\",", 0);
                stream.data(format!("\"response\":{{\"id\":\"{name}_1\"}}}}\n\n"), Frame::END_STREAM);
            }
            (_, path) if path.contains(name) => stream.answer(200, name),
            _ => stream.answer(404, "no"),
        })
    };
    let workers = [keeper("first"), keeper("second")];
    let builder = Gateway::builder().worker_url(workers[0].url()).worker_url(workers[1].url());
    let gateway = builder.args(["--upstream-http2", "--policy=round_robin"]).start();
    gateway.wait_for_workers(2);
    let made = gateway.post_json("/v1/responses", &json!({"stream": true})).text();
    let made = if made.contains("first") { "first" } else { "second" };
    assert_eq!(gateway.get(&format!("/v1/responses/{made}_1")).text(), made);
    assert_eq!(workers.iter().map(|worker| worker.requests().len()).sum::<usize>(), 2, "nobody else was asked");
    for name in ["first", "second"] {
        assert_eq!(gateway.get(&format!("/v1/files/{name}_2")).text(), name);
    }
}

#[test]
fn objects_are_found_in_the_pool_of_another_model() {
    let (first, second) = (Store::new("a"), Store::new("b"));
    let text = format!(
        "pools:\n- {{model: one, workers: [{}]}}\n- {{model: two, workers: [{}]}}\n",
        first.worker.url(),
        second.worker.url()
    );
    let gateway = ConfigFile::new(text).gateway().start();
    gateway.wait_for_workers(2);
    for model in ["one", "two"] {
        let id = create(&gateway, "/v1/responses", &json!({"model": model}));
        assert_made_by(&gateway.get(&format!("/v1/responses/{id}")), &id);
    }
    assert_eq!((first.count("GET"), second.count("GET")), (1, 1));
    second.put("b_old");
    assert_made_by(&gateway.get("/v1/responses/b_old"), "b");
}

#[test]
fn keys_modules_and_the_log_hold_as_for_every_request() {
    let stores = [Store::new("a"), Store::new("b")];
    let workers = stores.iter().map(|store| &store.worker);
    let gateway =
        Gateway::builder().workers(workers).args(["--api-key=secret", "--log-fields=method,status,worker,attempts"]);
    let gateway = gateway.start();
    gateway.wait_for_workers(2);
    stores[1].put("b_1");
    gateway.get("/v1/responses/b_1").assert_error(401, "invalid_api_key");
    assert!(stores.iter().all(|store| store.worker.requests().is_empty()));
    assert_made_by(&gateway.with_key("secret", "GET", "/v1/responses/b_1"), "b");
    let line = gateway.wait_for_log("attempts=2");
    assert!(line.contains("status=200") && line.contains(&stores[1].worker.url()), "{line}");
    let id = stores[1].worker.requests()[0].headers.get("x-request-id").map(str::to_owned);
    assert!(id.is_some_and(|id| !id.is_empty()));
}
