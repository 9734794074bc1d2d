use serde_json::{Map, Value as Tree, json};

use super::*;

fn scanned(pieces: &[&[u8]]) -> Json {
    let mut json = Json::default();
    pieces.iter().for_each(|piece| json.push(piece));
    json
}

fn model(text: &str) -> Model {
    scanned(&[text.as_bytes()]).found.model
}

fn named(name: &str) -> Model {
    Model::Named(name.to_owned())
}

/// Texts and the models that they name.
fn corpus() -> Vec<(&'static str, Model)> {
    vec![
        ("", Model::Unsaid),
        ("{}", Model::Unsaid),
        (r#"{"model":"a"}"#, named("a")),
        (" \r\n\t{ \"model\"\t:\n\"a\" , \"b\": [ ] } ", named("a")),
        ("\u{feff}{\"model\":\"a\"}", named("a")),
        (r#"{"messages":[{"model":"no"},{"a":"}]\"{[","model":"no"}],"model":"a","x":{"model":"no"}}"#, named("a")),
        (r#"{"prompt":"\"model\":\"no\"","model":"a"}"#, named("a")),
        (r#"{"prompt":"\\","model":"a","b":"\\\""}"#, named("a")),
        (r#"{"\u006dodel":"\u0061\u00e9\"\\\/\b\f\n\r\t"}"#, named("aé\"\\/\u{8}\u{c}\n\r\t")),
        (r#"{"\u006D\u006F\u0064\u0065\u006C":"\ud83d\ude00"}"#, named("😀")),
        (r#"{"model":"\ud83d"}"#, named("\u{fffd}")),
        (r#"{"model":"\ude00\ud83dx\ud83d\n\ud83d\ud83d\ude00"}"#, named("\u{fffd}\u{fffd}x\u{fffd}\n\u{fffd}😀")),
        (r#"{"model":"\u00zz","x":"y"}"#, named("\u{fffd}zz")),
        (r#"{"model":"a","model":"b"}"#, named("b")),
        (r#"{"model":"a","model":null}"#, Model::Unsaid),
        (r#"{"model":null,"model":"b"}"#, named("b")),
        (r#"{"model":"a","mode\u006c":7}"#, Model::NoName),
        (r#"{"model":["a"]}"#, Model::NoName),
        (r#"{"model":{"model":"a"}}"#, Model::NoName),
        (r#"{"model":true}"#, Model::NoName),
        (r#"{"model":-1.5e3,"x":1}"#, Model::NoName),
        (r#"{"model":""}"#, named("")),
        (r#"{"modell":"a","mode":"b","Model":"c","":"d"}"#, Model::Unsaid),
        // Python's parser accepts these.
        (r#"{"t":NaN,"u":-Infinity,"model":"a"}"#, named("a")),
        // No worker accepts these.
        (r#"["model","a"]"#, Model::Unsaid),
        (r#""model""#, Model::Unsaid),
        ("model=a", Model::Unsaid),
        (r#"{"model":"a"#, Model::Unsaid),
        (r#"{"model":"a","x":"#, named("a")),
        (r#"{"model":"a"}{"model":"b"}"#, named("a")),
        (r#"{"model":"a"} x"#, named("a")),
        (r#"{"x":[}],"model":"a"}"#, named("a")),
        (r#"{,,"model":"a",}"#, named("a")),
        ("\0", Model::Unsaid),
        ("{\"model\":\"\0\u{1}\"}", named("\0\u{1}")),
    ]
}

#[test]
fn the_last_string_of_that_name_counts() {
    for (text, expected) in corpus() {
        assert_eq!(model(text), expected, "{text}");
    }
    assert_eq!(scanned(&[b"{\"model\":\"\xff\xfea\"}"]).found.model, named("\u{fffd}\u{fffd}a"));
}

// As Python's parser knows them.
#[test]
fn an_object_in_utf_16_or_32_is_ambiguous() {
    let object = " {\"x\":\"é\",\"model\":\"a\"}";
    for (text, is_object) in [(object, true), (object.trim(), true), ("[\"model\"]", false), ("\"{\"", false)] {
        for mark in ["", "\u{feff}"] {
            let text = format!("{mark}{text}");
            for bytes in [
                text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>(),
                text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
                text.chars().flat_map(|char| u32::from(char).to_le_bytes()).collect(),
                text.chars().flat_map(|char| u32::from(char).to_be_bytes()).collect(),
            ] {
                let json = scanned(&[&bytes]);
                assert_eq!((json.found.model == Model::Ambiguous, json.is_object()), (is_object, false), "{bytes:?}");
                let each: Vec<_> = bytes.chunks(1).collect();
                assert_eq!(scanned(&each).found, json.found, "{bytes:?}");
            }
        }
    }
}

#[test]
fn every_split_finds_the_same() {
    for (text, _) in corpus() {
        let bytes = text.as_bytes();
        let whole = scanned(&[bytes]);
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                let split = scanned(&[&bytes[..first], &bytes[first..second], &bytes[second..]]);
                assert_eq!((&split.found, split.state), (&whole.found, whole.state), "{text} at {first}, {second}");
            }
        }
    }
}

#[test]
fn places_are_those_of_the_strings() {
    let text = " {\"model\":\"a\\\"b\", \"x\":\"model\", \"model\" : null, \"mod\\u0065l\":  \"é\"}";
    let found = scanned(&[text.as_bytes()]).found;
    let strings: Vec<&str> = found.places.iter().map(|at| &text[at.start as usize..at.end as usize]).collect();
    assert_eq!((strings.as_slice(), found.count), (&["\"a\\\"b\"", "\"é\""][..], 3));
    let many = format!("{{{}\"model\":\"last\"}}", "\"model\":\"x\",".repeat(1000));
    let places = scanned(&[many.as_bytes()]).found.places;
    let last = places.last().expect("there are some");
    assert_eq!(&many[last.start as usize..last.end as usize], "\"last\"");
    assert!(places.len() <= 8);
}

#[test]
fn nothing_is_too_deep_and_no_more_is_kept_than_a_name() {
    for (open, close) in [("[", "]"), ("{\"model\":", "}")] {
        let text = format!("{{\"x\":{}0{},\"model\":\"a\"}}", open.repeat(200_000), close.repeat(200_000));
        assert_eq!(model(&text), named("a"));
    }
    let long = format!("{{\"{}\":1,\"model\":\"{}\"}}", "k".repeat(1 << 20), "a".repeat(1 << 20));
    let json = scanned(&[long.as_bytes()]);
    assert_eq!(json.found.model, Model::NoName);
    assert_eq!(model(&format!("{{\"model\":\"{}\"}}", "a".repeat(LONGEST))), named(&"a".repeat(LONGEST)));
}

#[test]
fn it_is_done_where_the_object_ends_or_none_begins() {
    for (text, is_done, is_object) in [
        ("  ", false, false),
        ("{\"model\":\"a\"", false, true),
        ("{\"model\":\"a\"}", true, true),
        ("[", true, false),
        ("x", true, false),
    ] {
        let json = scanned(&[text.as_bytes()]);
        assert_eq!((json.is_done(), json.is_object()), (is_done, is_object), "{text}");
    }
}

fn random_text(random: &mut fastrand::Rng) -> String {
    const TEXTS: [&str; 8] = ["model", "model", "", "\"}", "\\", "{\"model\":\"x\"", "é😀\u{0}", "mod"];
    TEXTS[random.usize(..TEXTS.len())].to_owned()
}

fn random_value(random: &mut fastrand::Rng, depth: u32) -> Tree {
    match random.u8(..if depth == 0 { 5 } else { 7 }) {
        0 => Tree::Null,
        1 => json!(random.bool()),
        2 => json!(random.i32(..)),
        3 | 4 => json!(random_text(random)),
        5 => (0..random.u32(..4)).map(|_| random_value(random, depth - 1)).collect(),
        _ => {
            let members = (0..random.u32(..4)).map(|_| (random_text(random), random_value(random, depth - 1)));
            members.collect::<Map<_, _>>().into()
        }
    }
}

/// An object that may have a repeated member.
fn random_object(random: &mut fastrand::Rng) -> String {
    let members: Vec<String> =
        (0..random.u32(..6)).map(|_| format!("{}:{}", json!(random_text(random)), random_value(random, 4))).collect();
    format!("{{{}}}", members.join(","))
}

/// The text with some characters in strings escaped, and white space between tokens.
fn disguised(random: &mut fastrand::Rng, text: &str) -> String {
    let (mut disguised, mut is_string, mut is_escape) = (String::new(), false, false);
    for char in text.chars() {
        let is_plain = is_string && !is_escape && char.is_ascii_alphabetic();
        match char {
            '"' if !is_escape => is_string = !is_string,
            _ if is_plain && random.u8(..4) == 0 => {
                disguised += &format!("\\u{:04x}", u32::from(char));
                continue;
            }
            _ => {}
        }
        is_escape = is_string && char == '\\' && !is_escape;
        disguised.push(char);
        if !is_string && !char.is_ascii_alphanumeric() && char != '-' && random.u8(..4) == 0 {
            disguised.push([' ', '\n', '\t', '\r'][random.usize(..4)]);
        }
    }
    disguised
}

#[test]
fn random_documents_name_what_serde_json_finds() {
    let mut dice = fastrand::Rng::with_seed(7);
    let mut met = [0; 3];
    for _ in 0..20_000 {
        let text = match dice.u8(..10) {
            0 => random_value(&mut dice, 4).to_string(),
            _ => random_object(&mut dice),
        };
        let text = disguised(&mut dice, &text);
        let tree: Tree = serde_json::from_str(&text).expect(&text);
        let expected = match tree.get("model").filter(|_| tree.is_object()) {
            None | Some(Tree::Null) => Model::Unsaid,
            Some(Tree::String(name)) => named(name),
            Some(_) => Model::NoName,
        };
        met[match &expected {
            Model::Unsaid => 0,
            Model::Named(_) => 1,
            Model::NoName | Model::Ambiguous => 2,
        }] += 1;
        let (first, second) = text.as_bytes().split_at(dice.usize(..=text.len()));
        let json = scanned(&[first, second]);
        assert_eq!(json.found.model, expected, "{text}");
        assert!(json.is_done(), "{text}");
    }
    assert!(met.iter().all(|count| *count > 300), "{met:?}");
}

#[test]
fn random_bytes_do_no_harm() {
    let mut dice = fastrand::Rng::with_seed(8);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..dice.usize(..60)).map(|_| b"{}[]\",:\\umodelnx0\xff "[dice.usize(..19)]).collect();
        let all = [b"{\"model\":\"", &bytes[..]].concat();
        let each: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(scanned(&each).found, scanned(&[&all]).found, "{:?}", String::from_utf8_lossy(&all));
    }
}
