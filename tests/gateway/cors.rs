//! `--cors-allowed-origins`: web pages of other origins (the CORS protocol of the Fetch standard).

use crate::support::{Gateway, H2, Response, Worker};

const PAGE: &str = "https://chat.example";

fn open_to(worker: &Worker, origins: &str) -> Gateway {
    let builder = Gateway::builder().worker(worker).arg("--api-key=s3cret").arg("--admin-key=a");
    builder.arg(format!("--cors-allowed-origins={origins}")).start()
}

fn preflight(gateway: &Gateway, path: &str, origin: &str) -> Response {
    let headers = [
        ("Origin", origin),
        ("Access-Control-Request-Method", "POST"),
        ("Access-Control-Request-Headers", "authorization,content-type"),
    ];
    gateway.request("OPTIONS", path, &headers, b"")
}

fn allowed(answer: &Response) -> Option<&str> {
    answer.headers.get("access-control-allow-origin")
}

fn varies(answer: &Response) -> bool {
    answer.headers.all("vary").iter().any(|value| value.to_ascii_lowercase().contains("origin"))
}

#[test]
fn a_preflight_needs_no_key_and_reaches_no_worker() {
    let worker = Worker::echo();
    let gateway = open_to(&worker, PAGE);
    for path in ["/v1/chat/completions", "/v1/models", "/anything"] {
        let answer = preflight(&gateway, path, PAGE);
        assert_eq!((answer.status, allowed(&answer), varies(&answer)), (204, Some(PAGE), true), "{path}");
        let methods = answer.headers.get("access-control-allow-methods").expect("methods");
        assert!(methods.split(", ").any(|method| method == "POST"), "{methods}");
        assert_eq!(answer.headers.get("access-control-allow-headers"), Some("authorization,content-type"));
        assert!(answer.headers.get("access-control-max-age").is_some_and(|age| age.parse::<u64>().is_ok()));
    }
    assert!(worker.requests().is_empty());
}

#[test]
fn an_allowed_page_may_read_answers_and_errors() {
    let worker = Worker::fixed(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://of-the-worker\r\nVary: accept\r\nContent-Length: 2\r\n\r\nhi",
    );
    let gateway = open_to(&worker, &format!("https://other.example,{PAGE}"));
    let ask = |path: &str, key: &str| {
        gateway.request("GET", path, &[("Origin", PAGE), ("Authorization", &format!("Bearer {key}"))], b"")
    };
    for (answer, status) in [(ask("/", "s3cret"), 200), (ask("/", "wrong"), 401), (ask("/v1/models", "wrong"), 401)] {
        assert_eq!((answer.status, allowed(&answer), varies(&answer)), (status, Some(PAGE), true));
        let exposed = answer.headers.get("access-control-expose-headers").expect("fields that pages may read");
        assert!(exposed.contains("x-request-id") && exposed.contains("retry-after"), "{exposed}");
        assert!(!answer.headers.has("access-control-allow-credentials"));
    }
}

#[test]
fn foreign_pages_get_no_word_of_it_and_their_answers_are_not_kept_for_others() {
    let worker = Worker::echo();
    let gateway = open_to(&worker, PAGE);
    for origin in ["https://evil.example", "https://chat.example.evil", "http://chat.example", "null", ""] {
        let answer = preflight(&gateway, "/", origin);
        answer.assert_error(403, "forbidden");
        assert_eq!(allowed(&answer), None, "{origin}");
        let headers = [("Origin", origin), ("Authorization", "Bearer s3cret")];
        let answer = gateway.request("GET", "/", &headers, b"");
        assert_eq!((answer.status, allowed(&answer), varies(&answer)), (200, None, true), "{origin}");
    }
    let without = gateway.request("GET", "/", &[("Authorization", "Bearer s3cret")], b"");
    assert_eq!((allowed(&without), varies(&without)), (None, true));
}

