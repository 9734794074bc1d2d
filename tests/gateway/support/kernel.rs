//! What the kernel tells a gateway, as a test wishes: the time of day, and how much memory is left.

use super::files::Files;
use super::gateway::Builder;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gateway/support/kernel.c");

/// The clock is right and there is plenty of memory until the test says otherwise.
pub struct Kernel(Files);

impl Kernel {
    #[track_caller]
    pub fn new() -> Self {
        let kernel = Kernel(Files::new());
        kernel.0.write("clock", [0; 8]);
        kernel.set_available_memory(100 << 30);
        // Rust needs a C compiler to link, so there is one.
        let library = kernel.0.named("kernel.so");
        let compiled = Command::new("cc").args(["-shared", "-fPIC", "-o", &library, SOURCE]).output().expect("cc runs");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        kernel
    }

    /// Sets the wall clock so many seconds ahead.
    pub fn set_clock(&self, seconds: i64) {
        // In place: the gateway has it mapped, and must not see it empty.
        let file = File::options().write(true).open(self.0.path("clock")).expect("it was made");
        file.write_all_at(&seconds.to_ne_bytes(), 0).expect("it can be written");
    }

    pub fn set_available_memory(&self, bytes: u64) {
        self.0.write("meminfo", format!("MemAvailable: {} kB\n", bytes >> 10));
    }
}

impl Builder {
    pub fn kernel(self, kernel: &Kernel) -> Self {
        let file = |name| kernel.0.named(name);
        self.env("LD_PRELOAD", file("kernel.so")).env("CLOCK_SHIFT", file("clock")).env("MEMINFO", file("meminfo"))
    }
}
