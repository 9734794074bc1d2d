//! Workers whose URL has a path: hosted services that speak the OpenAI API, and servers behind a prefix.

use crate::support::{
    Authority, ConfigFile, Files, Gateway, H2Worker, Message, ReceivedRequest, WebSocket, Worker, eventually,
};
use serde_json::json;
use std::time::Duration;

/// Answers with the target, and below `base` with a list of this model.
fn serving(
    base: &'static str,
    model: &'static str,
) -> impl Fn(&ReceivedRequest, &mut crate::support::Conn) + Send + Sync {
    move |request, conn| {
        let bearer = request.headers.get("authorization").unwrap_or("none");
        match request.target.as_str() {
            target if target == format!("{base}/models") => conn.answer_json(&json!({"data": [{"id": model}]})),
            target => {
                conn.answer(200, format!("{model} {target} {} {bearer}", request.headers.get("host").unwrap_or("none")))
            }
        }
    }
}

fn post(gateway: &Gateway, path: &str, model: &str) -> crate::support::Response {
    let headers = [("Content-Type", "application/json"), ("Authorization", "Bearer callers")];
    gateway.request("POST", path, &headers, format!("{{\"model\":\"{model}\"}}").as_bytes())
}

#[test]
fn a_hosted_service_takes_requests_beside_a_worker_of_our_own() {
    let (ours, files) = (Authority::new(), Files::new());
    let acceptor = ours.leaf(&["127.0.0.1"]).acceptor(&[], None);
    let hosted = Worker::with_tls(acceptor, serving("/openai/v1", "hosted")).bare();
    let local = Worker::new(serving("/v1", "local")).bare();
    let roots = ours.write(&files, "roots.pem");
    let text = format!(
        "ca_cert_paths: ['{roots}']\nworker_urls: {}\npools:\n- {{model: hosted, workers: [{{url: '{}/openai/v1/', api_key: theirs}}]}}\n",
        local.url(),
        hosted.url()
    );
    let file = ConfigFile::beside(files, text);
    let gateway = file.gateway().start();
    gateway.wait_for_workers(2);
    let wanted = format!("hosted /openai/v1/chat/completions {} Bearer theirs", hosted.address);
    assert_eq!(post(&gateway, "/v1/chat/completions", "hosted").text(), wanted);
    let wanted = format!("hosted /openai/v1/responses?x=%2F {} Bearer theirs", hosted.address);
    assert_eq!(post(&gateway, "/v1/responses?x=%2F", "hosted").text(), wanted);
    let wanted = format!("local /v1/chat/completions {} Bearer callers", local.address);
    assert_eq!(post(&gateway, "/v1/chat/completions", "local").text(), wanted);
    assert_eq!(gateway.get("/v1/models").json()["data"], json!([{"id": "hosted"}, {"id": "local"}]));
    assert!(hosted.requests().iter().all(|request| request.target.starts_with("/openai/v1/")));
    assert!(hosted.requests().iter().all(|request| request.headers.get("authorization") == Some("Bearer theirs")));
    let urls: Vec<_> = gateway.get("/workers").json()["workers"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|w| w["url"].clone())
        .collect();
    assert!(
        urls.contains(&json!(format!("{}/openai/v1", hosted.url()))) && urls.contains(&json!(local.url())),
        "{urls:?}"
    );
}