// vLLM and others let every page read, and answer preflights.
#[test]
fn a_worker_has_no_say_in_it() {
    let worker = Worker::fixed(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n\
         Access-Control-Expose-Headers: *\r\nAccess-Control-Allow-Methods: POST\r\nContent-Length: 2\r\n\r\nhi",
    );
    let gateway = Gateway::builder().worker(&worker).arg(format!("--cors-allowed-origins={PAGE}")).start();
    for origin in [Some("https://evil.example"), Some("null"), None, Some(PAGE)] {
        let fields: Vec<_> = origin.map(|origin| ("Origin", origin)).into_iter().collect();
        for method in ["GET", "POST", "OPTIONS"] {
            let answer = gateway.request(method, "/", &fields, b"");
            let is_ours = origin == Some(PAGE);
            assert_eq!((answer.status, answer.text().as_str()), (200, "hi"));
            assert_eq!(allowed(&answer), is_ours.then_some(PAGE), "{method} {origin:?}");
            assert_eq!(answer.headers.has("access-control-expose-headers"), is_ours, "{method} {origin:?}");
            for name in ["access-control-allow-credentials", "access-control-allow-methods"] {
                assert!(!answer.headers.has(name), "{method} {origin:?} {name}");
            }
        }
    }
    let before = worker.requests().len();
    let refused = preflight(&gateway, "/", "https://evil.example");
    refused.assert_error(403, "forbidden");
    assert!(!refused.headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control-")));
    assert_eq!(worker.requests().len(), before);
}

#[test]
fn a_star_is_for_all_and_without_the_flag_the_worker_decides() {
    let worker =
        Worker::fixed("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://w\r\nContent-Length: 2\r\n\r\nhi");
    let gateway = open_to(&worker, "*");
    let answer = gateway.request("GET", "/", &[("Origin", PAGE), ("Authorization", "Bearer s3cret")], b"");
    assert_eq!((answer.status, allowed(&answer), varies(&answer)), (200, Some("*"), false));
    assert_eq!(allowed(&preflight(&gateway, "/", "null")), Some("*"));
    let closed = Gateway::before(&worker);
    let answer = closed.request("GET", "/", &[("Origin", PAGE)], b"");
    assert_eq!((allowed(&answer), varies(&answer)), (Some("https://w"), false));
    assert_eq!(preflight(&closed, "/", PAGE).status, 200, "the worker's answer");
}

#[test]
fn the_admin_api_is_not_for_web_pages() {
    let worker = Worker::echo();
    for origins in [PAGE, "*"] {
        let gateway = open_to(&worker, origins);
        for path in ["/workers", "/wasm", "/metrics"] {
            let refused = preflight(&gateway, path, PAGE);
            assert_eq!((refused.status, allowed(&refused)), (401, None), "{path}");
            let answer = gateway.request("GET", path, &[("Origin", PAGE), ("Authorization", "Bearer a")], b"");
            assert_eq!(allowed(&answer), None, "{path}");
        }
    }
}

// The Fetch standard never sends a key with it, and without the flag the worker is who answers.
#[test]
fn without_the_flag_a_preflight_reaches_the_worker_without_a_key() {
    let worker =
        Worker::fixed("HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: https://w\r\nContent-Length: 0\r\n\r\n");
    let gateway = Gateway::builder().worker(&worker).arg("--api-key=s3cret").start();
    for path in ["/v1/chat/completions", "/anything?x"] {
        let answer = preflight(&gateway, path, PAGE);
        assert_eq!((answer.status, allowed(&answer)), (200, Some("https://w")), "{path}");
        let request = worker.wait_for_request();
        assert_eq!((request.method.as_str(), request.target.as_str()), ("OPTIONS", path));
        assert_eq!(request.headers.get("access-control-request-method"), Some("POST"));
        assert!(!request.headers.has("x-smg-key-name"));
    }
    let fields = [("origin", PAGE), ("access-control-request-method", "POST")];
    assert_eq!(H2::connect(&gateway).request("OPTIONS", "/h2", &fields, b"").status, 200);
    assert_eq!(worker.wait_for_request().target, "/h2");
    for path in ["/workers", "/wasm", "/metrics"] {
        assert_eq!(preflight(&gateway, path, PAGE).status, 401, "{path}");
    }
    let limited = Gateway::builder().worker(&worker).args(["--api-key=s3cret", "--rate-limit-tokens-per-second=1"]);
    let limited = limited.start();
    assert!((0..20).any(|_| preflight(&limited, "/", PAGE).status == 429), "limits are for preflights, too");
}

#[test]
fn nothing_but_a_preflight_passes_without_a_key() {
    let worker = Worker::echo();
    let gateway = Gateway::builder().worker(&worker).arg("--api-key=s3cret").start();
    let both = [("Origin", PAGE), ("Access-Control-Request-Method", "POST")];
    let with = |field| [&both[..], &[field]].concat();
    let request = |method, fields: &[(&str, &str)], body: &[u8]| gateway.request(method, "/", fields, body).status;
    assert_eq!(request("OPTIONS", &both, b""), 200);
    for method in ["GET", "POST", "HEAD", "PUT", "options"] {
        assert_eq!(request(method, &both, b""), 401, "{method}");
    }
    assert_eq!(request("TRACE", &both, b""), 501);
    for part in both {
        assert_eq!(request("OPTIONS", &[part], b""), 401, "{part:?}");
    }
    assert_eq!(request("OPTIONS", &both, b"{}"), 401, "a body");
    assert_eq!(request("OPTIONS", &with(("Transfer-Encoding", "chunked")), b"2\r\n{}\r\n0\r\n\r\n"), 401, "a body");
    for field in [
        // Who presents a key must have the right one.
        ("Authorization", "Bearer wrong"),
        ("X-Api-Key", "wrong"),
        // Some frameworks take these for the method.
        ("X-HTTP-Method-Override", "POST"),
        ("X-HTTP-Method", "DELETE"),
        ("X-Method-Override", "PUT"),
    ] {
        assert_eq!(request("OPTIONS", &with(field), b""), 401, "{field:?}");
    }
    assert_eq!(gateway.request("OPTIONS", "*", &both, b"").status, 401, "no page asks for that");
    assert_eq!(worker.requests().len(), 1);
}
