//! The model that a request names, wherever it stands in it: behind an image, in a form, in a query, in a compressed
//! body. It picks the workers, and the request arrives as it was.

use crate::support::{
    ConfigFile, Gate, Gateway, H2, Last, Worker, assert_is_switching, codings, gzip, switching, upgrade_request,
};
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A worker that answers with its name, or switches protocols if it is asked to.
fn named(name: &'static str) -> Worker {
    Worker::new(move |request, conn| {
        if request.headers.has("upgrade") {
            conn.leave_http();
            return conn.send(switching(&format!("X-Worker: {name}\r\n")));
        }
        conn.answer(200, name);
    })
}

fn config(workers: &[Worker; 2]) -> ConfigFile {
    let [a, b] = workers.each_ref().map(Worker::url);
    let pools = format!("pools:\n- {{model: a, workers: [{a}]}}\n- {{model: org/b, workers: [{b}]}}\n");
    ConfigFile::new(format!("disable_health_check: true\n{pools}"))
}

/// Workers `a` and `b` of the models `a` and `org/b`.
fn two() -> (Gateway, [Worker; 2]) {
    two_with(&[])
}

fn two_with(args: &[&str]) -> (Gateway, [Worker; 2]) {
    let workers = ["a", "b"].map(named);
    (config(&workers).gateway().args(args.iter().copied()).start(), workers)
}

/// Sends a body, which must arrive as it was at the worker `name`.
#[track_caller]
fn arrives(gateway: &Gateway, workers: &[Worker; 2], name: &str, headers: &[(&str, &str)], body: &[u8]) {
    let answer = gateway.request("POST", "/v1/x", headers, body);
    assert_eq!((answer.status, answer.text().as_str()), (200, name), "{headers:?}");
    let got = workers[usize::from(name == "b")].wait_for_request();
    assert!(got.body == body, "{headers:?}: {} bytes instead of {}", got.body.len(), body.len());
    for (name, value) in headers.iter().filter(|(name, _)| name.starts_with("Content")) {
        assert_eq!(got.headers.get(name), Some(*value));
    }
}

fn image() -> String {
    "data:image/png;base64,".to_owned() + &"iVBORw0KGgoAAAANSUhEUg/+".repeat(130_000)
}

fn multipart(model: &str, file: &[u8]) -> Vec<u8> {
    let file_head = "--xYzZY\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
                     Content-Type: audio/wav\r\n\r\n";
    let model =
        format!("\r\n--xYzZY\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--xYzZY--\r\n");
    [file_head.as_bytes(), file, model.as_bytes()].concat()
}

const MULTIPART: (&str, &str) = ("Content-Type", "multipart/form-data; boundary=xYzZY");

#[test]
fn a_chat_with_a_large_image_finds_its_model() {
    let (gateway, workers) = two();
    let image = json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image()}}]}]);
    for body in [
        format!("{{\"messages\":{image},\"model\":\"org/b\"}}"),
        format!("{{\"model\":\"org\\u002fb\",\"messages\":{image}}}"),
        format!(" {{\"messages\":{image},\"model\":\"org/b\"}}\n"),
    ] {
        arrives(&gateway, &workers, "b", &[JSON], body.as_bytes());
        let mut client = H2::connect(&gateway);
        let answer = client.request("POST", "/", &[("content-type", "application/json")], body.as_bytes());
        assert_eq!((answer.status, answer.text().as_str()), (200, "b"));
        assert!(workers[1].wait_for_request().body == body.as_bytes());
    }
}

#[test]
fn a_form_with_a_file_finds_its_model() {
    let (gateway, workers) = two();
    for length in [0, 10, 3 << 20] {
        let file: Vec<u8> = (0..length).map(|at| b"\r\n--xYzZ"[at % 8]).collect();
        for (model, name) in [("a", "a"), ("org/b", "b")] {
            arrives(&gateway, &workers, name, &[MULTIPART], &multipart(model, &file));
        }
    }
    gateway.request("POST", "/", &[MULTIPART], &multipart("c", b"x")).assert_error(404, "model_not_found");
}

#[test]
fn forms_and_json_of_any_type_find_their_model() {
    let (gateway, workers) = two();
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    arrives(&gateway, &workers, "b", &[form], b"file=x&model=org%2Fb");
    let json = b" {\"x\":[\"model\"],\"model\":\"org/b\"}";
    for kind in ["text/plain;charset=UTF-8", "application/octet-stream", "application/vnd.x+json", "application/foo"] {
        arrives(&gateway, &workers, "b", &[("Content-Type", kind)], json);
    }
    arrives(&gateway, &workers, "b", &[form], json);
    arrives(&gateway, &workers, "b", &[], json);
}

