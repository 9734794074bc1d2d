use super::*;

fn read(body: &str) -> Prompt<'_> {
    Prompt::read(body.as_bytes()).expect(body)
}

fn text(body: &str) -> Option<String> {
    read(body).text.map(Cow::into_owned)
}

#[test]
fn every_shape_has_its_text() {
    for (body, expected) in [
        (r#"{"prompt":"once"}"#, "once"),
        (r#"{"prompt":["once","upon"]}"#, "once\nupon"),
        (r#"{"prompt":[1,22,333]}"#, "1\n22\n333"),
        (r#"{"input_ids":[[1,2],[3]]}"#, "1\n2\n3"),
        (r#"{"text":"a \"quoted\" \u00e9"}"#, "a \"quoted\" é"),
        (r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null}]}"#, "user\nhi\nassistant"),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:x"}}]}]}"#,
            "user\nsee",
        ),
        (
            r#"{"messages":[{"role":"assistant","tool_calls":[{"id":"7","function":{"name":"f","arguments":"{}"}}]}]}"#,
            "assistant\nf\n{}",
        ),
        (r#"{"input":"hello","instructions":"be kind"}"#, "be kind\nhello"),
        (
            r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"hello"}]}],"text":{"format":{}}}"#,
            "user\nhello",
        ),
        (
            r#"{"messages":[{"role":"user","content":"hi"}],"system":[{"type":"text","text":"rules"}]}"#,
            "rules\nuser\nhi",
        ),
    ] {
        assert_eq!(text(body).as_deref(), Some(expected), "{body}");
    }
    for body in ["{}", r#"{"messages":[]}"#, r#"{"prompt":null}"#, r#"{"prompt":[true,-1,1.5]}"#, r#"{"query":"x"}"#] {
        assert_eq!(text(body), None, "{body}");
    }
}

#[test]
fn a_conversation_is_a_prefix_of_its_continuation() {
    let said = |more: &str| text(&format!(r#"{{"messages":[{{"role":"user","content":"a"}}{more}],"system":"s"}}"#));
    let (short, long) = (said("").expect("text"), said(r#",{"role":"assistant","content":"b"}"#).expect("text"));
    assert!(long.starts_with(&short) && long.len() > short.len());
}

#[test]
fn the_other_fields_may_be_anywhere_and_of_any_type() {
    let prompt = read(r#" {"prompt":"p","x":{"model":"no"},"stream":true,"max_tokens":7,"model":"m\u0031"} "#);
    assert_eq!(prompt.model.as_deref(), Some("m1"));
    assert!(matches!(prompt.text, Some(Cow::Borrowed("p"))));
    for model in [r#"{"a":[1]}"#, "[[]]", "null", "true", "7", "-1", "1.5"] {
        let body = format!(r#"{{"model":{model},"prompt":"p"}}"#);
        assert_eq!(read(&body), Prompt { text: Some("p".into()), model: None }, "{model}");
    }
    assert_eq!(read(r#"{"prompt":"p"}"#).model, None);
}

#[test]
fn hostile_bodies_are_errors() {
    let deep = |open: &str, close: &str| format!(r#"{{"prompt":{}{}}}"#, open.repeat(100_000), close.repeat(100_000));
    let (arrays, objects) = (deep("[", "]"), deep(r#"{"content":"#, "}"));
    for body in [
        "",
        "null",
        "[]",
        r#""prompt""#,
        "{",
        r#"{"prompt":"x"} x"#,
        r#"{"prompt":"\ud800"}"#,
        r#"{"prompt":"\x"}"#,
        &arrays,
        &objects,
    ] {
        assert!(Prompt::read(body.as_bytes()).is_err(), "{}", &body[..body.len().min(80)]);
    }
    assert!(Prompt::read(b"{\"prompt\":\"\xff\"}").is_err());
    // What is not looked at may be as deep as it likes.
    assert_eq!(text(&arrays.replacen("prompt", "other", 1)), None);
}

#[test]
fn no_more_is_kept_than_the_first_mebibyte() {
    let long = "é".repeat(MOST);
    let escaped = format!("{}{long}", r"\u0041");
    let message = format!(r#"{{"role":"user","content":"{long}"}}"#);
    for body in [
        format!(r#"{{"prompt":"{long}","model":"m"}}"#),
        format!(r#"{{"prompt":"{escaped}","model":"m"}}"#),
        format!(r#"{{"prompt":["{escaped}","{long}"],"system":"{long}","model":"m"}}"#),
        format!(r#"{{"system":"s","messages":[{message},{message},{message}],"model":"m"}}"#),
    ] {
        let prompt = read(&body);
        let kept = prompt.text.expect("text").len();
        assert!(prompt.model.is_some() && (MOST - 1..=MOST).contains(&kept), "{kept}");
    }
    let tokens = vec!["1234"; MOST].join(",");
    assert!(text(&format!(r#"{{"input_ids":[{tokens}]}}"#)).expect("text").len() <= MOST);
}
