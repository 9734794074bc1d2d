//! WebSockets through the gateway (case 37): as if it were not there, from the first frame to whoever ends first.

use crate::support::{Gate, Gateway, Message, WebSocket, Worker, eventually, opcode};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// From one end of the connection to the other, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(1);

fn echoing() -> Worker {
    Worker::new(|request, conn| WebSocket::accept(request, conn).echo())
}

#[test]
fn frames_of_every_kind_pass_unchanged() {
    let worker = echoing();
    let gateway = Gateway::before(&worker);
    let mut client = WebSocket::open(gateway.address, "/chat?room=1");
    assert_eq!(worker.wait_for_request().target, "/chat?room=1");
    for message in [
        Message::text("h\u{e9}llo"),
        Message::text(""),
        Message::new(opcode::BINARY, [0, 255, 13, 10]),
        Message::new(opcode::TEXT, [0xff, 0xfe]),
        Message::text("first ").more_follows(),
        Message::new(opcode::CONTINUATION, "middle ").more_follows(),
        Message::new(opcode::CONTINUATION, "last"),
    ] {
        assert_eq!(client.ask(&message), message);
    }
    let pong = client.ask(&Message::new(opcode::PING, "are you there"));
    assert_eq!(pong, Message::new(opcode::PONG, "are you there"));
    assert_eq!(client.ask(&Message::close(1000, "done")), Message::close(1000, "done"));
    assert!(client.ends_within(AT_ONCE), "the server ends the connection after both closes");
    drop(client);
    eventually(AT_ONCE, || gateway.load() == 0);
}

#[test]
fn frames_of_every_length_pass() {
    let worker = echoing();
    let gateway = Gateway::before(&worker);
    let mut client = WebSocket::open(gateway.address, "/");
    for length in [0, 1, 125, 126, 127, 4_096, 65_535, 65_536, 200_000] {
        let payload: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
        let message = Message::new(opcode::BINARY, payload);
        assert!(client.ask(&message) == message, "{length}");
    }
}

#[test]
fn frames_in_any_pieces_pass() {
    let worker = echoing();
    let gateway = Gateway::before(&worker);
    let mut client = WebSocket::open(gateway.address, "/");
    let message = Message::text("byte by byte");
    for byte in client.encode(&message) {
        client.send_bytes([byte]).unwrap();
    }
    assert_eq!(client.read(), message);
    let many: Vec<_> = (0..200).map(|i| Message::text(&format!("message {i}"))).collect();
    let together: Vec<u8> = many.iter().flat_map(|message| client.encode(message)).collect();
    client.send_bytes(together).unwrap();
    for message in many {
        assert_eq!(client.read(), message);
    }
}

#[test]
fn frames_that_come_with_the_handshake_pass() {
    let worker = Worker::new(|request, conn| {
        // Unmasked, in one piece with the 101.
        let mut socket = WebSocket::accept_and_send(request, conn, b"\x81\x05first");
        assert_eq!(socket.read(), Message::text("early"));
        socket.send(&Message::text("second"));
    });
    let gateway = Gateway::before(&worker);
    // Masked with zeros, in one piece with the request.
    let mut client = WebSocket::open_and_send(gateway.address, "/", b"\x81\x85\0\0\0\0early");
    assert_eq!(client.read(), Message::text("first"));
    assert_eq!(client.read(), Message::text("second"));
    assert!(client.ends_within(AT_ONCE));
}

#[test]
fn the_server_may_ping_and_the_client_answers() {
    let answered = Gate::new();
    let says = answered.clone();
    let worker = Worker::new(move |request, conn| {
        let mut socket = WebSocket::accept(request, conn);
        assert_eq!(socket.ask(&Message::new(opcode::PING, "x")), Message::new(opcode::PONG, "x"));
        says.open();
    });
    let gateway = Gateway::before(&worker);
    let mut client = WebSocket::open(gateway.address, "/");
    let ping = client.read();
    client.send(&Message { opcode: opcode::PONG, ..ping });
    answered.wait();
}

// Case 37: the clocks are for HTTP.
#[test]
fn pings_keep_a_connection_open_beyond_the_clocks() {
    let worker = echoing();
    let gateway = Gateway::builder()
        .worker(&worker)
        .arg("--idle-connection-timeout-secs=0.5")
        .arg("--header-read-timeout-secs=0.5")
        .arg("--upstream-pool-idle-timeout-secs=0.5")
        .start();
    let mut client = WebSocket::open(gateway.address, "/");
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1800) {
        assert_eq!(client.ask(&Message::new(opcode::PING, "")).opcode, opcode::PONG);
        assert!(client.is_silent_for(Duration::from_millis(300)), "after {:?}", start.elapsed());
    }
}

// Case 37.
#[test]
fn a_server_that_ends_first_ends_the_client() {
    let worker = Worker::new(|request, conn| match request.target.as_str() {
        "/close" => {
            let mut socket = WebSocket::accept(request, conn);
            assert_eq!(socket.ask(&Message::close(1001, "going")), Message::close(1001, "going"));
        }
        "/gone" => WebSocket::accept(request, conn).send(&Message::text("last words")),
        _ => {
            WebSocket::accept(request, conn).send(&Message::text("last words"));
            conn.wait_peer_closed(Duration::from_millis(200));
            conn.reset();
        }
    });
    let gateway = Gateway::before(&worker);
    let mut client = WebSocket::open(gateway.address, "/close");
    let close = client.read();
    assert_eq!(close, Message::close(1001, "going"));
    client.send(&close);
    assert!(client.ends_within(AT_ONCE));
    drop(client);
    for path in ["/gone", "/reset"] {
        let mut client = WebSocket::open(gateway.address, path);
        assert_eq!(client.read(), Message::text("last words"), "{path}");
        assert!(client.ends_within(AT_ONCE), "{path}");
    }
    eventually(AT_ONCE, || gateway.load() == 0);
}

