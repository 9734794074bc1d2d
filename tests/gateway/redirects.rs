//! Answers that name the worker itself: their clients are sent to the gateway, not past it.

use crate::support::{ConfigFile, Frame, Gateway, H2Worker, Response, Worker, obliging};

/// What the gateway makes of this line in the head of the worker's answer.
#[track_caller]
fn passed_on(gateway: &Gateway, status: u16, line: &str) -> Response {
    let status = status.to_string();
    gateway.request("GET", "/", &[("X-Answer-Status", &status), ("X-Answer", line)], b"")
}

/// As applications do that want each path with a slash at its end: they take the host from the request.
fn with_slashes() -> Worker {
    Worker::new(|request, conn| {
        let host = request.headers.get("host").expect("a host");
        match request.target.strip_suffix('/') {
            Some(_) => conn.answer(200, &request.target),
            None => conn.send(format!(
                "HTTP/1.1 307 R\r\nLocation: http://{host}{}/\r\nContent-Length: 0\r\n\r\n",
                request.target
            )),
        }
    })
}

#[test]
fn a_client_that_follows_a_redirect_of_the_worker_stays_with_the_gateway() {
    let worker = with_slashes();
    let gateway = Gateway::before(&worker);
    let first = gateway.request("POST", "/v1/things", &[], b"x");
    assert_eq!((first.status, first.headers.get("location")), (307, Some("/v1/things/")));
    assert_eq!(gateway.request("POST", "/v1/things/", &[], b"x").text(), "/v1/things/");
}

#[test]
fn fields_that_name_the_worker_name_the_gateway_and_others_stay() {
    let worker = obliging();
    let gateway = Gateway::before(&worker);
    let own = worker.address.to_string();
    for (status, name, value, wanted) in [
        (307, "Location", format!("http://{own}/v1/x/?a=b#c"), "/v1/x/?a=b#c"),
        (201, "Location", format!("HTTP://{own}/x"), "/x"),
        (302, "Location", format!("//{own}/x"), "/x"),
        (302, "Location", format!("http://{own}"), "/"),
        (302, "Location", format!("http://{own}?x"), "/?x"),
        // An application that believes `X-Forwarded-Proto`.
        (308, "Location", format!("https://{own}/x"), "/x"),
        (302, "Location", format!("http://user:word@{own}/x"), "/x"),
        // What is left must not name another host.
        (302, "Location", format!("http://{own}//evil.test/x"), "/.//evil.test/x"),
        (302, "Location", format!("http://{own}/\\evil.test/x"), "/./\\evil.test/x"),
        (200, "Content-Location", format!("http://{own}/x"), "/x"),
        (200, "Refresh", format!("5; url=http://{own}/x"), "5; url=/x"),
        (503, "Refresh", format!("0;URL='http://{own}/x'"), "0;URL='/x'"),
    ] {
        let answer = passed_on(&gateway, status, &format!("{name}: {value}"));
        assert_eq!((answer.status, answer.headers.get(name)), (status, Some(wanted)), "{name}: {value}");
    }
    for (name, value) in [
        ("Location", "/x".to_owned()),
        ("Location", "x/y".to_owned()),
        ("Location", "http://other.test/x".to_owned()),
        ("Location", "https://other.test//x".to_owned()),
        ("Location", "http://127.0.0.1:1/x".to_owned()),
        ("Location", format!("http://{own}0/x")),
        ("Location", format!("http://{own}@evil.test/x")),
        ("Location", format!("http://{own}.evil.test/x")),
        ("Location", format!("ftp://{own}/x")),
        ("Location", format!("/x?next=http://{own}/x")),
        ("Refresh", "5".to_owned()),
        ("Refresh", "5; url=http://other.test/x".to_owned()),
        ("Link", format!("<http://{own}/x>; rel=next")),
    ] {
        let answer = passed_on(&gateway, 302, &format!("{name}: {value}"));
        assert_eq!(answer.headers.get(name), Some(value.as_str()), "{name}");
    }
}

#[test]
fn a_worker_is_known_by_its_name_in_any_case_and_by_its_address() {
    let worker = obliging();
    let port = worker.address.port();
    let file = ConfigFile::new(format!("worker_urls: [\"http://localhost:{port}\"]\n"));
    let gateway = file.gateway().start();
    for own in [format!("localhost:{port}"), format!("LocalHost:{port}"), worker.address.to_string()] {
        let answer = passed_on(&gateway, 307, &format!("Location: http://{own}/x"));
        assert_eq!(answer.headers.get("location"), Some("/x"), "{own}");
    }
}

#[test]
fn a_worker_over_http2_is_known_as_well() {
    let worker = H2Worker::new(|request, stream| {
        let host = request.authority.clone();
        stream.headers(307, &[("location", &format!("http://{host}/x/"))], Frame::END_STREAM);
    });
    let gateway = Gateway::builder().worker_url(worker.url()).arg("--upstream-http2").start();
    assert_eq!(gateway.get("/x").headers.get("location"), Some("/x/"));
}
