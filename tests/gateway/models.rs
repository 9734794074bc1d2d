//! Several models behind one gateway: the model that a request names picks the workers.

use crate::support::{Builder, Gateway, Worker};
use serde_json::json;

fn empty() -> Builder {
    Gateway::builder().args(["--disable-health-check", "--max-buffered-request-bytes=10000"])
}

/// A worker that answers with its name and what it was sent.
fn named(name: &'static str) -> Worker {
    Worker::new(move |request, conn| conn.answer(200, [name.as_bytes(), b" ", &request.body].concat()))
}

#[track_caller]
fn add(gateway: &Gateway, worker: &Worker, model: Option<&str>) -> String {
    let mut said = json!({ "url": worker.url() });
    if let Some(model) = model {
        said["model_id"] = model.into();
    }
    let answer = gateway.post_json("/workers", &said);
    assert_eq!(answer.status, 202, "{}", answer.text());
    answer.json()["worker_id"].as_str().expect("an id").to_owned()
}

/// Workers `a` and `b` of models with the same names.
fn two() -> (Gateway, [Worker; 2]) {
    let (gateway, workers) = (empty().start_unready(), ["a", "b"].map(named));
    add(&gateway, &workers[0], Some("a"));
    add(&gateway, &workers[1], Some("b"));
    (gateway, workers)
}

fn post(gateway: &Gateway, body: &str) -> crate::support::Response {
    gateway.request("POST", "/v1/chat/completions", &[("Content-Type", "application/json")], body.as_bytes())
}

#[test]
fn the_model_picks_the_worker_and_the_body_arrives_as_it_was() {
    let (gateway, _workers) = two();
    for model in ["a", "b", "b", "a"] {
        for body in [
            format!("{{\"model\":\"{model}\"}}"),
            format!(
                "\n {{ \"messages\": [{{\"model\":\"c\"}}],\t\"model\" : \"\\u006{}\" , \"x\":1.0}}\r\n",
                1 + model.as_bytes()[0] - b'a'
            ),
            format!("{{\"prompt\":\"{}\",\"model\":\"{model}\"}}", "long ".repeat(1900)),
        ] {
            assert_eq!(post(&gateway, &body).text(), format!("{model} {body}"));
        }
        let mut client = gateway.connect();
        client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n{\"model\": \r\n");
        assert!(client.is_silent_for(std::time::Duration::from_millis(20)));
        client.send(format!("4\r\n\"{model}\"}}\r\n0\r\n\r\n"));
        assert_eq!(client.read_response().text(), format!("{model} {{\"model\": \"{model}\"}}"));
    }
}

#[test]
fn a_model_that_nobody_serves_is_refused() {
    let (gateway, workers) = two();
    for body in ["{\"model\":\"c\"}", "{\"model\":\"A\"}", "{\"model\":\"\"}", "{\"model\":1}", "{\"model\":[\"a\"]}"] {
        post(&gateway, body).assert_error(404, "model_not_found");
    }
    assert!(workers.iter().all(|worker| worker.requests().is_empty()));
    assert_eq!(post(&gateway, "{\"model\":\"a\"}").status, 200);
}

#[test]
fn a_request_without_a_body_goes_to_some_worker() {
    let (gateway, _workers) = two();
    for (method, path) in [("GET", "/get_model_info"), ("GET", "/v1/files/1"), ("DELETE", "/v1/files/1")] {
        assert_eq!(gateway.request(method, path, &[], b"").status, 200, "{method} {path}");
    }
}

// As SGLang's `/generate` does, whose body has no model.
#[test]
fn a_body_that_names_no_model_goes_to_some_worker_or_to_one_that_serves_all() {
    let (gateway, _workers) = two();
    for body in ["{}", "{\"text\":\"x\"}", "{\"prompt\":{\"model\":\"b\"}}"] {
        let answer = post(&gateway, body);
        assert_eq!(answer.status, 200, "{body}");
        assert!(["a ", "b "].iter().any(|name| answer.text() == format!("{name}{body}")), "{}", answer.text());
    }
    let rest = named("rest");
    add(&gateway, &rest, None);
    for body in ["{}", "{\"text\":\"x\"}"] {
        assert_eq!(post(&gateway, body).text(), format!("rest {body}"));
    }
}

