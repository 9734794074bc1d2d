//! `smg agent` under test: the real executable, with a socket in a directory of its own.

use super::client::Client;
use super::event::Version;
use super::files::Files;
use super::frames::Frames;
use super::metrics::Metrics;
use super::process::{Process, executable};
use super::proxy::Proxy;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A running agent; dropping it kills it, and prints its log if the test is failing.
pub struct Agent {
    process: Process,
    pub socket: PathBuf,
    /// What the socket is in, unless it is elsewhere.
    _files: Option<Files>,
}

impl Deref for Agent {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}

pub struct AgentBuilder {
    socket: Option<PathBuf>,
    args: Vec<String>,
    env: Vec<(String, String)>,
}

impl AgentBuilder {
    /// Listens there instead of in a directory of its own.
    pub fn socket(mut self, path: &Path) -> Self {
        self.socket = Some(path.to_owned());
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

    /// Starts the agent and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Agent {
        let agent = self.start_unready();
        agent.wait_for_output("listening on ");
        agent
    }

    /// Starts the agent, which does not listen yet.
    pub fn start_unready(self) -> Agent {
        let files = Files::new();
        let socket = self.socket.unwrap_or_else(|| files.path("agent.sock"));
        let mut command = executable();
        command.arg("agent").arg("--socket").arg(&socket).args(self.args).envs(self.env);
        Agent { process: Process::start(command), socket, _files: Some(files) }
    }
}

impl Agent {
    /// An agent for the module in `file`, with every setting at its default.
    pub fn running(file: &str) -> AgentBuilder {
        AgentBuilder { socket: None, args: vec![format!("--module={file}")], env: Vec::new() }
    }

    /// Starts this command, which is to listen on `socket`.
    #[track_caller]
    pub fn of(command: Command, socket: &Path) -> Self {
        let agent = Agent { process: Process::start(command), socket: socket.to_owned(), _files: None };
        agent.wait_for_output("listening on ");
        agent
    }

    #[track_caller]
    pub fn connect(&self, version: Version) -> Proxy {
        Proxy::connect(&self.socket, version)
    }

    /// A connection on which nothing was said yet.
    #[track_caller]
    pub fn frames(&self) -> Frames {
        Frames::connect(&self.socket).unwrap_or_else(|e| panic!("no connection to the agent: {e}"))
    }

    /// What it says of itself, if it was started with `--metrics-port=0`.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let address = self.wait_for_output("metrics on http://");
        let address = address.strip_suffix("/metrics").expect("a path").parse().expect("an address");
        let answer = Client::connect(address).get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        Metrics::parse(&answer.text())
    }
}
