//! `listeners` and `certificates`: several sockets, TLS with the certificate of the name that is asked for, and the
//! admin API on one of them.

use crate::support::{Authority, Client, ConfigFile, Files, Worker};
use std::net::SocketAddr;

fn get(address: SocketAddr, path: &str) -> u16 {
    Client::connect(address).get(path).status
}

#[test]
fn each_listener_with_tls_shows_the_certificate_of_the_name_that_is_asked_for() {
    let (worker, files, authority) = (Worker::echo(), Files::new(), Authority::new());
    let leaves = [("a", "a.test"), ("b", "*.b.test"), ("any", "any.test")];
    let leaves = leaves.map(|(name, host)| (name, authority.leaf(&[host, "unknown.test", "b.test", "x.y.b.test"])));
    let mut text = format!(
        "worker_urls: [{}]\nlisteners:\n- {{address: 127.0.0.1:0, tls: true}}\n- {{address: 127.0.0.1:0}}\ncertificates:\n",
        worker.url()
    );
    for ((name, leaf), hosts) in leaves.iter().zip(["[a.test]", "[\"*.b.test\"]", "[]"]) {
        let (chain, key) = leaf.write(&files, name);
        text += &format!("- {{cert: {chain}, key: {key}, hosts: {hosts}}}\n");
    }
    let wild = authority.leaf(&["*.b.test"]);
    wild.write(&files, "b");
    let gateway = ConfigFile::beside(files, text).gateway().start();
    let [plain, tls, other] = gateway.listeners()[..] else { panic!("there are three") };
    assert_eq!(plain, gateway.address);
    let (a, any) = (leaves[0].1.der(), leaves[2].1.der());
    for (name, shown) in
        [("a.test", &a), ("x.b.test", &wild.der()), ("b.test", &any), ("x.y.b.test", &any), ("unknown.test", &any)]
    {
        let mut client = Client::connect_tls(tls, authority.client(name));
        assert_eq!(client.channel().peer().as_ref(), Some(shown), "{name}");
        assert_eq!(client.get("/").status, 200);
    }
    let client = Client::connect_tls(tls, authority.client("unknown.test").without_sni());
    assert_eq!(client.channel().peer(), Some(any));
    assert_eq!((get(plain, "/"), get(other, "/")), (200, 200));
    worker.wait_for_request();
    let schemes = worker.requests().into_iter().map(|r| r.headers.get("x-forwarded-proto").map(str::to_owned));
    assert_eq!(schemes.filter(|scheme| scheme.as_deref() == Some("https")).count(), 5);
}

#[test]
fn tls_without_a_certificate_does_not_start() {
    let file = ConfigFile::new("listeners: [{address: \"127.0.0.1:0\", tls: true}]\n");
    let ran = crate::support::run(&["--port=0", "--config", &file.path], &[]);
    assert!(matches!(ran.code, Some(1 | 2)), "{:?}", ran.code);
    assert!(ran.stderr.contains("certificate"), "{}", ran.stderr);
}

#[test]
fn a_listener_for_the_admin_api_has_nothing_else_and_the_others_do_not_have_it() {
    let worker = Worker::echo();
    let file = ConfigFile::new(format!(
        "worker_urls: [{}]\nenable_wasm: true\nlisteners:\n- {{address: 127.0.0.1:0, admin: true}}\n- {{address: 127.0.0.1:0}}\n",
        worker.url()
    ));
    let gateway = file.gateway().start();
    let [main, admin, other] = gateway.listeners()[..] else { panic!("there are three") };
    for path in ["/wasm", "/wasm/x", "/workers", "/workers/x", "/metrics"] {
        for address in [main, other] {
            Client::connect(address).get(path).assert_error(404, "not_found");
        }
    }
    assert_eq!(["/wasm", "/workers", "/metrics"].map(|path| get(admin, path)), [200; 3]);
    for address in [main, admin, other] {
        assert_eq!(["/health", "/liveness", "/readiness"].map(|path| get(address, path)), [200; 3]);
    }
    for path in ["/", "/v1/models", "/v1/chat/completions"] {
        Client::connect(admin).get(path).assert_error(404, "not_found");
    }
    assert_eq!((get(main, "/"), get(other, "/")), (200, 200));
    let banner = gateway.stdout();
    assert!(banner.contains(&format!("admin API: on http://{admin} alone; open to this machine")), "{banner}");
    assert!(worker.requests().iter().all(|request| request.target == "/"), "nothing of it is passed on");
}

#[test]
fn an_address_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let file = ConfigFile::new(format!("listeners: [{{address: \"{address}\"}}]\n"));
    let ran = crate::support::run(&["--host=127.0.0.1", "--port=0", "--config", &file.path], &[]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains(&address.to_string()), "{}", ran.stderr);
}
