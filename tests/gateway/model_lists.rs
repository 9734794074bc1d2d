//! `/v1/models` and `/v1/models/{id}`: what workers say of their models, as they say it.

use crate::support::{Gateway, Worker};
use serde_json::json;

/// A worker with this list, which it writes as it is. It is asked for nothing else.
fn listing(list: &'static str) -> Worker {
    Worker::new(move |request, conn| match (request.method.as_str(), request.target.as_str()) {
        ("GET", "/v1/models") => conn.answer_as(200, "application/json", list),
        _ => conn.answer(200, format!("{} {}", request.method, request.target)),
    })
    .bare()
}

fn before(workers: &[&Worker]) -> Gateway {
    let gateway = Gateway::builder().workers(workers.iter().copied()).start();
    gateway.wait_for_workers(workers.len() as u64);
    gateway
}

const VLLM: &str = r#"{"id":"m","object":"model","created":1700000000.5,"max_model_len":262144,"root":"/models/…","parent":null,"permission":[{"id":"p"}]}"#;
const NAMED: &str = r#"{ "x-own": 1e400, "id" : "org\/name:7b v\u00e4" }"#;

#[test]
fn entries_are_passed_on_as_their_worker_gave_them() {
    let both = listing(
        r#"{"object":"list","data":[{ "x-own": 1e400, "id" : "org\/name:7b v\u00e4" },{"id":"m","object":"model","created":1700000000.5,"max_model_len":262144,"root":"/models/…","parent":null,"permission":[{"id":"p"}]},{"id":7},"x"]}"#,
    );
    let gateway = before(&[&both]);
    let answer = gateway.get("/v1/models");
    assert_eq!(answer.headers.get("content-type"), Some("application/json"));
    assert_eq!(answer.text(), format!(r#"{{"object":"list","data":[{VLLM},{NAMED}]}}"#));
}

#[test]
fn an_id_that_is_listed_is_found_and_a_longer_one_is_neither() {
    let (longest, longer) = ("y".repeat(256), "y".repeat(257));
    let list = json!({"data": [{ "id": longer }, { "id": longest }]});
    let worker = Worker::new(move |_, conn| conn.answer_json(&list)).bare();
    let gateway = before(&[&worker]);
    assert_eq!(gateway.get("/v1/models").json()["data"], json!([{ "id": longest }]));
    assert_eq!(gateway.get(&format!("/v1/models/{longest}")).json(), json!({ "id": longest }));
    gateway.get(&format!("/v1/models/{longer}")).assert_error(404, "model_not_found");
}

// The same in every answer, whichever of the workers is quicker to say it.
#[test]
fn of_two_workers_that_list_one_model_the_first_that_is_named_counts() {
    let slow = Worker::new(|request, conn| {
        if request.headers.get("user-agent") == Some("smg") {
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        conn.answer_as(200, "application/json", r#"{"data":[{"id":"m","max_model_len":1}]}"#);
    })
    .bare();
    let quick = listing(r#"{"data":[{"id":"m","max_model_len":2},{"id":"n"}]}"#);
    let gateway = before(&[&slow, &quick]);
    assert_eq!(gateway.get("/v1/models").json()["data"], json!([{"id": "m", "max_model_len": 1}, {"id": "n"}]));
    let gateway = before(&[&quick, &slow]);
    assert_eq!(gateway.get("/v1/models").json()["data"], json!([{"id": "m", "max_model_len": 2}, {"id": "n"}]));
}

#[test]
fn one_model_is_what_the_list_says_of_it_whoever_lists_it() {
    let (first, second) = (listing(r#"{"data":[{"id":"m"}]}"#), listing(r#"{"data":[{"id":"org/name","x":[1]}]}"#));
    let gateway = before(&[&first, &second]);
    for path in ["/v1/models/org/name", "/v1/models/org%2Fname", "/v1/models/org%2fn%61me?x=y"] {
        let answer = gateway.get(path);
        assert_eq!((answer.status, answer.text().as_str()), (200, r#"{"id":"org/name","x":[1]}"#), "{path}");
        assert_eq!(answer.headers.get("content-type"), Some("application/json"));
    }
    assert_eq!(gateway.get("/v1/models/m").text(), r#"{"id":"m"}"#);
    let head = gateway.request("HEAD", "/v1/models/m", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let long = format!("/v1/models/{}", "m".repeat(5000));
    for path in
        ["/v1/models/x", "/v1/models/org", "/v1/models/M", "/v1/models/%ff", "/v1/models/m%00", "/v1/models/m/", &long]
    {
        gateway.get(path).assert_error(404, "model_not_found");
    }
    let asked: Vec<_> =
        [&first, &second].into_iter().flat_map(Worker::requests).map(|request| request.target).collect();
    assert!(asked.iter().all(|target| target == "/v1/models" || target == "/health"), "{asked:?}");
}

#[test]
fn what_is_done_with_a_model_and_what_is_no_model_is_a_workers() {
    let worker = listing(r#"{"data":[{"id":"m"}]}"#);
    let gateway = before(&[&worker]);
    for (method, path) in
        [("DELETE", "/v1/models/m"), ("POST", "/v1/models/m/x"), ("GET", "/v1/models/"), ("GET", "/v1/modelsx")]
    {
        assert_eq!(gateway.request(method, path, &[], b"").text(), format!("{method} {path}"));
    }
    gateway.request("DELETE", "/v1/models", &[], b"").assert_error(405, "method_not_allowed");
    Gateway::builder().start_unready().get("/v1/models/m").assert_error(503, "no_available_workers");
}

// Who asks for one model after the other asks the workers as often as who asks for all.
#[test]
fn many_questions_for_models_are_few_for_the_workers() {
    let worker = listing(r#"{"data":[{"id":"m"}]}"#);
    let gateway = before(&[&worker]);
    let start = std::time::Instant::now();
    let mut client = gateway.connect();
    for at in 0..200 {
        client.send_request("GET", &format!("/v1/models/{at}"), &[], b"");
        client.read_response().assert_error(404, "model_not_found");
    }
    let asked = worker.requests().iter().filter(|request| request.headers.get("user-agent") == Some("smg")).count();
    assert!(asked as u64 <= 1 + start.elapsed().as_secs(), "{asked} in {:?}", start.elapsed());
}

/// A list of as many models, each with `padding` more bytes.
fn long_list(first: &str, count: usize, padding: usize) -> String {
    let padding = "x".repeat(padding);
    let ids = std::iter::once(first.to_owned()).chain((1..count).map(|at| format!("{first}-{at}")));
    let data: Vec<_> = ids.map(|id| json!({"id": id, "x": padding})).collect();
    json!({ "data": data }).to_string()
}

fn lists_of(first: String, second: &'static str) -> (Worker, Worker, Gateway) {
    let long = Worker::new(move |request, conn| match request.target.as_str() {
        "/v1/models" => conn.answer_as(200, "application/json", &first),
        _ => conn.answer(200, "long"),
    });
    let (long, other) = (long.bare(), listing(second));
    let gateway = before(&[&long, &other]);
    (long, other, gateway)
}

fn ask(gateway: &Gateway, model: &str) -> crate::support::Response {
    gateway.post_json("/v1/x", &json!({ "model": model }))
}

#[test]
fn a_list_of_megabytes_is_read() {
    let (_long, _other, gateway) = lists_of(long_list("a", 3, 1 << 20), r#"{"data":[{"id":"b"}]}"#);
    assert_eq!((ask(&gateway, "a-2").text().as_str(), ask(&gateway, "b").text().as_str()), ("long", "POST /v1/x"));
    ask(&gateway, "none").assert_error(404, "model_not_found");
    assert_eq!(gateway.get("/v1/models").json()["data"].as_array().map(Vec::len), Some(4));
}

#[test]
fn a_list_that_is_too_large_makes_no_worker_serve_everything_and_is_told() {
    let (_long, _other, gateway) = lists_of(long_list("a", 9, 1 << 20), r#"{"data":[{"id":"b"}]}"#);
    gateway.wait_for_log("larger than 8 MiB");
    ask(&gateway, "none").assert_error(404, "model_not_found");
    assert_eq!(ask(&gateway, "b").text(), "POST /v1/x");
    let alone = Worker::new(|request, conn| match request.target.as_str() {
        "/v1/models" => conn.answer_as(200, "application/json", long_list("a", 9, 1 << 20)),
        _ => conn.answer(200, "long"),
    })
    .bare();
    let gateway = before(&[&alone]);
    assert_eq!(ask(&gateway, "a").text(), "long", "there is no choice to make");
}

#[test]
fn the_same_models_of_a_long_list_are_listed_and_served() {
    let (_long, _other, gateway) = lists_of(long_list("a", 1500, 0), r#"{"data":[{"id":"b"}]}"#);
    gateway.wait_for_log("lists more than 1024 models");
    let list = gateway.get("/v1/models").json();
    let ids: Vec<_> = list["data"].as_array().expect("a list").iter().map(|it| it["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), ids.contains(&"a-1023"), ids.contains(&"a-1024")), (1025, true, false));
    assert_eq!(ask(&gateway, "a-1023").text(), "long");
    ask(&gateway, "a-1024").assert_error(404, "model_not_found");
}
