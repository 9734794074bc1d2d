//! Which modules an agent runs, and what it says of those that it can't.

use crate::support::{Agent, Decision, Event, Files, Sentinel, Version, guest, run};

/// Runs an agent for a module that it can't run; what it says.
#[track_caller]
fn refused(what: &str, file: &str) -> String {
    let files = Files::new();
    let ran = run(&["agent", "--socket", &files.named("agent.sock"), "--module", file], &[]);
    assert_eq!(ran.code, Some(2), "{what}: {}{}", ran.stdout, ran.stderr);
    assert_eq!(std::fs::read_dir(files.root()).expect("a directory").count(), 0, "{what}: no socket was made");
    assert!(ran.stderr.contains(file), "{what}: it names the file: {}", ran.stderr);
    ran.stderr
}

#[test]
fn a_module_that_cannot_be_run_ends_with_2_and_the_reason() {
    let files = Files::new();
    std::fs::create_dir(files.path("directory.wasm")).expect("a directory");
    let of = |name: &str, module: &Sentinel| files.sentinel(name, module);
    let module = Sentinel::default;
    let wasm = std::fs::read(guest("sentinel-hostile")).expect("the guest");
    for (what, file, reason) in [
        ("a missing file", files.named("missing.wasm"), "No such file"),
        ("a directory", files.named("directory.wasm"), "not a regular file"),
        ("a device", "/dev/null".to_owned(), "not a regular file"),
        ("an empty file", files.write("empty.wasm", b""), "empty"),
        ("text", files.write("text.wasm", b"hello"), "component"),
        ("half a module", files.write("half.wasm", &wasm[..wasm.len() / 2]), "not valid"),
        ("another interface", files.assemble("other", "(module (func (export \"_start\")))"), "on_request_headers"),
        ("no alloc", of("alloc", &module().without("alloc")), "alloc"),
        ("an import", of("import", &module().items("(import \"env\" \"key\" (func))")), "env"),
        (
            "another type",
            of("type", &module().function("on_request_headers", "(param i32) (result i64) (i64.const 0)")),
            "(i32, i32) -> i64",
        ),
        ("a start that traps", of("trap", &module().function("_initialize", "unreachable")), "instantiate"),
        (
            "a refusal of no configuration",
            of("picky", &module().function("on_configure", "(param i32 i32) (result i32) (i32.const 5)")),
            "refused with 5",
        ),
        ("a component", guest("auth"), "core modules"),
    ] {
        let said = refused(what, &file);
        assert!(said.contains(reason), "{what}: no {reason:?} in {said}");
        assert_eq!(said.lines().count(), 1, "{what}: one line says it: {said}");
    }
}

#[test]
fn any_name_and_any_place_will_do() {
    let files = Files::new();
    let wasm = std::fs::read(guest("sentinel-hostile")).expect("the guest");
    std::fs::create_dir(files.path("a b")).expect("a directory");
    for name in ["module", "module.WASM", ".wasm", "a b/caf\u{e9}.bin"] {
        let agent = Agent::running(&files.write(name, &wasm)).start();
        assert_eq!(agent.connect(Version::V1).ask(&Event::request()).decision, Decision::Allow, "{name}");
    }
    let link = files.path("link.wasm");
    std::os::unix::fs::symlink(files.path("module"), &link).expect("a link");
    let agent = Agent::running(&files.named("link.wasm")).start();
    assert_eq!(agent.connect(Version::V1).ask(&Event::request()).decision, Decision::Allow);
}
