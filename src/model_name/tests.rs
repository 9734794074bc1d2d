use http::header::HeaderValue;

use super::*;

fn named(name: &str) -> Model {
    Model::Named(name.to_owned())
}

fn found(format: &Format, pieces: &[&[u8]]) -> Found {
    let mut scanner = format.scanner();
    pieces.iter().for_each(|piece| scanner.push(piece));
    scanner.finish();
    scanner.found().clone()
}

#[test]
fn the_type_says_how_a_body_may_name_a_model() {
    let of = |kind: &'static str, is_length_known| {
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))].into_iter().collect();
        Format::of(&headers, is_length_known)
    };
    assert_eq!(Format::of(&HeaderMap::new(), false), Some(Format::Json));
    for kind in
        ["application/json", "Application/JSON; charset=utf-8", "text/plain;charset=UTF-8", "application/vnd.a+json"]
    {
        assert_eq!(of(kind, false), Some(Format::Json), "{kind}");
    }
    assert_eq!(of("application/x-www-form-urlencoded", false), Some(Format::FormOrJson));
    for kind in ["application/octet-stream", "application/x-any", "anything"] {
        assert_eq!((of(kind, true), of(kind, false)), (Some(Format::Json), None), "{kind}");
    }
    for kind in
        ["application/grpc", "application/grpc+json", "application/connect+json", "text/event-stream", "audio/wav"]
    {
        assert_eq!(of(kind, true), None, "{kind}");
    }
    let multipart = |boundary: &str| Some(Format::Multipart(boundary.into()));
    assert_eq!(of("multipart/form-data; boundary=a-b", false), multipart("a-b"));
    assert_eq!(of("Multipart/Form-Data; charset=x; Boundary=\"a b\"", false), multipart("a b"));
    for kind in ["multipart/form-data", "multipart/form-data; boundary=\"\"", "multipart/mixed; boundary=a"] {
        assert_eq!(of(kind, true), None, "{kind}");
    }
}

#[test]
fn a_form_names_what_all_values_of_that_name_are() {
    for (text, expected) in [
        ("", Model::Unsaid),
        ("model=a", named("a")),
        ("x=model&model=a&y=model=b", named("a")),
        ("model=a&model=b", Model::Ambiguous),
        ("model=a&model=b&model=b", Model::Ambiguous),
        ("model=a&x=y&m%6fdel=%61", named("a")),
        ("m%6Fdel=a%2Fb+c%", named("a/b c%")),
        ("%6d%6f%64%65%6c=a", named("a")),
        ("model=", Model::Unsaid),
        ("model=a&model=", Model::Ambiguous),
        ("model=a&model", Model::Ambiguous),
        ("model&model=&x=1", Model::Unsaid),
        ("model=a&x", named("a")),
        ("models=a&amodel=b&%20model=c", Model::Unsaid),
        (" model=a", Model::Unsaid),
        ("&&=&model==a", named("=a")),
        // JSON, as `curl -d` sends it.
        ("{\"model\":\"a\"}", named("a")),
        (" \n{\"model\":\"a=b&models=c\"}", named("a=b&models=c")),
        // Both.
        ("{\"model\":\"a\"}=1&model=b", Model::Ambiguous),
        ("{\"model\":\"a\"}=1&model=a", named("a")),
        ("{\"x\":\"a\"}=1&model=b", named("b")),
        ("{\"model\":\"a=b&model=c\"}", Model::Ambiguous),
        ("{\0\"\0=&model=a", Model::Ambiguous),
    ] {
        let bytes = text.as_bytes();
        let whole = self::found(&Format::FormOrJson, &[bytes]);
        assert_eq!(whole.model, expected, "{text}");
        for at in 0..=bytes.len() {
            assert_eq!(self::found(&Format::FormOrJson, &[&bytes[..at], &bytes[at..]]), whole, "{text} at {at}");
        }
    }
    let long = format!("{}=1&model={}", "k".repeat(1 << 20), "%61".repeat(LONGEST + 1));
    assert_eq!(self::found(&Format::FormOrJson, &[long.as_bytes()]).model, Model::NoName);
}

#[test]
fn a_query_is_a_form_and_keeps_the_rest_when_it_is_renamed() {
    for (query, expected, renamed) in [
        ("", Model::Unsaid, ""),
        ("a=b", Model::Unsaid, "a=b"),
        ("model=a&x=1", named("a"), "model=n%2F1&x=1"),
        ("x=%20&mod%65l=a%2Bb&model=a%2bb", named("a+b"), "x=%20&mod%65l=n%2F1&model=n%2F1"),
        ("model=a&model=b", Model::Ambiguous, "model=n%2F1&model=n%2F1"),
    ] {
        let found = in_query(query);
        assert_eq!(
            (&found.model, renamed_query(query, &found.places, "n/1").as_str()),
            (&expected, renamed),
            "{query}"
        );
    }
}

#[test]
fn a_name_is_written_as_its_format_has_it() {
    for (format, body, expected) in [
        (Format::Json, &b"{\"model\":\"a\"}"[..], "{\"model\":\"n\\\"/1\"}"),
        (Format::FormOrJson, b"model=a&x=y", "model=n%22%2F1&x=y"),
        (Format::FormOrJson, b" {\"model\":\"a\"}", " {\"model\":\"n\\\"/1\"}"),
        (
            Format::Multipart(b"b".to_vec()),
            b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--b--",
            "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nn\"/1\r\n--b--",
        ),
    ] {
        let mut scanner = format.scanner();
        scanner.push(body);
        scanner.finish();
        let mut written = body.to_vec();
        let place = scanner.found().places[0].clone();
        written.splice(place.start as usize..place.end as usize, scanner.spelling().of("n\"/1"));
        assert_eq!(String::from_utf8_lossy(&written), expected);
    }
}
