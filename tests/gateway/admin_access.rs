//! Who may use the admin API. Cases 41 to 45 of section 3.

use crate::support::{Gateway, Module, Worker, request};
use serde_json::json;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const JSON: (&str, &str) = ("Content-Type", "application/json");

/// The status of `GET /wasm` with this `Host` and these headers.
#[track_caller]
fn asked(gateway: &Gateway, host: &str, headers: &[(&str, &str)]) -> u16 {
    let mut client = gateway.connect();
    client.send(request(host, "GET", "/wasm", headers, b""));
    client.read_response().status
}

#[test]
fn without_a_key_the_host_must_be_this_machine() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for host in ["localhost", "LocalHost:1", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:9", "[::ffff:127.0.0.1]"] {
        assert_eq!(asked(&gateway, host, &[]), 200, "{host}");
    }
    for host in [
        "127.evil.com",
        "127.0.0.1.evil.com",
        "localhost.evil",
        "evil-localhost",
        "evil.com",
        "gateway:3000",
        "0.0.0.0",
        "169.254.169.254",
        "10.0.0.1",
        "[::ffff:10.0.0.1]",
        "[fe80::1]",
        "2130706433",
        "0x7f000001",
        "localhost.",
    ] {
        assert_eq!(asked(&gateway, host, &[]), 403, "{host}");
    }
}

#[test]
fn without_a_key_the_authority_of_an_absolute_target_counts_too() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for (target, status) in [("http://localhost/wasm", 200), ("http://evil.com/wasm", 403)] {
        let mut client = gateway.connect();
        client.send(request("localhost", "GET", target, &[], b""));
        assert_eq!(client.read_response().status, status, "{target}: RFC 9112 section 3.2.2");
    }
}

#[test]
fn without_a_key_pages_of_other_sites_are_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for (name, value, status) in [
        ("Origin", "http://localhost:8080", 200),
        ("Origin", "http://127.0.0.1", 200),
        ("Origin", "https://evil.com", 403),
        ("Origin", "http://localhost.evil.com", 403),
        ("Origin", "http://localhost@evil.com", 403),
        ("Origin", "http://127.evil.com", 403),
        ("Origin", "null", 403),
        ("Origin", "", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
        ("Sec-Fetch-Site", "none", 200),
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
    ] {
        assert_eq!(asked(&gateway, "localhost", &[(name, value)]), status, "{name}: {value}");
    }
    let two = [("Origin", "http://localhost"), ("Origin", "https://evil.com")];
    assert_eq!(asked(&gateway, "localhost", &two), 403, "two origins");
}

#[test]
fn a_page_can_neither_post_nor_ask_whether_it_might() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let body = json!({ "modules": [Module::hostile().json()] }).to_string();
    let origin = ("Origin", "https://evil.com");
    for headers in [&[origin, JSON][..], &[origin, ("Content-Type", "text/plain")]] {
        assert_eq!(gateway.request("POST", "/wasm", headers, body.as_bytes()).status, 403);
    }
    let preflight = [origin, ("Access-Control-Request-Method", "POST")];
    let answer = gateway.request("OPTIONS", "/wasm", &preflight, b"");
    assert!(answer.status >= 400, "{}", answer.status);
    for path in ["/wasm", "/metrics", "/workers"] {
        let answer = gateway.request("GET", path, &[("Origin", "http://localhost")], b"");
        assert!(!answer.headers.has("access-control-allow-origin"), "{path}: {:?}", answer.headers);
    }
    assert_eq!(gateway.modules()["modules"], json!([]));
}

