use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls::ServerTls;
use crate::tls::fixtures::{Authority, Directory, meet, run, sockets};

/// Two ends of a connection with TLS of `version`: the server's and the client's.
async fn ends(version: &'static rustls::SupportedProtocolVersion) -> (Stream, Stream) {
    let (directory, ca) = (Directory::new(), Authority::new());
    let server = ServerTls::new(vec![directory.site("a", &ca.leaf(&["a.test"]))]).expect("a site");
    let (accepted, client) = meet(&server, &ca.client(&[], &[version]), "a.test").await;
    let client = Stream::Tls(Box::new(TlsStream::Client(client.expect("a handshake"))));
    (accepted.expect("a handshake").stream, client)
}

#[test]
fn only_an_announced_end_is_an_end() {
    run(async {
        for version in [&TLS12, &TLS13] {
            let (mut server, mut client) = ends(version).await;
            server.write_all(b"whole").await.expect("open");
            server.shutdown().await.expect("open");
            let mut text = String::new();
            client.read_to_string(&mut text).await.expect("an announced end");
            assert_eq!(text, "whole");

            let (mut server, mut client) = ends(version).await;
            server.write_all(b"a part").await.expect("open");
            server.flush().await.expect("open");
            drop(server);
            let mut bytes = Vec::new();
            let error = client.read_to_end(&mut bytes).await.expect_err("a cut");
            assert_eq!((&bytes[..], error.kind()), (&b"a part"[..], io::ErrorKind::UnexpectedEof), "{version:?}");
        }
    });
}

#[test]
fn session_tickets_are_no_data() {
    run(async {
        let (mut server, mut client) = ends(&TLS13).await;
        client.tcp().expect("TCP").readable().await.expect("open");
        let mut byte = [0];
        let pending = poll_fn(|cx| Poll::Ready(pin!(client.read(&mut byte)).poll(cx).is_pending()));
        assert!(tokio::task::unconstrained(pending).await);
        // They have been there, and have been read.
        assert!(tickets(&client) > 0);
        server.write_all(b"x").await.expect("open");
        server.flush().await.expect("open");
        assert_eq!(client.read_u8().await.expect("open"), b'x');
    });
}

fn tickets(client: &Stream) -> u32 {
    let Stream::Tls(tls) = client else { return 0 };
    let TlsStream::Client(tls) = &**tls else { return 0 };
    tls.get_ref().1.tls13_tickets_received()
}

#[test]
fn pieces_arrive_whole_and_in_order_however_slowly_they_are_taken() {
    run(async {
        for version in [&TLS12, &TLS13] {
            let (mut server, mut client) = ends(version).await;
            assert!(server.is_write_vectored());
            let data: Arc<[u8]> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
            let sent = data.clone();
            let writing = async move {
                let mut at = 0;
                while at < sent.len() {
                    let rest = &sent[at..];
                    let (front, back) = rest.split_at(rest.len().min(7));
                    let slices = [IoSlice::new(front), IoSlice::new(&[]), IoSlice::new(back)];
                    at += server.write_vectored(&slices).await.expect("open");
                }
                server.write_all(b"end").await.expect("open");
                server.shutdown().await.expect("open");
            };
            let reading = async move {
                let mut all = Vec::new();
                client.read_to_end(&mut all).await.expect("an announced end");
                all
            };
            let ((), all) = tokio::join!(writing, reading);
            assert!(all[..data.len()] == *data && &all[data.len()..] == b"end", "{version:?}");
        }
    });
}

#[test]
fn a_write_that_does_not_fit_waits_and_wakes() {
    run(async {
        let (mut server, mut client) = ends(&TLS13).await;
        let piece = vec![1; 1 << 16];
        let mut written = 0;
        loop {
            let write = poll_fn(|cx| match Pin::new(&mut server).poll_write(cx, &piece) {
                Poll::Ready(count) => Poll::Ready(Some(count.expect("open"))),
                Poll::Pending => Poll::Ready(None),
            });
            match tokio::task::unconstrained(write).await {
                Some(count) => {
                    assert!(count > 0);
                    written += count;
                }
                None => break,
            }
        }
        let more = async {
            server.write_all(&piece).await.expect("open");
            server.shutdown().await.expect("open");
        };
        let mut all = Vec::new();
        let ((), read) = tokio::join!(more, client.read_to_end(&mut all));
        assert_eq!((read.expect("an announced end"), all.len()), (written + piece.len(), written + piece.len()));
    });
}

#[test]
fn a_plain_stream_is_its_socket() {
    run(async {
        let (near, far) = sockets().await;
        let (mut near, mut far) = (Stream::Plain(near), Stream::Plain(far));
        let sent = near.write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"bc")]).await.expect("open");
        assert_eq!((sent, near.is_write_vectored()), (3, true));
        near.shutdown().await.expect("open");
        let mut text = String::new();
        far.read_to_string(&mut text).await.expect("open");
        assert_eq!((text.as_str(), far.tcp().expect("TCP").local_addr().is_ok()), ("abc", true));
    });
}

/// A socket that takes `room` bytes and is then reset.
struct Breaking {
    room: usize,
}

impl Write for Breaking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(std::mem::take(&mut self.room));
        if taken == 0 { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_error_means_that_nothing_was_sent() {
    run(async {
        for (room, first) in [(0, None), (9, Some(4))] {
            let (server, _client) = ends(&TLS13).await;
            let Stream::Tls(tls) = server else { panic!("no TLS") };
            let TlsStream::Server(mut tls) = *tls else { panic!("not the server's end") };
            let mut write = |room| {
                let slices = [IoSlice::new(b"da"), IoSlice::new(b"ta")];
                let session = tls.get_mut().1;
                match poll_write_session(session, &mut Breaking { room }, &slices) {
                    Poll::Ready(taken) => taken.ok(),
                    Poll::Pending => panic!("nothing wakes it"),
                }
            };
            assert_eq!((write(room), write(0)), (first, None), "{room}");
        }
    });
}