#[test]
fn a_query_names_the_model_where_no_body_does() {
    let (gateway, workers) = two();
    for (path, name) in [("/v1/realtime?model=a", "a"), ("/v1/realtime?x=1&model=org%2Fb&y=model", "b")] {
        let mut client = gateway.connect();
        client.send(upgrade_request(gateway.address, path, ""));
        let answer = client.read_head();
        assert_is_switching(&answer);
        assert_eq!(answer.headers.get("x-worker"), Some(name));
        assert_eq!(workers[usize::from(name == "b")].wait_for_request().target, path);
    }
    let mut client = gateway.connect();
    client.send(upgrade_request(gateway.address, "/v1/realtime?model=c", ""));
    client.read_response().assert_error(404, "model_not_found");
    let audio = [("Content-Type", "audio/wav")];
    assert_eq!(gateway.request("POST", "/v1/listen?model=org/b", &audio, b"{\"model\":\"a\"}").text(), "b");
    assert_eq!(gateway.request("POST", "/v1/x?model=a", &[JSON], b"{\"model\":\"org/b\"}").text(), "b");
    assert_eq!(gateway.get("/v1/x?model=org/b").text(), "b");
}

#[test]
fn a_compressed_body_is_looked_into_and_arrives_compressed() {
    let (gateway, workers) = two();
    let long = format!("{{\"prompt\":\"{}\",\"model\":\"org/b\"}}", image());
    for body in ["{\"model\":\"org/b\"}", long.as_str()] {
        for (coding, coded) in codings(body.as_bytes()) {
            arrives(&gateway, &workers, "b", &[JSON, ("Content-Encoding", coding)], &coded);
        }
    }
    let coded = gzip(&multipart("org/b", b"x"));
    arrives(&gateway, &workers, "b", &[MULTIPART, ("Content-Encoding", "x-gzip")], &coded);
    let coded = gzip(b"{\"model\":\"c\"}");
    gateway.request("POST", "/", &[JSON, ("Content-Encoding", "gzip")], &coded).assert_error(404, "model_not_found");
    // Many workers take a body for what it is, whatever the field says.
    for coding in ["gzip", "deflate", "br", "zstd"] {
        for length in 0..20 {
            let body = format!("{{\"x\":\"{}\",\"model\":\"org/b\"}}", "y".repeat(length));
            arrives(&gateway, &workers, "b", &[JSON, ("Content-Encoding", coding)], body.as_bytes());
        }
        arrives(&gateway, &workers, "b", &[MULTIPART, ("Content-Encoding", coding)], &multipart("org/b", b"x"));
    }
    let broken = &gzip(&[b' '; 10_000])[..20];
    assert_eq!(gateway.request("POST", "/", &[JSON, ("Content-Encoding", "gzip")], broken).status, 200);
}

#[test]
fn a_coding_that_is_not_known_is_refused_where_the_model_decides() {
    let (gateway, workers) = two();
    for coding in ["compress", "gzip, br"] {
        let answer = gateway.request("POST", "/", &[JSON, ("Content-Encoding", coding)], b"x");
        answer.assert_error(415, "unsupported_content_encoding");
        assert_eq!(answer.headers.get("accept-encoding"), Some("gzip, deflate, br, zstd"));
        let answer = gateway.request("POST", "/", &[("Content-Type", "audio/wav"), ("Content-Encoding", coding)], b"x");
        assert_eq!(answer.status, 200, "nobody reads it");
        let alone = Gateway::builder().worker(&workers[1]).start();
        assert_eq!(alone.request("POST", "/", &[JSON, ("Content-Encoding", coding)], b"x").status, 200);
    }
}

// 100 MB in half a megabyte. While it is decoded others are served.
#[test]
fn what_a_compressed_body_may_hold_is_bounded() {
    let (gateway, workers) = two_with(&["--shards=1"]);
    let bomb = gzip(&vec![b' '; 100 << 20]);
    let headers = [JSON, ("Content-Encoding", "gzip")];
    let mut client = gateway.connect();
    client.send_request("POST", "/", &headers, &bomb);
    client.set_patience(Duration::from_secs(60));
    let start = Instant::now();
    assert_eq!(gateway.get("/health").status, 200);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    client.read_response().assert_error(413, "request_body_too_large");
    let nothing = gzip(b"").repeat(20_000);
    assert_eq!(gateway.request("POST", "/", &headers, &nothing).status, 200);
    let fits = gzip(format!("{}{{\"model\":\"org/b\"}}", " ".repeat(15 << 20)).as_bytes());
    arrives(&gateway, &workers, "b", &headers, &fits);
}

