//! A listener on a Unix socket, for the admin API: who can open it, what stands at its path before and after, and how
//! its callers are judged.

use crate::support::{ConfigFile, Files, Gateway, Worker, eventually, executable, request, run};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(10);

fn configured(worker: &Worker, files: Files) -> (ConfigFile, String) {
    let socket = files.named("admin.sock");
    let text = format!(
        "worker_urls: [{}]\nenable_wasm: true\nlisteners:\n- {{address: \"unix:{socket}\", admin: true}}\n",
        worker.url()
    );
    (ConfigFile::beside(files, text), socket)
}

/// Everything that comes back over the socket for `sent`, which must end its connection.
fn exchange(socket: &str, sent: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).expect("the gateway listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a time");
    stream.write_all(sent).expect("it takes what it is sent");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("the connection ends");
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer:?}"))
}

fn asked(socket: &str, host: &str, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> u16 {
    let fields = [fields, &[("Connection", "close")]].concat();
    status(&exchange(socket, &request(host, method, path, &fields, body)))
}

fn get(socket: &str, path: &str) -> u16 {
    asked(socket, "localhost", "GET", path, &[], b"")
}

#[test]
fn the_admin_api_answers_on_a_unix_socket_alone() {
    let worker = Worker::echo();
    let (file, socket) = configured(&worker, Files::new());
    let mut gateway = file.gateway().start();
    assert_eq!(std::fs::symlink_metadata(&socket).expect("a socket").permissions().mode() & 0o777, 0o600);
    for path in ["/wasm", "/workers", "/metrics", "/health", "/readiness"] {
        assert_eq!(get(&socket, path), 200, "{path}");
    }
    for path in ["/wasm", "/workers", "/metrics"] {
        gateway.get(path).assert_error(404, "not_found");
    }
    for path in ["/", "/v1/models", "/v1/chat/completions"] {
        assert_eq!(get(&socket, path), 404, "{path}");
    }
    // No browser gets there, so any host will do; a proxy that passes something on shows itself.
    for host in ["localhost", "smg", "admin.example:80", "127.0.0.1"] {
        assert_eq!(asked(&socket, host, "GET", "/workers", &[], b""), 200, "{host}");
    }
    assert_eq!(asked(&socket, "localhost", "GET", "/workers", &[("X-Forwarded-For", "10.0.0.1")], b""), 403);
    let json = [("Content-Type", "application/json")];
    let large = [&b"{\"modules\":[]}"[..], &vec![b' '; 1_000_000]].concat();
    assert_eq!(asked(&socket, "localhost", "POST", "/wasm", &json, &large), 200);
    let printed = gateway.stdout();
    assert!(printed.contains(&format!("admin API: on unix:{socket} alone")), "{printed}");
    assert!(printed.contains(&format!("listening on unix:{socket}\n")), "{printed}");
    gateway.wait_for_log("client=unix method=GET path=/workers");
    gateway.terminate();
    assert!(gateway.wait_exit(LIMIT).success());
    assert!(std::fs::symlink_metadata(&socket).is_err(), "it is gone with its gateway");
    assert!(worker.requests().is_empty());
}

#[test]
fn a_connection_over_the_socket_carries_request_after_request_and_http_2() {
    let worker = Worker::echo();
    let (file, socket) = configured(&worker, Files::new());
    let gateway = file.gateway().start();
    let last = request("a", "GET", "/health", &[("Connection", "close")], b"");
    let two = [request("a", "GET", "/workers", &[], b""), last].concat();
    assert_eq!(exchange(&socket, &two).matches("HTTP/1.1 200").count(), 2);
    // A client that leaves in the middle of its request, or at once.
    for sent in [&b""[..], b"GET /wor", b"POST /wasm HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"] {
        UnixStream::connect(&socket).and_then(|mut stream| stream.write_all(sent)).expect("it listens");
    }
    let mut stream = UnixStream::connect(&socket).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a time");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").expect("it takes it");
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).expect("the gateway's settings");
    assert_eq!(settings[3], 4, "a frame of type SETTINGS: {settings:?}");
    assert_eq!(get(&socket, "/workers"), 200);
    drop(gateway);
}

