//! `GET /wasm`, `GET /wasm/UUID` and `DELETE /wasm/UUID`.

use crate::support::{Component, Files, Gateway, Module, Worker, guest};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::time::{Duration, SystemTime};

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("{value} is no object"))
}

/// Seconds since the epoch of an RFC 3339 time in UTC.
#[track_caller]
fn seconds(time: &Value) -> f64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let (whole, fraction) = shape.strip_suffix('Z').map_or((&*shape, ""), |rest| rest.split_at(rest.len().min(19)));
    assert!(whole == "0000-00-00T00:00:00" && text.ends_with('Z'), "{text} is no time of RFC 3339 in UTC");
    assert!(fraction.is_empty() || fraction.len() > 1 && fraction.starts_with('.'), "{text}");
    let part = |from: usize, to: usize| text[from..to].parse::<i64>().expect("digits");
    let (year, month, day) = (part(0, 4), part(5, 7), part(8, 10));
    // Days since 1970-01-01 of the proleptic Gregorian calendar, counted from the first of March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719_468;
    let whole = days * 86_400 + part(11, 13) * 3600 + part(14, 16) * 60 + part(17, 19);
    whole as f64 + format!("0{}", &text[19..text.len() - 1]).parse::<f64>().unwrap_or(0.0)
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn a_listed_module_has_every_field_in_its_type() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let before = now();
    let uuid = gateway.add(&Module::hostile());
    let after = now();
    let answer = gateway.get("/wasm");
    assert_eq!((answer.status, answer.headers.get("content-type")), (200, Some("application/json")));
    let list = answer.json();
    assert_eq!(object(&list).keys().collect::<Vec<_>>(), ["metrics", "modules"]);
    let module = &list["modules"][0];
    assert_eq!(object(module).keys().collect::<Vec<_>>(), ["module_meta", "module_uuid"]);
    assert_eq!(module["module_uuid"], uuid);
    let meta = &module["module_meta"];
    let bytes = std::fs::read(guest("hostile")).unwrap();
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(meta["name"], "hostile");
    assert_eq!(meta["file_path"], guest("hostile"));
    assert_eq!(meta["sha256_hash"], hash);
    assert_eq!(meta["size_bytes"], bytes.len());
    assert_eq!(meta["access_count"], 0);
    assert_eq!(meta["attach_points"], json!([{ "Middleware": "OnRequest" }, { "Middleware": "OnResponse" }]));
    let created = seconds(&meta["created_at"]);
    assert!((before - 0.001..=after).contains(&created), "{before} {created} {after}");
    assert_eq!(meta["last_accessed_at"], meta["created_at"], "never called");
    for (field, kind) in [("settings", "object"), ("failures", "object"), ("latency_us", "object"), ("abi", "string")] {
        let right = if kind == "object" { meta[field].is_object() } else { meta[field].is_string() };
        assert!(right, "{field} is {}", meta[field]);
    }
    assert!(meta["version"].is_u64(), "{meta}");
}

#[test]
fn the_average_is_there_only_after_the_first_execution() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let metrics = gateway.modules()["metrics"].take();
    for field in [
        "total_executions",
        "successful_executions",
        "failed_executions",
        "total_execution_time_ms",
        "max_execution_time_ms",
    ] {
        assert_eq!(metrics[field], 0, "{field}");
    }
    assert!(!object(&metrics).contains_key("average_execution_time_ms"), "{metrics}");
    gateway.provoke("spin-ms:30");
    gateway.provoke("trap");
    let metrics = gateway.modules()["metrics"].take();
    assert_eq!(metrics["total_executions"], 3, "both hooks, then one");
    assert_eq!((&metrics["successful_executions"], &metrics["failed_executions"]), (&json!(2), &json!(1)));
    let [total, max] =
        ["total_execution_time_ms", "max_execution_time_ms"].map(|field| metrics[field].as_u64().expect("a number"));
    assert!((30..2000).contains(&max) && (max..2000).contains(&total), "{metrics}");
    let average = metrics["average_execution_time_ms"].as_f64().expect("a number");
    assert!(average >= 10.0 && average <= total as f64, "{metrics}");
}

#[test]
fn a_call_moves_the_count_and_the_time_of_the_last_one() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    let before = now();
    gateway.get("/");
    let meta = gateway.meta(&uuid);
    assert_eq!(meta["access_count"], 2, "one for each hook");
    let last = seconds(&meta["last_accessed_at"]);
    assert!((before - 0.002..=now()).contains(&last), "{before} {last}");
    assert_eq!(gateway.meta(&uuid)["access_count"], 2, "asking does not count");
    for quantile in ["p50", "p90", "p99"] {
        let us = meta["latency_us"][quantile].as_f64().unwrap_or_default();
        assert!(us > 0.0 && us < 2e6, "{meta}");
    }
}

#[test]
fn modules_are_listed_in_the_order_in_which_they_run() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    for (name, order) in [("a", None), ("b", Some(5)), ("c", Some(-1)), ("d", None), ("e", Some(5)), ("f", Some(0))] {
        let module = Module::new(name, &files.component(name, &Component::marking(name)));
        gateway.add(&order.map_or(module.clone(), |order| module.set("order", json!(order))));
    }
    let list = gateway.modules();
    let names: Vec<_> =
        list["modules"].as_array().unwrap().iter().map(|m| m["module_meta"]["name"].as_str().unwrap()).collect();
    gateway.get("/");
    assert_eq!(worker.wait_for_request().headers.all("x-request-mark"), names);
    assert_eq!(names, ["c", "a", "d", "f", "b", "e"]);
}

#[test]
fn one_module_is_shown_as_it_is_listed() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    gateway.add(&Module::new("minimal", &guest("minimal")));
    let answer = gateway.get(&format!("/wasm/{uuid}"));
    assert_eq!((answer.status, answer.headers.get("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json(), gateway.modules()["modules"][0]);
}

#[test]
fn an_unknown_uuid_is_a_404_and_what_is_none_a_400() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    let unknown = uuid::Uuid::new_v4().to_string();
    for method in ["GET", "DELETE"] {
        for (id, status) in [(&*unknown, 404), ("x", 400), ("", 400), (&*format!("{uuid}/x"), 400), (&uuid[1..], 400)] {
            let answer = gateway.request(method, &format!("/wasm/{id}"), &[], b"");
            assert_eq!(answer.status, status, "{method} {id}: {}", answer.text());
            assert!(answer.json()["error"]["message"].is_string(), "{}", answer.text());
        }
    }
    assert_eq!(gateway.modules()["modules"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_removal_says_so_and_acts_on_the_next_request() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    assert_eq!(gateway.provoke("reject:418").status, 418);
    let answer = gateway.request("DELETE", &format!("/wasm/{uuid}"), &[], b"");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Module removed successfully"));
    assert!(answer.headers.get("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    assert_eq!(gateway.provoke("reject:418").status, 200);
    assert_eq!(gateway.modules()["modules"], json!([]));
    for method in ["DELETE", "GET"] {
        assert_eq!(gateway.request(method, &format!("/wasm/{uuid}"), &[], b"").status, 404, "{method} once more");
    }
}

#[test]
fn the_list_answers_at_once_while_a_guest_is_busy() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::hostile());
    let mut busy = gateway.connect();
    busy.send_request("GET", "/", &[("X-Hostile", "spin-ms:700")], b"");
    let start = SystemTime::now();
    for _ in 0..10 {
        gateway.modules();
    }
    assert!(start.elapsed().unwrap() < Duration::from_millis(600), "{:?}", start.elapsed());
    assert_eq!(busy.read_response().status, 200);
}
