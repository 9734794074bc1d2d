use rcgen::KeyPair;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::tls::fixtures::{Authority, Directory, RSA, meet, relink, run, shown, sockets};

const BOTH: [&rustls::SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// `cert`'s files replaced the way an orderly tool does it.
fn replace(directory: &Directory, leaf: &crate::tls::fixtures::Leaf) {
    directory.write_leaf("new", leaf);
    for end in ["pem", "key"] {
        std::fs::rename(directory.path(&format!("new.{end}")), directory.path(&format!("a.{end}"))).expect("a rename");
    }
}

#[test]
fn the_certificate_is_the_one_for_the_name() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let first = ca.leaf(&["first.test", "unknown.test", "deep.down.wild.test"]);
    let second = ca.leaf(&["Exact.test", "*.wild.test"]);
    let third = ca.leaf(&["one.wild.test", "two.wild.test"]);
    let mut sites = vec![directory.site("1", &first), directory.site("2", &second), directory.site("3", &third)];
    sites[0].names = vec!["first.test".to_owned()];
    sites[2].names = vec!["ONE.wild.test".to_owned()];
    let server = ServerTls::new(sites).expect("sites");
    let client = ca.client(&[], &BOTH);
    let mut nameless = client.clone();
    nameless.enable_sni = false;
    run(async {
        for (name, leaf) in [
            ("first.test", &first),
            ("exact.test", &second),
            ("EXACT.test", &second),
            ("any.wild.test", &second),
            ("one.wild.test", &third),
            // The settings say otherwise than the third certificate.
            ("two.wild.test", &second),
            ("unknown.test", &first),
            ("deep.down.wild.test", &first),
        ] {
            assert_eq!(shown(&server, &client, name).await, leaf.der(), "{name}");
        }
        assert_eq!(shown(&server, &nameless, "first.test").await, first.der());
    });
}

#[test]
fn two_kinds_of_keys_serve_one_name() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let (ecdsa, rsa) = (ca.leaf(&["a.test"]), KeyPair::from_pem(RSA).expect("a key"));
    let rsa = ca.leaf_with(&["a.test"], rsa, |_| {});
    let server = ServerTls::new(vec![directory.site("1", &ecdsa), directory.site("2", &rsa)]).expect("sites");
    let table = server.shown.0.load();
    for (scheme, leaf) in [
        (SignatureScheme::ECDSA_NISTP256_SHA256, &ecdsa),
        (SignatureScheme::RSA_PSS_SHA256, &rsa),
        (SignatureScheme::ED25519, &ecdsa),
    ] {
        assert_eq!(table.choose(Some("a.test"), &[scheme]).cert[0], leaf.der(), "{scheme:?}");
    }
}

#[test]
fn http2_is_preferred_and_nothing_else_is_spoken() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let server = ServerTls::new(vec![directory.site("a", &ca.leaf(&["a.test"]))]).expect("a site");
    run(async {
        for (offered, agreed) in [
            (&[][..], Alpn::Http1),
            (&["http/1.1"], Alpn::Http1),
            (&["http/1.1", "h2"], Alpn::Http2),
            (&["h2"], Alpn::Http2),
        ] {
            let accepted = meet(&server, &ca.client(offered, &BOTH), "a.test").await.0.expect("a handshake");
            assert_eq!(accepted.alpn, agreed, "{offered:?}");
        }
        assert!(meet(&server, &ca.client(&["spdy/3"], &BOTH), "a.test").await.0.is_err());
    });
}

#[test]
fn sessions_resume_in_both_versions_and_after_a_reload() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let server = ServerTls::new(vec![directory.site("a", &ca.leaf(&["a.test"]))]).expect("a site");
    run(async {
        for version in [&TLS12, &TLS13] {
            let client = ca.client(&[], &[version]);
            let mut kinds = Vec::new();
            for _ in 0..2 {
                let (accepted, stream) = meet(&server, &client, "a.test").await;
                let (mut accepted, mut stream) = (accepted.expect("a handshake").stream, stream.expect("a handshake"));
                // What is read brings the tickets with it.
                accepted.write_all(b"x").await.expect("open");
                accepted.flush().await.expect("open");
                stream.read_u8().await.expect("open");
                kinds.push(stream.get_ref().1.handshake_kind().expect("a handshake"));
                replace(&directory, &ca.leaf(&["a.test"]));
                server.look();
            }
            assert_eq!(kinds, [HandshakeKind::Full, HandshakeKind::Resumed], "{version:?}");
        }
    });
}

