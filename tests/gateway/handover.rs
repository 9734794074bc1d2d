//! One gateway takes over from another without a refused connection (case 64): sockets handed over by a supervisor, two
//! processes on one port, and what the supervisor is told.

use crate::support::{Builder, Client, Files, Gate, Gateway, Worker, eventually};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// Makes descriptor 0 descriptor 3, as systemd hands over sockets (sd_listen_fds(3)). No delay before the drain is the
/// default then.
const HAND_OVER: &str =
    r#"unset SMG_DRAIN_DELAY_SECS; exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$0" "$@""#;

fn on(socket: &TcpListener, worker: &Worker) -> Builder {
    Gateway::builder().worker(worker).shell(HAND_OVER).stdin(socket.try_clone().expect("descriptors are left"))
}

fn socket() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = socket.local_addr().expect("an address");
    (socket, address)
}

/// A connection that nobody may have accepted yet, with a whole request on it.
fn asking(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.send_request("GET", "/", &[("Connection", "close")], b"");
    client
}

#[test]
fn a_socket_that_is_handed_over_is_listened_on_and_outlives_the_gateway() {
    let (worker, (socket, address)) = (Worker::echo(), socket());
    let mut waiting: Vec<_> = (0..5).map(|_| asking(address)).collect();
    let mut old = on(&socket, &worker).arg("--disable-health-check").start();
    assert_eq!(old.address, address, "it says so, too");
    waiting.iter_mut().for_each(|client| assert_eq!(client.read_response().status, 200));
    old.terminate();
    assert_eq!(old.wait_exit(LIMIT).code(), Some(0));
    let mut waiting: Vec<_> = (0..5).map(|_| asking(address)).collect();
    let _new = on(&socket, &worker).arg("--disable-health-check").start();
    waiting.iter_mut().for_each(|client| assert_eq!(client.read_response().status, 200));
}

// Nobody is told "no healthy workers" by the one that has just come.
#[test]
fn a_gateway_that_takes_over_takes_nobody_before_it_knows_its_workers() {
    let worker = Worker::new(|request, conn| {
        if request.target == "/health" {
            std::thread::sleep(Duration::from_millis(300));
        }
        conn.answer(200, "");
    });
    worker.set_health(0);
    let (socket, address) = socket();
    let mut waiting = asking(address);
    let _gateway = on(&socket, &worker).start_unready();
    assert_eq!(waiting.read_response().status, 200);
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let (worker, (socket, address)) = (Worker::echo(), socket());
    let line = HAND_OVER.replace("LISTEN_PID=$$", "LISTEN_PID=1");
    let gateway = on(&socket, &worker).shell(&line).start();
    assert_ne!(gateway.address, address);
}

#[test]
fn two_gateways_share_a_port_and_either_may_go() {
    let worker = Worker::echo();
    let mut old = Gateway::builder().worker(&worker).arg("--reuse-port").start();
    let address = old.address;
    let other = |flag: &str| {
        let (host, port) = (format!("--host={}", address.ip()), format!("--port={}", address.port()));
        let builder = Gateway::builder().without_defaults().arg(host).arg(port);
        builder.arg(format!("--worker-urls={}", worker.url())).arg(flag)
    };
    let refused = crate::support::run(&["--host=127.0.0.1", &format!("--port={}", address.port())], &[]);
    assert_eq!(refused.code, Some(1), "nobody shares without being asked to");
    let new = other("--reuse-port").start();
    let through = |client: &mut Client| client.get("/").status;
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(address)).collect();
    assert!(clients.iter_mut().all(|client| through(client) == 200));
    old.terminate();
    assert_eq!(old.wait_exit(LIMIT).code(), Some(0));
    assert!((0..20).all(|_| through(&mut Client::connect(address)) == 200));
    drop(new);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn who_is_in_the_queue_when_the_gateway_is_told_to_stop_is_served() {
    let worker = Worker::echo();
    for _ in 0..5 {
        let mut gateway = Gateway::before(&worker);
        // While it is stopped, the system accepts for it.
        gateway.signal(rustix::process::Signal::STOP);
        let mut clients: Vec<_> = (0..20).map(|_| asking(gateway.address)).collect();
        gateway.terminate();
        gateway.signal(rustix::process::Signal::CONT);
        for client in &mut clients {
            let answer = client.read_response();
            assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
        }
        assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0));
    }
}

// A client that has connected just before does not know of it, and sends its request a moment later.
#[test]
fn who_has_connected_and_said_nothing_yet_is_answered_too() {
    let finish = Gate::new();
    let wait = finish.clone();
    let worker = Worker::new(move |request, conn| {
        if request.target == "/long" {
            wait.wait();
        }
        conn.answer(200, "");
    });
    let mut gateway = Gateway::before(&worker);
    let mut long = gateway.connect();
    long.send_request("GET", "/long", &[], b"");
    worker.wait_for_request();
    let mut accepted = gateway.connect();
    gateway.signal(rustix::process::Signal::STOP);
    let mut queued = gateway.connect();
    gateway.terminate();
    gateway.signal(rustix::process::Signal::CONT);
    eventually(LIMIT, || TcpStream::connect(gateway.address).is_err());
    for client in [&mut accepted, &mut queued] {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.headers.get("connection")), (200, Some("close")));
        client.assert_closed();
    }
    finish.open();
    assert_eq!(long.read_response().status, 200);
    assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_supervisor_is_told_when_it_is_ready_and_when_it_stops() {
    let (worker, files) = (Worker::echo(), Files::new());
    let supervisor = UnixDatagram::bind(files.path("notify")).expect("a socket");
    supervisor.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let told = || {
        let mut text = [0; 100];
        let length = supervisor.recv(&mut text).expect("it is told");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let mut gateway = Gateway::builder().worker(&worker).env("NOTIFY_SOCKET", files.named("notify")).start_unready();
    assert_eq!((told().as_str(), gateway.get("/health").status), ("READY=1", 200));
    gateway.terminate();
    assert_eq!(told(), "STOPPING=1");
    assert_eq!(gateway.wait_exit(LIMIT).code(), Some(0));
}
