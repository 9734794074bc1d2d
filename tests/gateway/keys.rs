//! `keys`: who may call and administer, how much, and what is told of whose request it is.

use crate::support::{ConfigFile, Gate, Gateway, Module, Worker, eventually, obliging};
use std::time::Duration;

/// `printf %s of-the-reader | sha256sum`
const OF_THE_READER: &str = "ba78f10a01c6ea246ae643a2c276258826b4e26f7a32c22563f95fac5a0c5d8f";

const KEYS: &str = "keys:\n- {name: team-a, role: caller, key_env: SMG_TEST_KEY}\n\
                    - {name: reader, role: read-only, key_sha256: SHA256}\n- {name: boss, role: admin, key: of-the-boss}\n";

fn with_keys(worker: &Worker, keys: &str) -> Gateway {
    let text = format!("worker_urls: [{}]\nenable_wasm: true\n{}", worker.url(), keys.replace("SHA256", OF_THE_READER));
    let file = ConfigFile::new(text);
    let builder = file.gateway().arg("--log-level=debug").env("SMG_TEST_KEY", "of-team-a");
    builder.arg("--log-fields=id,method,path,status,key,user_agent").start()
}

#[test]
fn each_role_may_do_what_it_says() {
    let worker = Worker::echo();
    let gateway = with_keys(&worker, KEYS);
    for (method, path, statuses) in [
        ("POST", "/v1/chat/completions", [200, 200, 200]),
        ("GET", "/workers", [403, 200, 200]),
        ("GET", "/wasm", [403, 200, 200]),
        ("GET", "/metrics", [403, 200, 200]),
        ("DELETE", "/wasm/x", [403, 403, 400]),
        ("DELETE", "/workers/x", [403, 403, 404]),
        ("POST", "/wasm", [403, 403, 415]),
    ] {
        let keys = ["of-team-a", "of-the-reader", "of-the-boss"];
        assert_eq!(keys.map(|key| gateway.with_key(key, method, path).status), statuses, "{method} {path}");
        for wrong in ["wrong", OF_THE_READER, "SMG_TEST_KEY", "team-a"] {
            assert_eq!(gateway.with_key(wrong, method, path).status, 401, "{method} {path}");
        }
        assert_eq!(gateway.request(method, path, &[], b"").status, 401, "{method} {path}");
    }
    assert_eq!(worker.requests().len(), 3);
}

#[test]
fn a_rate_of_a_key_is_its_own() {
    let worker = Worker::echo();
    let keys = "keys:\n- {name: slow, role: caller, key: s, rate_limit_tokens_per_second: 0.01, burst: 3}\n\
                - {name: free, role: caller, key: f}\n- {name: boss, role: admin, key: b}\nmax_payload_size: 9\n";
    let gateway = with_keys(&worker, keys);
    assert_eq!([(); 4].map(|()| gateway.with_key("s", "GET", "/").status), [200, 200, 200, 429]);
    let refused = gateway.with_key("s", "GET", "/");
    refused.assert_error(429, "rate_limit_exceeded");
    let wait: u64 = refused.headers.get("retry-after").and_then(|wait| wait.parse().ok()).expect("a number");
    assert!((1..=100).contains(&wait), "{wait}");
    assert_eq!([(); 9].map(|()| gateway.with_key("f", "GET", "/").status), [200; 9]);
    let too_large = [("Authorization", "Bearer f")];
    assert_eq!(gateway.request("POST", "/", &too_large, b"0123456789").status, 413);
    let metrics = gateway.with_key("b", "GET", "/metrics").text();
    for (key, count) in [("slow", 5), ("free", 10), ("boss", 0)] {
        let line = format!("smg_key_requests_total{{key=\"{key}\"}} {count}\n");
        assert!(metrics.contains(&line), "what is refused counts, administration does not: {metrics}");
    }
}

