//! Models that come and go at workers that go on running, such as adapters that are loaded at run time.

use crate::support::{Builder, ConfigFile, Gateway, ReceivedRequest, Worker, eventually};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A worker that has the models that it is told, lists them, and answers for others as vLLM does.
struct Vllm {
    worker: Worker,
    models: Arc<Mutex<Vec<&'static str>>>,
}

impl Vllm {
    fn new(name: &'static str, models: &[&'static str]) -> Self {
        let models = Arc::new(Mutex::new(models.to_vec()));
        let has = models.clone();
        let worker = Worker::new(move |request, conn| {
            let models = has.lock().unwrap().clone();
            if request.target == "/v1/models" {
                let data: Vec<_> = models.iter().map(|id| json!({ "id": id })).collect();
                return conn.answer_json(&json!({ "data": data }));
            }
            let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
            match body["model"].as_str() {
                Some(model) if models.contains(&model) => conn.answer(200, name),
                Some(model) => {
                    let message = format!("The model `{model}` does not exist.");
                    let error = json!({"error": {"message": message, "type": "NotFoundError", "code": 404}});
                    conn.answer_as(404, "application/json", error.to_string());
                }
                None => conn.answer(200, name),
            }
        });
        Vllm { worker: worker.bare(), models }
    }

    fn load(&self, models: &[&'static str]) {
        *self.models.lock().unwrap() = models.to_vec();
    }

    fn questions(&self) -> usize {
        let asks = |request: &ReceivedRequest| request.target == "/v1/models";
        self.worker.requests().iter().filter(|request| asks(request)).count()
    }
}

fn before(builder: Builder, workers: &[&Vllm]) -> Gateway {
    let gateway = builder.workers(workers.iter().map(|vllm| &vllm.worker)).start();
    gateway.wait_for_workers(workers.len() as u64);
    gateway
}

/// The lists were read a moment ago; later they may be read again.
fn let_a_second_pass() {
    std::thread::sleep(Duration::from_millis(1100));
}

fn ask(gateway: &Gateway, model: &str) -> String {
    let headers = [("Content-Type", "application/json")];
    gateway.request("POST", "/v1/chat/completions", &headers, format!("{{\"model\":\"{model}\"}}").as_bytes()).text()
}

#[test]
fn requests_for_an_adapter_go_to_the_worker_that_has_loaded_it_from_the_first_on() {
    for policy in ["round_robin", "cache_aware"] {
        let (a, b) = (Vllm::new("A", &["base"]), Vllm::new("B", &["base"]));
        let gateway = before(Gateway::builder().args([format!("--policy={policy}")]), &[&a, &b]);
        let_a_second_pass();
        b.load(&["base", "adapter"]);
        for _ in 0..20 {
            assert_eq!(ask(&gateway, "adapter"), "B", "{policy}");
        }
        assert!(["A", "B"].contains(&ask(&gateway, "base").as_str()));
    }
}

#[test]
fn a_model_that_nobody_had_is_found_when_it_has_come() {
    let (a, b) = (Vllm::new("A", &["a"]), Vllm::new("B", &["b"]));
    let gateway = before(Gateway::builder(), &[&a, &b]);
    let_a_second_pass();
    b.load(&["b", "adapter"]);
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "adapter"), "B");
    }
    // And it moves.
    let_a_second_pass();
    a.load(&["a", "adapter"]);
    b.load(&["b"]);
    eventually(Duration::from_secs(5), || ask(&gateway, "adapter") == "A");
    assert_eq!((ask(&gateway, "a"), ask(&gateway, "b")), ("A".into(), "B".into()));
}

#[test]
fn what_anybody_sees_in_the_list_can_be_asked_for() {
    let (a, b) = (Vllm::new("A", &["base"]), Vllm::new("B", &["base"]));
    let gateway = before(Gateway::builder().arg("--disable-retries"), &[&a, &b]);
    b.load(&["base", "adapter"]);
    assert_eq!(gateway.get("/v1/models").json()["data"], json!([{"id": "adapter"}, {"id": "base"}]));
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "adapter"), "B");
    }
}

// In a pool of the file what it says counts, and a body need not be read before it is sent.
#[test]
fn in_a_pool_of_the_file_an_adapter_is_found_at_the_worker_that_lists_it() {
    let (a, b) = (Vllm::new("A", &["base"]), Vllm::new("B", &["base"]));
    let (one, other) = (a.worker.url(), b.worker.url());
    let file = ConfigFile::new(format!("pools: [{{model: base, policy: round_robin, workers: [{one}, {other}]}}]\n"));
    let gateway = file.gateway().start();
    gateway.wait_for_workers(2);
    let_a_second_pass();
    b.load(&["base", "adapter"]);
    eventually(Duration::from_secs(5), || {
        assert_eq!(ask(&gateway, "adapter"), "B");
        b.questions() > 1
    });
    // Once it is known, nobody else is asked.
    let before = a.worker.requests().len();
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "adapter"), "B");
    }
    let asked: Vec<_> = a.worker.requests()[before..].iter().map(|request| request.target.clone()).collect();
    assert!(!asked.contains(&"/v1/chat/completions".to_owned()), "{asked:?}");
    let mut names: Vec<_> = (0..10).map(|_| ask(&gateway, "base")).collect();
    names.sort();
    names.dedup();
    assert_eq!(names, ["A", "B"]);
}

