//! `smg health`: asking a gateway whose port speaks TLS, and what does not answer.

use crate::support::{Authority, Files, Gateway, Ran, Worker, run};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

/// A gateway that speaks TLS, whose certificate is for these names.
struct Secure {
    authority: String,
    files: Files,
    pair: (String, String),
    gateway: Gateway,
}

impl Secure {
    fn new(names: &[&str]) -> Self {
        let (authority, files) = (Authority::new(), Files::new());
        let pair = authority.leaf(names).write(&files, "site");
        let builder = Gateway::builder().without_defaults().tls(authority.client(names[0]), &pair);
        let gateway = builder.args(["--host=0.0.0.0", "--port=0"]).start_unready();
        Secure { authority: authority.write(&files, "ca.pem"), files, pair, gateway }
    }

    /// `smg health` of its port, with further arguments.
    fn health(&self, arguments: &[&str], env: &[(&str, &str)]) -> Ran {
        let port = self.gateway.address.port().to_string();
        run(&[&["health", "--port", &port], arguments].concat(), env)
    }
}

#[track_caller]
fn fails(ran: &Ran, why: &str) {
    assert!(ran.code == Some(1) && ran.stderr.contains(why), "{:?}: {}", ran.code, ran.stderr);
}

#[test]
fn on_this_machine_the_certificate_may_be_for_any_name() {
    let secure = Secure::new(&["llm.test"]);
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(secure.health(&["--tls", "--host", host], &[]).code, Some(0), "{host}");
    }
    assert_eq!(secure.health(&["--tls=true", "--path=/liveness"], &[]).code, Some(0));
    fails(&secure.health(&["--tls", "--path=/readiness"], &[]), "503");
    fails(&secure.health(&[], &[]), "--tls");
}

#[test]
fn what_makes_the_gateway_speak_tls_makes_its_health_check() {
    let secure = Secure::new(&["llm.test"]);
    let env = [("SMG_TLS_CERT_PATH", secure.pair.0.as_str())];
    assert_eq!(secure.health(&[], &env).code, Some(0));
    fails(&secure.health(&["--tls=false"], &env), "--tls");
    let plain = Gateway::before(&Worker::echo());
    let port = plain.address.port().to_string();
    assert_eq!(run(&["health", "--port", &port, "--tls=false"], &env).code, Some(0));
    fails(&run(&["health", "--port", &port], &env), "TLS");
}

#[test]
fn a_certificate_is_verified_with_the_authorities_that_are_given() {
    let secure = Secure::new(&["127.0.0.1"]);
    let stranger = Authority::new().write(&secure.files, "stranger.pem");
    let with = |authority: &str, host| secure.health(&["--tls", "--ca-cert-paths", authority, "--host", host], &[]);
    assert_eq!(with(&secure.authority, "127.0.0.1").code, Some(0));
    fails(&with(&secure.authority, "localhost"), "not valid for name");
    fails(&with(&stranger, "127.0.0.1"), "UnknownIssuer");
    fails(&with("/nowhere.pem", "127.0.0.1"), "/nowhere.pem");
}

/// Where this machine would be seen from outside, if it has a network.
fn outer_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
}

#[test]
fn elsewhere_a_certificate_must_be_one_that_the_system_trusts() {
    let Some(outer) = outer_address().map(|ip| ip.to_string()) else { return };
    let secure = Secure::new(&[&outer]);
    let stranger = Authority::new().write(&secure.files, "stranger.pem");
    let trusting = |roots: &str| secure.health(&["--tls", "--host", &outer], &[("SSL_CERT_FILE", roots)]);
    assert_eq!(trusting(&secure.authority).code, Some(0));
    fails(&trusting(&stranger), "UnknownIssuer");
}

#[test]
fn a_port_that_says_nothing_is_given_up_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("an address").port().to_string();
    for tls in ["--tls=true", "--tls=false"] {
        let start = Instant::now();
        fails(&run(&["health", "--port", &port, "--timeout-secs=1", tls], &[]), "not in time");
        assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
    }
}
