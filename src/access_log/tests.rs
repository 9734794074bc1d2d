use std::io;
use std::sync::Mutex;

use super::*;
use crate::telemetry::{Millis, TextFields, Untrusted};

fn entry<'a>(modules: &'a [ModuleRun], tags: &'a [Arc<str>]) -> Entry<'a> {
    Entry {
        id: b"r-1",
        client: b"10.0.0.1",
        method: "POST",
        path: "/v1/a\"b\\c",
        query: "a=1 status=500\"",
        status: 502,
        error: "upstream_bad_response",
        cause: "the worker's answer is \"broken\": é\n\u{202e}",
        worker: "http://w:8000",
        model: "m",
        key: "",
        attempts: 3,
        to_head: Duration::from_nanos(1_234_567),
        total: Duration::from_millis(12_345),
        bytes_in: 0,
        bytes_out: u64::MAX,
        modules,
        tags,
        end: "complete",
        protocol: "1.1",
        host: b"h",
        user_agent: b"curl/8 \"\\\xff",
        referer: b"",
        trace_id: None,
        tls: "",
        correlation_id: b"",
    }
}

fn line(fields: &str, format: Format, entry: &Entry) -> String {
    let log = AccessLog::new(Output { fields: fields.parse().unwrap(), format, writer: Vec::new() });
    log.write(entry, SystemTime::now());
    String::from_utf8(log.writer.into_inner()).unwrap()
}

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What `tracing` makes of the same.
fn traced(format: Format, entry: &Entry) -> String {
    let kept = Kept::default();
    let writer = kept.clone();
    let builder = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false);
    let subscriber: Box<dyn tracing::Subscriber + Send + Sync> = match format {
        Format::Text => Box::new(builder.fmt_fields(TextFields).finish()),
        Format::Json => Box::new(builder.json().flatten_event(true).finish()),
    };
    let runs: Vec<_> = entry.modules.iter().map(|run| format!("{}:{}", run.module, run.verdict)).collect();
    let (modules, tags) = (runs.join(","), entry.tags.join(","));
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(
            target: "smg::access",
            id = %Untrusted(entry.id), client = %Untrusted(entry.client), method = %Untrusted(entry.method.as_bytes()),
            path = %Untrusted(entry.path.as_bytes()), status = entry.status, error = entry.error, cause = %Untrusted(entry.cause.as_bytes()), worker = entry.worker,
            head_ms = %Millis(entry.to_head), total_ms = %Millis(entry.total), bytes_in = entry.bytes_in,
            bytes_out = entry.bytes_out, modules = %Untrusted(modules.as_bytes()), tags = %Untrusted(tags.as_bytes()), end = entry.end,
        );
    });
    String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
}

/// Without the time: the length of everything stays.
fn timeless(line: &str) -> String {
    let at = line.find("20").expect("a year");
    format!("{}{:0>27}{}", &line[..at], "", &line[at + 27..])
}

#[test]
fn the_usual_line_is_as_tracing_would_write_it() {
    let run = |module, verdict| ModuleRun { module: Arc::from(module), verdict };
    let (modules, tags) = ([run("auth", "continue"), run("log", "trap")], [Arc::from("wasm-error")]);
    let broken = entry(&modules, &tags);
    let plain = Entry { cause: "", error: "", path: "/", ..entry(&[], &[]) };
    for entry in [broken, plain] {
        for format in [Format::Text, Format::Json] {
            let ours = line(DEFAULT_FIELDS, format, &entry);
            assert_eq!(timeless(&ours), timeless(&traced(format, &entry)));
        }
    }
}

#[test]
fn fields_come_as_they_were_chosen() {
    let entry = Entry { trace_id: None, ..entry(&[], &[]) };
    let text = line("status,total_ms,attempts,key,trace_id", Format::Text, &entry);
    assert_eq!(text, "INFO smg::access: status=502 total_ms=12345.000 attempts=3 key=\"\" trace_id=\n");
    let json = line("status,total_ms", Format::Json, &entry);
    assert_eq!(json, "{\"level\":\"INFO\",\"status\":502,\"total_ms\":\"12345.000\",\"target\":\"smg::access\"}\n");
    assert!(line("status,time", Format::Text, &entry).starts_with("20"), "the time is always first");
    for (at, (field, name)) in Field::ALL.iter().enumerate() {
        assert_eq!((*field as usize, field.name()), (at, *name));
        assert_eq!(&name.parse::<Fields>().unwrap().to_string(), name);
    }
    let why = "status,nonsense".parse::<Fields>().unwrap_err();
    assert!(why.starts_with("`nonsense` is not one of time,id,"), "{why}");
    assert!("status,status".parse::<Fields>().unwrap_err().contains("twice"));
    assert!("".parse::<Fields>().is_err());
}

#[test]
fn nobody_can_forge_a_field_or_a_line() {
    let tags = [Arc::from("a b,c"), Arc::from("d\n")];
    let (long, all) = ("x".repeat(9000), Field::ALL.map(|(_, name)| name).join(","));
    let modules = [ModuleRun { module: Arc::from("two words, \"x\""), verdict: "modify" }];
    let (host, correlation_id) = (&b"h\r\nforged"[..], &b"a b\""[..]);
    let entry = Entry { referer: long.as_bytes(), host, correlation_id, ..entry(&modules, &tags) };
    let text = line(&all, Format::Text, &entry);
    assert!(text.contains(r#" query="a=1 status=500\"" status=502 "#), "{text}");
    assert!(text.contains(r#" user_agent="curl/8 \"\\\\xff" "#), "{text}");
    assert!(text.contains(" tags=a_b_c,d_ "), "{text}");
    assert!(text.contains(r#" modules="two_words__\"x\":modify" "#), "{text}");
    assert!(text.contains(r#" path="/v1/a\"b\\c" "#), "{text}");
    assert!(text.contains(r#" cause="the worker's answer is \"broken\": "#), "{text}");
    assert!(text.contains(r#" host="h\\u{d}\\u{a}forged" "#), "{text}");
    assert!(text.ends_with('\n') && text.lines().count() == 1 && text.len() < 2000, "{text}");
    let json: serde_json::Value = serde_json::from_str(&line(&all, Format::Json, &entry)).expect("JSON");
    assert_eq!(json.as_object().unwrap().len(), Field::ALL.len() + 2);
    assert_eq!((&json["query"], &json["host"]), (&"a=1 status=500\"".into(), &"h\\u{d}\\u{a}forged".into()));
}

#[test]
fn the_time_goes_on() {
    let mut clock = Clock::default();
    let mut show =
        |ns: u64| String::from_utf8(clock.show(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)).to_vec()).unwrap();
    assert_eq!(show(0), "1970-01-01T00:00:00.000000Z");
    assert_eq!(show(1_709_251_199_999_999_999), "2024-02-29T23:59:59.999999Z");
    assert_eq!(show(1_709_251_199_000_001_000), "2024-02-29T23:59:59.000001Z");
    assert_eq!(show(1_709_251_200_000_000_000), "2024-03-01T00:00:00.000000Z");
}
