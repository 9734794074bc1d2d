use super::super::dns::{Dns, Family, Reply, Transport};
use super::*;

const NAME: &str = "w.test";

fn resolver(dns: &Dns) -> Resolver {
    Resolver::with_files(&[dns.address], "/nowhere", "/nowhere").expect("a resolver")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().expect("an address")).collect()
}

/// A file that is gone after the test.
struct File(std::path::PathBuf);

impl File {
    fn new(text: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let file = Self(std::env::temp_dir().join(format!("smg-names-{}-{number}", std::process::id())));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("the temporary directory can be written to");
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a UTF-8 path")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn both_families_aliases_and_long_answers_are_found() {
    let dns = Dns::start();
    let resolver = resolver(&dns);
    let many: Vec<IpAddr> = (1..=200).map(|n| IpAddr::from([10, 0, 1, n])).collect();
    let both = ips(&["10.0.0.1", "fd00::1"]);
    for (reply, expected, ttl) in [
        (Reply::At(both.clone(), 7), both.clone(), 7),
        (Reply::at("fd00::1", 9), ips(&["fd00::1"]), 9),
        (Reply::Alias("real.test", 3, both.clone(), 60), both.clone(), 3),
        (Reply::Truncated(many.clone(), 8), many, 8),
    ] {
        dns.set(NAME, reply);
        let found = resolver.look_up(NAME).await.expect("addresses");
        let mut sorted = found.ips;
        sorted.sort_unstable();
        assert_eq!((sorted, found.ttl), (expected, Duration::from_secs(ttl)));
    }
    assert!(dns.questions().iter().any(|question| question.transport == Transport::Tcp));
    dns.set(NAME, Reply::SilentOnIpv6(both.clone(), 7));
    let found = resolver.look_up(NAME).await.expect("addresses");
    assert_eq!((found.ips, found.v4_unknown, found.v6_unknown), (ips(&["10.0.0.1"]), false, true));
}

#[tokio::test]
async fn each_failure_has_its_error() {
    let dns = Dns::start();
    let resolver = resolver(&dns);
    let error = async |name: &str| resolver.look_up(name).await.expect_err("no addresses");
    dns.set("empty.test", Reply::At(Vec::new(), 7));
    dns.set("failing.test", Reply::Failure);
    assert!(matches!(error("unknown.test").await, NameError::NotFound));
    assert!(matches!(error("empty.test").await, NameError::NotFound));
    assert!(matches!(error("failing.test").await, NameError::Failed(_)));
    assert!(matches!(error("a..b").await, NameError::Invalid));
    assert!(matches!(error(&"a".repeat(64)).await, NameError::Invalid));
    // What other programs take for addresses is a name here, and no such name exists.
    assert!(matches!(error("0x7f000001").await, NameError::NotFound));
    assert!(matches!(error("2852039166").await, NameError::NotFound));
}

/// Nothing that counts as an answer ever comes, so that paused time has no answer to overtake.
#[tokio::test(start_paused = true)]
async fn silence_and_garbage_end_in_time() {
    let dns = Dns::start();
    let resolver = resolver(&dns);
    dns.set("silent.test", Reply::Silence);
    dns.set("garbage.test", Reply::Garbage);
    for name in ["silent.test", "garbage.test"] {
        let error = resolver.look_up(name).await.expect_err("no addresses");
        assert!(matches!(error, NameError::Timeout | NameError::Failed(_)), "{name}: {error:?}");
    }
}

#[tokio::test]
async fn the_search_list_is_gone_through_and_a_failure_ends_it() {
    let dns = Dns::start();
    let name = |text: &str| Name::from_ascii(text).expect("a name");
    let search = [name("one.test."), name("two.test.")];
    let full = |text: &str| full_names(name(text), &search, 2).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(full("w"), ["w.one.test.", "w.two.test.", "w."]);
    assert_eq!(full("w.x"), ["w.x.one.test.", "w.x.two.test.", "w.x."]);
    assert_eq!(full("w.x.y"), ["w.x.y.", "w.x.y.one.test.", "w.x.y.two.test."]);
    assert_eq!(full("w."), ["w."]);

    let client = Client { search: search.into(), ..Client::of(&[dns.address]).expect("a client") };
    dns.set("w.two.test", Reply::at("10.0.0.1", 7));
    assert_eq!(client.search(name("w")).await.expect("addresses").ips, ips(&["10.0.0.1"]));
    let asked: Vec<_> = dns.questions().into_iter().map(|question| (question.name, question.family)).collect();
    let of = |name: &str| [(name.to_owned(), Family::V4), (name.to_owned(), Family::V6)];
    assert_eq!(asked, [of("w.one.test"), of("w.two.test")].concat());
    dns.set("w.one.test", Reply::Failure);
    assert!(matches!(client.search(name("w")).await, Err(NameError::Failed(_))));
}

#[tokio::test]
async fn the_hosts_file_and_localhost_need_no_server() {
    let hosts = File::new("10.0.0.1 listed.test other # a comment\nfd00::1 listed.test\nnonsense x\n");
    let resolver = Resolver::with_files(&[], hosts.path(), "/nowhere").expect("a resolver");
    assert_eq!(resolver.look_up("LISTED.test").await.expect("listed").ips, ips(&["10.0.0.1", "fd00::1"]));
    for name in ["localhost", "a.localhost", "localhost."] {
        assert_eq!(resolver.look_up(name).await.expect("loopback").ips, ips(&["127.0.0.1", "::1"]), "{name}");
    }
    let error = resolver.look_up(NAME).await.expect_err("there is no server");
    assert!(matches!(error, NameError::NoServers(_)));
    assert!(error.to_string().contains("--dns-servers"), "{error}");
    hosts.write("10.0.0.2 listed.test localhost\n");
    assert_eq!(resolver.look_up("listed.test").await.expect("listed").ips, ips(&["10.0.0.2"]));
    assert_eq!(resolver.look_up("localhost").await.expect("listed").ips, ips(&["10.0.0.2"]));
    let without = Resolver::with_files(&[], "/nowhere", "/nowhere").expect("a resolver");
    assert_eq!(without.look_up("localhost").await.expect("loopback").ips.len(), 2);
}

#[tokio::test]
async fn the_servers_and_the_search_list_of_resolv_conf_are_those_it_has_now() {
    let file = File::new("search one.test\n");
    let resolver = Resolver::with_files(&[], "/nowhere", file.path()).expect("a resolver");
    assert!(matches!(resolver.look_up(NAME).await, Err(NameError::NoServers(_))));
    file.write("search one.test two.test\nnameserver 127.0.0.1\noptions ndots:5\n");
    let Servers::System(followed) = &resolver.servers else { panic!("no servers were given") };
    let client = followed.borrow_mut().get().clone().expect("there is a server");
    assert_eq!(client.search.iter().map(ToString::to_string).collect::<Vec<_>>(), ["one.test", "two.test"]);
    assert_eq!(client.resolver.options().ndots, 5);
}
