//! `POST /wasm`: what it takes, and what it answers.

use crate::support::{Component, Files, Gateway, Module, Worker, guest, run};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("Content-Type", "application/json");

#[test]
fn a_deployment_answers_the_same_object_with_its_uuid() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let module =
        Module::new("minimal", &guest("minimal")).set("order", json!(7)).set("config", json!({"a": [1, null]}));
    let answer = gateway.try_deploy(module.json());
    assert_eq!((answer.status, answer.headers.get("content-type")), (200, Some("application/json")));
    let mut answered = answer.json();
    let uuid = answered["modules"][0]["add_result"]["Success"].take();
    let uuid: uuid::Uuid = uuid.as_str().expect("a uuid").parse().expect("a uuid");
    let expected = module.set("add_result", json!({ "Success": null }));
    assert_eq!(answered, json!({ "modules": [expected.json()] }));
    assert_eq!(gateway.modules()["modules"][0]["module_uuid"], uuid.to_string());
}

#[test]
fn one_refused_module_makes_it_a_400_and_the_others_stay_deployed() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let [first, last] =
        ["first", "last"].map(|mark| Module::new(mark, &files.component(mark, &Component::marking(mark))));
    let missing = Module::new("missing", &files.named("missing.wasm"));
    let answer = gateway.post_json("/wasm", &json!({ "modules": [first.json(), missing.json(), last.json()] }));
    assert_eq!(answer.status, 400);
    let answered = answer.json();
    let results: Vec<&Value> = answered["modules"].as_array().unwrap().iter().map(|m| &m["add_result"]).collect();
    assert!(results[0]["Success"].is_string() && results[2]["Success"].is_string(), "{results:?}");
    assert_eq!(results[1], &json!({ "Error": "no such file" }));
    gateway.get("/");
    assert_eq!(worker.wait_for_request().headers.all("x-request-mark"), ["first", "last"]);
}

#[test]
fn an_empty_list_is_a_success() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let answer = gateway.post_json("/wasm", &json!({ "modules": [] }));
    assert_eq!((answer.status, answer.json()), (200, json!({ "modules": [] })));
}

#[test]
fn an_earlier_answer_may_be_sent_back() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let first = gateway.try_deploy(Module::hostile().json()).json();
    let uuid = first["modules"][0]["add_result"]["Success"].as_str().expect("a uuid");
    gateway.remove(uuid);
    let second = gateway.post_json("/wasm", &first);
    assert_eq!(second.status, 200, "{}", second.text());
    assert_ne!(second.json()["modules"][0]["add_result"]["Success"], uuid, "a uuid is never used again");
}

#[test]
fn what_is_no_json_is_a_400() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let module = Module::hostile().set("config", json!("HERE")).json().to_string();
    let nested = |open: &str| format!(r#"{{"modules":[{}]}}"#, module.replace("\"HERE\"", &open.repeat(200_000)));
    let trailing = format!(r#"{{"modules":[{module}]}} and more"#);
    let bad_utf8 = [&b"{\"modules\":[],\""[..], b"\xff", b"\":1}"].concat();
    let (lists, objects) = (nested("["), nested("{\"a\":"));
    let bodies: [&[u8]; 8] = [
        b"",
        b"{",
        b"modules",
        b"{\"modules\":[",
        &bad_utf8,
        trailing.as_bytes(),
        lists.as_bytes(),
        objects.as_bytes(),
    ];
    for body in bodies {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]);
        let answer = gateway.request("POST", "/wasm", &[JSON], body);
        assert_eq!(answer.status, 400, "{shown}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "invalid_json", "{shown}");
    }
    assert_eq!(gateway.modules()["modules"], json!([]));
}

