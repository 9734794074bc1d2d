//! A body is collected only when an applicable module is shown it; else it flows as it comes.

use crate::support::{Client, Gate, Gateway, Module, Worker, request};
use serde_json::json;

/// A worker that opens `got` when the first part of a body is there, and answers in two parts with `go` between them.
fn in_parts(got: &Gate, go: &Gate) -> Worker {
    let (got, go) = (got.clone(), go.clone());
    Worker::on_head(move |request, conn| {
        if request.method == "POST" {
            if let Ok(Some(_)) = conn.read_until("first") {
                got.open();
            }
            let _ = conn.read_until("second");
        }
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
        go.wait();
        conn.send("world");
        conn.close();
    })
}

/// Sends the first part of a body; the second is for the test to send.
fn uploading(gateway: &Gateway) -> Client {
    let mut client = gateway.connect();
    client.send(request("h", "POST", "/", &[("Content-Length", "11")], b""));
    client.send("first");
    client
}

#[test]
fn an_upload_flows_past_modules_that_are_at_responses_or_on_other_paths() {
    let elsewhere = json!({ "paths": ["/other"] });
    for module in [Module::hostile().at(&["OnResponse"]), Module::hostile().set("match", elsewhere)] {
        let (got, go) = (Gate::new(), Gate::new());
        let worker = in_parts(&got, &go);
        let gateway = Gateway::with_modules(&worker).start();
        gateway.add(&module);
        let mut client = uploading(&gateway);
        got.wait();
        client.send("second");
        go.open();
        assert_eq!(client.read_response().text(), "helloworld");
    }
}

#[test]
fn an_upload_that_a_module_is_to_see_is_not_sent_before_it_has_seen_it() {
    let (got, go) = (Gate::new(), Gate::new());
    let worker = in_parts(&got, &go);
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile().at(&["OnRequest"]));
    let mut client = uploading(&gateway);
    assert!(client.is_silent_for(std::time::Duration::from_millis(100)));
    assert!(worker.requests().is_empty(), "not even its head, which the module may yet refuse");
    client.send("second");
    go.open();
    assert_eq!(client.read_response().text(), "helloworld");
}

#[test]
fn an_answer_flows_past_modules_that_are_at_requests_or_on_other_paths() {
    let elsewhere = json!({ "methods": ["PUT"] });
    for module in [Module::hostile().at(&["OnRequest"]), Module::hostile().set("match", elsewhere)] {
        let (got, go) = (Gate::new(), Gate::new());
        let worker = in_parts(&got, &go);
        let gateway = Gateway::with_modules(&worker).start();
        gateway.add(&module);
        let mut client = gateway.connect();
        client.send_request("GET", "/", &[], b"");
        client.read_until("hello");
        go.open();
        client.read_until("world");
    }
}
