//! Compiled code that is kept for the next start: used when it is ours and whole, and only then.

use crate::support::{Files, Gateway, Module, Worker, guest, run};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

fn start(worker: &Worker, directory: &Path) -> Gateway {
    let module = format!("--wasm-module=auth={}", guest("auth"));
    let cache = format!("--wasm-cache-dir={}", directory.display());
    Gateway::with_modules(worker).arg(module).arg(cache).start()
}

/// Where the code of its modules came from: compiled, from the cache. The module must work, wherever it did.
fn loads(gateway: &Gateway) -> (f64, f64) {
    assert_eq!(gateway.get("/v1/models").status, 401, "the module runs");
    let metrics = gateway.metrics();
    let of = |source| metrics.sum("smg_wasm_loads_total", &[("source", source)]);
    (of("compiled"), of("cache"))
}

fn only_artefact(directory: &Path) -> PathBuf {
    let files: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn the_next_start_compiles_nothing() {
    let (worker, files) = (Worker::echo(), Files::new());
    let directory = files.path("cache");
    let gateway = start(&worker, &directory);
    assert_eq!(loads(&gateway), (1.0, 0.0));
    // The same bytes under another name.
    gateway.add(&Module::new("again", &guest("auth")).set("allow_duplicate", true.into()));
    assert_eq!(loads(&gateway), (1.0, 1.0));
    drop(gateway);
    assert_eq!(std::fs::metadata(&directory).unwrap().mode() & 0o777, 0o700);
    assert_eq!(std::fs::metadata(only_artefact(&directory)).unwrap().mode() & 0o777, 0o600);
    assert_eq!(loads(&start(&worker, &directory)), (0.0, 1.0));
}

#[test]
fn what_is_damaged_or_could_be_another_s_is_compiled_anew() {
    let (worker, files) = (Worker::echo(), Files::new());
    let directory = files.path("cache");
    assert_eq!(loads(&start(&worker, &directory)), (1.0, 0.0));
    let artefact = only_artefact(&directory);
    let good = std::fs::read(&artefact).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for (what, bytes) in [("a flipped bit", &flipped[..]), ("a short file", &good[..99]), ("an empty file", b"")] {
        std::fs::write(&artefact, bytes).unwrap();
        assert_eq!(loads(&start(&worker, &directory)), (1.0, 0.0), "{what}");
        assert_eq!(std::fs::read(only_artefact(&directory)).unwrap().len(), good.len(), "{what} is replaced");
    }
    std::fs::set_permissions(&artefact, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(loads(&start(&worker, &directory)), (1.0, 0.0), "a file that others may write");
    let elsewhere = files.path("elsewhere");
    std::fs::rename(&artefact, &elsewhere).unwrap();
    symlink(&elsewhere, &artefact).unwrap();
    assert_eq!(loads(&start(&worker, &directory)), (1.0, 0.0), "a link");
    assert_eq!(loads(&start(&worker, &directory)), (0.0, 1.0), "what replaced it");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let files = Files::new();
    let directory = files.path("cache");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
    let cache = format!("--wasm-cache-dir={}", directory.display());
    for (cache, wanted) in [(&*cache, "nobody else may write"), ("--wasm-cache-dir=/proc/nowhere", "can't be used")] {
        let ran = run(&["--port=0", "--enable-wasm", cache], &[]);
        assert!(ran.code != Some(0) && ran.stderr.contains(wanted), "{cache}: {:?} {}", ran.code, ran.stderr);
    }
}
