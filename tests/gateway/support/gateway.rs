//! The gateway under test: the real executable, as a child process.

use super::client::{Client, Response};
use super::log::Log;
use super::wait::eventually;
use super::worker::Worker;
use rustix::process::{Pid, Signal, kill_process};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(20);

/// What a finished run of the executable left.
pub struct Ran {
    /// The exit code; `None` if it had to be killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the executable to its end, with nothing from our environment that it would read; kills it after ten seconds.
pub fn run(args: &[&str], env: &[(&str, &str)]) -> Ran {
    let mut command = executable();
    command.args(args).envs(env.iter().copied());
    let (mut child, stdout, stderr) = spawn(command);
    let ended = stderr.wait_for_end(Duration::from_secs(10)) && stdout.wait_for_end(Duration::from_secs(1));
    if !ended {
        let _ = child.kill();
    }
    let status = child.wait().expect("our own child can be waited for");
    Ran { code: status.code(), stdout: stdout.text(), stderr: stderr.text() }
}

fn spawn(mut command: Command) -> (Child, Log, Log) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the executable starts");
    let stdout = Log::of(child.stdout.take().expect("stdout is piped"));
    let stderr = Log::of(child.stderr.take().expect("stderr is piped"));
    (child, stdout, stderr)
}

/// The component that `guests/NAME` builds to.
pub fn guest(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("guests/dist/{name}.wasm"));
    path.into_os_string().into_string().expect("the checkout has a UTF-8 path")
}

fn executable() -> Command {
    let mut command = Command::new(PathBuf::from(env!("CARGO_BIN_EXE_smg")));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SMG_") {
            command.env_remove(name);
        }
    }
    command
}

/// A running gateway; dropping it kills it, and prints its log if the test is failing.
pub struct Gateway {
    pub address: SocketAddr,
    child: Child,
    stdout: Log,
    stderr: Log,
}

#[derive(Default)]
pub struct Builder {
    subcommand: Option<String>,
    workers: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    defaults: Defaults,
}

/// Whether the flags that every test wants are passed.
#[derive(Default, PartialEq)]
enum Defaults {
    #[default]
    Passed,
    LeftOut,
}

impl Builder {
    pub fn worker(self, worker: &Worker) -> Self {
        self.worker_url(worker.url())
    }

    pub fn worker_url(mut self, url: String) -> Self {
        self.workers.push(url);
        self
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub fn subcommand(mut self, name: &str) -> Self {
        self.subcommand = Some(name.to_owned());
        self
    }

    /// Leaves out `--host`, `--port` and `--worker-urls`: the test gives them in its own way.
    pub fn without_defaults(mut self) -> Self {
        self.defaults = Defaults::LeftOut;
        self
    }

    /// Starts the gateway and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let gateway = self.start_unready();
        eventually(START_LIMIT, || gateway.get("/readiness").status == 200);
        gateway
    }

    /// Starts the gateway and waits only until it listens.
    #[track_caller]
    pub fn start_unready(self) -> Gateway {
        let mut command = executable();
        command.args(self.subcommand);
        if self.defaults == Defaults::Passed {
            command.args(["--host=127.0.0.1", "--port=0"]);
            command.args(self.workers.iter().map(|url| format!("--worker-urls={url}")));
        }
        command.args(self.args).envs(self.env);
        Gateway::of(command)
    }
}

impl Gateway {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// A ready gateway in front of one worker, with every setting at its default.
    #[track_caller]
    pub fn before(worker: &Worker) -> Self {
        Self::builder().worker(worker).start()
    }

    #[track_caller]
    fn of(command: Command) -> Self {
        let (child, stdout, stderr) = spawn(command);
        let address = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut gateway = Gateway { address, child, stdout, stderr };
        gateway.address = gateway.printed_address("listening on http://");
        gateway
    }

    /// Where `--prometheus-port` listens.
    #[track_caller]
    pub fn metrics_address(&self) -> SocketAddr {
        self.printed_address("metrics on http://")
    }

    #[track_caller]
    fn printed_address(&self, before: &str) -> SocketAddr {
        let line = self.stdout.wait_for(START_LIMIT, |line| line.starts_with(before));
        let line = line.unwrap_or_else(|| panic!("no line {before:?}"));
        let address = line[before.len()..].split([' ', '/', ',']).next().unwrap_or_default();
        address.parse().unwrap_or_else(|e| panic!("{e} in {line:?}"))
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut client = self.connect();
        client.send_request(method, path, headers, body);
        client.read_response_to(method)
    }

    #[track_caller]
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    #[track_caller]
    pub fn post_json(&self, path: &str, body: &serde_json::Value) -> Response {
        self.request("POST", path, &[("Content-Type", "application/json")], body.to_string().as_bytes())
    }

    /// Deploys a module by the admin API; its uuid.
    #[track_caller]
    pub fn deploy(&self, name: &str, file: &str, attach_points: &[&str]) -> String {
        let points: Vec<_> = attach_points.iter().map(|p| serde_json::json!({ "Middleware": p })).collect();
        let answer = self.try_deploy(&serde_json::json!({
            "name": name, "file_path": file, "module_type": "Middleware", "attach_points": points,
        }));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let uuid = &answer.json()["modules"][0]["add_result"]["Success"];
        uuid.as_str().unwrap_or_else(|| panic!("no uuid in {}", answer.text())).to_owned()
    }

    /// Asks for the deployment of one module, whatever comes of it.
    #[track_caller]
    pub fn try_deploy(&self, module: &serde_json::Value) -> Response {
        self.post_json("/wasm", &serde_json::json!({ "modules": [module] }))
    }

    /// Waits for a line of the log that contains `text`.
    #[track_caller]
    pub fn wait_for_log(&self, text: &str) -> String {
        let line = self.stderr.wait_for(Duration::from_secs(10), |line| line.contains(text));
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

    /// Resident memory in bytes.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a process has it");
        let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
        kilobytes * 1024
    }

    /// The requests that `GET /workers` says the first worker has in flight.
    #[track_caller]
    pub fn load(&self) -> u64 {
        let workers = self.get("/workers").json();
        workers["workers"][0]["load"].as_u64().unwrap_or_else(|| panic!("no load in {workers}"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("--- gateway stdout\n{}\n--- gateway log\n{}", self.stdout.text(), self.stderr.text());
        }
    }
}
