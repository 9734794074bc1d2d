//! The fields that callers present keys in: `Authorization: Bearer`, `x-api-key` and `api-key`, for requests to workers
//! and for the admin API alike; which of them go on, and which requests are refused.

use crate::support::{Gateway, H2, Module, Response, Worker};

/// Each field, and what comes before the key in it.
const FIELDS: [(&str, &str); 3] = [("Authorization", "Bearer "), ("X-Api-Key", ""), ("api-key", "")];

fn in_field((name, scheme): (&'static str, &str), key: &str) -> (&'static str, String) {
    (name, format!("{scheme}{key}"))
}

fn ask(gateway: &Gateway, path: &str, fields: &[(&str, String)]) -> Response {
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    gateway.request("GET", path, &fields, b"")
}

fn keyed(worker: &Worker) -> Gateway {
    Gateway::with_modules(worker).args(["--api-key=shared", "--admin-key=of-the-boss"]).start()
}

#[test]
fn a_key_is_taken_from_each_of_the_three_fields() {
    let worker = Worker::echo();
    let gateway = keyed(&worker);
    for field in FIELDS {
        assert_eq!(ask(&gateway, "/v1/messages", &[in_field(field, "shared")]).status, 200, "{field:?}");
        let (name, value) = in_field(field, "shared");
        assert_eq!(worker.wait_for_request().headers.all(name), [value], "workers may ask for the same key");
        assert_eq!(ask(&gateway, "/v1/messages", &[in_field(field, "of-the-boss")]).status, 200, "{field:?}");
        assert!(!worker.wait_for_request().headers.has(name), "{name} carries a key of the gateway alone");
        for path in ["/workers", "/wasm", "/metrics"] {
            assert_eq!(ask(&gateway, path, &[in_field(field, "of-the-boss")]).status, 200, "{path} {field:?}");
        }
        for wrong in ["", "wrong", "share", "shared1", "Bearer shared", "SHARED"] {
            for path in ["/v1/messages", "/workers"] {
                let refused = ask(&gateway, path, &[in_field(field, wrong)]);
                refused.assert_error(401, "invalid_api_key");
            }
        }
    }
    assert_eq!(worker.requests().len(), 6);
}

#[test]
fn two_fields_may_say_the_same_and_not_different_things() {
    let worker = Worker::echo();
    let gateway = keyed(&worker);
    for one in FIELDS {
        for other in FIELDS.into_iter().filter(|other| *other != one) {
            for path in ["/v1/messages", "/workers"] {
                let same = [in_field(one, "shared"), in_field(other, "shared")];
                assert_eq!(ask(&gateway, path, &same).status, 200, "{path} {same:?}");
                for (first, second) in [("shared", "wrong"), ("wrong", "shared"), ("shared", "of-the-boss")] {
                    let different = [in_field(one, first), in_field(other, second)];
                    ask(&gateway, path, &different).assert_error(401, "invalid_api_key");
                }
            }
        }
    }
    let all = FIELDS.map(|field| in_field(field, "of-the-boss"));
    assert_eq!(ask(&gateway, "/all", &all).status, 200);
    let request = worker.requests().pop().expect("the last one");
    assert!(FIELDS.iter().all(|(name, _)| !request.headers.has(name)), "{}", request.head);
}

// What is in front of the gateway may have a scheme of its own, and the worker, too.
#[test]
fn another_scheme_is_no_key_and_goes_on() {
    let worker = Worker::echo();
    let gateway = keyed(&worker);
    let basic = ("Authorization", "Basic dTpw".to_owned());
    ask(&gateway, "/", std::slice::from_ref(&basic)).assert_error(401, "invalid_api_key");
    assert_eq!(ask(&gateway, "/", &[basic.clone(), ("X-Api-Key", "of-the-boss".to_owned())]).status, 200);
    let request = worker.wait_for_request();
    assert_eq!((request.headers.all("authorization"), request.headers.has("x-api-key")), (vec!["Basic dTpw"], false));
    assert_eq!(ask(&gateway, "/workers", &[basic, ("api-key", "of-the-boss".to_owned())]).status, 200);
    // An empty field says nothing.
    let fields = [("X-Api-Key", String::new()), ("Authorization", "Bearer shared".to_owned())];
    assert_eq!(ask(&gateway, "/", &fields).status, 200);
}

#[test]
fn without_keys_for_callers_these_fields_are_the_workers_business() {
    let worker = Worker::echo();
    let (open, administered) =
        (Gateway::before(&worker), Gateway::builder().worker(&worker).arg("--admin-key=of-the-boss").start());
    for gateway in [&open, &administered] {
        for (token, key) in [("a", "a"), ("of-the-worker", "another"), ("", "x")] {
            let fields = [("Authorization", format!("Bearer {token}")), ("X-Api-Key", key.to_owned())];
            assert_eq!(ask(gateway, "/", &fields).status, 200);
            let request = worker.wait_for_request();
            assert_eq!(request.headers.get("x-api-key"), Some(key));
            assert!(request.headers.get("authorization").is_some_and(|value| value.ends_with(token)));
        }
    }
    // The gateway's own key goes no further, whichever field has it.
    for (name, value) in [
        ("Authorization", "Bearer of-the-boss"),
        ("Authorization", "ApiKey of-the-boss"),
        ("Authorization", "of-the-boss"),
        ("X-Api-Key", "of-the-boss"),
        ("api-key", "of-the-boss"),
        ("Proxy-Authorization", "Bearer of-the-boss"),
        ("Authorization", "Bearer\tof-the-boss"),
        ("Authorization", "Bearer Bearer of-the-boss"),
        ("Authorization", "Bearer  of-the-boss of-the-worker"),
        ("Authorization", "Token token=of-the-boss"),
        ("Authorization", "Token token=\"of-the-boss\", x=y"),
        ("X-Api-Key", "x of-the-boss y"),
        ("X-Api-Key", "key=of-the-boss;x"),
        ("api-key", "\"of-the-boss\""),
        ("X_Api_Key", "of-the-boss"),
        ("x-api_key", "a, of-the-boss"),
        ("API_KEY", "Bearer of-the-boss"),
    ] {
        assert_eq!(administered.request("GET", "/", &[(name, value)], b"").status, 200);
        let request = worker.wait_for_request();
        assert!(!request.head.contains("of-the-boss"), "{name}: {}", request.head);
    }
    // Two fields that somebody has joined.
    for (name, value) in [
        ("Authorization", "Bearer x, Bearer of-the-boss"),
        ("Authorization", "Bearer of-the-boss,"),
        ("X-Api-Key", "of-the-boss, x"),
        ("api-key", "of-the-boss,of-the-boss"),
    ] {
        for path in ["/", "/workers"] {
            ask(&administered, path, &[(name, value.to_owned())]).assert_error(401, "invalid_api_key");
        }
    }
    for (name, value) in [("X_Api_Key", "of-the-worker"), ("X-Api-Key", "a, b"), ("Authorization", "Token token=x")] {
        assert_eq!(ask(&administered, "/", &[(name, value.to_owned())]).status, 200);
        assert_eq!(worker.wait_for_request().headers.get(name), Some(value));
    }
    let mixed = [("Authorization", "Bearer of-the-worker".to_owned()), ("X-Api-Key", "of-the-boss".to_owned())];
    ask(&administered, "/", &mixed).assert_error(401, "invalid_api_key");
    assert!(worker.requests().iter().all(|request| !request.head.contains("of-the-boss")));
}

#[test]
fn a_key_that_is_not_presented_as_it_should_be_admits_nobody() {
    let worker = Worker::echo();
    let gateway = keyed(&worker);
    for key in ["shared", "of-the-boss"] {
        for (name, value) in [
            ("Authorization", format!("Bearer\t{key}")),
            ("Authorization", format!("Bearer x, Bearer {key}")),
            ("Authorization", format!("Bearer {key},")),
            ("Authorization", format!("Bearer Bearer {key}")),
            ("Authorization", format!("Token token={key}")),
            ("X-Api-Key", format!("{key}, x")),
            ("X-Api-Key", format!("x {key} y")),
            ("api-key", format!("\"{key}\"")),
            ("X_Api_Key", key.to_owned()),
        ] {
            for path in ["/", "/workers"] {
                ask(&gateway, path, &[(name, value.clone())]).assert_error(401, "invalid_api_key");
            }
        }
    }
    // Nor does it come along with one that is, or with a request that needs none.
    let fields = [("X_Api_Key", "of-the-boss".to_owned()), ("Authorization", "Bearer shared".to_owned())];
    assert_eq!(ask(&gateway, "/", &fields).status, 200);
    let origin =
        [("Origin", "https://a.example"), ("Access-Control-Request-Method", "POST"), ("api_key", "of-the-boss")];
    assert_eq!(gateway.request("OPTIONS", "/", &origin, b"").status, 200);
    assert_eq!(worker.requests().len(), 2);
    assert!(worker.requests().iter().all(|request| !request.head.contains("of-the-boss")));
}

#[test]
fn modules_see_no_key_of_the_gateway_alone() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--admin-key=of-the-boss").start();
    let module = serde_json::json!({ "modules": [Module::hostile().json()] });
    assert_eq!(gateway.with_key_and_body("of-the-boss", "/wasm", &module).status, 200);
    let fields = FIELDS.map(|field| in_field(field, "of-the-boss"));
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    gateway.request("GET", "/", &[&fields[..], &[("X-Hostile", "echo-headers")]].concat(), b"");
    let request = worker.wait_for_request();
    let seen = request.headers.get("x-seen").expect("the module has told it");
    assert!(seen.contains("x-hostile") && !seen.contains("boss"), "{seen}");
}

#[test]
fn a_field_that_authenticates_is_there_once() {
    let worker = Worker::echo();
    for gateway in [keyed(&worker), Gateway::before(&worker)] {
        for (name, scheme) in FIELDS.into_iter().chain([("Proxy-Authorization", "Basic ")]) {
            for keys in [["shared", "shared"], ["shared", "wrong"], ["of-the-boss", "shared"], ["x", ""]] {
                let twice = keys.map(|key| in_field((name, scheme), key));
                for path in ["/v1/messages", "/workers", "/v1/models", "/metrics"] {
                    ask(&gateway, path, &twice).assert_error(400, "invalid_request");
                    let lower = twice.clone().map(|(name, value)| (name.to_ascii_lowercase(), value));
                    let fields: Vec<_> = lower.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                    let answer = H2::connect(&gateway).request("GET", path, &fields, b"");
                    assert_eq!(answer.status, 400, "{path} {fields:?}");
                }
            }
        }
    }
    assert!(worker.requests().is_empty());
}