#[test]
fn what_is_not_tls_ends_its_own_handshake_only() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let leaf = ca.leaf(&["a.test"]);
    let server = ServerTls::new(vec![directory.site("a", &leaf)]).expect("a site");
    let huge = [&[0x16, 3, 1, 0x40, 0][..], &[1, 0xff, 0xff, 0xff], &[7; 100_000]].concat();
    run(async {
        for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], &[0; 4096], &[0x16, 3, 1, 0, 1, 0xff], &huge, b""] {
            let (mut near, far) = sockets().await;
            let talking = async {
                let _ = near.write_all(bytes).await;
                let _ = near.shutdown().await;
                // Its end stays open for as long as the handshake lasts.
                let _ = near.read_to_end(&mut Vec::new()).await;
            };
            let (accepted, ()) = tokio::join!(server.accept(far), talking);
            assert!(accepted.is_err(), "{:?}", &bytes[..bytes.len().min(8)]);
        }
        assert_eq!(shown(&server, &ca.client(&[], &BOTH), "a.test").await, leaf.der());
    });
}

#[test]
fn a_new_pair_is_for_new_connections() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let (old, new) = (ca.leaf(&["a.test"]), ca.leaf(&["a.test"]));
    let server = ServerTls::new(vec![directory.site("a", &old)]).expect("a site");
    run(async {
        let client = ca.client(&[], &BOTH);
        let (accepted, stream) = meet(&server, &client, "a.test").await;
        let (mut accepted, mut stream) = (accepted.expect("a handshake").stream, stream.expect("a handshake"));
        replace(&directory, &new);
        server.look();
        assert_eq!(shown(&server, &ca.client(&[], &BOTH), "a.test").await, new.der());
        stream.write_all(b"still here").await.expect("open");
        let mut heard = [0; 10];
        accepted.read_exact(&mut heard).await.expect("open");
        assert_eq!(&heard, b"still here");
    });
}

#[test]
fn half_of_a_new_pair_changes_nothing() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let (old, new) = (ca.leaf(&["a.test"]), ca.leaf(&["a.test"]));
    let server = ServerTls::new(vec![directory.site("a", &old)]).expect("a site");
    let provider = server.provider.clone();
    let look = || server.loaded.lock().expect("whole")[0].look(&provider);
    directory.write("a.key", &new.key);
    assert!(matches!(look(), Some(Err(FileError::ForeignKey { .. }))));
    assert!(look().is_none(), "it is told once");
    run(async {
        assert_eq!(shown(&server, &ca.client(&[], &BOTH), "a.test").await, old.der());
        directory.write("a.pem", &new.chain);
        server.look();
        assert_eq!(shown(&server, &ca.client(&[], &BOTH), "a.test").await, new.der());
    });
}

#[test]
fn the_watch_follows_links_and_survives_a_gap() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let leaves = [ca.leaf(&["a.test"]), ca.leaf(&["a.test"])];
    for (name, leaf) in ["..1", "..2"].iter().zip(&leaves) {
        std::fs::create_dir(directory.path(name)).expect("a directory");
        directory.write_leaf(&format!("{name}/tls"), leaf);
    }
    relink(&directory, "..data", "..1");
    relink(&directory, "tls.pem", "..data/tls.pem");
    relink(&directory, "tls.key", "..data/tls.key");
    let files = KeyPairFiles { chain: directory.path("tls.pem"), key: directory.path("tls.key") };
    let server = Arc::new(ServerTls::new(vec![Site { files, names: Vec::new() }]).expect("a site"));
    run(async {
        let watching = tokio::spawn(server.clone().watch(Duration::from_millis(1)));
        let client = ca.client(&[], &BOTH);
        assert_eq!(shown(&server, &client, "a.test").await, leaves[0].der());
        std::fs::remove_file(directory.path("..data")).expect("it is there");
        relink(&directory, "..data", "..2");
        let taken = async {
            while shown(&server, &ca.client(&[], &BOTH), "a.test").await != leaves[1].der() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), taken).await.expect("the new pair is taken");
        watching.abort();
    });
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let good = || directory.site("a", &ca.leaf(&["a.test"]));
    let nameless = || directory.site("b", &ca.leaf(&["127.0.0.1"]));
    let fails = |sites| ServerTls::new(sites).err().expect("it is refused").to_string();
    assert_eq!(fails(vec![]), "no certificate is given");
    assert!(
        fails(vec![good(), nameless()]).ends_with("b.pem: the certificate names no hosts, and neither do the settings")
    );
    assert!(ServerTls::new(vec![nameless(), good()]).is_ok());
    for name in ["", "*", "a.*.test", "127.0.0.1", "a b", "a.test."] {
        let site = Site { names: vec![name.to_owned()], ..good() };
        assert_eq!(fails(vec![site]), format!("`{name}` is not a host name"));
    }
}
