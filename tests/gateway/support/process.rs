//! The real executable as a child process, and what a test can do with it.

use super::log::Log;
use super::wait::{BUSY, eventually};
use rustix::process::{Pid, Signal, kill_process};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How long a start may take.
pub const START_LIMIT: Duration = Duration::from_secs(20);

/// Variables that the executable reads, besides those that begin with `SMG_`.
const OTHER_VARIABLES: [&str; 7] = [
    "AGENT_SOCKET",
    "WASM_MODULE",
    "WASM_POOL_SIZE",
    "WASM_VERBOSE",
    "FAIL_OPEN",
    "WASM_METRICS_HOST",
    "WASM_METRICS_PORT",
];

/// What a finished run of the executable left.
pub struct Ran {
    /// The exit code; `None` if it had to be killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the executable to its end, with nothing from our environment that it would read; kills it after a minute.
pub fn run(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = executable();
    command.args(args).envs(env.iter().copied());
    let mut process = Process::start(command);
    let ended = process.stderr.wait_for_end(Duration::from_secs(60)) && process.stdout.wait_for_end(BUSY);
    if !ended {
        let _ = process.child.kill();
    }
    let status = process.child.wait().expect("our own child can be waited for");
    Ran { code: status.code(), stdout: process.stdout(), stderr: process.log() }
}

/// The executable, without any of our variables that it would read. It drains at once: few tests look at the time before.
pub fn executable() -> Command {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_smg")));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("SMG_") || OTHER_VARIABLES.contains(&&*name) {
            command.env_remove(&*name);
        }
    }
    command.env("SMG_DRAIN_DELAY_SECS", "0");
    command
}

/// A child that runs.
pub struct Process {
    child: Child,
    stdout: Log,
    stderr: Log,
}

impl Process {
    pub fn start(command: Command) -> Self {
        Self::start_with(command, Stdio::null())
    }

    pub fn start_with(mut command: Command, stdin: Stdio) -> Self {
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the executable starts");
        let stdout = Log::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Log::of(child.stderr.take().expect("stderr is piped"));
        Process { child, stdout, stderr }
    }

    /// Waits for a line of standard output that begins with `before`; what follows there.
    #[track_caller]
    pub fn wait_for_output(&self, before: &str) -> String {
        let line = self.stdout.wait_for(START_LIMIT, |line| line.starts_with(before));
        let line = line.unwrap_or_else(|| panic!("no line {before:?}; {}{}", self.stdout(), self.log()));
        line[before.len()..].to_owned()
    }

    /// Waits for a line of the log that contains `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        let line = self.stderr.wait_for(Duration::from_secs(30), |line| line.contains(text));
        line.unwrap_or_else(|| panic!("no log line with {text:?}"))
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("our own child may be signalled");
    }

    /// Sends SIGSTOP, and waits until it has stopped.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        eventually(Duration::from_secs(5), || self.is_stopped());
    }

    fn is_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).expect("it runs");
        let stats = threads.flatten().filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok());
        stats.into_iter().all(|stat| stat.rsplit_once(')').is_some_and(|(_, state)| state.starts_with(" T")))
    }

    /// What an open file descriptor of its is.
    pub fn descriptor(&self, number: u32) -> PathBuf {
        std::fs::read_link(format!("/proc/{}/fd/{number}", self.child.id())).expect("it is open")
    }

    /// How many file descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("it runs").count()
    }

    /// Waits for the process to end by itself; panics after `limit`.
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        eventually(limit, || {
            status = self.child.try_wait().expect("our own child can be waited for");
            status.is_some()
        });
        status.expect("the loop above ended with it")
    }

    /// Whether the process still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our own child can be waited for").is_none()
    }

    /// Time that it has computed.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("its name is in parentheses");
        let ticks = fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number"));
        // Linux counts a hundred a second for everybody, whatever it does itself.
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a process has it");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }
}

/// Kills it, and prints its log if the test is failing.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- stdout\n{}\n--- log\n{}", self.stdout.text(), self.stderr.text());
        }
    }
}
