//! Module files of a test's own.

use super::component::Component;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes when it is dropped.
pub struct Files(PathBuf);

impl Files {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("smg-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Files(path.canonicalize().expect("it was just made"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The directory's own path.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The absolute path of `name`, as a deployment takes it.
    pub fn named(&self, name: &str) -> String {
        self.path(name).into_os_string().into_string().expect("a UTF-8 path")
    }

    /// Writes a file; its absolute path.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        std::fs::write(self.path(name), bytes).expect("the directory can be written");
        self.named(name)
    }

    /// Assembles `text` into the file `NAME.wasm`; its absolute path.
    #[track_caller]
    pub fn assemble(&self, name: &str, text: &str) -> String {
        let bytes = wat::parse_str(text).unwrap_or_else(|e| panic!("{e}"));
        self.write(&format!("{name}.wasm"), bytes)
    }

    #[track_caller]
    pub fn component(&self, name: &str, component: &Component) -> String {
        self.assemble(name, &component.text())
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
