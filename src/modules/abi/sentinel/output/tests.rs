use super::*;

fn on(hook: Hook, json: &str) -> Result<Verdict, OutputError> {
    verdict(hook, json.as_bytes())
}

fn answer(json: &str) -> Answer {
    match on(Hook::Request, json) {
        Ok(Verdict::Respond(answer)) => *answer,
        other => panic!("{json}: {other:?}"),
    }
}

fn edit(hook: Hook, json: &str) -> Edit {
    match on(hook, json) {
        Ok(Verdict::Edit(edit)) => *edit,
        other => panic!("{json}: {other:?}"),
    }
}

#[test]
fn decisions_are_compared_without_case() {
    for json in [r#"{"decision":"allow"}"#, r#"{"decision":"ALLOW","tags":null,"more":[{}],"status":700}"#] {
        assert!(matches!(on(Hook::Request, json), Ok(Verdict::Continue)), "{json}");
    }
    assert_eq!(answer(r#"{"decision":"Block"}"#).head.status, 403);
    assert_eq!(answer(r#"{"decision":"dEnY","status":451}"#).head.status, 451);
    assert_eq!(answer(r#"{"decision":"Redirect","body":"/"}"#).head.status, 302);
    assert_eq!(edit(Hook::Request, r#"{"decision":"maybe","tags":["a"]}"#).tags, [UNKNOWN_DECISION, "a"]);
}

#[test]
fn a_block_has_its_text_and_the_response_headers() {
    let blocked = answer(
        r#"{"decision":"block","body":"no","tags":["t"],"add_request_headers":{"a":"b"},
            "add_response_headers":{"X-Why":"x","X-Gone":"y"},"remove_response_headers":["x-gone"]}"#,
    );
    assert_eq!((blocked.body.as_deref(), blocked.tags.as_slice()), (Some(&b"no"[..]), &["t".to_owned()][..]));
    assert_eq!(blocked.head.headers["content-type"], TEXT);
    assert_eq!(blocked.head.headers["x-why"], "x");
    assert!(!blocked.head.headers.contains_key("x-gone"));
    assert!(answer(r#"{"decision":"block"}"#).head.headers.is_empty(), "no body, no type");
    let html = answer(r#"{"decision":"block","body":"<p>","add_response_headers":{"Content-Type":"text/html"}}"#);
    assert_eq!(html.head.headers["content-type"], "text/html");
}

#[test]
fn a_redirect_is_a_location_without_a_body() {
    let moved = answer(r#"{"decision":"redirect","status":308,"body":"https://a/b","add_response_headers":{"x":"y"}}"#);
    assert_eq!((moved.head.status.as_u16(), moved.body.as_deref()), (308, Some(&b""[..])));
    assert_eq!(
        (&moved.head.headers["location"], &moved.head.headers["x"]),
        (&"https://a/b".parse().unwrap(), &"y".parse().unwrap())
    );
    for json in [r#"{"decision":"redirect"}"#, r#"{"decision":"redirect","body":""}"#] {
        assert!(matches!(on(Hook::Request, json), Err(OutputError::NoUrl)), "{json}");
    }
    let split = r#"{"decision":"redirect","body":"/\r\nSet-Cookie: a"}"#;
    assert!(matches!(on(Hook::Request, split), Err(OutputError::Edit(EditError::Value(_)))));
}

#[test]
fn edits_go_to_the_side_they_are_for() {
    let json = r#"{"decision":"allow","add_request_headers":{"b":"2","A":"1","b":"3"},"remove_request_headers":["c"],
        "add_response_headers":{"d":"4"},"remove_response_headers":["e"]}"#;
    let on_request = edit(Hook::Request, json);
    let set: Vec<_> = on_request.fields.set.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    assert_eq!(set, [("b", &b"2"[..]), ("a", b"1"), ("b", b"3")]);
    assert_eq!((on_request.fields.remove.len(), on_request.of_answer.set.len()), (1, 1));
    let on_response = edit(Hook::Response, json);
    assert_eq!(on_response.fields, on_request.of_answer);
    assert!(on_response.of_answer.is_empty());
}

#[test]
fn what_is_not_an_output_is_refused() {
    let deep = format!(r#"{{"decision":"allow","x":{}"#, "[".repeat(100_000));
    for json in [
        "",
        "null",
        "[]",
        r#"["block"]"#,
        "{",
        "{}",
        r#"{"decision":null}"#,
        r#"{"decision":1}"#,
        r#"{"decision":"allow"} x"#,
        r#"{"decision":"allow","status":"403"}"#,
        r#"{"decision":"block","status":-1}"#,
        r#"{"decision":"block","status":70000}"#,
        r#"{"decision":"allow","add_request_headers":["a"]}"#,
        r#"{"decision":"allow","add_request_headers":{"a":1}}"#,
        r#"{"decision":"allow","tags":"a"}"#,
        r#"{"decision":"allow","decision":"block"}"#,
        &deep,
    ] {
        assert!(on(Hook::Request, json).is_err(), "{json:.60}");
    }
    assert!(matches!(verdict(Hook::Request, b"{\"decision\":\"\xff\"}"), Err(OutputError::Utf8(_))));
}

#[test]
fn what_no_message_can_be_is_refused() {
    for json in [
        r#"{"decision":"block","status":199}"#,
        r#"{"decision":"block","status":600}"#,
        r#"{"decision":"redirect","body":"/","status":101}"#,
        r#"{"decision":"allow","add_request_headers":{"a":"b\nc"}}"#,
        r#"{"decision":"allow","add_request_headers":{"Transfer-Encoding":"chunked"}}"#,
        r#"{"decision":"allow","add_response_headers":{"Content-Length":"9"}}"#,
    ] {
        assert!(matches!(on(Hook::Request, json), Err(OutputError::Edit(_))), "{json}");
    }
}

#[test]
fn a_decision_stands_whatever_is_said_beside_it() {
    let line_break = r#"{"decision":"block","status":401,"add_response_headers":{"X-Bad":"a\r\nb","X-Good":"c"}}"#;
    let blocked = answer(line_break);
    assert_eq!((blocked.head.status.as_u16(), blocked.tags.as_slice()), (401, &[REFUSED_HEADER.to_owned()][..]));
    assert_eq!((blocked.head.headers.len(), &blocked.head.headers["x-good"]), (1, &HeaderValue::from_static("c")));
    for headers in [r#"{"a b":"c"}"#, r#"{"Connection":"close"}"#, r#"{"Content-Length":"9"}"#] {
        let json = format!(r#"{{"decision":"redirect","body":"/","add_response_headers":{headers}}}"#);
        assert_eq!(answer(&json).head.headers.len(), 1, "{headers}");
    }
    let long = format!(r#"{{"decision":"deny","tags":["{}"]}}"#, "a".repeat(1000));
    assert_eq!(answer(&long).tags[0].len(), 128);
    let right = r#"{"decision":"block","body":"abc","add_response_headers":{"Content-Length":"3"}}"#;
    let right = answer(right);
    assert!(!right.head.headers.contains_key("content-length") && right.tags.is_empty(), "ours to write");
}
