use super::*;
use crate::modules::{Abi, Settings};

const MODULE: &str =
    r#"{"name":"a","file_path":"/m/a.wasm","module_type":"Middleware","attach_points":[{"Middleware":"OnRequest"}]"#;

fn defaults() -> Defaults {
    let limits = Limits { memory_pages: 1024, execution: Duration::from_secs(1), body_bytes: 100 };
    Defaults { limits, on_failure: FailurePolicy::Closed, pool_size: 4 }
}

fn status(body: &str) -> u16 {
    read(body.as_bytes()).err().map_or(200, |refusal| refusal.status.as_u16())
}

fn settings(more: &str) -> Result<Settings, String> {
    let body = format!(r#"{{"modules":[{MODULE}{more}}}]}}"#);
    let mut modules = read(body.as_bytes()).unwrap_or_else(|refusal| panic!("{}", refusal.message));
    let deployment = modules.remove(0).1.deployment(&defaults()).map_err(|error| error.to_string())?;
    deployment.settings.settings(Abi::SmgV1).map_err(|error| error.to_string())
}

#[test]
fn fields_are_refused_with_their_path_and_syntax_without() {
    for (body, wanted) in [
        ("{", 400),
        ("[1]{}", 422),
        ("", 400),
        (r#"{"modules":[]}"#, 200),
        (r#"{"modules":[]} x"#, 400),
        (r#"{"modules":[{}]}"#, 422),
        (r#"{}"#, 422),
        ("[[]]", 422),
        ("null", 422),
        (r#"{"modules":[["a","/m/a.wasm","Middleware",[]]]}"#, 422),
    ] {
        assert_eq!(status(body), wanted, "{body}");
    }
    assert_eq!(status(&format!(r#"{{"modules":[{MODULE},"header_case":1}}]}}"#)), 422);
    let nested = format!(r#"{{"modules":[{MODULE},"config":{}"#, "[".repeat(1_000_000));
    assert_eq!(status(&nested), 400);
    let wrong = format!(r#"{{"modules":[{MODULE},"attach_pointz":[]}}]}}"#);
    let refusal = read(wrong.as_bytes()).err().expect("an unknown field");
    assert!(refusal.message.starts_with("modules[0]"), "{}", refusal.message);
}

#[test]
fn settings_default_to_the_flags_and_may_ask_for_less() {
    let plain = settings("").expect("settings");
    assert_eq!((plain.limits, plain.instance), (defaults().limits, InstanceMode::Request {}));
    let less = settings(
        r#","limits":{"execution_ms":5},"instance":{"mode":"pooled"},"on_failure":{"OnResponse":"open","status":500}"#,
    );
    let less = less.expect("settings");
    assert_eq!(less.limits.execution, Duration::from_millis(5));
    assert_eq!(less.instance, InstanceMode::Pooled { size: Some(4), max_uses: Some(10_000) });
    assert_eq!((less.on_failure.request, less.on_failure.response), (FailurePolicy::Closed, FailurePolicy::Open));
    assert_eq!(less.failure_status, 500);
}

#[test]
fn settings_out_of_bounds_are_refused() {
    for more in [
        r#","limits":{"execution_ms":1001}"#,
        r#","limits":{"memory_pages":0}"#,
        r#","instance":{"mode":"pooled","size":0}"#,
        r#","instance":{"mode":"pooled","max_uses":0}"#,
        r#","on_failure":{"status":200}"#,
        r#","header_case":"lower""#,
        r#","match":{"paths":["v1"]}"#,
        r#","match":{"paths":["/a*b"]}"#,
        r#","match":{"methods":["A B"]}"#,
    ] {
        assert!(settings(more).is_err(), "{more}");
    }
}