#[test]
fn what_can_t_be_judged_is_passed_on() {
    let (gateway, workers) = two();
    let deep = |count: usize| format!("{{\"x\":{}{},\"model\":\"org/b\"}}", "[".repeat(count), "]".repeat(count));
    for count in [200, 100_000] {
        arrives(&gateway, &workers, "b", &[JSON], deep(count).as_bytes());
        arrives(&gateway, &workers, "b", &[JSON], deep(count).replacen("\"x\"", "\"messages\"", 1).as_bytes());
    }
    arrives(&gateway, &workers, "b", &[JSON], b"{\"t\":NaN,\"model\":\"org/b\"}");
    arrives(&gateway, &workers, "b", &[JSON], b"{\"model\":\"org/b\",\"x\":");
    for body in ["[\"a\"]", "model=a", "\0", "{", "{\"model\":null}", "\u{ff}", "--"] {
        for headers in [&[JSON][..], &[], &[MULTIPART], &[("Content-Type", "text/plain")]] {
            let answer = gateway.request("POST", "/", headers, body.as_bytes());
            assert_eq!(answer.status, 200, "{headers:?} {body}");
        }
    }
}

#[test]
fn of_several_models_in_json_the_last_counts() {
    let (gateway, workers) = two_with(&["--max-buffered-request-bytes=100000"]);
    let gap = " ".repeat(50_000);
    for body in [
        "{\"model\":\"a\",\"model\":\"org/b\"}".to_owned(),
        format!("{{\"model\":\"a\",{gap}\"mode\\u006c\":\"org/b\"}}"),
        "{\"model\":\"a\",\"x\":{\"model\":\"a\"},\"model\":\"org/b\",\"y\":\"\\\"model\\\":\\\"a\\\"\"}".to_owned(),
    ] {
        arrives(&gateway, &workers, "b", &[JSON], body.as_bytes());
    }
}

/// A worker that answers once it has read everything, and says whether that came.
fn reading(gate: &Gate) -> Worker {
    let gate = gate.clone();
    Worker::on_head(move |_, conn| {
        gate.open();
        let (body, ended) = conn.read_body();
        conn.answer(200, format!("{} {}", body.len(), ended.is_ok()));
    })
}

// What is known is not waited for: of a long body with its model in front, no more is held than may be sent again.
#[test]
fn a_long_body_is_sent_on_once_its_model_is_known() {
    let gates = [(); 2].map(|()| Gate::new());
    let workers = gates.each_ref().map(reading);
    let gateway = config(&workers).gateway().arg("--max-buffered-request-bytes=10000").start();
    let body = format!("{{\"model\":\"org/b\",\"prompt\":\"{}\"}}", "x".repeat(30_000));
    let (first, rest) = body.split_at(20_000);
    let mut client = gateway.connect();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{first}", body.len()));
    gates[1].wait();
    assert!(!gates[0].is_open());
    client.send(rest);
    assert_eq!(client.read_response().text(), format!("{} true", body.len()));
}

// A worker would take the last one, which must not get round the pool of the first.
#[test]
fn a_long_body_that_names_another_model_in_the_end_is_seen_whole_by_no_worker() {
    let gates = [(); 2].map(|()| Gate::new());
    let workers = gates.each_ref().map(reading);
    let gateway = config(&workers).gateway().arg("--max-buffered-request-bytes=10000").start();
    let filler = "x".repeat(30_000);
    let json = format!("{{\"model\":\"org/b\",\"prompt\":\"{filler}\",\"model\":\"a\"}}");
    let field = "--xYzZY\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\norg/b\r\n";
    let form = [field.as_bytes(), &multipart("a", filler.as_bytes())].concat();
    for (kind, body) in [(JSON, json.as_bytes()), (MULTIPART, &form)] {
        for first in [20_000, body.len()] {
            let mut client = gateway.connect();
            client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{}: {}\r\n", kind.0, kind.1));
            client.send(format!("Content-Length: {}\r\n\r\n", body.len())).send(&body[..first]);
            if first < body.len() {
                gates[1].wait();
                client.send(&body[first..]);
            }
            let answer = client.read_response();
            // Whatever came in one piece was held whole, and its last model counts.
            match answer.status {
                400 => answer.assert_error(400, "invalid_request"),
                _ => assert_eq!((first, answer.text()), (body.len(), format!("{} true", body.len()))),
            }
        }
    }
}