// Case 37: each direction ends by itself.
#[test]
fn a_client_that_ends_its_direction_still_gets_the_other() {
    let worker = Worker::new(|request, conn| {
        let mut socket = WebSocket::accept(request, conn);
        assert_eq!(socket.read(), Message::text("last words"));
        assert!(matches!(socket.try_read(), Ok(None)), "the client's end is passed on");
        for i in 0..3 {
            socket.send(&Message::text(&format!("{i}")));
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let gateway = Gateway::before(&worker);
    let mut client = WebSocket::open(gateway.address, "/");
    client.send(&Message::text("last words"));
    client.half_close();
    for i in 0..3 {
        assert_eq!(client.read(), Message::text(&format!("{i}")));
    }
    assert!(client.ends_within(AT_ONCE));
    eventually(AT_ONCE, || gateway.load() == 0);
}

// Case 37.
#[test]
fn a_server_that_ends_its_direction_still_gets_the_other() {
    let heard = Gate::new();
    let says = heard.clone();
    let worker = Worker::new(move |request, conn| {
        let mut socket = WebSocket::accept(request, conn);
        socket.send(&Message::text("last words"));
        socket.half_close();
        assert_eq!(socket.read(), Message::text("and yet"));
        assert!(matches!(socket.try_read(), Ok(None)));
        says.open();
    });
    let gateway = Gateway::before(&worker);
    let mut client = WebSocket::open(gateway.address, "/");
    assert_eq!(client.read(), Message::text("last words"));
    assert!(matches!(client.try_read(), Ok(None)), "the server's end is passed on");
    client.send(&Message::text("and yet"));
    client.half_close();
    heard.wait();
    eventually(AT_ONCE, || gateway.load() == 0);
}

// Case 55, for tunnels.
#[test]
fn a_client_that_leaves_ends_the_server() {
    let (open, ended) = (Gate::new(), Gate::new());
    let (says_open, says_ended) = (open.clone(), ended.clone());
    let worker = Worker::new(move |request, conn| {
        let mut socket = WebSocket::accept(request, conn);
        says_open.open();
        if socket.ends_within(Duration::from_secs(8)) {
            says_ended.open();
        }
    });
    let gateway = Gateway::before(&worker);
    let client = WebSocket::open(gateway.address, "/");
    open.wait();
    assert!(!ended.is_open());
    drop(client);
    ended.wait_within(AT_ONCE);
    eventually(AT_ONCE, || gateway.load() == 0);
}

// Neither side's haste becomes the gateway's memory.
#[test]
fn an_end_that_does_not_read_slows_the_other_down() {
    let worker = Worker::new(|request, conn| {
        let mut socket = WebSocket::accept(request, conn);
        let message = Message::new(opcode::BINARY, vec![b'x'; MIB]);
        for _ in 0..64 {
            if socket.try_send(&message).is_err() {
                return;
            }
        }
        let _ = socket.try_send(&Message::text("all"));
    });
    let gateway = Gateway::before(&worker);
    let before = gateway.memory();
    let mut client = WebSocket::open(gateway.address, "/");
    let start = Instant::now();
    let mut most = before;
    while start.elapsed() < Duration::from_millis(800) {
        most = most.max(gateway.memory());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(most < before + 16 * MIB as u64, "{} MiB -> {} MiB", before >> 20, most >> 20);
    for _ in 0..64 {
        assert_eq!(client.read().payload.len(), MIB);
    }
    assert_eq!(client.read(), Message::text("all"));
}

#[test]
fn many_connections_are_not_mixed_up() {
    let worker = echoing();
    let gateway = Gateway::before(&worker);
    let mut clients: Vec<_> = (0..100).map(|i| WebSocket::open(gateway.address, &format!("/{i}"))).collect();
    assert_eq!(gateway.load(), 100);
    for round in 0..3 {
        for (i, client) in clients.iter_mut().enumerate() {
            client.send(&Message::text(&format!("{round} of {i}")));
        }
        for (i, client) in clients.iter_mut().enumerate().rev() {
            assert_eq!(client.read(), Message::text(&format!("{round} of {i}")));
        }
    }
    drop(clients);
    eventually(Duration::from_secs(5), || gateway.load() == 0);
}

// A worker's connection that carried a WebSocket is not used for anything else.
#[test]
fn a_connection_that_switched_is_never_reused() {
    let worker = Worker::new(|request, conn| match request.headers.has("upgrade") {
        true => WebSocket::accept(request, conn).echo(),
        false => conn.answer(200, "plain"),
    });
    let gateway = Gateway::before(&worker);
    for _ in 0..3 {
        let mut client = WebSocket::open(gateway.address, "/");
        client.ask(&Message::close(1000, ""));
        assert!(client.ends_within(AT_ONCE));
        assert_eq!(gateway.get("/plain").text(), "plain");
    }
    let switched: Vec<_> = worker.requests().into_iter().filter(|r| r.headers.has("upgrade")).collect();
    let shared = |id| worker.requests().iter().any(|r| r.connection == id && r.target == "/plain" && r.nth > 0);
    assert!(switched.iter().all(|r| !shared(r.connection) || r.nth > 0), "{switched:?}");
}
