//! The gateway under test: the real executable, as a child process.

use super::client::{Client, Response};
use super::process::{Process, START_LIMIT, executable};
use super::tls::Caller;
use super::wait::eventually;
use super::worker::Worker;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// The component that `guests/NAME` builds to.
pub fn guest(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("guests/dist/{name}.wasm"));
    path.into_os_string().into_string().expect("the checkout has a UTF-8 path")
}

/// A running gateway; dropping it kills it, and prints its log if the test is failing.
pub struct Gateway {
    pub address: SocketAddr,
    process: Process,
    caller: Option<Caller>,
}

impl Deref for Gateway {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Gateway {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

#[derive(Default)]
pub struct Builder {
    subcommand: Option<String>,
    workers: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    caller: Option<Caller>,
    defaults: Defaults,
    shell: Option<String>,
    stdin: Option<OwnedFd>,
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

    pub fn workers<'a>(self, workers: impl IntoIterator<Item = &'a Worker>) -> Self {
        workers.into_iter().fold(self, Self::worker)
    }

    pub fn worker_url(mut self, url: String) -> Self {
        self.workers.push(url);
        self
    }

    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<String>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Speaks TLS with the pair of files; the test's own requests are made by `caller`.
    pub fn tls(mut self, caller: Caller, (chain, key): &(String, String)) -> Self {
        self.caller = Some(caller);
        self.args([format!("--tls-cert-path={chain}"), format!("--tls-key-path={key}")])
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

    /// Starts it by way of `sh`, which runs this line; in it `exec "$0" "$@"` is the gateway.
    pub fn shell(mut self, line: &str) -> Self {
        self.shell = Some(line.to_owned());
        self
    }

    /// What it has as descriptor 0.
    pub fn stdin(mut self, stdin: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(stdin.into());
        self
    }

    /// Starts the gateway and waits until it is ready.
    #[track_caller]
    pub fn start(self) -> Gateway {
        let gateway = self.start_unready();
        eventually(START_LIMIT, || gateway.get("/readiness").status == 200);
        gateway
    }

    /// Starts the gateway and waits until it is ready, without a look at what it prints.
    #[track_caller]
    pub fn start_untold(self) -> Gateway {
        // Nobody else gets the port while it is held, and who holds it too may listen.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        let _in_runtime = runtime.enter();
        let held = tokio::net::TcpSocket::new_v4().expect("descriptors are left");
        held.set_reuseport(true).expect("a socket that is not bound");
        held.bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
        let address = held.local_addr().expect("a bound socket has an address");
        let (process, caller) = self.arg("--reuse-port").spawn(address.port());
        let gateway = Gateway { address, process, caller };
        eventually(START_LIMIT, || Client::try_connect(address).is_ok() && gateway.get("/readiness").status == 200);
        gateway
    }

    /// Starts the gateway and waits only until it listens.
    #[track_caller]
    pub fn start_unready(self) -> Gateway {
        let (process, caller) = self.spawn(0);
        Gateway::of(process, caller)
    }

    fn spawn(self, port: u16) -> (Process, Option<Caller>) {
        let mut command = executable();
        if let Some(line) = self.shell {
            command = through_shell(&command, &line);
        }
        command.args(self.subcommand);
        if self.defaults == Defaults::Passed {
            command.args(["--host=127.0.0.1".to_owned(), format!("--port={port}")]);
            command.args(self.workers.iter().map(|url| format!("--worker-urls={url}")));
        }
        command.args(self.args).envs(self.env);
        let stdin = self.stdin.map_or_else(Stdio::null, Stdio::from);
        (Process::start_with(command, stdin), self.caller)
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
    fn of(process: Process, caller: Option<Caller>) -> Self {
        let scheme = if caller.is_some() { "https" } else { "http" };
        let address = printed_address(&process, &format!("listening on {scheme}://"));
        Gateway { address, process, caller }
    }

    /// Where `--prometheus-port` listens.
    #[track_caller]
    pub fn metrics_address(&self) -> SocketAddr {
        printed_address(self, "metrics on http://")
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        match &self.caller {
            None => Client::connect(self.address),
            Some(caller) => Client::connect_tls(self.address, caller.clone()),
        }
    }

    /// How the test's own requests shake hands, if they do.
    pub fn caller(&self) -> Option<&Caller> {
        self.caller.as_ref()
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

    /// The requests that `GET /workers` says the first worker has in flight.
    #[track_caller]
    pub fn load(&self) -> u64 {
        let workers = self.get("/workers").json();
        workers["workers"][0]["load"].as_u64().unwrap_or_else(|| panic!("no load in {workers}"))
    }
}

/// `sh` in place of `command`, with its environment.
fn through_shell(command: &Command, line: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(line).arg(command.get_program());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
}

#[track_caller]
fn printed_address(process: &Process, before: &str) -> SocketAddr {
    let text = process.wait_for_output(before);
    let address = text.split([' ', '/', ',']).next().unwrap_or_default();
    address.parse().unwrap_or_else(|e| panic!("{e} in {text:?}"))
}