#[test]
fn without_a_key_what_came_through_a_proxy_is_refused() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    for (name, value) in [
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=10.0.0.1"),
        ("X-Real-IP", "10.0.0.1"),
        ("Via", "1.1 proxy"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "smg.example"),
        ("X-Forwarded-Port", "443"),
        ("X-Forwarded-Server", "edge"),
        ("X-Forwarded-Client-Cert", "By=a"),
        ("X-Forwarded-Prefix", "/smg"),
        ("X-Original-Forwarded-For", "10.0.0.1"),
        ("X-Original-Host", "smg.example"),
        ("CF-Connecting-IP", "10.0.0.1"),
        ("CF-Ray", "1"),
        ("True-Client-IP", "10.0.0.1"),
        ("X-Client-IP", "10.0.0.1"),
        ("X-Cluster-Client-IP", "10.0.0.1"),
        ("Fastly-Client-IP", "10.0.0.1"),
        ("Fly-Client-IP", "10.0.0.1"),
        ("X-Azure-ClientIP", "10.0.0.1"),
        ("X-Envoy-External-Address", "10.0.0.1"),
        ("X-Amzn-Trace-Id", "Root=1"),
        ("CDN-Loop", "cloudflare"),
    ] {
        assert_eq!(asked(&gateway, "localhost", &[(name, value)]), 403, "{name}: {value}");
    }
}

#[test]
fn without_a_key_every_admin_path_is_closed_alike_and_the_rest_is_open() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let uuid = gateway.add(&Module::hostile());
    let strange = [("Origin", "https://evil.com")];
    for (method, path) in [
        ("GET", "/wasm".to_owned()),
        ("POST", "/wasm".to_owned()),
        ("GET", format!("/wasm/{uuid}")),
        ("DELETE", format!("/wasm/{uuid}")),
        ("GET", "/wasm?x".to_owned()),
        ("GET", "/wasm/".to_owned()),
        ("GET", "/workers".to_owned()),
        ("DELETE", "/workers/1".to_owned()),
        ("GET", "/metrics".to_owned()),
    ] {
        assert_eq!(gateway.request(method, &path, &strange, b"").status, 403, "{method} {path}");
    }
    for path in ["/health", "/readiness", "/v1/models", "/anything"] {
        assert_ne!(gateway.request("GET", path, &strange, b"").status, 403, "{path}");
    }
    gateway.meta(&uuid);
}

#[test]
fn without_a_key_another_machine_is_refused() {
    let Some(own) = own_address() else {
        return eprintln!("this machine has no address but loopback");
    };
    let gateway = Gateway::builder()
        .without_defaults()
        .arg("--host=0.0.0.0")
        .arg("--port=0")
        .arg("--enable-wasm")
        .start_unready();
    let address = SocketAddr::new(own, gateway.address.port());
    let mut client = crate::support::Client::connect(address);
    client.send(request("localhost", "GET", "/wasm", &[], b""));
    assert_eq!(client.read_response().status, 403);
}

/// An address of this machine that others would reach it by. Connecting UDP sends nothing.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

#[test]
fn with_a_key_only_who_has_it_is_answered() {
    let worker = Worker::echo();
    for (flags, good, bad) in [
        (&["--admin-key=s3cret"][..], &["s3cret"][..], &["api", "", "s3cre", "s3crets", "S3CRET"][..]),
        (&["--api-key=api"], &["api"], &["s3cret", "ap"]),
        (&["--api-key=api", "--admin-key=s3cret"], &["api", "s3cret"], &["apis3cret"]),
    ] {
        let gateway = flags.iter().fold(Gateway::with_modules(&worker), |builder, flag| builder.arg(*flag)).start();
        for key in good {
            let bearer = format!("Bearer {key}");
            // Whoever has the key may be anywhere and anybody.
            let headers =
                [("Authorization", &*bearer), ("X-Forwarded-For", "8.8.8.8"), ("Origin", "https://console.example")];
            assert_eq!(asked(&gateway, "gateway.example", &headers), 200, "{flags:?} {key}");
        }
        for key in bad {
            assert_eq!(
                asked(&gateway, "localhost", &[("Authorization", &format!("Bearer {key}"))]),
                401,
                "{flags:?} {key}"
            );
        }
        assert_eq!(asked(&gateway, "localhost", &[]), 401, "{flags:?}: being local is not enough");
        assert_eq!(asked(&gateway, "localhost", &[("Authorization", &format!("Basic {}", good[0]))]), 401, "{flags:?}");
        assert_eq!(asked(&gateway, "localhost", &[("X-Api-Key", bad[0])]), 401, "{flags:?}");
    }
}