#[test]
fn a_model_that_does_not_come_is_not_searched_for_without_end() {
    let (gateway, workers) = two_with(&["--max-buffered-request-bytes=1000", "--max-scanned-request-bytes=100000"]);
    let filler = "x".repeat(90_000);
    arrives(&gateway, &workers, "b", &[JSON], format!("{{\"x\":\"{filler}\",\"model\":\"org/b\"}}").as_bytes());
    let early = format!("{{\"model\":\"org/b\",\"x\":\"{filler}{filler}\"}}");
    arrives(&gateway, &workers, "b", &[JSON], early.as_bytes());
    let late = format!("{{\"x\":\"{filler}{filler}\",\"model\":\"org/b\"}}");
    gateway.request("POST", "/", &[JSON], late.as_bytes()).assert_error(413, "request_body_too_large");
    let chunked = format!("{:x}\r\n{late}\r\n0\r\n\r\n", late.len());
    let answer = gateway.request("POST", "/", &[JSON, ("Transfer-Encoding", "chunked")], chunked.as_bytes());
    answer.assert_error(413, "request_body_too_large");
    // With one model nobody searches.
    let alone = Gateway::builder().worker(&workers[1]).arg("--max-scanned-request-bytes=1").start();
    assert_eq!(alone.request("POST", "/", &[JSON], late.as_bytes()).status, 200);
}

// Its client may wait for the answer before it says more.
#[test]
fn a_body_that_may_be_half_of_a_talk_is_not_read() {
    let gates = [(); 2].map(|()| Gate::new());
    let workers = gates.each_ref().map(|gate| {
        let gate = gate.clone();
        Worker::on_head(move |_, conn| {
            conn.answer(200, "early");
            gate.open();
            conn.read_body().1.expect("it ends");
        })
    });
    let gateway = config(&workers).gateway().start();
    for kind in ["application/grpc", "application/octet-stream", "text/event-stream", "audio/wav"] {
        let mut client = gateway.connect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(head);
        assert_eq!(client.read_response().text(), "early", "{kind}");
        client.send("1\r\nx\r\n0\r\n\r\n");
    }
}

// What was held to find the model is sent again, as any other body.
#[test]
fn a_body_is_sent_again_as_far_as_it_may_be_kept() {
    let refusing = || {
        let met = std::sync::atomic::AtomicUsize::new(0);
        Worker::new(move |request, conn| match met.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => conn.answer(503, "busy"),
            _ => conn.answer(200, &request.body),
        })
    };
    for (length, status) in [(90_000, 200), (110_000, 503)] {
        for framing in ["content-length", "chunks"] {
            let workers = [refusing(), refusing()];
            let flags = ["--max-buffered-request-bytes=100000", "--retry-initial-backoff-ms=1"];
            let gateway = config(&workers).gateway().args(flags).start();
            let body = format!("{{\"x\":\"{}\",\"model\":\"org/b\"}}", "y".repeat(length));
            let mut client = H2::connect(&gateway);
            let fields = [("content-type", "application/json")];
            let answer = match framing {
                "chunks" => {
                    let stream = client.start("POST", "/", &fields, Last::No);
                    body.as_bytes().chunks(7000).for_each(|piece| client.data(stream, piece, Last::No));
                    client.data(stream, b"", Last::Yes);
                    client.wait(stream)
                }
                _ => client.request("POST", "/", &fields, body.as_bytes()),
            };
            assert_eq!(answer.status, status, "{length} in {framing}");
            assert!(status == 503 || answer.body == body.as_bytes(), "{length} in {framing}");
        }
    }
}

// Prompts of compressed bodies are read for the policies, too.
#[test]
fn a_compressed_conversation_stays_with_its_worker() {
    let workers = ["0", "1", "2"].map(named);
    let builder = Gateway::builder().workers(&workers).args(["--disable-health-check", "--policy=prefix_hash"]);
    let gateway = builder.start();
    let mut homes = HashSet::new();
    for user in 0..12 {
        let body = json!({"model": "m", "prompt": format!("I am user {user}. ").repeat(60)}).to_string();
        let plain = gateway.request("POST", "/", &[JSON], body.as_bytes()).text();
        for (coding, coded) in codings(body.as_bytes()) {
            let answer = gateway.request("POST", "/", &[JSON, ("Content-Encoding", coding)], &coded);
            assert_eq!(answer.text(), plain, "{coding}, user {user}");
        }
        homes.insert(plain);
    }
    assert!(homes.len() > 1, "they are shared out");
}
