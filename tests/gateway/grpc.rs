//! gRPC: calls over HTTP/2 whose two sides speak in turns, and how its servers answer health checks.

use crate::support::{Code, ConfigFile, Frame, Gateway, H2, H2Worker, Last, StreamEnd};

const GRPC: [(&str, &str); 2] = [("content-type", "application/grpc"), ("te", "trailers")];

/// Greets as soon as it is called, answers each message once it is there, and ends with the call.
fn conversing() -> H2Worker {
    H2Worker::builder().on_head().start(|_, stream| {
        stream.head(200, &[("content-type", "application/grpc")]);
        stream.data("hello;", 0);
        for seen in 0..3 {
            stream.wait_for_body(seen);
            stream.data(format!("{seen};"), 0);
        }
        stream.whole();
        stream.trailers(&[("grpc-status", "0")]);
    })
}

/// Says its next message only when the last one is answered.
#[track_caller]
fn converse(gateway: &Gateway) {
    let mut client = H2::connect(gateway);
    let call = client.start("POST", "/grpc.Service/Chat", &GRPC, Last::No);
    client.wait_until(call, |answer| answer.text() == "hello;");
    for (turn, so_far) in ["hello;0;", "hello;0;1;", "hello;0;1;2;"].into_iter().enumerate() {
        assert!(!client.answer(call).text().contains(&format!("{turn};")), "it was not asked yet");
        client.data(call, b"x", Last::No);
        client.wait_until(call, |answer| answer.text() == so_far);
    }
    client.data(call, b"", Last::Yes);
    let answer = client.wait(call);
    assert_eq!((answer.trailers.get("grpc-status"), answer.end), (Some("0"), StreamEnd::Clean));
}

#[test]
fn both_sides_of_a_call_speak_in_turns_whatever_looks_at_prompts() {
    for policy in ["cache_aware", "prefix_hash", "bucket"] {
        let workers = [conversing(), conversing()];
        let gateway = workers.iter().fold(Gateway::builder(), |builder, worker| builder.worker_url(worker.url()));
        let policy = format!("--policy={policy}");
        let gateway = gateway.args(["--upstream-http2", "--disable-health-check", "--shards=1", &policy]).start();
        for _ in 0..3 {
            converse(&gateway);
        }
        assert_eq!(workers.iter().map(|worker| worker.requests().len()).sum::<usize>(), 3, "{policy}");
        assert!(workers.iter().all(|worker| worker.broken().is_empty()));
    }
}

#[test]
fn a_call_that_names_no_model_goes_to_one_of_several_pools() {
    let workers = [conversing(), conversing()];
    let [one, two] = workers.each_ref().map(H2Worker::url);
    let pools = format!("pools:\n- {{model: one, workers: [{one}]}}\n- {{model: two, workers: [{two}]}}\n");
    let file = ConfigFile::new(format!("upstream_http2: true\ndisable_health_check: true\n{pools}"));
    converse(&file.gateway().start());
    assert_eq!(workers.iter().map(|worker| worker.requests().len()).sum::<usize>(), 1);
}

// The same for uploads of other kinds: each piece is at the worker before the next one is sent.
#[test]
fn an_upload_that_is_no_json_is_not_held_back() {
    let workers = [(); 2].map(|()| {
        H2Worker::builder().on_head().start(|_, stream| {
            stream.wait_for_body(0);
            stream.head(200, &[]);
            stream.data("it came", Frame::END_STREAM);
        })
    });
    let gateway = workers.iter().fold(Gateway::builder(), |builder, worker| builder.worker_url(worker.url()));
    let gateway = gateway.args(["--upstream-http2", "--disable-health-check"]).start();
    let mut client = gateway.connect();
    let kind = "Content-Type: application/octet-stream";
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{kind}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"));
    assert_eq!(client.read_response().text(), "it came");
}

// What grpcio answers to `GET /health`. A connection that ends is no answer.
#[test]
fn a_health_check_that_is_answered_with_a_reset_is_passed() {
    let worker = H2Worker::builder().on_head().start(|request, stream| match request.path.as_str() {
        "/health" => stream.reset(Code::NO_ERROR),
        _ => stream.answer(200, &request.path),
    });
    worker.set_health(0);
    let gateway = Gateway::builder().worker_url(worker.url()).args(["--upstream-http2"]).start();
    assert_eq!(gateway.get("/x").text(), "/x");
    let closing = H2Worker::new(|_, stream| stream.hang_up());
    closing.set_health(0);
    let gateway = Gateway::builder().worker_url(closing.url()).args(["--upstream-http2"]).start_unready();
    gateway.wait_for_log("a health check of the worker failed");
    assert_eq!(gateway.get("/readiness").status, 503);
}
