//! The log as a program reads it: fields in text, what modules did, levels that change, files that go.

use crate::support::{ConfigFile, Files, Gateway, Module, Worker, eventually, guest};
use serde_json::json;
use std::time::Duration;

/// A line's level, target and fields; panics where a program could not tell them apart.
#[track_caller]
fn parse(line: &str) -> (String, String, Vec<(String, String)>) {
    let (time, rest) = line.split_once(' ').unwrap_or_else(|| panic!("no time in {line:?}"));
    assert!(time.len() == 27 && time.ends_with('Z'), "{line:?}");
    let (level, rest) = rest.trim_start().split_once(' ').unwrap_or_else(|| panic!("no level in {line:?}"));
    let (target, rest) = rest.split_once(": ").unwrap_or_else(|| panic!("no target in {line:?}"));
    (level.to_owned(), target.to_owned(), fields(rest).unwrap_or_else(|why| panic!("{why} in {line:?}")))
}

/// Words without `=` may stand in front: the message.
fn fields(mut rest: &str) -> Result<Vec<(String, String)>, String> {
    let mut fields: Vec<(String, String)> = Vec::new();
    while !rest.is_empty() {
        let end = rest.find([' ', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let Some(after) = after.strip_prefix('=') else {
            if !fields.is_empty() {
                return Err(format!("{name:?} is no field"));
            }
            rest = after.trim_start_matches(' ');
            continue;
        };
        let (value, after) = match after.strip_prefix('"') {
            None => {
                let (value, after) = after.split_at(after.find(' ').unwrap_or(after.len()));
                (value.to_owned(), after)
            }
            Some(quoted) => unquote(quoted)?,
        };
        if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') || value.contains(char::is_control) {
            return Err(format!("{name:?} is {value:?}"));
        }
        fields.push((name.to_owned(), value));
        rest = match after.strip_prefix(' ') {
            Some(rest) => rest,
            None if after.is_empty() => after,
            None => return Err(format!("{after:?} follows a value")),
        };
    }
    Ok(fields)
}

/// The value, with escapes of control characters left as they are, and what follows its quote.
fn unquote(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                Some((_, other)) => value.extend(['\\', other]),
                None => break,
            },
            _ => value.push(character),
        }
    }
    Err("a quote is not closed".to_owned())
}

#[track_caller]
fn value<'f>(fields: &'f [(String, String)], name: &str) -> &'f str {
    let found = fields.iter().find(|(known, _)| known == name);
    found.map_or_else(|| panic!("no {name} in {fields:?}"), |(_, value)| value)
}

#[test]
fn every_line_of_the_text_log_can_be_parsed() {
    let worker = Worker::echo();
    let file = ConfigFile::new(format!("worker_urls: [{}]\nenable_wasm: true\n", worker.url()));
    let gateway = file.gateway().start();
    let hostile = Module::hostile().set("name", "two words, \"quoted\" = x".into());
    gateway.add(&hostile);
    gateway.try_deploy(&json!({
        "name": "n\u{2028}o", "file_path": "/no where.wasm", "module_type": "Middleware",
        "attach_points": [{"Middleware": "OnRequest"}],
    }));
    for behaviour in ["stdout:200", "trap", "none"] {
        gateway.request("GET", "/a=b;c?x=y%20z", &[("X-Hostile", behaviour), ("X-Request-Id", "a b=\"c\"")], b"");
    }
    file.rewrite("poort: 1\nhost: [x, y]\n");
    gateway.reload();
    eventually(Duration::from_secs(10), || gateway.log().matches("path=\"/a=b").count() == 3);
    let log = gateway.log();
    let lines: Vec<_> = log.lines().map(parse).collect();
    let of = |target: &str| lines.iter().filter(|line| line.1 == target).collect::<Vec<_>>();
    let reload = lines.iter().find(|line| line.0 == "ERROR").expect("the reload is refused");
    assert!(value(&reload.2, "why").contains("poort: no such key"), "{reload:?}");
    let refused = of("smg::registry").into_iter().find(|line| line.0 == "WARN").expect("a deployment is refused");
    assert_eq!(value(&refused.2, "error"), "no such file");
    let access = of("smg::access");
    let is_failed = |line: &&&(_, _, Vec<_>)| value(&line.2, "error") == "wasm_module_failed";
    let hostile = access.iter().find(is_failed).expect("the module fails once");
    assert_eq!(value(&hostile.2, "path"), "/a=b;c");
    assert_eq!(value(&hostile.2, "modules"), "two_words__\"quoted\"_=_x:trap");
    assert!(value(&hostile.2, "cause").contains(' '), "{hostile:?}");
    assert!(!of("smg::guest").is_empty(), "{log}");
}

