//! Operations that mean all workers: each is asked, and the answer says what each said.

use crate::support::{Client, ConfigFile, Gate, Gateway, Response, Worker};
use serde_json::{Value, json};

/// A worker that answers each request with this.
fn saying(status: u16, body: &'static str) -> Worker {
    Worker::new(move |_, conn| conn.answer(status, body))
}

fn before(workers: &[&Worker]) -> Gateway {
    let gateway = Gateway::builder().workers(workers.iter().copied()).start();
    gateway.wait_for_workers(workers.len() as u64);
    gateway
}

fn post(gateway: &Gateway, path: &str) -> Response {
    gateway.request("POST", path, &[], b"")
}

/// What the answer says of this worker.
#[track_caller]
fn of<'a>(body: &'a Value, worker: &Worker) -> &'a Value {
    let all = body["workers"].as_array().unwrap_or_else(|| panic!("no list in {body}"));
    let found = all.iter().find(|entry| entry["worker"] == worker.url());
    found.unwrap_or_else(|| panic!("nothing of {} in {body}", worker.url()))
}

#[test]
fn a_cache_is_flushed_at_all_workers_and_each_is_told_of() {
    let (first, second) = (saying(200, "Cache flushed."), saying(200, "{\"success\": true}"));
    let gateway = before(&[&first, &second]);
    let answer = post(&gateway, "/flush_cache");
    assert_eq!((answer.status, answer.headers.get("content-type")), (200, Some("application/json")));
    let body = answer.json();
    assert_eq!(
        (&body["status"], &body["workers_flushed"], &body["total_workers"]),
        (&json!("success"), &json!(2), &json!(2))
    );
    assert_eq!((&of(&body, &first)["status"], &of(&body, &first)["answer"]), (&json!(200), &json!("Cache flushed.")));
    assert_eq!(of(&body, &second)["answer"], json!({"success": true}));
    let listed = gateway.get("/workers").json();
    assert_eq!(of(&body, &first)["id"], listed["workers"][0]["id"]);
    for worker in [&first, &second] {
        let request = &worker.requests()[0];
        assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/flush_cache"));
        assert_eq!(worker.requests().len(), 1);
    }
}

#[test]
fn a_worker_that_fails_is_named_and_the_whole_is_no_success() {
    let (good, bad, mut gone) = (saying(200, "ok"), saying(500, "it is busy"), saying(200, "ok"));
    let gateway = before(&[&good, &bad, &gone]);
    gone.stop();
    for path in ["/flush_cache", "/start_profile", "/stop_profile"] {
        let answer = post(&gateway, path);
        assert_eq!((answer.status, answer.headers.get("x-smg-error-code")), (502, Some("workers_failed")), "{path}");
        let body = answer.json();
        assert_eq!((&body["status"], &body["total_workers"]), (&json!("partial_success"), &json!(3)));
        assert_eq!(body["successful"], json!([good.url()]));
        let failed: Vec<_> = body["failed"].as_array().expect("a list").iter().map(|entry| &entry["worker"]).collect();
        assert_eq!(failed, [&json!(bad.url()), &json!(gone.url())]);
        assert_eq!((&of(&body, &bad)["status"], &of(&body, &bad)["answer"]), (&json!(500), &json!("it is busy")));
        assert!(of(&body, &gone)["error"].as_str().is_some_and(|why| !why.is_empty()), "{body}");
    }
    assert_eq!(good.requests().len(), 3, "those that can do it do it");
}

#[test]
fn a_worker_that_is_not_healthy_is_asked_too() {
    let (healthy, ailing) = (saying(200, "ok"), saying(200, "ok"));
    ailing.set_health(503);
    let gateway = Gateway::builder().worker(&healthy).worker(&ailing).start();
    assert_eq!(post(&gateway, "/flush_cache?timeout=9").status, 200);
    for worker in [&healthy, &ailing] {
        assert_eq!(worker.wait_for_request().target, "/flush_cache?timeout=9");
    }
    // What only reads asks those that serve.
    gateway.get("/engine_metrics");
    assert_eq!((healthy.requests().len(), ailing.requests().len()), (2, 1));
}