#[test]
fn an_admin_key_closes_nothing_else() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--admin-key=s3cret").start();
    assert_eq!(gateway.get("/anything").status, 200);
    assert_eq!(gateway.request("GET", "/metrics", &[], b"").status, 401);
}

#[test]
fn a_stranger_is_refused_before_the_body_is_read() {
    let worker = Worker::echo();
    let closed = Gateway::with_modules(&worker).start();
    let keyed = Gateway::with_modules(&worker).arg("--admin-key=s3cret").start();
    let endless =
        "POST /wasm HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nOrigin: https://evil.com\r\n";
    for framing in
        ["Content-Length: 10000000000", "Transfer-Encoding: chunked", "Content-Length: 100\r\nExpect: 100-continue"]
    {
        for (gateway, status) in [(&closed, 403), (&keyed, 401)] {
            let mut client = gateway.connect();
            let start = Instant::now();
            client.send(format!("{endless}{framing}\r\n\r\n"));
            let answer = client.read_response();
            assert_eq!((answer.status, answer.interim), (status, vec![]), "{framing}");
            assert!(start.elapsed() < Duration::from_secs(5), "{framing}: {:?}", start.elapsed());
            assert!(client.ends_within(Duration::from_secs(3)), "{framing}: what follows would be taken for a request");
        }
    }
}

#[test]
fn a_body_above_a_mebibyte_is_a_413() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let head = "POST /wasm HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let mut client = gateway.connect();
    client.send(format!("{head}Content-Length: 10000000000\r\n\r\n"));
    assert_eq!(client.read_response().status, 413, "by its length, before a byte of it");
    let mut client = gateway.connect();
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n"));
    let memory = gateway.memory();
    let chunk = [b"10000\r\n", &[b' '; 65_536][..], b"\r\n"].concat();
    for _ in 0..64 {
        client.send(&chunk);
    }
    assert_eq!(client.read_head().status, 413, "as soon as it is too long, without waiting for its end");
    let start = Instant::now();
    while client.try_send(&chunk).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "the gateway takes chunk after chunk");
    }
    assert!(gateway.memory() < memory + (32 << 20), "{memory} -> {}", gateway.memory());
    let padded = [&b"{\"modules\":[]}"[..], &vec![b' '; (1 << 20) - 14]].concat();
    assert_eq!(gateway.request("POST", "/wasm", &[JSON], &padded).status, 200, "exactly a mebibyte");
    let padded = [&padded[..], b" "].concat();
    assert_eq!(gateway.request("POST", "/wasm", &[JSON], &padded).status, 413);
}

#[test]
fn a_body_that_does_not_arrive_is_a_408() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let mut client = gateway.connect();
    client.send(
        "POST /wasm HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{",
    );
    client.set_patience(Duration::from_secs(20));
    let start = Instant::now();
    let answer = client.read_response();
    assert_eq!(answer.status, 408);
    assert!(start.elapsed() > Duration::from_secs(9), "{:?}", start.elapsed());
    assert!(client.ends_within(Duration::from_secs(3)));
}

#[test]
fn other_spellings_of_the_path_are_the_workers() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).arg("--admin-key=s3cret").start();
    for path in
        ["//wasm", "/%77asm", "/WASM", "/wasmx", "/./wasm", "/x/../wasm", "/wasm%2f", "/wasm;x", "/%2fwasm", "/wasm%00"]
    {
        let answer = gateway.get(path);
        assert_eq!((answer.status, answer.json()["path"].as_str()), (200, Some(path)));
        assert_eq!(worker.wait_for_request().target, path);
    }
    for path in ["/wasm", "/wasm/", "/wasm/x", "/wasm?x", "/wasm//", "/wasm/.."] {
        assert_eq!(gateway.get(path).status, 401, "{path}");
    }
}