#[test]
fn with_keys_the_socket_asks_for_one_too() {
    let worker = Worker::echo();
    let (file, socket) = configured(&worker, Files::new());
    let _gateway = file.gateway().arg("--admin-key=s3cret").start();
    assert_eq!(get(&socket, "/workers"), 401);
    assert_eq!(asked(&socket, "a", "GET", "/workers", &[("X-Api-Key", "s3cret")], b""), 200);
}

#[test]
fn a_socket_that_nobody_listens_on_is_replaced_and_nothing_else_is() {
    let worker = Worker::echo();
    let files = Files::new();
    drop(UnixListener::bind(files.path("admin.sock")).expect("a stale socket"));
    let (file, socket) = configured(&worker, files);
    let gateway = file.gateway().start();
    assert_eq!(get(&socket, "/workers"), 200);
    let refused = |file: &ConfigFile| {
        let ran = run(&["--host=127.0.0.1", "--port=0", "--config", &file.path], &[]);
        assert_eq!(ran.code, Some(1), "{}", ran.stderr);
        assert!(ran.stderr.contains("admin.sock"), "{}", ran.stderr);
    };
    refused(&file);
    assert_eq!(get(&socket, "/workers"), 200, "a second gateway has taken nothing");
    drop(gateway);
    let files = Files::new();
    files.write("admin.sock", "precious");
    let (file, socket) = configured(&worker, files);
    refused(&file);
    assert_eq!(std::fs::read_to_string(socket).expect("the file"), "precious");
}

#[test]
fn with_reuse_port_a_successor_takes_the_path_over() {
    let worker = Worker::echo();
    let (file, socket) = configured(&worker, Files::new());
    let mut old = file.gateway().arg("--reuse-port").start();
    let new = file.gateway().arg("--reuse-port").start();
    old.terminate();
    assert!(old.wait_exit(LIMIT).success());
    assert_eq!(get(&socket, "/workers"), 200, "the path is the successor's");
    drop(new);
}

#[test]
fn what_a_unix_socket_can_not_be_is_told() {
    let long = "x".repeat(200);
    for (listener, word) in [
        ("{address: \"unix:/tmp/a\"}".to_owned(), "admin: true"),
        ("{address: \"unix:/tmp/a\", admin: true, tls: true}".to_owned(), "TLS"),
        ("{address: \"unix:\", admin: true}".to_owned(), "unix:/"),
        (format!("{{address: \"unix:/tmp/{long}\", admin: true}}"), "too long"),
        ("{address: \"unix:/tmp/a\\0b\", admin: true}".to_owned(), "unix:"),
        ("{address: /tmp/a, admin: true}".to_owned(), "unix:/"),
    ] {
        let ran = ConfigFile::new(format!("listeners:\n- {listener}\n")).check();
        let said = ran.stdout + &ran.stderr;
        assert_eq!((ran.code, said.contains(word)), (Some(2), true), "{listener}: {said}");
        assert!(said.contains("listeners[0]"), "{said}");
    }
    let twice = "listeners:\n- {address: \"unix:/tmp/a\", admin: true}\n- {address: \"unix:/tmp/a\", admin: true}\n";
    assert_eq!(ConfigFile::new(twice).check().code, Some(2));
    let fine = ConfigFile::new("listeners: [{address: \"unix:/tmp/a\", admin: true}]\n").check();
    assert_eq!(fine.code, Some(0), "{}{}", fine.stdout, fine.stderr);
}

/// The gateway's warnings at its start.
fn warnings(gateway: &Gateway) -> String {
    gateway.wait_for_output("admin API: ");
    eventually(LIMIT, || gateway.get("/health").status == 200);
    // What was logged before that is there, too.
    gateway.wait_for_log("path=/health");
    gateway.log().lines().filter(|line| line.contains("WARN")).map(|line| format!("{line}\n")).collect()
}

