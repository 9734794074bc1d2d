//! Tags of Sentinel modules: in the log line of their request, and counted, in bounds.

use crate::support::{Gateway, Module, Worker, eventually, guest, obliging};
use serde_json::json;
use std::time::Duration;

const REPLY: (&str, &str) = ("X-Hostile", "reply");

fn with_guest(worker: &Worker) -> Gateway {
    let gateway = Gateway::with_modules(worker).start();
    gateway.add(&Module::sentinel());
    gateway
}

/// What the log line of the request to `path` has as its tags.
#[track_caller]
fn logged_tags(gateway: &Gateway, path: &str) -> String {
    let line = gateway.wait_for_log(&format!("path={path} "));
    let (_, tags) = line.split_once(" tags=").unwrap_or_else(|| panic!("no tags in {line}"));
    tags.split_once(" end=").unwrap_or_else(|| panic!("no end in {line}")).0.to_owned()
}

#[test]
fn whatever_is_decided_its_tags_are_logged_and_counted() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    for (n, (decision, status)) in
        [("allow", 200), ("block", 403), ("redirect", 302), ("what", 200)].into_iter().enumerate()
    {
        let [on_request, on_response] = ["q", "s"].map(|side| format!("{side}{n}"));
        let reply = |tag: &str| json!({ "decision": decision, "body": "/", "tags": ["all", tag] }).to_string();
        let more =
            |path| if decision == "what" { format!("unknown-decision,all,{path}") } else { format!("all,{path}") };
        let answer = gateway.request("GET", &format!("/{on_request}"), &[REPLY, ("X-Reply", &reply(&on_request))], b"");
        assert_eq!(answer.status, status);
        assert_eq!(logged_tags(&gateway, &format!("/{on_request}")), more(&on_request));
        let line = format!("X-Reply: {}", reply(&on_response));
        let lines = [("X-Answer", "X-Hostile: reply"), ("X-Answer", &*line)];
        let answer = gateway.request("GET", &format!("/{on_response}"), &lines, b"");
        assert_eq!(answer.status, status);
        assert_eq!(logged_tags(&gateway, &format!("/{on_response}")), more(&on_response));
        assert_eq!((gateway.tagged(&on_request), gateway.tagged(&on_response)), (1, 1));
    }
    assert_eq!((gateway.tagged("all"), gateway.tagged("unknown-decision")), (8, 2));
    gateway.get("/none");
    assert_eq!(logged_tags(&gateway, "/none"), "");
    assert!(gateway.wait_for_log("path=/q0 ").contains(" modules=sentinel:continue,sentinel:continue "));
}

#[test]
fn tags_of_both_handlers_and_of_all_modules_are_on_one_line() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    gateway.add(&Module::new("second", &guest("sentinel-hostile")).set("allow_duplicate", json!(true)));
    let lines = ["X-Hostile: reply", r#"X-Reply: {"decision":"allow","tags":["s"]}"#].map(|line| ("X-Answer", line));
    let request = [REPLY, ("X-Reply", r#"{"decision":"allow","tags":["q"]}"#)];
    assert_eq!(gateway.request("GET", "/both", &[request, lines].concat(), b"").status, 200);
    assert_eq!(logged_tags(&gateway, "/both"), "q,q,s,s");
    let metrics = gateway.metrics();
    for module in ["sentinel", "second"] {
        for tag in ["q", "s"] {
            let labels = [("module", module), ("tag", tag)];
            assert_eq!(metrics.sum("smg_wasm_tags_total", &labels), 1.0, "{labels:?}");
        }
    }
}

#[test]
fn the_number_of_tags_that_are_counted_apart_is_bounded() {
    let worker = Worker::echo();
    let gateway = with_guest(&worker);
    let mut client = gateway.connect();
    for first in (0..120).step_by(30) {
        let tags: Vec<_> = (first..first + 30).map(|n| format!("tag-{n}")).collect();
        let reply = json!({ "decision": "allow", "tags": tags }).to_string();
        for _ in 0..2 {
            client.send_request("GET", &format!("/many-{first}"), &[REPLY, ("X-Reply", &reply)], b"");
            assert_eq!(client.read_response().status, 200);
        }
        let logged = logged_tags(&gateway, &format!("/many-{first}"));
        assert!(logged.starts_with(&format!("tag-{first},")), "the log has them all: {logged}");
    }
    let metrics = gateway.metrics();
    let counted: Vec<_> = metrics.of("smg_wasm_tags_total").map(|series| (series.label("tag"), series.value)).collect();
    assert_eq!(counted.len(), 65, "{counted:?}");
    let other = counted.iter().find(|(tag, _)| *tag == "(other)").map(|(_, count)| *count);
    assert_eq!(other, Some(2.0 * (120 - 64) as f64));
    assert!(counted.iter().all(|(tag, count)| *tag == "(other)" || *count == 2.0), "{counted:?}");
}

#[test]
fn tags_of_removed_modules_are_counted_together() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::sentinel());
    for tag in ["a", "b", "b"] {
        gateway.ask_for(&json!({ "decision": "allow", "tags": [tag] }).to_string());
    }
    gateway.remove(&uuid);
    let removed = [("module", "(removed)"), ("tag", "(other)")];
    eventually(Duration::from_secs(5), || gateway.metrics().sum("smg_wasm_tags_total", &removed) == 3.0);
    assert_eq!(gateway.metrics().of("smg_wasm_tags_total").count(), 1);
}

#[test]
fn tags_without_measure_are_cut() {
    let worker = obliging();
    let gateway = with_guest(&worker);
    let many = json!({ "decision": "allow", "tags": vec!["t"; 100] }).to_string();
    assert_eq!(gateway.request("GET", "/many", &[REPLY, ("X-Reply", &many)], b"").status, 200);
    assert_eq!(logged_tags(&gateway, "/many"), ["t"; 32].join(","));
    let long = json!({ "decision": "block", "tags": ["t".repeat(1000)] }).to_string();
    assert_eq!(gateway.request("GET", "/long", &[REPLY, ("X-Reply", &long)], b"").status, 403);
    assert_eq!(logged_tags(&gateway, "/long"), "t".repeat(128));
}

#[test]
fn a_tag_cannot_forge_a_line_of_the_log_or_of_the_metrics() {
    let worker = Worker::echo();
    let gateway = with_guest(&worker);
    let forged = "a\nb\"} 7\n2026 WARN forged\u{1b}[2K\u{2028}";
    let reply = json!({ "decision": "allow", "tags": [forged] }).to_string();
    // What a header can't carry is escaped twice.
    let answer = gateway.request("GET", "/forged", &[REPLY, ("X-Reply", &reply.replace('\u{2028}', "\\u2028"))], b"");
    assert_eq!(answer.status, 200);
    let logged = logged_tags(&gateway, "/forged");
    assert_eq!(logged, r#""a_b\"}_7_2026_WARN_forged\\u{1b}[2K_""#);
    assert!(!gateway.log().lines().any(|line| line.starts_with("2026 WARN forged")), "{}", gateway.log());
    let metrics = gateway.get("/metrics").text();
    assert!(!metrics.lines().any(|line| line.starts_with("b\"} 7") || line.starts_with("2026 WARN")), "{metrics}");
    assert_eq!(metrics.lines().filter(|line| line.starts_with("smg_wasm_tags_total")).count(), 1);
}