#[test]
fn paths_are_appended_to_the_base_path() {
    for (base, pairs) in [
        ("/v1", [("/v1/chat/completions", "/v1/chat/completions"), ("/v1/embeddings?a=b", "/v1/embeddings?a=b")]),
        ("/llama/", [("/v1/chat/completions", "/llama/v1/chat/completions"), ("/", "/llama/")]),
        ("/v1beta/openai", [("/v1/chat/completions", "/v1beta/openai/chat/completions"), ("/v1", "/v1beta/openai")]),
    ] {
        let worker = Worker::new(|request, conn| conn.answer(200, &request.target)).bare();
        let gateway = Gateway::builder().worker_url(format!("{}{base}", worker.url())).start();
        for (asked, sent) in pairs {
            assert_eq!(gateway.get(asked).text(), sent);
        }
        // It must not lead to what else there is on that host, with the worker's key.
        for path in ["/v1/../../admin", "/..%2fadmin", "/v1/%2e%2e/%2E%2e/admin", "/x/..;/..;/admin"] {
            gateway.get(path).assert_error(400, "invalid_request");
        }
        let long = gateway.get(&format!("/v1/{}", "x".repeat(65_000)));
        assert!(long.status == 200 && long.text().ends_with(&"x".repeat(65_000)), "{}", long.status);
        assert!(worker.requests().iter().all(|request| !request.target.contains("admin")));
    }
    let worker = Worker::new(|request, conn| conn.answer(200, &request.target)).bare();
    let gateway = Gateway::builder().worker_url(format!("{}/{}", worker.url(), "b".repeat(1000))).start();
    gateway.get(&format!("/v1/{}", "x".repeat(65_000))).assert_error(414, "uri_too_long");
}

#[test]
fn it_is_checked_by_the_list_of_its_models() {
    let worker = Worker::new(|request, conn| match request.target.as_str() {
        "/x/v1/models" => conn.answer_json(&json!({"data": [{"id": "m"}]})),
        _ => conn.answer(500, "no health endpoint"),
    })
    .bare();
    let flags = ["--health-check-interval-secs=0.1", "--health-failure-threshold=1"];
    let gateway = Gateway::builder().worker_url(format!("{}/x", worker.url())).args(flags).start();
    eventually(Duration::from_secs(5), || worker.requests().len() > 4);
    assert_eq!(gateway.get("/readiness").status, 200);
    assert!(worker.requests().iter().all(|request| request.target == "/x/v1/models"));
    assert_eq!(gateway.get("/workers").json()["workers"][0]["models"], json!(["m"]));
    let down = Worker::new(|_, conn| conn.answer(503, "")).bare();
    let gateway = Gateway::builder().worker_url(format!("{}/x", down.url())).args(flags).start_unready();
    eventually(Duration::from_secs(5), || down.requests().len() > 2);
    assert_eq!(gateway.get("/readiness").status, 503);
}

#[test]
fn http_2_and_upgrades_go_below_the_base_path_too() {
    let h2 = H2Worker::builder().start(|request, stream| stream.answer(200, &request.path));
    let url = h2.url();
    let gateway = Gateway::builder()
        .worker_url(format!("{url}/x/v1"))
        .args(["--upstream-http2", "--disable-health-check"])
        .start();
    assert_eq!(gateway.get("/v1/y").text(), "/x/v1/y");
    let worker = Worker::on_head(|request, conn| {
        assert_eq!(request.target, "/x/v1/realtime?model=m");
        WebSocket::accept(request, conn).echo();
    });
    let gateway = Gateway::builder().worker_url(format!("{}/x", worker.url())).arg("--disable-health-check").start();
    let mut socket = WebSocket::open(gateway.address, "/v1/realtime?model=m");
    assert_eq!(socket.ask(&Message::text("x")).payload, b"x");
}

// A fallback: the second worker of a pool that takes the first one that works.
#[test]
fn a_hosted_service_is_a_fallback_for_a_worker_that_is_down() {
    let hosted = Worker::new(serving("/v1", "m")).bare();
    let mut local = Worker::new(|_, conn| conn.answer(200, "local"));
    let text = format!(
        "pools:\n- {{model: m, policy: passthrough, workers: [{}, {{url: '{}/v1', api_key: theirs}}]}}\n",
        local.url(),
        hosted.url()
    );
    let file = ConfigFile::new(text);
    let gateway = file.gateway().start();
    gateway.wait_for_workers(2);
    assert_eq!(post(&gateway, "/v1/chat/completions", "m").text(), "local");
    local.stop();
    let wanted = format!("m /v1/chat/completions {} Bearer theirs", hosted.address);
    assert_eq!(post(&gateway, "/v1/chat/completions", "m").text(), wanted);
}
