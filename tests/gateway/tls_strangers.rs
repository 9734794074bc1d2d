//! Case 67: what is no TLS, or only half of it, ends by the limit for heads and keeps nobody else out.

use crate::support::{Authority, Caller, Client, Files, Gateway, Worker, eventually};
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(4);
/// What others may have to wait on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(2);

struct Port {
    authority: Authority,
    gateway: Gateway,
    _files: Files,
    _worker: Worker,
}

fn port(head_limit: &str) -> Port {
    let (authority, files, worker) = (Authority::new(), Files::new(), Worker::echo());
    let pair = authority.leaf(&["127.0.0.1", "smg.test"]).write(&files, "site");
    let builder = Gateway::builder().worker(&worker).tls(authority.client("127.0.0.1"), &pair);
    let gateway = builder.arg(format!("--header-read-timeout-secs={head_limit}")).start();
    Port { authority, gateway, _files: files, _worker: worker }
}

impl Port {
    fn caller(&self) -> Caller {
        self.authority.client("127.0.0.1")
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.gateway.address).expect("the gateway listens")
    }

    /// Somebody else is served as if nobody had come.
    #[track_caller]
    fn serves(&self) {
        let start = Instant::now();
        assert_eq!(self.gateway.get("/probe").json()["path"], "/probe");
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    }

    fn failed(&self) -> f64 {
        self.gateway.metrics().sum("smg_tls_handshakes_total", &[("outcome", "failed")])
    }

    /// Every other connection has ended, and nothing has gone wrong within.
    #[track_caller]
    fn is_as_before(&self) {
        eventually(LIMIT, || self.gateway.metrics().sum("smg_http_connections_active", &[]) == 1.0);
        assert!(!self.gateway.log().contains("panic"), "{}", self.gateway.log());
    }
}

#[test]
fn what_is_no_tls_ends() {
    let port = port("1");
    let random: Vec<u8> = (0..2000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
    let strangers: [(&str, &[u8]); 7] = [
        ("plain HTTP", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ("plain HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        ("random bytes", &random),
        ("a record that is too long", b"\x16\x03\x01\xff\xff\x01\x00\x00"),
        ("close_notify first", b"\x15\x03\x03\x00\x02\x01\x00"),
        ("data first", b"\x17\x03\x03\x00\x05hello"),
        ("TLS 1.0 only", &tls10_hello()),
    ];
    for (what, bytes) in strangers {
        for _ in 0..3 {
            let mut client = Client::connect(port.gateway.address);
            client.send(bytes);
            let start = Instant::now();
            let rest = client.read_until_close();
            assert!(start.elapsed() < LIMIT, "{what}: {:?}", start.elapsed());
            assert!(rest.len() < 20 && !rest.starts_with(b"HTTP"), "{what}: {rest:?}");
        }
        port.serves();
    }
    eventually(LIMIT, || port.failed() == 21.0);
    port.is_as_before();
}

#[test]
fn half_a_handshake_ends_by_the_limit_for_heads() {
    let port = port("1");
    let hello = port.caller().hello();
    let finished = [&hello[..], b"\x14\x03\x03\x00\x01\x01"].concat();
    let start = Instant::now();
    let mut held: Vec<_> = [&b""[..], &hello[..1], &hello[..5], &hello[..hello.len() / 2], &hello, &finished]
        .iter()
        .map(|bytes| {
            let mut client = Client::connect(port.gateway.address);
            client.send(bytes);
            client
        })
        .collect();
    while start.elapsed() < Duration::from_millis(800) {
        port.serves();
    }
    held.iter_mut().for_each(|client| drop(client.read_until_close()));
    assert!((Duration::from_millis(900)..LIMIT).contains(&start.elapsed()), "{:?}", start.elapsed());
    // Who goes on slowly does not get more time.
    let mut slow = port.connect();
    let start = Instant::now();
    for byte in hello.iter().cycle() {
        if slow.write_all(&[*byte]).is_err() {
            break;
        }
        assert!(start.elapsed() < LIMIT, "each byte starts the clock again");
        std::thread::sleep(Duration::from_millis(20));
    }
    port.is_as_before();
}

#[test]
fn fifty_stalled_handshakes_keep_nobody_out() {
    let port = port("30");
    let hello = port.caller().hello();
    let stalled: Vec<_> = (0..50)
        .map(|i| {
            let mut stream = port.connect();
            stream.write_all(&hello[..hello.len() * i / 50]).unwrap();
            stream
        })
        .collect();
    for _ in 0..20 {
        port.serves();
    }
    stalled.iter().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    port.is_as_before();
    assert_eq!(port.failed(), 50.0);
}

#[test]
fn an_end_in_the_middle_of_the_handshake_is_one() {
    let port = port("30");
    let hello = port.caller().hello();
    for cut in [1, 5, hello.len() / 2, hello.len()] {
        for end in [Shutdown::Write, Shutdown::Both] {
            let mut stream = port.connect();
            stream.write_all(&hello[..cut]).unwrap();
            stream.shutdown(end).unwrap();
            drop(stream);
        }
    }
    port.is_as_before();
    port.serves();
}

#[test]
fn who_names_no_host_or_another_one_gets_the_only_certificate() {
    let port = port("30");
    let mut client = Client::connect_tls(port.gateway.address, port.caller().without_sni());
    assert_eq!(client.get("/").status, 200);
    let mut client = Client::connect_tls(port.gateway.address, port.authority.client("smg.test"));
    assert_eq!(client.get("/").status, 200);
    let refused = Client::try_connect_tls(port.gateway.address, port.authority.client("other.test"));
    let refusal = refused.err().expect("our client checks the name").to_string();
    assert!(refusal.contains("not valid for name"), "{refusal}");
}

/// A ClientHello of a client that knows TLS 1.0 at most.
fn tls10_hello() -> Vec<u8> {
    let body = [&[3, 1][..], &[7; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0]].concat();
    let message = [&[1, 0, 0, body.len() as u8][..], &body].concat();
    [&[0x16, 3, 1, 0, message.len() as u8][..], &message].concat()
}