#[test]
fn what_a_guest_prints_and_what_it_did_are_told_with_its_request() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    gateway.add(&Module::new("quiet", &guest("minimal")).at(&["OnRequest"]).set("match", json!({"methods": ["POST"]})));
    gateway.add(&Module::new("auth", &guest("auth")).at(&["OnRequest"]));
    gateway.add(&Module::hostile());
    let ids = ["first-of-two", "second-of-two"];
    for id in ids {
        let headers = [("X-Hostile", "stdout:60"), ("X-Request-Id", id)];
        assert_eq!(gateway.request("GET", "/seen", &headers, b"").status, 200);
    }
    gateway.request("GET", "/v1/models", &[("X-Request-Id", "without-a-key")], b"");
    for id in ids {
        let find = |log: &str| log.lines().map(parse).find(|line| line.1 == "smg::guest" && value(&line.2, "id") == id);
        eventually(Duration::from_secs(10), || find(&gateway.log()).is_some());
        let line = parse(&gateway.wait_for_log(&format!("smg::access: id={id} ")));
        assert_eq!(value(&line.2, "modules"), "auth:continue,hostile:continue,hostile:continue");
    }
    let line = parse(&gateway.wait_for_log("smg::access: id=without-a-key "));
    assert_eq!(value(&line.2, "modules"), "auth:reject");
}

#[test]
fn a_reload_changes_the_level() {
    let worker = Worker::echo();
    let text = |level: &str| format!("worker_urls: [{}]\nlog_level: {level}\n", worker.url());
    let file = ConfigFile::new(text("warn,smg::run=info"));
    let gateway = file.gateway().start();
    gateway.get("/unseen-before");
    for (level, path, is_seen) in [
        ("info", "/seen-first", true),
        ("\"warn,smg::run=info\"", "/unseen", false),
        ("\"error,smg::access=info,smg::run=info\"", "/seen-last", true),
    ] {
        file.rewrite(text(level));
        let said = gateway.reload();
        assert!(said.contains("changed=\"log_level\""), "{said}");
        gateway.get(path);
        if is_seen {
            gateway.wait_for_log(path);
        }
    }
    // Lines come in the order of their requests: those that are missing will not come.
    let log = gateway.log();
    assert!(!log.contains("/unseen"), "{log}");
    file.rewrite(text("loud"));
    assert!(gateway.reload().contains("log_level"));
    gateway.get("/seen-still");
    gateway.wait_for_log("/seen-still");
}

#[test]
fn a_directory_keeps_a_bounded_number_of_files() {
    let (worker, files) = (Worker::echo(), Files::new());
    let directory = files.path("log");
    std::fs::create_dir(&directory).expect("the directory can be written");
    for day in 1..=9 {
        std::fs::write(directory.join(format!("smg.2020-01-0{day}.log")), "old").expect("a file");
    }
    std::fs::write(directory.join("notes.txt"), "mine").expect("a file");
    let arguments = [format!("--log-dir={}", directory.display()), "--log-max-files=3".to_owned()];
    let mut gateway = Gateway::builder().worker(&worker).args(arguments).start();
    gateway.get("/seen");
    gateway.terminate();
    assert_eq!(gateway.wait_exit(Duration::from_secs(10)).code(), Some(0));
    let names = || std::fs::read_dir(&directory).expect("it is there").map(|file| file.expect("a file").file_name());
    let mut kept: Vec<_> = names().map(|name| name.into_string().expect("UTF-8")).collect();
    kept.sort_unstable();
    assert_eq!(kept.len(), 4, "{kept:?}");
    assert_eq!(kept[0], "notes.txt", "what is not a log of ours stays");
    let today = std::fs::read_to_string(directory.join(&kept[3])).expect("the newest is today's");
    assert!(today.contains("path=/seen"), "{today}");
}