#[test]
fn a_place_is_held_to_the_end_of_the_body_and_given_back() {
    let finish = Gate::new();
    let wait = finish.clone();
    let worker = Worker::new(move |request, conn| {
        conn.start_events();
        conn.chunk("data: 1\n\n");
        if request.target == "/long" {
            wait.wait();
        }
        conn.chunk("");
    });
    let keys =
        "keys:\n- {name: two, role: caller, key: t, max_concurrent_requests: 2}\n- {name: f, role: caller, key: f}\n";
    let gateway = with_keys(&worker, keys);
    let mut clients = [gateway.connect(), gateway.connect()];
    for client in &mut clients {
        client.send_request("GET", "/long", &[("Authorization", "Bearer t")], b"");
        client.read_until("data: 1\n\n");
    }
    let refused = gateway.with_key("t", "GET", "/");
    refused.assert_error(429, "concurrency_limit_exceeded");
    assert!(refused.headers.get("retry-after").is_some_and(|wait| wait.parse::<u64>().is_ok()), "{refused:?}");
    assert_eq!(gateway.with_key("f", "GET", "/").status, 200, "another key is free");
    let [mut stays, leaves] = clients;
    drop(leaves);
    eventually(Duration::from_secs(5), || gateway.with_key("t", "GET", "/").status == 200);
    finish.open();
    stays.read_until("0\r\n\r\n");
    assert_eq!([(); 5].map(|()| gateway.with_key("t", "GET", "/").status), [200; 5]);
}

#[test]
fn the_name_is_told_and_the_key_is_not() {
    let worker = obliging();
    let gateway = with_keys(&worker, KEYS);
    let module =
        gateway.with_key_and_body("of-the-boss", "/wasm", &serde_json::json!({"modules": [Module::hostile().json()]}));
    assert_eq!(module.status, 200, "{}", module.text());
    for (key, name) in [("of-team-a", "team-a"), ("of-the-reader", "reader"), ("of-the-boss", "boss")] {
        let bearer = format!("Bearer {key}");
        let forged = [
            ("Authorization", bearer.as_str()),
            ("X-SMG-Key-Name", "forged"),
            ("x-smg-key-name", "twice"),
            // To programs that know fields by their CGI names, it is the same one.
            ("X_SMG-Key_Name", "forged"),
            ("X-Hostile", "echo-headers"),
        ];
        assert_eq!(gateway.request("GET", "/named", &forged, b"").status, 200);
        let request = worker.wait_for_request();
        assert_eq!(request.headers.all("x-smg-key-name"), [name]);
        assert!(!request.headers.has("x_smg-key_name"));
        let seen = request.headers.get("x-seen").expect("the module has told it");
        assert!(seen.contains("x-smg-key-name") && !seen.contains("forged"), "{seen}");
        let nominated = [("Authorization", bearer.as_str()), ("Connection", "x-smg-key-name")];
        gateway.request("GET", "/nominated", &nominated, b"");
        assert_eq!(worker.wait_for_request().headers.all("x-smg-key-name"), [name]);
        gateway.wait_for_log(&format!("path=/named status=200 key=\"{name}\""));
    }
    assert_eq!(gateway.with_key("of-nobody", "GET", "/").status, 401);
    let metrics = gateway.with_key("of-the-boss", "GET", "/metrics").text();
    for line in ["smg_key_requests_total{key=\"team-a\"} 2", "smg_key_requests_total{key=\"reader\"} 2"] {
        assert!(metrics.contains(line), "{metrics}");
    }
    let sent = format!("{:?}", worker.requests());
    let log = gateway.log();
    for secret in ["of-team-a", "of-the-reader", "of-the-boss", "of-nobody", OF_THE_READER] {
        assert!(![&log, &metrics, &sent].iter().any(|text| text.contains(secret)), "{secret} is told");
    }
}

// Workers may ask for the same key; one that is for the gateway alone goes no further.
#[test]
fn an_api_key_reaches_the_worker_and_an_admin_key_does_not() {
    let worker = Worker::echo();
    let gateway =
        Gateway::builder().worker(&worker).args(["--api-key=shared", "--admin-key=of-the-boss"]).start_unready();
    eventually(Duration::from_secs(5), || gateway.with_key("shared", "GET", "/").status == 200);
    assert_eq!(gateway.with_key("of-the-boss", "GET", "/").status, 200);
    let seen: Vec<_> = worker.requests().iter().map(|request| request.headers.all("authorization").join(" ")).collect();
    assert_eq!(seen, ["Bearer shared", ""]);
}

#[test]
fn without_keys_a_client_cannot_give_itself_a_name() {
    let worker = Worker::echo();
    let gateway = Gateway::before(&worker);
    gateway.request("GET", "/", &[("X-SMG-Key-Name", "boss"), ("Authorization", "Bearer of-the-worker")], b"");
    let request = worker.wait_for_request();
    assert!(!request.headers.has("x-smg-key-name"), "{:?}", request.headers);
}
