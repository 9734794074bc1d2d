//! Where a module's file may be, and that looking for it leads nowhere else. Case 40 of section 3.

use crate::support::{Component, Files, Gateway, Module, Worker, guest};
use rustix::fs::{FileType, Mode};
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Each path with what the reason must contain.
#[track_caller]
fn refuses(gateway: &Gateway, cases: &[(&str, String, &str)]) {
    for (what, file, wanted) in cases {
        let start = Instant::now();
        let error = gateway.refusal(&Module::new("m", file));
        assert!(error.contains(wanted), "{what}: no {wanted:?} in {error:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{what}: {:?}", start.elapsed());
    }
}

#[test]
fn a_path_that_is_none_for_a_module_is_refused_with_the_reason() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let good = files.write("good.wasm", std::fs::read(guest("minimal")).unwrap());
    let no_suffix = files.write("good", std::fs::read(&good).unwrap());
    std::fs::create_dir(files.path("below")).unwrap();
    refuses(
        &gateway,
        &[
            ("no path", String::new(), "empty"),
            ("a relative path", "guests/dist/minimal.wasm".to_owned(), "must be absolute"),
            ("a relative path", "./minimal.wasm".to_owned(), "must be absolute"),
            ("a missing file", files.named("missing.wasm"), "no such file"),
            ("a missing directory", files.named("missing/good.wasm"), "no such file"),
            ("a file for a directory", files.named("good.wasm/x.wasm"), "no such file"),
            ("no suffix", no_suffix, ".wasm"),
            ("another suffix", files.write("good.wat", b"(component)"), ".wasm"),
            ("the suffix in capitals", files.write("good.WASM", b"x"), ".wasm"),
            ("nothing but the suffix", files.write(".wasm", b"x"), ".wasm"),
            ("a way up", files.named("below/../good.wasm"), ".."),
            ("an empty file", files.write("empty.wasm", b""), "empty"),
            ("a directory", files.root().to_str().unwrap().to_owned(), ".wasm"),
            ("a long name", files.named(&("x".repeat(300) + ".wasm")), ""),
            ("a long path", "/".to_owned() + &"x/".repeat(5000) + "y.wasm", ""),
            ("a NUL", files.named("a\0.wasm"), ""),
        ],
    );
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    std::fs::create_dir(files.path("directory.wasm")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, files.path("fifo.wasm"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(files.path("socket.wasm")).unwrap();
    symlink(files.path("fifo.wasm"), files.path("to-fifo.wasm")).unwrap();
    symlink("loop.wasm", files.path("loop.wasm")).unwrap();
    symlink("nowhere", files.path("dangling.wasm")).unwrap();
    refuses(
        &gateway,
        &[
            ("a directory", files.named("directory.wasm"), "not a regular file"),
            ("a FIFO", files.named("fifo.wasm"), "not a regular file"),
            ("a socket", files.named("socket.wasm"), "not a regular file"),
            ("a link to a FIFO", files.named("to-fifo.wasm"), "not a regular file"),
            ("a link to itself", files.named("loop.wasm"), ""),
            ("a link to nowhere", files.named("dangling.wasm"), "no such file"),
        ],
    );
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn system_directories_are_closed_also_through_a_link() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let linked = |name: &str, target: &str| {
        symlink(target, files.path(name)).unwrap();
        files.named(name)
    };
    refuses(
        &gateway,
        &[
            ("/etc", linked("passwd.wasm", "/etc/passwd"), "not allowed"),
            ("/etc by a link to a link", linked("again.wasm", &files.named("passwd.wasm")), "not allowed"),
            ("/proc", linked("environ.wasm", "/proc/self/environ"), "not allowed"),
            ("/proc, memory", linked("mem.wasm", "/proc/self/mem"), "not allowed"),
            ("/dev", linked("zero.wasm", "/dev/zero"), "not allowed"),
            ("/dev, standard input", linked("stdin.wasm", "/dev/stdin"), "not"),
            ("/sys", linked("online.wasm", "/sys/devices/system/cpu/online"), "not allowed"),
            ("/etc by a link to the directory", linked("etc", "/etc") + "/x.wasm", "no"),
        ],
    );
}

#[test]
fn an_error_tells_nothing_of_what_is_in_the_file() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let secret = files.write("secret.wasm", b"hunter2 hunter2 hunter2");
    let error = gateway.refusal(&Module::new("m", &secret));
    assert!(!error.contains("hunter2"), "{error}");
    let magic = [&b"\0asm\x0d\0\x01\0"[..], b"hunter2 hunter2"].concat();
    let error = gateway.refusal(&Module::new("m", &files.write("magic.wasm", magic)));
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_file_of_a_terabyte_is_refused_unread() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let file = std::fs::File::create(files.path("sparse.wasm")).unwrap();
    let size = [1 << 40, 1 << 33].into_iter().find(|size| file.set_len(*size).is_ok());
    size.expect("the file system holds sparse files");
    let memory = gateway.memory();
    refuses(&gateway, &[("a terabyte of nothing", files.named("sparse.wasm"), "larger than")]);
    assert!(gateway.memory() < memory + (16 << 20), "{memory} -> {}", gateway.memory());
}