#[test]
fn a_profile_is_started_as_the_caller_says_at_all_or_at_one() {
    let (first, second) = (saying(200, "ok"), saying(200, "ok"));
    let gateway = before(&[&first, &second]);
    let options = json!({"output_dir": "/tmp/x", "num_steps": 3});
    let body = gateway.post_json("/start_profile", &options).json();
    assert_eq!((&body["status"], &body["workers_profiled"]), (&json!("success"), &json!(2)));
    for worker in [&first, &second] {
        let request = worker.wait_for_request();
        assert_eq!(request.headers.get("content-type"), Some("application/json"));
        assert_eq!(serde_json::from_slice::<Value>(&request.body).expect("JSON"), options);
    }
    let one = json!({"url": second.url(), "num_steps": 3});
    assert_eq!(gateway.post_json("/start_profile", &one).json()["workers_profiled"], 1);
    assert_eq!(
        serde_json::from_slice::<Value>(&second.wait_for_request().body).expect("JSON"),
        json!({"num_steps": 3})
    );
    assert_eq!(gateway.post_json("/stop_profile", &json!({"url": second.url()})).status, 200);
    assert_eq!((first.requests().len(), second.requests().len()), (1, 3));
    let unknown = gateway.post_json("/start_profile", &json!({"url": "http://elsewhere.test"}));
    unknown.assert_error(404, "worker_not_found");
    gateway.request("POST", "/start_profile", &[], b"{").assert_error(400, "invalid_json");
}

#[test]
fn loads_have_the_known_shape() {
    let loads = json!({"timestamp": "t", "dp_rank_count": 1, "loads": [
        {"dp_rank": 0, "num_used_tokens": 7, "max_total_num_tokens": 100},
        {"dp_rank": 1, "num_used_tokens": 5, "max_total_num_tokens": 100},
    ]});
    let said = loads.clone();
    let new = Worker::new(move |request, conn| match request.target.as_str() {
        "/v1/loads?include=core,disagg,queues,memory" => conn.answer_json(&said),
        _ => conn.answer(404, ""),
    });
    let old = Worker::new(|request, conn| match request.target.as_str() {
        "/get_load" => conn.answer_json(&json!([{"dp_rank": 0, "num_reqs": 2}])),
        _ => conn.answer(404, ""),
    });
    let gateway = before(&[&new, &old]);
    let answer = gateway.get("/get_loads");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!((&of(&body, &new)["load"], &of(&body, &new)["details"]), (&json!(12), &loads));
    assert_eq!((&of(&body, &old)["load"], &of(&body, &old)["details"][0]["num_reqs"]), (&json!(-1), &json!(2)));
    let none = saying(404, "no such thing");
    let answer = before(&[&new, &none]).get("/get_loads");
    assert_eq!(answer.status, 502);
    let body = answer.json();
    assert_eq!(
        (&of(&body, &new)["load"], &of(&body, &none)["load"], &of(&body, &none)["status"]),
        (&json!(12), &json!(-1), &json!(404))
    );
}

#[test]
fn engine_metrics_are_those_of_all_workers_by_worker() {
    let first = "# HELP vllm:running Requests.\n# TYPE vllm:running gauge\nvllm:running{model=\"m\"} 1\n\
                 # TYPE up counter\nup 3\n";
    let second = "# TYPE up counter\nup 4\n# HELP vllm:running Requests.\n# TYPE vllm:running gauge\nvllm:running{model=\"m\"} 2\n";
    let (first, second) = (saying(200, first), saying(200, second));
    let gateway = before(&[&first, &second]);
    let answer = gateway.get("/engine_metrics");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let (one, two) = (first.url(), second.url());
    let wanted = format!(
        "# HELP vllm:running Requests.\n# TYPE vllm:running gauge\nvllm:running{{worker=\"{one}\",model=\"m\"}} 1\n\
         vllm:running{{worker=\"{two}\",model=\"m\"}} 2\n# TYPE up counter\nup{{worker=\"{one}\"}} 3\nup{{worker=\"{two}\"}} 4\n"
    );
    assert_eq!(answer.text(), wanted);
    assert_eq!(first.requests()[0].target, "/metrics");
    let broken = saying(503, "no");
    let answer = before(&[&first, &broken]).get("/engine_metrics");
    assert_eq!((answer.status, answer.headers.get("x-smg-error-code")), (502, Some("workers_failed")));
    assert_eq!(of(&answer.json(), &broken)["status"], 503);
}

