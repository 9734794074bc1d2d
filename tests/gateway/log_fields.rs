//! `--log-fields`, `--log-dir`, and that nobody forges a line (case 65).

use crate::support::{Files, Gateway, Worker, eventually, run};
use serde_json::Value;
use std::time::Duration;

const ALL: &str = "time,id,client,method,path,query,status,error,cause,worker,model,key,attempts,head_ms,total_ms,\
                   bytes_in,bytes_out,modules,tags,end,protocol,host,user_agent,referer,trace_id,tls";

/// The lines of requests below `/seen`.
fn lines(gateway: &Gateway) -> Vec<String> {
    gateway
        .log()
        .lines()
        .filter(|line| line.contains("smg::access") && line.contains("/seen"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn a_line_has_the_fields_that_were_chosen_in_their_order() {
    let worker = Worker::echo();
    let gateway =
        Gateway::builder().worker(&worker).arg("--log-fields=status,referer,path,query,user_agent,method").start();
    let headers = [("User-Agent", "a \"b\""), ("Referer", "http://r/")];
    gateway.request("GET", "/seen?a=1&b=%20", &headers, b"");
    let line = gateway.wait_for_log("/seen");
    let (_, fields) = line.split_once("smg::access: ").expect("a line of a request");
    let expected = r#"status=200 referer="http://r/" path=/seen query="a=1&b=%20" user_agent="a \"b\"" method=GET"#;
    assert_eq!(fields, expected);
    assert!(line.starts_with("INFO"), "without `time` there is none: {line}");
}

#[test]
fn unknown_fields_and_fields_twice_are_refused() {
    for (fields, word) in [("path,nonsense", "nonsense"), ("path,path", "twice"), ("", "``"), ("Path", "Path")] {
        let ran = run(&["--port=0", "--log-fields", fields], &[]);
        assert_eq!((ran.code, ran.stderr.contains(word)), (Some(2), true), "{fields}: {}", ran.stderr);
    }
}

// Case 65.
#[test]
fn nothing_that_a_stranger_sends_makes_a_second_line_or_breaks_one() {
    let worker = Worker::new(|request, conn| match request.target.starts_with("/seen/bad") {
        true => conn.send("HTTP/1.1 \x1b[2J\nforged\r\n\r\n"),
        false => conn.answer(200, ""),
    });
    let [long, longer] = [60_000, 1 << 20].map(|length| format!("/seen/{}", "a".repeat(length)));
    let raw: [&[u8]; 9] = [
        b"GET /seen/\xff\xfe HTTP/1.1\r\nHost: a\r\n",
        b"GET /seen/\"\\{} HTTP/1.1\r\nHost: a\r\nUser-Agent: \"},\"x\":\"\\\r\n",
        b"GET /seen/%0d%0a?q=%0a\"' HTTP/1.1\r\nHost: a\r\nReferer: \xe2\x80\xa8\xc2\x85\x9b2J\r\n",
        b"GET /seen/\xc3\xa9\xe2\x80\xa8x HTTP/1.1\r\nHost: a\r\nX-Request-Id: \"},\"x\":\"\r\n",
        b"GET /seen/bad HTTP/1.1\r\nHost: a\r\nUser-Agent: status=200 path=/forged\r\n",
        b"SEEN /seen/method HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff\xfe\r\n",
        b"GET /seen/tab HTTP/1.1\r\nHost: a\r\nUser-Agent: a\tb\r\nX-Request-Id: a b=c\r\n",
        &[b"GET ", long.as_bytes(), b" HTTP/1.1\r\nHost: a\r\n"].concat(),
        &[b"GET ", longer.as_bytes(), b" HTTP/1.1\r\nHost: a\r\n"].concat(),
    ];
    for format in ["--log-json", "--log-level=info"] {
        let builder =
            Gateway::builder().worker(&worker).arg("--disable-retries").arg("--disable-health-check").arg(format);
        let gateway = builder.arg(format!("--log-fields={ALL}")).start_unready();
        for (sent, head) in raw.iter().enumerate() {
            let before = gateway.log().lines().filter(|line| line.contains("smg::access")).count();
            let mut client = gateway.connect();
            // What is too long is refused before it has all come.
            let _ = client.try_send([head, &b"Connection: close\r\n\r\n"[..]].concat());
            let answer = client.read_response_however("GET");
            assert!(matches!(answer.status, 200 | 400 | 414 | 431 | 502), "{sent}: {}", answer.status);
            let count = || gateway.log().lines().filter(|line| line.contains("smg::access")).count();
            eventually(Duration::from_secs(5), || count() > before);
            assert_eq!(count(), before + 1, "{sent}");
        }
        let log = gateway.log();
        for line in log.lines() {
            assert!(line.len() < 8192, "{} bytes", line.len());
            assert!(!line.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{feff}'), "{line:?}");
            if format == "--log-json" {
                let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in {line}"));
                assert!(value.get("x").is_none(), "{line}");
            }
        }
        assert!(!log.lines().any(|line| line.starts_with("forged")));
    }
}

#[test]
fn a_directory_gets_the_log_and_standard_error_does_not() {
    let (worker, files) = (Worker::echo(), Files::new());
    let mut gateway = Gateway::builder().worker(&worker).arg(format!("--log-dir={}", files.named("log"))).start();
    gateway.get("/seen");
    gateway.terminate();
    assert_eq!(gateway.wait_exit(Duration::from_secs(5)).code(), Some(0));
    let written = std::fs::read_dir(files.path("log")).expect("it is made").map(|file| file.expect("a file").path());
    let written: Vec<_> = written.collect();
    let [file] = &written[..] else { panic!("one file for today: {written:?}") };
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with("smg") && name.ends_with("log"), "{name}");
    let text = std::fs::read_to_string(file).expect("text");
    assert!(text.contains("path=/seen") && text.contains("drained"), "whole to the end: {text}");
    assert!(lines(&gateway).is_empty(), "{}", gateway.log());
    let ran = run(&["--port=0", "--log-dir=/proc/none"], &[]);
    assert!(ran.code == Some(1) && ran.stderr.contains("--log-dir"), "{}", ran.stderr);
}
