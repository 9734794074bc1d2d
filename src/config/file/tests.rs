use super::*;

mod examples;
mod precedence;
mod sections;

/// What a document says, with the problems of it as `line: path: text`.
fn understood(text: &str) -> Result<FileConfig, String> {
    let mut report = Report::default();
    let environment = |name: &str| (name == "SMG_TEST_KEY").then(|| "from-environment".into());
    let config = understand(text.as_bytes(), &environment, &mut report);
    match config {
        Some(config) if report.is_empty() => Ok(config),
        _ => Err(report.problems("f".as_ref()).to_string()),
    }
}

#[track_caller]
fn good(text: &str) -> FileConfig {
    understood(text).expect("a good file")
}

/// Compares the problems, line by line, with what each must begin with.
#[track_caller]
fn bad(text: &str, problems: &[&str]) {
    let found = understood(text).expect_err("a bad file");
    let lines: Vec<&str> = found.lines().collect();
    assert_eq!(lines.len(), problems.len(), "{found}");
    for (line, problem) in lines.iter().zip(problems) {
        assert!(line.starts_with(problem), "{line}\nshould begin with\n{problem}");
    }
}

#[test]
fn every_problem_is_reported_at_once_and_in_order() {
    bad(
        "port: 70000\nhost: [1, 2]\npolicy: power_of_tow\nmax-payload-size: 1\nlog_json: yes\nshards:\n\
         health_check_interval_secs: 0\nrequest_id_headers: [x-a, 'x b', {a: 1}]\nconfig: other.yaml\n\
         poolz: []\nkeys:\n- {name: a, role: admni, key: k}\nport: 1\nworker_urls: http://a:1?x\n",
        &[
            "f:1: port: 70000 is not in 0..=65535",
            "f:2: host: it must be one value, not a list",
            "f:3: policy: it must be one of round_robin, random, ",
            "f:4: max-payload-size: no such key (did you mean `max_payload_size`?)",
            "f:5: log_json: it must be true or false, not `yes`",
            "f:6: shards: it has no value",
            "f:7: health_check_interval_secs: it must be a number of seconds greater than 0",
            "f:8: request_id_headers[1]: `x b` is not valid: ",
            "f:8: request_id_headers[2]: it must be a list of strings",
            "f:9: config: no such key",
            "f:10: poolz: no such key (did you mean `pools`?)",
            "f:12: keys[0].role: it must be one of admin, read-only, caller, not `admni` (did you mean `admin`?)",
            "f:13: port: it is there already, in line 1",
            "f:14: worker_urls: `http://a:1?x` is not a worker URL",
        ],
    );
}

#[test]
fn flags_that_need_each_other_are_both_there_or_neither() {
    bad("port: 1\ntls_cert_path: c", &["f:2: tls_cert_path: it needs `tls_key_path` beside it"]);
    good("tls_cert_path: c\ntls_key_path: k");
}

#[test]
fn documents_that_are_no_map_and_files_that_are_too_large_are_refused() {
    for empty in ["", "# nothing\n", "---\n", "{}"] {
        good(empty);
    }
    bad("just text", &["f:1: it must be a map of keys and values"]);
    bad("- a", &["f:1: it must be a map of keys and values"]);
    bad(&"#".repeat(LARGEST as usize + 1), &["f: it is larger than"]);
    let mut report = Report::default();
    assert!(understand(b"a: \xff", &|_| None, &mut report).is_none());
    let mut report = Report::default();
    let path = "/nonexistent/smg.yaml".as_ref();
    assert!(load(path, &mut report).is_none());
    let missing = report.problems(path).to_string();
    assert!(missing.starts_with("/nonexistent/smg.yaml: it can't be read: "), "{missing}");
}

#[test]
fn the_list_of_problems_is_bounded_and_printable() {
    let many: String = (0..5000).map(|index| format!("- {{name: n{index}, rolle: x}}\n")).collect();
    let found = understood(&format!("keys:\n{many}")).expect_err("it is bad");
    assert_eq!(found.lines().count(), 101);
    assert!(found.ends_with("f: and more"), "{found}");
    let urls = vec!["ftp://x"; 5000].join(", ");
    assert_eq!(understood(&format!("worker_urls: [{urls}]")).expect_err("it is bad").lines().count(), 101);
    let mut urls = vec!["http://a:1"; 50_000];
    urls[31_000] = "http://a:x";
    bad(&format!("worker_urls:\n- {}", urls.join("\n- ")), &["f:31002: worker_urls[31000]: `http://a:x` is not"]);
    let found = understood(&format!("\"\\e[31m{}\": 1", "x".repeat(1000))).expect_err("it is bad");
    assert!(!found.contains('\u{1b}') && found.len() < 700, "{found}");
}

#[test]
fn secrets_are_not_printed() {
    let found = understood(
        "api_key: 'hunter2 hunter2'\nadmin_key: hunter2\u{e4}\nkeys:\n- hunter2\n- {name: a, role: caller, key: 'hunter2 x'}\n\
         - {name: b, role: caller, key_sha256: hunter2}\n- {name: c, role: caller, key_env: hunter2}\n\
         - {name: d, role: caller, key: [hunter2]}\n- [hunter2]\n",
    );
    let found = found.expect_err("it is bad");
    assert_eq!(found.lines().count(), 8, "{found}");
    assert!(!found.contains("hunter2"), "{found}");
    bad("api_key: [hunter2]", &["f:1: api_key: it must be one value"]);
    let config = good(
        "api_key: hunter2\nadmin_key: hunter2\nkeys: [{name: a, role: caller, key: hunter2}]\n\
         modules: [{name: m, file: f, config: hunter2}]",
    );
    let shown = format!("{config:?}");
    assert!(!shown.contains("hunter2") && shown.contains("api-key"), "{shown}");
    assert_eq!(config.sections.keys[0].digest, KeyDigest::of(b"hunter2"));
}
