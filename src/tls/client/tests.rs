use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tls::fixtures::{Authority, Directory, run, sockets};

/// Connects to a worker that says one letter, and reads it.
async fn ask(client: &ClientTls, host: &str, alpn: Alpn, worker: &Arc<rustls::ServerConfig>) -> Result<u8, String> {
    let (near, far) = sockets().await;
    let working = async {
        let mut tls = TlsAcceptor::from(worker.clone()).accept(far).await?;
        tls.write_all(b"x").await?;
        tls.shutdown().await
    };
    let asking = async {
        let mut stream = client.connect(host, near, alpn).await.map_err(|error| error.to_string())?;
        stream.read_u8().await.map_err(|error| error.to_string())
    };
    tokio::join!(working, asking).1
}

fn refuses(answer: Result<u8, String>, why: &str) {
    let error = answer.expect_err(why);
    assert!(error.contains(why), "{error}");
}

#[test]
fn a_worker_must_be_the_one_that_was_meant() {
    let (directory, ca, stranger) = (Directory::new(), Authority::new(), Authority::new());
    let roots = vec![directory.write("ca.pem", ca.pem())];
    let client = ClientTls::new(ClientFiles { roots, identity: None }).expect("files");
    let known = Authority::worker(&ca.leaf(&["a.test", "127.0.0.1", "::1"]), &[], None);
    let unknown = Authority::worker(&stranger.leaf(&["a.test"]), &[], None);
    run(async {
        for host in ["a.test", "A.test", "127.0.0.1", "::1"] {
            assert_eq!(ask(&client, host, Alpn::Http1, &known).await, Ok(b'x'), "{host}");
        }
        refuses(ask(&client, "a.test", Alpn::Http1, &unknown).await, "UnknownIssuer");
        refuses(ask(&client, "b.test", Alpn::Http1, &known).await, "not valid for name");
        refuses(ask(&client, "127.0.0.2", Alpn::Http1, &known).await, "not valid for");
        refuses(ask(&client, "a b", Alpn::Http1, &known).await, "neither a host name nor an address");
    });
}

#[test]
fn the_protocol_is_the_one_that_was_asked_for() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let roots = vec![directory.write("ca.pem", ca.pem())];
    let client = ClientTls::new(ClientFiles { roots, identity: None }).expect("files");
    let leaf = ca.leaf(&["a.test"]);
    let worker = |alpn| Authority::worker(&leaf, alpn, None);
    run(async {
        for (alpn, worker) in [
            (Alpn::Http1, worker(&[])),
            (Alpn::Http1, worker(&["h2", "http/1.1"])),
            (Alpn::Http2, worker(&["http/1.1", "h2"])),
        ] {
            assert_eq!(ask(&client, "a.test", alpn, &worker).await, Ok(b'x'), "{alpn:?}");
        }
        refuses(ask(&client, "a.test", Alpn::Http2, &worker(&[])).await, "does not speak HTTP/2");
        refuses(ask(&client, "a.test", Alpn::Http2, &worker(&["http/1.1"])).await, "the handshake failed");
    });
}

#[test]
fn a_worker_that_asks_gets_the_identity_of_the_day() {
    let (directory, ca, clients) = (Directory::new(), Authority::new(), Authority::new());
    let roots = vec![directory.write("ca.pem", ca.pem())];
    let worker = Authority::worker(&ca.leaf(&["a.test"]), &[], Some(&clients));
    let anonymous = ClientTls::new(ClientFiles { roots: roots.clone(), identity: None }).expect("files");
    let identity = directory.write_leaf("us", &Authority::new().leaf(&["smg"]));
    let client = ClientTls::new(ClientFiles { roots, identity: Some(identity) }).expect("files");
    run(async {
        refuses(ask(&anonymous, "a.test", Alpn::Http1, &worker).await, "CertificateRequired");
        refuses(ask(&client, "a.test", Alpn::Http1, &worker).await, "UnknownCA");
        let good = clients.leaf(&["smg"]);
        directory.write("us.pem", &good.chain);
        client.look();
        refuses(ask(&client, "a.test", Alpn::Http1, &worker).await, "UnknownCA");
        directory.write("us.key", &good.key);
        client.look();
        assert_eq!(ask(&client, "a.test", Alpn::Http1, &worker).await, Ok(b'x'));
    });
}

#[test]
fn new_roots_replace_the_old_ones() {
    let (directory, old, new) = (Directory::new(), Authority::new(), Authority::new());
    let roots = vec![directory.write("ca.pem", old.pem())];
    let client = ClientTls::new(ClientFiles { roots, identity: None }).expect("files");
    let worker = Authority::worker(&new.leaf(&["a.test"]), &[], None);
    run(async {
        for (contents, answer) in [
            (old.pem(), Err("UnknownIssuer")),
            (format!("{}{}", old.pem(), new.pem()), Ok(b'x')),
            ("no certificate".to_owned(), Ok(b'x')),
            (old.pem(), Err("UnknownIssuer")),
        ] {
            directory.write("ca.pem", &contents);
            client.look();
            let got = ask(&client, "a.test", Alpn::Http1, &worker).await;
            match answer {
                Ok(_) => assert!(got.is_ok(), "{got:?} with {contents}"),
                Err(why) => refuses(got, why),
            }
        }
    });
}

#[test]
fn without_any_roots_only_connecting_fails() {
    let ca = Authority::new();
    let mut client = ClientTls::new(ClientFiles::default()).expect("no files");
    client.system = Some(Arc::new(RootCertStore::empty()));
    let worker = Authority::worker(&ca.leaf(&["a.test"]), &[], None);
    run(async { refuses(ask(&client, "a.test", Alpn::Http1, &worker).await, "--ca-cert-paths") });
}