#[test]
fn a_link_to_a_good_file_is_good() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let target = files.component("target", &Component::marking("v1"));
    symlink(&target, files.path("link.wasm")).unwrap();
    let uuid = gateway.add(&Module::new("m", &files.named("link.wasm")));
    assert_eq!(gateway.meta(&uuid)["file_path"], files.named("link.wasm"));
    assert_eq!(gateway.get("/").headers.get("x-response-mark"), Some("v1"));
}

#[test]
fn a_file_is_read_once() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let file = files.component("m", &Component::marking("v1"));
    gateway.add(&Module::new("m", &file));
    files.write("m.wasm", b"nonsense");
    assert_eq!(gateway.get("/").headers.get("x-response-mark"), Some("v1"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(gateway.get("/").headers.get("x-response-mark"), Some("v1"));
}

#[test]
fn with_a_module_directory_only_files_below_it_are_deployed() {
    let worker = Worker::echo();
    let (inside, outside) = (Files::new(), Files::new());
    let beside = inside.root().with_extension("beside");
    std::fs::create_dir(&beside).unwrap();
    let gateway = Gateway::with_modules(&worker).arg(format!("--wasm-module-dir={}", inside.named(""))).start();
    std::fs::create_dir(inside.path("deep")).unwrap();
    let bytes = std::fs::read(guest("minimal")).unwrap();
    let good = outside.write("good.wasm", &bytes);
    std::fs::write(beside.join("x.wasm"), &bytes).unwrap();
    symlink(&good, inside.path("out.wasm")).unwrap();
    symlink(outside.root(), inside.path("out")).unwrap();
    symlink(inside.path("deep"), outside.path("in")).unwrap();
    refuses(
        &gateway,
        &[
            ("a file elsewhere", good, "--wasm-module-dir"),
            ("a link out", inside.named("out.wasm"), "--wasm-module-dir"),
            ("a directory that leads out", inside.named("out/good.wasm"), "--wasm-module-dir"),
            ("a way up", inside.named("../x.wasm"), ".."),
            ("a directory of a longer name", beside.join("x.wasm").to_str().unwrap().to_owned(), "--wasm-module-dir"),
            ("a guest of the project", guest("minimal"), "--wasm-module-dir"),
        ],
    );
    let uuid = gateway.add(&Module::new("m", &inside.write("deep/m.wasm", &bytes)));
    gateway.remove(&uuid);
    gateway.add(&Module::new("m", &outside.named("in/m.wasm")));
    std::fs::remove_dir_all(&beside).unwrap();
}

#[test]
fn what_is_checked_is_what_is_read() {
    let worker = Worker::echo();
    let gateway = Gateway::with_modules(&worker).start();
    let files = Files::new();
    let good = files.component("good", &Component::default());
    let turning = files.path("m.wasm");
    symlink(&good, &turning).unwrap();
    let done = AtomicBool::new(false);
    let turn = || {
        for turn in (0..).take_while(|_| !done.load(Ordering::SeqCst)) {
            let target = if turn % 2 == 0 { "/etc/passwd" } else { &*good };
            symlink(target, files.path("next")).unwrap();
            std::fs::rename(files.path("next"), &turning).unwrap();
        }
    };
    let deploy = || {
        for _ in 0..60 {
            let answer = gateway.try_deploy(Module::new("m", &files.named("m.wasm")).json()).json();
            let result = &answer["modules"][0]["add_result"];
            match result["Success"].as_str() {
                Some(uuid) => gateway.remove(uuid),
                None => assert!(result["Error"].as_str().is_some_and(|e| e.contains("not allowed")), "{result}"),
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(turn);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(deploy));
        done.store(true, Ordering::SeqCst);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}
