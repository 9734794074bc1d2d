//! A configuration file of a test's own, and the gateways that read it.

use super::files::Files;
use super::gateway::{Builder, Gateway};
use super::process::{Ran, run};
use super::wait::eventually;
use rustix::process::Signal;
use std::net::SocketAddr;
use std::time::Duration;

/// A file in a directory of its own, which is gone with it.
pub struct ConfigFile {
    pub files: Files,
    pub path: String,
}

impl ConfigFile {
    pub fn new(text: impl AsRef<str>) -> Self {
        Self::beside(Files::new(), text)
    }

    /// In a directory with files that it names.
    pub fn beside(files: Files, text: impl AsRef<str>) -> Self {
        let path = files.write("smg.yaml", text.as_ref());
        ConfigFile { files, path }
    }

    /// Puts another text in its place at once.
    pub fn rewrite(&self, text: impl AsRef<str>) {
        let new = self.files.write("smg.yaml.new", text.as_ref());
        std::fs::rename(new, &self.path).expect("both are in one directory");
    }

    /// A gateway that reads it, on a free port.
    pub fn gateway(&self) -> Builder {
        let arguments = ["--host=127.0.0.1", "--port=0", &format!("--config={}", self.path)].map(str::to_owned);
        arguments.into_iter().fold(Gateway::builder().without_defaults(), Builder::arg)
    }

    /// `smg check`
    pub fn check(&self) -> Ran {
        run(&["check", &self.path], &[])
    }
}

impl Gateway {
    /// Sends SIGHUP and waits until the gateway has said what came of it; that, and what it warns of.
    #[track_caller]
    pub fn reload(&self) -> String {
        let before = self.reloads().len();
        self.signal(Signal::HUP);
        self.next_reload(before)
    }

    /// Waits for a reload after the first `before`.
    #[track_caller]
    pub fn next_reload(&self, before: usize) -> String {
        eventually(Duration::from_secs(10), || self.reloads().len() > before);
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        let at = self.reloads()[before];
        lines[at..].iter().take(2).map(|line| format!("{line}\n")).collect()
    }

    /// The log's lines that say what came of a reload.
    pub fn reloads(&self) -> Vec<usize> {
        let says = |line: &str| {
            line.contains("the configuration is reloaded") || line.contains("the new configuration is not taken")
        };
        self.log().lines().enumerate().filter(|(_, line)| says(line)).map(|(at, _)| at).collect()
    }

    /// Where its listeners are: first that of `--host` and `--port`, then those of the file.
    #[track_caller]
    pub fn listeners(&self) -> Vec<SocketAddr> {
        self.wait_for_output("admin API: ");
        let printed = self.stdout();
        let addresses = printed.lines().filter_map(|line| line.strip_prefix("listening on ")?.split("://").nth(1));
        addresses.map(|address| address.parse().expect("an address")).collect()
    }

    /// Waits until so many workers are healthy.
    #[track_caller]
    pub fn wait_for_workers(&self, count: u64) {
        eventually(Duration::from_secs(10), || self.get("/readiness").json()["healthy_workers"] == count);
    }

    /// A request with this key.
    #[track_caller]
    pub fn with_key(&self, key: &str, method: &str, path: &str) -> super::client::Response {
        self.request(method, path, &[("Authorization", &format!("Bearer {key}"))], b"")
    }

    /// JSON for the admin API, with this key.
    #[track_caller]
    pub fn with_key_and_body(&self, key: &str, path: &str, body: &serde_json::Value) -> super::client::Response {
        let bearer = format!("Bearer {key}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        self.request("POST", path, &headers, body.to_string().as_bytes())
    }
}