#[test]
fn what_nobody_has_is_a_404_as_the_worker_says_it_and_asks_seldom() {
    let (a, b) = (Vllm::new("A", &["base"]), Vllm::new("B", &["base"]));
    let gateway = before(Gateway::builder().arg("--policy=round_robin"), &[&a, &b]);
    let (before, start) = (a.questions() + b.questions(), Instant::now());
    for _ in 0..200 {
        let headers = [("Content-Type", "application/json")];
        let answer = gateway.request("POST", "/v1/x", &headers, b"{\"model\":\"none\"}");
        assert_eq!(answer.status, 404);
        assert_eq!(answer.json()["error"]["message"], "The model `none` does not exist.");
        let length = answer.body.len().to_string();
        assert_eq!(answer.headers.get("content-length"), Some(length.as_str()), "it is framed as it was");
    }
    let asked = a.questions() + b.questions() - before;
    assert!(asked as u64 <= 2 * (2 + start.elapsed().as_secs()), "{asked} in {:?}", start.elapsed());
    let requests = a.worker.requests().len() + b.worker.requests().len() - a.questions() - b.questions();
    assert!(requests < 210, "each was sent once, and health was checked: {requests}");
}

// A 404 of something else says nothing about models, and what is long or broken is passed on as it is.
#[test]
fn other_answers_with_404_are_passed_on() {
    let long = json!({"error": {"code": "model_not_found", "message": "x".repeat(100_000)}}).to_string();
    let sent = long.clone();
    let worker = Worker::new(move |request, conn| match request.target.as_str() {
        "/v1/models" => conn.answer_json(&json!({"data": [{"id": "m"}]})),
        "/long" => conn.answer_as(404, "application/json", &sent),
        "/chunked" => {
            conn.send("HTTP/1.1 404 N\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
            sent.as_bytes().chunks(10_000).for_each(|part| conn.chunk(part));
            conn.send("0\r\n\r\n");
        }
        "/broken" => {
            conn.send("HTTP/1.1 404 N\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{\"a\"");
            conn.close();
        }
        "/slow" => {
            conn.send("HTTP/1.1 404 N\r\nContent-Type: application/json\r\nContent-Length: 10\r\n\r\n{\"a\"");
            std::thread::sleep(Duration::from_millis(1500));
            conn.send(": 123}");
        }
        "/empty" => conn.answer_as(404, "application/json", ""),
        _ => conn.answer_as(404, "application/json", "not JSON"),
    });
    let gateway = Gateway::before(&worker);
    let headers = [("Content-Type", "application/json")];
    let post = |path: &str| gateway.request("POST", path, &headers, b"{\"model\":\"m\"}");
    for (path, wanted) in
        [("/long", long.as_str()), ("/chunked", &long), ("/slow", "{\"a\": 123}"), ("/empty", ""), ("/x", "not JSON")]
    {
        let answer = post(path);
        assert!(answer.status == 404 && answer.text() == wanted, "{path}: {}", answer.status);
    }
    post("/broken").assert_error(502, "upstream_bad_response");
}

#[test]
fn a_request_is_not_sent_again_where_none_is() {
    let (a, b) = (Vllm::new("A", &["base"]), Vllm::new("B", &["base"]));
    let flags = ["--disable-retries", "--policy=passthrough"];
    let gateway = before(Gateway::builder().args(flags), &[&a, &b]);
    let_a_second_pass();
    b.load(&["base", "adapter"]);
    assert!(ask(&gateway, "adapter").contains("does not exist"));
    assert_eq!(ask(&gateway, "adapter"), "B", "but the next one finds it");
}

// Nobody waits for the list of a worker that does not give it, however often models are asked for that do not exist.
#[test]
fn a_worker_that_does_not_list_its_models_holds_nobody_up() {
    let lists = std::sync::atomic::AtomicUsize::new(0);
    let silent = Worker::new(move |request, conn| match request.target.as_str() {
        "/v1/models" if lists.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 => {
            std::thread::sleep(Duration::from_secs(6));
        }
        "/v1/models" => conn.answer_json(&json!({"data": [{"id": "b"}]})),
        _ => conn.answer(200, "B"),
    })
    .bare();
    let a = Vllm::new("A", &["a"]);
    let gateway = Gateway::builder().workers([&a.worker, &silent]).start();
    gateway.wait_for_workers(2);
    let_a_second_pass();
    // The first to ask waits for two seconds; then it is known that the worker does not say it.
    ask(&gateway, "none");
    eventually(Duration::from_secs(10), || {
        let start = Instant::now();
        assert!(ask(&gateway, "none").contains("model_not_found"));
        start.elapsed() < Duration::from_millis(500)
    });
    std::thread::sleep(Duration::from_millis(1100));
    let start = Instant::now();
    (0..20).for_each(|_| drop(ask(&gateway, "none")));
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert_eq!((ask(&gateway, "a"), ask(&gateway, "b")), ("A".into(), "B".into()));
}

// Those that are left out because they don't list the model say nothing of whether others are left to be tried.
#[test]
fn a_failed_request_goes_to_another_worker_that_lists_its_model_whatever_those_do_that_do_not() {
    let answering = |status: u16, models: &[&'static str]| {
        let worker = Worker::new(move |_, conn| conn.answer(status, ""));
        worker.set_models(models);
        worker
    };
    let (a, b) = (answering(500, &["m1", "x"]), answering(200, &["m1", "x"]));
    let (c, d) = (answering(201, &["m1"]), answering(201, &["m1"]));
    let urls: Vec<_> = [&a, &b, &c, &d].map(Worker::url).to_vec();
    let file = ConfigFile::new(format!("pools: [{{model: m1, workers: [{}]}}]\n", urls.join(", ")));
    let flags = ["--retry-non-idempotent", "--policy=round_robin", "--health-check-interval-secs=0.1"];
    let flags = flags.into_iter().chain(["--health-failure-threshold=1", "--cb-failure-threshold=1000"]);
    let gateway = file.gateway().args(flags).start();
    let ask = || {
        let headers = [("Content-Type", "application/json")];
        (0..12).map(|_| gateway.request("POST", "/v1/x", &headers, b"{\"model\":\"x\"}").status).collect::<Vec<_>>()
    };
    gateway.wait_for_workers(4);
    assert_eq!(ask(), [200; 12]);
    [&c, &d].into_iter().for_each(|worker| worker.set_health(503));
    gateway.wait_for_workers(2);
    assert_eq!(ask(), [200; 12]);
    assert!(!a.requests().is_empty(), "it was asked, too");
}

/// A worker that lists `models`, and whose health check is answered by `check`.
fn checked(models: Arc<Mutex<Vec<&'static str>>>, check: impl Fn() -> u16 + Send + Sync + 'static) -> Worker {
    let script = move |request: &ReceivedRequest, conn: &mut crate::support::Conn| match request.target.as_str() {
        "/health" => conn.answer(check(), ""),
        "/v1/models" => {
            let data: Vec<_> = models.lock().unwrap().iter().map(|id| json!({ "id": id })).collect();
            conn.answer_json(&json!({ "data": data }));
        }
        _ => conn.answer(200, "B"),
    };
    Worker::new(script).bare()
}

#[test]
fn a_model_is_found_while_a_health_check_is_under_way_that_will_fail() {
    let models = Arc::new(Mutex::new(vec!["b"]));
    let is_slow = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let slow = is_slow.clone();
    let b = checked(models.clone(), move || {
        if slow.load(std::sync::atomic::Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1500));
            return 503;
        }
        200
    });
    let a = Vllm::new("A", &["a"]);
    let gateway = Gateway::builder().workers([&a.worker, &b]).arg("--health-check-interval-secs=0.1").start();
    gateway.wait_for_workers(2);
    let_a_second_pass();
    is_slow.store(true, std::sync::atomic::Ordering::SeqCst);
    gateway.wait_for_log("answered with 503");
    std::thread::sleep(Duration::from_millis(300));
    models.lock().unwrap().push("adapter");
    assert_eq!(ask(&gateway, "adapter"), "B");
}

#[test]
fn a_list_that_is_slow_holds_up_no_health_check() {
    let lists = std::sync::atomic::AtomicUsize::new(0);
    let silent = Worker::new(move |request, conn| match request.target.as_str() {
        "/v1/models" if lists.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0 => {
            conn.wait_peer_closed(Duration::from_secs(8));
        }
        "/v1/models" => conn.answer_json(&json!({"data": [{"id": "b"}]})),
        _ => conn.answer(200, "B"),
    })
    .bare();
    let a = Vllm::new("A", &["a"]);
    let gateway = Gateway::builder().workers([&a.worker, &silent]).arg("--health-check-interval-secs=0.1").start();
    gateway.wait_for_workers(2);
    let_a_second_pass();
    let asked = |target: &str| silent.requests().iter().filter(|request| request.target == target).count();
    let (lists, start) = (asked("/v1/models"), Instant::now());
    ask(&gateway, "none");
    assert!(asked("/v1/models") > lists);
    let checks = asked("/health");
    eventually(Duration::from_secs(1), || asked("/health") > checks + 3);
    assert!(start.elapsed() < Duration::from_secs(5), "only once the list was given up");
}
