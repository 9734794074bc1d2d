use super::*;

fn read(text: &str) -> Result<Node, String> {
    let mut report = Report::default();
    let node = Node::read(text, &mut report);
    match node {
        Some(node) if report.is_empty() => Ok(node),
        _ => Err(report.problems("f".as_ref()).to_string()),
    }
}

#[test]
fn scalars_keep_their_text_and_json_takes_only_what_json_knows() {
    let text =
        "a: no\nb: 'true'\nc: true\nd: 1e3\ne: 0x1F\nf: 007\ng: ~\nh: '~'\ni: 12:30\nj: .inf\nk: [yes, -3]\nl: {}";
    let json = read(text).expect("it is right").to_json();
    let want = serde_json::json!({
        "a": "no", "b": "true", "c": true, "d": 1e3, "e": "0x1F", "f": "007", "g": null, "h": "~", "i": "12:30",
        "j": ".inf", "k": ["yes", -3], "l": {},
    });
    assert_eq!(json, want);
}

#[test]
fn lines_are_those_of_the_file() {
    let node = read("\u{feff}# first\na:\n- 1\n-\n  b: |\n    x\n  c: 2\n").expect("it is right");
    let Value::List(list) = &node.get("a").expect("a").value else { panic!("{node:?}") };
    assert_eq!((list[0].line, list[1].line), (3, 5));
    assert_eq!(list[1].get("c").expect("c").line, 7);
}

#[test]
fn what_could_surprise_is_refused() {
    for (text, problem) in [
        ("a: &x 1", "f:1: a: anchors and aliases"),
        ("a: *x", "f:1: a: anchors and aliases"),
        ("a: &x [1]\nb: [*x, *x]", "f:1: a: anchors and aliases"),
        ("a: !!int 1", "f:1: a: tags"),
        ("a: !env X", "f:1: a: tags"),
        ("<<: {a: 1}", "merge keys"),
        ("? [a]\n: 1", "f:1: a key must be plain text"),
        ("a: 1\n---\nb: 1", "f:2: a second document"),
        (
            "a: 1\nb: {c: 1, c: 2}\na: 2",
            "f:2: b.c: it is there already, in line 2\nf:3: a: it is there already, in line 1",
        ),
        ("a: [1", "is the `[` of line 1 closed?"),
        ("a: [1, 2\nb: 3\nc: {d: 4}\n", "is the `[` of line 1 closed?"),
        ("a:\n- [1, 2\n- [3]\nb: 1\n", "is the `[` of line 2 closed?"),
        ("a: {b: [1, 2}\nc: 1\n", "is the `[` of line 1 closed?"),
        ("a:\n\tb: 2", "f:2: not YAML"),
        ("%YAML 1.1\n---\na: 1", "f:1: not YAML"),
    ] {
        let found = read(text).expect_err(text);
        assert!(found.contains(problem), "{text}: {found}");
    }
}

#[test]
fn bombs_end_early() {
    let deep = [format!("a: {}", "[".repeat(1 << 19)), "- ".repeat(1 << 18), "{a: ".repeat(1 << 17)];
    let mut nested = String::new();
    (0..1000).for_each(|depth| nested.push_str(&format!("{}a:\n", " ".repeat(depth))));
    let wide = format!("a: [{}]", "x,".repeat(MOST));
    let laughs = "a: &a [x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]";
    for text in deep.iter().chain([&nested, &wide]).map(String::as_str).chain([laughs]) {
        assert!(read(text).expect_err("too much").len() < 400);
    }
    // The scanner's own worst cases: each took forever in some parser.
    for text in ["{---", "[?", ": : : :", "&", "*", "!", "|", "%", "\u{0}", "- - - ? :"] {
        let _ = read(text);
        let _ = read(&text.repeat(1 << 14));
    }
}