#[test]
fn a_worker_without_a_model_takes_what_no_other_serves() {
    let (gateway, _workers) = two();
    let rest = named("rest");
    add(&gateway, &rest, None);
    for (model, taken_by) in [("a", "a"), ("b", "b"), ("c", "rest"), ("", "rest")] {
        let body = format!("{{\"model\":\"{model}\"}}");
        assert_eq!(post(&gateway, &body).text(), format!("{taken_by} {body}"));
    }
}

#[test]
fn with_one_model_no_body_is_looked_at() {
    for model in [None, Some("only")] {
        let (gateway, worker) = (empty().start_unready(), named("only"));
        add(&gateway, &worker, model);
        for body in ["no JSON", "{\"model\":\"another\"}", "{\"model\":\"a\",\"model\":\"b\"}", "\0\u{ff}"] {
            assert_eq!(post(&gateway, body).text(), format!("only {body}"));
        }
        assert_eq!(gateway.get("/").status, 200);
    }
}

// All bodies together are kept up to 128 MiB. One that is longer than all may be fills that by itself.
#[test]
fn a_body_that_there_is_no_room_for_is_refused_only_where_its_model_is_asked_for() {
    const LENGTH: usize = 130 << 20;
    let counting = || {
        Worker::on_head(|_, conn| {
            let (body, ended) = conn.read_body();
            conn.answer(200, format!("{} {}", body.len(), ended.is_ok()));
        })
    };
    let (one, other) = (counting(), counting());
    let flags = ["--shards=1", "--disable-health-check", "--max-buffered-request-bytes=500000000"];
    let post_long = |gateway: &Gateway| {
        gateway.request("POST", "/", &[("Content-Length", &LENGTH.to_string())], &vec![b' '; LENGTH])
    };
    // Which of the workers gets it depends on its prompt, but need not.
    let gateway = Gateway::builder().workers([&one, &other]).args(flags).start();
    assert_eq!(post_long(&gateway).text(), format!("{LENGTH} true"));
    let gateway = Gateway::builder().args(flags).start_unready();
    add(&gateway, &one, Some("a"));
    add(&gateway, &other, Some("b"));
    post_long(&gateway).assert_error(503, "overloaded");
}

#[test]
fn a_model_whose_workers_are_out_is_known_and_not_served_by_others() {
    let (gateway, [a, b]) = two();
    let id = add(&gateway, &named("other"), Some("c"));
    let gone = gateway.request("DELETE", &format!("/workers/{id}"), &[], b"");
    assert_eq!(gone.status, 202);
    post(&gateway, "{\"model\":\"c\"}").assert_error(404, "model_not_found");
    let checked = Gateway::builder().start_unready();
    add(&checked, &a, Some("a"));
    add(&checked, &Worker::echo(), Some("dead"));
    crate::support::eventually(std::time::Duration::from_secs(5), || post(&checked, "{\"model\":\"a\"}").status == 200);
    b.set_health(503);
    add(&checked, &b, Some("b"));
    post(&checked, "{\"model\":\"b\"}").assert_error(503, "no_available_workers");
    assert!(b.requests().is_empty());
}

#[test]
fn a_worker_that_is_given_another_model_serves_that_one() {
    let (gateway, workers) = two();
    let b = add(&gateway, &named("third"), Some("third"));
    assert_eq!(gateway.request("DELETE", &format!("/workers/{b}"), &[], b"").status, 202);
    let list = gateway.get("/workers").json();
    let of_b = list["workers"].as_array().expect("a list").iter().find(|worker| worker["url"] == workers[1].url());
    let path = format!("/workers/{}", of_b.expect("it is there")["id"].as_str().expect("an id"));
    let json = [("Content-Type", "application/json")];
    assert_eq!(gateway.request("PATCH", &path, &json, b"{\"model_id\":\"c\"}").status, 202);
    post(&gateway, "{\"model\":\"b\"}").assert_error(404, "model_not_found");
    assert_eq!(post(&gateway, "{\"model\":\"c\"}").text(), "b {\"model\":\"c\"}");
}