const ALL: [(&str, &str); 5] = [
    ("POST", "/flush_cache"),
    ("POST", "/start_profile"),
    ("POST", "/stop_profile"),
    ("GET", "/get_loads"),
    ("GET", "/engine_metrics"),
];

#[test]
fn they_are_for_those_who_may_administer() {
    let worker = saying(200, "ok");
    let gateway = Gateway::builder().worker(&worker).args(["--admin-key=admin", "--api-key=caller"]).start();
    let open = before(&[&worker]);
    for (method, path) in ALL {
        gateway.request(method, path, &[], b"").assert_error(401, "invalid_api_key");
        open.request(method, path, &[("X-Forwarded-For", "8.8.8.8")], b"").assert_error(403, "forbidden");
        let other = if method == "GET" { "POST" } else { "GET" };
        let refused = open.request(other, path, &[], b"");
        refused.assert_error(405, "method_not_allowed");
        assert_eq!(refused.headers.get("allow"), Some(method), "{path}");
    }
    assert!(worker.requests().is_empty());
    assert_eq!(gateway.with_key("admin", "POST", "/flush_cache").status, 200);
    let file = ConfigFile::new(format!(
        "worker_urls: [{}]\nlisteners:\n- {{address: 127.0.0.1:0, admin: true}}\n",
        worker.url()
    ));
    let gateway = file.gateway().start();
    let [main, admin] = gateway.listeners()[..] else { panic!("there are two") };
    for (method, path) in ALL {
        let ask = |address| {
            let mut client = Client::connect(address);
            client.send_request(method, path, &[], b"");
            client.read_response_to(method)
        };
        ask(main).assert_error(404, "not_found");
        assert_ne!(ask(admin).status, 404, "{path}");
    }
}

#[test]
fn no_other_spelling_of_an_operation_reaches_a_worker() {
    let worker = saying(200, "ok");
    let gateway = before(&[&worker]);
    for path in [
        "/flush%5Fcache",
        "/flush_cach%65?model=b",
        "/flush_cache/",
        "//flush_cache",
        "/x/../flush_cache",
        "/x/%2e%2e/start_profile",
        "/v1/../stop_profile",
        "/v1/files/..%2f..%2f..%2fflush_cache",
        "/v1/models/../../get_loads",
    ] {
        for method in ["GET", "POST"] {
            gateway.request(method, path, &[], b"").assert_error(404, "not_found");
        }
    }
    assert!(worker.requests().is_empty());
    assert_eq!(gateway.get("/x/flush%5Fcache").status, 200, "it is another path");
}

#[test]
fn a_reader_may_read_only() {
    let worker = saying(200, "up 1\n");
    let file = ConfigFile::new(format!(
        "worker_urls: [{}]\nkeys:\n- {{name: r, role: read-only, key: reader}}\n- {{name: c, role: caller, key: caller}}\n",
        worker.url()
    ));
    let gateway = file.gateway().start();
    assert_eq!(gateway.with_key("reader", "GET", "/engine_metrics").status, 200);
    gateway.with_key("reader", "POST", "/flush_cache").assert_error(403, "forbidden");
    gateway.with_key("caller", "GET", "/engine_metrics").assert_error(403, "forbidden");
}

#[test]
fn a_worker_that_is_slow_shuts_nobody_out() {
    let (asked, go_on) = (Gate::new(), Gate::new());
    let (says_asked, wait) = (asked.clone(), go_on.clone());
    let slow = Worker::new(move |request, conn| {
        if request.target == "/flush_cache" {
            says_asked.open();
            wait.wait();
        }
        conn.answer(200, "ok");
    });
    let gateway = before(&[&slow]);
    let mut clients: Vec<_> = (0..20)
        .map(|_| {
            let mut client = gateway.connect();
            client.send_request("POST", "/flush_cache", &[], b"");
            client
        })
        .collect();
    asked.wait();
    assert_eq!((gateway.get("/workers").status, gateway.get("/x").status), (200, 200));
    go_on.open();
    for client in &mut clients {
        assert!(matches!(client.read_response_to("POST").status, 200 | 503));
    }
}

#[test]
fn without_workers_there_is_nobody_to_ask() {
    let gateway = Gateway::builder().start_unready();
    for (method, path) in ALL {
        gateway.request(method, path, &[], b"").assert_error(503, "no_available_workers");
    }
}