#[test]
fn a_wrong_field_is_a_422_that_says_where() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let good = Module::hostile();
    let without = |field: &str| {
        let mut module = good.json().clone();
        module.as_object_mut().expect("an object").remove(field);
        module
    };
    let with = |field: &str, value: Value| good.clone().set(field, value).json().clone();
    let cases = [
        (without("name"), "name"),
        (without("file_path"), "file_path"),
        (without("module_type"), "module_type"),
        (without("attach_points"), "attach_points"),
        (with("module_type", json!("Filter")), "module_type"),
        (
            with("attach_points", json!([{ "Middleware": "OnRequest" }, { "Middleware": "OnStart" }])),
            "attach_points[1]",
        ),
        (with("attach_points", json!(["OnRequest"])), "attach_points[0]"),
        (with("attach_points", json!("OnRequest")), "attach_points"),
        (with("name", json!(1)), "name"),
        (with("nmae", json!("x")), "nmae"),
        (with("on_failure", json!("maybe")), "on_failure"),
        (with("on_failure", json!({ "OnStart": "open" })), "on_failure"),
        (with("instance", json!({ "mode": "shared" })), "instance"),
        (with("instance", json!({ "mode": "single", "size": 2 })), "instance"),
        (with("limits", json!({ "memory_pages": -1 })), "limits.memory_pages"),
        (with("limits", json!({ "stack": 1 })), "limits"),
        (with("streaming", json!("buffer")), "streaming"),
        (with("order", json!(1.5)), "order"),
        (with("match", json!({ "paths": "/v1" })), "match.paths"),
        (with("allow_duplicate", json!("yes")), "allow_duplicate"),
        (json!("auth"), "modules[1]"),
    ];
    for (module, wanted) in cases {
        let answer = gateway.post_json("/wasm", &json!({ "modules": [good.json(), module] }));
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, 422, "{module}: {message}");
        assert!(message.contains("modules[1]") && message.contains(wanted), "{module}: {message}");
    }
    for body in [json!({}), json!([]), json!({ "modules": {} }), json!({ "modules": [], "more": 1 })] {
        assert_eq!(gateway.post_json("/wasm", &body).status, 422, "{body}");
    }
    assert_eq!(gateway.modules()["modules"], json!([]), "a body that is refused deploys none of its modules");
}

#[test]
fn any_other_content_type_is_a_415() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let body = json!({ "modules": [] }).to_string();
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonx", "json", ""]
    {
        let answer = gateway.request("POST", "/wasm", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!(answer.status, 415, "{kind}");
    }
    assert_eq!(gateway.request("POST", "/wasm", &[], body.as_bytes()).status, 415, "none at all");
    for kind in ["application/json; charset=utf-8", "Application/JSON", "application/json ;x=y"] {
        let answer = gateway.request("POST", "/wasm", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!(answer.status, 200, "{kind}");
    }
}

#[test]
fn a_name_is_one_to_128_characters_without_control_characters() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for name in ["", "a\nb", "\u{1b}[2J", "a\0", &"é".repeat(129)] {
        let error = gateway.refusal(&Module::new(name, &guest("minimal")));
        assert!(error.contains("name"), "{name:?}: {error}");
    }
    for name in ["é".repeat(128), "a \"b\" {c} \\".to_owned(), "モジュール".to_owned()] {
        let uuid = gateway.add(&Module::new(&name, &guest("minimal")));
        assert_eq!(gateway.meta(&uuid)["name"], name);
        gateway.get("/");
        gateway.metrics();
        gateway.remove(&uuid);
    }
}

#[test]
fn a_name_that_is_taken_names_the_uuid_of_who_has_it() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    for other in [Module::hostile(), Module::new("hostile", &guest("minimal"))] {
        let error = gateway.refusal(&other);
        assert!(error.contains(&uuid), "{error}");
        let error = gateway.refusal(&other.set("allow_duplicate", json!(true)));
        assert!(error.contains(&uuid), "{error}");
    }
    gateway.remove(&uuid);
    assert_ne!(gateway.add(&Module::hostile()), uuid);
}

#[test]
fn the_same_bytes_under_another_name_need_allow_duplicate() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let copy = files.write("copy.wasm", std::fs::read(guest("hostile")).unwrap());
    let uuid = gateway.add(&Module::hostile());
    for file in [&guest("hostile"), &copy] {
        let error = gateway.refusal(&Module::new("other", file));
        assert!(error.starts_with("Duplicate SHA256") && error.contains(&uuid), "{error}");
        assert!(error.contains("allow_duplicate"), "{error}");
        let error = gateway.refusal(&Module::new("other", file).set("allow_duplicate", json!(false)));
        assert!(error.starts_with("Duplicate SHA256"), "{error}");
    }
    gateway.add(&Module::new("other", &copy).set("allow_duplicate", json!(true)));
    assert_eq!(gateway.provoke("add-header:x-twice=1").status, 200);
    assert_eq!(worker.wait_for_request().headers.all("x-twice"), ["1", "1"]);
}