#[test]
fn an_open_admin_api_where_others_can_connect_is_warned_of() {
    let files = Files::new();
    let socket = files.named("admin.sock");
    let apart = ConfigFile::beside(files, format!("listeners: [{{address: \"unix:{socket}\", admin: true}}]\n"));
    let everywhere = ["--host=0.0.0.0", "--port=0"];
    for (args, warns) in [
        (vec!["--host=0.0.0.0", "--port=0"], true),
        (vec!["--host=127.0.0.1", "--port=0"], false),
        (vec!["--host=0.0.0.0", "--port=0", "--admin-key=a"], false),
        (vec!["--host=0.0.0.0", "--port=0", "--config", &apart.path], false),
    ] {
        let gateway = Gateway::builder().without_defaults().args(args.clone()).start_unready();
        let warned = warnings(&gateway);
        assert_eq!(warned.contains("admin API is open without a key"), warns, "{args:?}: {warned}");
        assert!(!warns || ["0.0.0.0:", "--admin-key"].iter().all(|word| warned.contains(word)), "{warned}");
    }
    // A key that a reload takes away leaves it open as well.
    let file = ConfigFile::new("admin_key: a\n");
    let config = format!("--config={}", file.path);
    let gateway = Gateway::builder().without_defaults().args(everywhere).arg(config).start_unready();
    assert_eq!(warnings(&gateway), "");
    file.rewrite("queue_size: 100\n");
    gateway.wait_for_log("admin API is open without a key");
}

/// A gateway that was handed a socket for callers and one for the admin API, as systemd does, and that logs to a file.
struct Activated {
    file: ConfigFile,
    socket: String,
    gateway: Child,
    _held: UnixListener,
}

impl Activated {
    fn start(mode: u32, keys: &str) -> Self {
        const HAND_OVER: &str =
            r#"exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec "$0" "$@""#;
        let files = Files::new();
        let socket = files.named("admin.sock");
        let held = UnixListener::bind(&socket).expect("a socket");
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(mode)).expect("it is ours");
        let callers: OwnedFd = TcpListener::bind("127.0.0.1:0").expect("a port").into();
        let admin: OwnedFd = held.try_clone().expect("descriptors are left").into();
        let log = std::fs::File::create(files.path("log")).expect("a file");
        let file =
            ConfigFile::beside(files, format!("listeners:\n- {{address: \"unix:{socket}\", admin: true}}\n{keys}"));
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(HAND_OVER).arg(executable().get_program()).args(["--config", &file.path]);
        let gateway = shell.stdin(callers).stdout(admin).stderr(log).spawn().expect("a shell");
        Self { file, socket, gateway, _held: held }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.file.files.path("log")).expect("a file")
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        let _ = self.gateway.kill();
        let _ = self.gateway.wait();
    }
}

// systemd's default is 0666.
#[test]
fn a_socket_that_was_handed_over_and_is_open_to_others_needs_a_key() {
    let key = "keys: [{name: boss, role: admin, key: s3cret}]\n";
    for mode in [0o666, 0o660, 0o602] {
        let mut gateway = Activated::start(mode, "");
        eventually(LIMIT, || gateway.gateway.try_wait().expect("our own child").is_some());
        let log = gateway.log();
        assert_eq!(gateway.gateway.wait().expect("our own child").code(), Some(1), "{log}");
        assert!(log.contains(&gateway.socket) && log.contains("SocketMode=0600"), "{log}");
    }
    let gateway = Activated::start(0o600, "");
    assert_eq!(get(&gateway.socket, "/workers"), 200);
    let gateway = Activated::start(0o666, key);
    assert_eq!(get(&gateway.socket, "/workers"), 401);
    gateway.file.rewrite(format!("listeners:\n- {{address: \"unix:{}\", admin: true}}\n", gateway.socket));
    eventually(LIMIT, || gateway.log().contains("the new configuration is not taken"));
    assert_eq!(get(&gateway.socket, "/workers"), 401);
}
