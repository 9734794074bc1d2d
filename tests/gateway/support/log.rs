//! What a child process prints, gathered while it runs.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

#[derive(Clone, Default)]
pub struct Log(Arc<(Mutex<Text>, Condvar)>);

#[derive(Default)]
struct Text {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    /// Gathers the lines of `source` on a thread until it ends.
    pub fn of(source: impl Read + Send + 'static) -> Self {
        let log = Log::default();
        let writer = log.clone();
        std::thread::spawn(move || {
            let mut source = BufReader::new(source);
            let mut line = Vec::new();
            while matches!(source.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                writer.change(|t| t.lines.push(text));
                line.clear();
            }
            writer.change(|t| t.ended = true);
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut Text)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    /// The first line that `wanted` accepts; `None` after `timeout`, or when the output ended without it.
    pub fn wait_for(&self, timeout: Duration, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let find = |t: &Text| t.lines.iter().find(|line| wanted(line)).cloned();
        let text = self.0.0.lock().unwrap();
        let waiting = |t: &mut Text| find(t).is_none() && !t.ended;
        let (text, _) = self.0.1.wait_timeout_while(text, timeout, waiting).unwrap();
        find(&text)
    }

    /// Whether the output ends within `timeout`.
    pub fn wait_for_end(&self, timeout: Duration) -> bool {
        let text = self.0.0.lock().unwrap();
        self.0.1.wait_timeout_while(text, timeout, |t| !t.ended).unwrap().0.ended
    }

    pub fn text(&self) -> String {
        self.0.0.lock().unwrap().lines.join("\n")
    }
}