#[test]
fn without_attach_points_nothing_is_deployed() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let error = gateway.refusal(&Module::hostile().at(&[]));
    assert!(error.contains("attach_points"), "{error}");
    let uuid = gateway.add(&Module::hostile().at(&["OnResponse", "OnResponse"]));
    assert_eq!(gateway.meta(&uuid)["attach_points"], json!([{ "Middleware": "OnResponse" }]));
    assert_eq!(gateway.provoke("reject:418").status, 200, "it does not run on requests");
}

#[test]
fn other_methods_are_405_and_told_which_there_are() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for (method, path, allowed) in
        [("PUT", "/wasm", "GET, POST"), ("DELETE", "/wasm", "GET, POST"), ("POST", "/wasm/x", "GET, DELETE")]
    {
        let answer = gateway.request(method, path, &[JSON], b"{}");
        assert_eq!((answer.status, answer.headers.get("allow")), (405, Some(allowed)), "{method} {path}");
    }
    assert!(worker.requests().is_empty());
}

#[test]
fn without_enable_wasm_every_use_of_it_says_how_to_enable_it() {
    let gateway = Gateway::builder().start_unready();
    let id = uuid::Uuid::nil();
    let uses = [
        ("GET", "/wasm".to_owned()),
        ("POST", "/wasm".to_owned()),
        ("GET", format!("/wasm/{id}")),
        ("DELETE", format!("/wasm/{id}")),
    ];
    for (method, path) in uses {
        let answer = gateway.request(method, &path, &[JSON], b"");
        assert_eq!(
            (answer.status, answer.headers.get("content-type")),
            (503, Some("application/json")),
            "{method} {path}"
        );
        let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("--enable-wasm"), "{method} {path}: {message}");
    }
}

#[test]
fn a_refused_deployment_changes_nothing() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let uuid = gateway.add(&Module::new("m", &files.component("v1", &Component::marking("v1"))));
    gateway.get("/");
    let before = gateway.modules();
    gateway.refusal(&Module::new("m", &files.component("v2", &Component::marking("v2"))));
    gateway.refusal(&Module::new("n", &files.write("n.wasm", b"nonsense")));
    gateway.refusal(&Module::new(
        "n",
        &files.component("n", &Component::default().items("(func $s unreachable)(start $s)")),
    ));
    assert_eq!(gateway.modules(), before);
    assert_eq!(gateway.get("/").headers.get("x-response-mark"), Some("v1"));
    gateway.remove(&uuid);
}

#[test]
fn modules_of_the_command_line_are_there_for_the_first_request() {
    let worker = Worker::echo();
    let files = Files::new();
    let [a, b] = ["a", "b"].map(|mark| files.component(mark, &Component::marking(mark)));
    let gateway =
        Gateway::with_modules(&worker).arg(format!("--wasm-module=a={a}")).arg(format!("--wasm-module=b={b}"));
    let gateway = gateway.start();
    assert_eq!(gateway.get("/").headers.all("x-response-mark"), ["b", "a"]);
    let names: Vec<Value> =
        gateway.modules()["modules"].as_array().unwrap().iter().map(|m| m["module_meta"]["name"].clone()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn a_module_of_the_command_line_that_cannot_be_deployed_ends_the_start() {
    let files = Files::new();
    let bad = files.write("bad.wasm", b"nonsense");
    let ran = run(&["--host=127.0.0.1", "--port=0", "--enable-wasm", &format!("--wasm-module=auth={bad}")], &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("--wasm-module auth") && ran.stderr.contains("not a"), "{}", ran.stderr);
    let ran = run(&["--host=127.0.0.1", "--port=0", &format!("--wasm-module=auth={}", guest("auth"))], &[]);
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("--enable-wasm"), "{}", ran.stderr);
}
