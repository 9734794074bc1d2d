//! The agent's Unix socket: its owner's alone, never in anybody's way, and gone when the agent is.

use crate::support::{Agent, Decision, Event, Files, Ran, Version, executable, guest, run};
use rustix::process::Signal;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

/// Runs an agent that must not start, on this socket.
fn refused(socket: &Path) -> Ran {
    let ran = run(&["agent", "--socket", socket.to_str().expect("UTF-8"), "--module", &guest("sentinel-hostile")], &[]);
    assert_eq!(ran.code, Some(1), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains(socket.to_str().expect("UTF-8")), "it names the path: {}", ran.stderr);
    ran
}

#[track_caller]
fn assert_serves(agent: &Agent) {
    assert_eq!(agent.connect(Version::V2).ask(&Event::request()).decision, Decision::Allow);
}

#[test]
fn it_is_for_its_owner_only_and_goes_with_the_agent() {
    for signal in [Signal::TERM, Signal::INT] {
        let files = Files::new();
        let socket = files.path("agent.sock");
        let mut agent = Agent::running(&guest("sentinel-hostile")).socket(&socket).start();
        let found = std::fs::symlink_metadata(&socket).expect("it is there");
        assert!(found.file_type().is_socket());
        assert_eq!(format!("{:o}", found.permissions().mode() & 0o7777), "600");
        assert_serves(&agent);
        agent.signal(signal);
        assert_eq!(agent.wait_exit(Duration::from_secs(5)).code(), Some(0));
        assert_eq!(std::fs::read_dir(files.root()).expect("a directory").count(), 0, "nothing is left beside it");
    }
}

#[test]
fn one_that_nobody_listens_on_is_replaced() {
    let files = Files::new();
    let socket = files.path("stale.sock");
    drop(UnixListener::bind(&socket).expect("a socket"));
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o777)).expect("our file");
    let agent = Agent::running(&guest("sentinel-hostile")).socket(&socket).start();
    assert_serves(&agent);
    let mode = std::fs::symlink_metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn one_that_is_left_by_an_agent_that_was_killed_is_replaced() {
    let files = Files::new();
    let socket = files.path("agent.sock");
    let mut agent = Agent::running(&guest("sentinel-hostile")).socket(&socket).start();
    agent.signal(Signal::KILL);
    agent.wait_exit(Duration::from_secs(5));
    assert!(socket.exists());
    assert_serves(&Agent::running(&guest("sentinel-hostile")).socket(&socket).start());
}

#[test]
fn one_that_somebody_listens_on_is_left_alone() {
    let files = Files::new();
    let socket = files.path("agent.sock");
    let agent = Agent::running(&guest("sentinel-hostile")).socket(&socket).start();
    let mut proxy = agent.connect(Version::V1);
    let said = refused(&socket).stderr;
    assert!(said.contains("another process"), "{said}");
    assert_eq!(proxy.ask(&Event::request()).decision, Decision::Allow);
    assert_serves(&agent);
}

#[test]
fn one_of_somebody_who_is_too_busy_to_accept_is_left_alone() {
    let files = Files::new();
    let socket = files.path("busy.sock");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    let _in_runtime = runtime.enter();
    let unbound = tokio::net::UnixSocket::new_stream().expect("a socket");
    unbound.bind(&socket).expect("the path is free");
    let _listener = unbound.listen(0).expect("it is bound");
    // Fills the queue; more would have to wait.
    let _waiting = UnixStream::connect(&socket).expect("room for one");
    let said = refused(&socket).stderr;
    assert!(said.contains("another process"), "{said}");
}

#[test]
fn what_is_no_socket_is_never_removed() {
    let files = Files::new();
    files.write("file.sock", b"precious");
    std::fs::create_dir(files.path("directory.sock")).expect("a directory");
    symlink(files.path("file.sock"), files.path("link.sock")).expect("a link");
    for name in ["file.sock", "directory.sock", "link.sock"] {
        let said = refused(&files.path(name)).stderr;
        assert!(said.contains("something else than a socket"), "{name}: {said}");
    }
    assert_eq!(std::fs::read(files.path("link.sock")).expect("the file is there"), b"precious");
    assert_eq!(std::fs::read_dir(files.root()).expect("a directory").count(), 3, "nothing is left beside them");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let files = Files::new();
    for path in [files.path("missing/agent.sock"), files.path(&"x".repeat(200))] {
        refused(&path);
    }
}

#[test]
fn the_longest_path_that_a_socket_can_have_will_do() {
    let files = Files::new();
    let room = 107 - files.named("").len();
    let socket = files.path(&"s".repeat(room));
    UnixListener::bind(&socket).expect("the system takes it");
    assert_serves(&Agent::running(&guest("sentinel-hostile")).socket(&socket).start());
}

#[test]
fn a_successors_socket_is_not_removed() {
    let files = Files::new();
    let socket = files.path("agent.sock");
    let mut first = Agent::running(&guest("sentinel-hostile")).socket(&socket).start();
    std::fs::rename(&socket, files.path("aside")).expect("our directory");
    let second = Agent::running(&guest("sentinel-hostile")).socket(&socket).start();
    first.terminate();
    assert_eq!(first.wait_exit(Duration::from_secs(5)).code(), Some(0));
    assert_serves(&second);
}

#[test]
fn a_relative_path_is_one_from_where_it_was_started() {
    let files = Files::new();
    let mut command = executable();
    command.current_dir(files.root());
    command.args(["agent", "--socket=agent.sock", "--module", &guest("sentinel-hostile")]);
    assert_serves(&Agent::of(command, &files.path("agent.sock")));
}
