use super::super::Model;
use super::*;

fn scanned(pieces: &[&[u8]]) -> Multipart {
    let mut multipart = Multipart::new(b"b-b");
    pieces.iter().for_each(|piece| multipart.push(piece));
    multipart
}

fn field(name: &str, value: &str) -> String {
    format!("--b-b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

fn file(value: &str) -> String {
    format!(
        "--b-b\r\nContent-Type: audio/wav\r\ncontent-DISPOSITION:form-data;filename=\"a;name=model\"; name=file\r\n\r\n{value}\r\n"
    )
}

fn named(name: &str) -> Model {
    Model::Named(name.to_owned())
}

/// Bodies and the models that they name.
fn corpus() -> Vec<(String, Model)> {
    let end = "--b-b--\r\n";
    let body = |parts: &[String]| parts.concat() + end;
    vec![
        (String::new(), Model::Unsaid),
        (end.into(), Model::Unsaid),
        (body(&[field("model", "a")]), named("a")),
        (body(&[file("\r\n\r\r\n--b-\r\n--b"), field("model", "a"), field("x", "y")]), named("a")),
        (body(&[field("model", "a"), field("model", "b")]), Model::Ambiguous),
        (body(&[field("model", "a"), field("model", "")]), Model::Ambiguous),
        (body(&[field("model", "a"), field("x", "b"), field("model", "a")]), named("a")),
        (body(&[field("model", "a\r\n--b\r\r\n")]), named("a\r\n--b\r\r\n")),
        (body(&[field("x", "Content-Disposition: form-data; name=\"model\"\r\n\r\nno")]), Model::Unsaid),
        (format!("a preamble\r\n{}--b-b  \r\n{}", field("model", "a"), end), named("a")),
        (format!("\r\n{}{end}an epilogue\r\n{}", field("model", "a"), field("model", "no")), named("a")),
        (body(&["--b-b\r\nContent-Disposition: form-data; name=model\r\nA: b\r\n\r\na\r\n".into()]), named("a")),
        (body(&["--b-b\r\nContent-Disposition: form-data; NAME = \"model\"\r\n\r\na\r\n".into()]), named("a")),
        (body(&["--b-b\r\nContent-Disposition: form-data; name=\"mod\\el\"\r\n\r\na\r\n".into()]), Model::Unsaid),
        (
            body(&[field("model", "a\r\n--b-bx\r\n--b-b \rx\r\n--b-b\ny\r\n--b-b-z")]),
            named("a\r\n--b-bx\r\n--b-b \rx\r\n--b-b\ny\r\n--b-b-z"),
        ),
        (body(&[field("model", "\r\n--b-b\r\r\n--b-b-")]), named("\r\n--b-b\r\r\n--b-b-")),
        // A file, although its field is `model`.
        (
            body(&["--b-b\r\nContent-Disposition: form-data; name=\"model\"; filename=\"f\"\r\n\r\na\r\n".into()]),
            Model::Unsaid,
        ),
        // A longer boundary does not match.
        ("--b-bb\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--b-bb--".into(), Model::Unsaid),
        // The body is truncated.
        ("--b-b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--b-".into(), Model::Unsaid),
        (body(&[field("model", &"a".repeat(LONGEST + 1))]), Model::NoName),
        (
            body(&[format!(
                "--b-b\r\nX: {}\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n",
                "x".repeat(9000)
            )]),
            named("a"),
        ),
    ]
}

#[test]
fn all_fields_of_that_name_count() {
    for (body, expected) in corpus() {
        assert_eq!(scanned(&[body.as_bytes()]).found.model, expected, "{body}");
    }
}

#[test]
fn every_split_finds_the_same() {
    for (body, _) in corpus() {
        let bytes = body.as_bytes();
        let whole = scanned(&[bytes]);
        for at in 0..=bytes.len() {
            let split = scanned(&[&bytes[..at], &bytes[at..]]);
            assert_eq!((&split.found, split.state), (&whole.found, whole.state), "{body} at {at}");
        }
        let each: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(scanned(&each).found, whole.found, "{body}");
    }
}

#[test]
fn places_are_those_of_the_contents() {
    let body =
        [field("model", "first\r\n--b-bx"), file("x"), field("model", ""), field("model", "last")].concat() + "--b-b--";
    let found = scanned(&[body.as_bytes()]).found;
    let contents: Vec<&str> = found.places.iter().map(|at| &body[at.start as usize..at.end as usize]).collect();
    assert_eq!(contents, ["first\r\n--b-bx", "", "last"]);
}

#[test]
fn parameters_are_read_as_they_are_quoted() {
    for (text, name, value) in [
        ("x;a=b", "a", Some("b")),
        (" form-data ; a = b ; c=d", "c", Some("d")),
        ("x;a=\"b;c=d\"; e=\"f\\\"g\\\\h\\i\"", "e", Some("f\"g\\h\\i")),
        ("x;a=\"b;c=d\"; e=f", "c", None),
        ("x;A=\"b\"x;c=\"\"", "c", Some("")),
        ("x;A=\"b\"x;c=\"\"", "a", Some("\"b\"x")),
        ("x;a=b\";c=d", "c", None),
        ("x;a=1;a=2", "a", Some("2")),
        ("x;a=1;a", "a", Some("")),
        ("x;a=\"open", "a", Some("\"open")),
        ("x;a=", "a", Some("")),
        ("x;a=\"", "a", Some("\"")),
        ("a=b", "a", None),
        ("=;;=;x", "a", None),
        ("", "a", None),
    ] {
        let found = parameter(text.as_bytes(), name.as_bytes());
        assert_eq!(found.as_deref(), value.map(str::as_bytes), "{text}");
    }
}
