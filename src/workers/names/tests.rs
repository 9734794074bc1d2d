//! A name against a real, scripted DNS server.

use std::net::SocketAddr;

use tokio::runtime::Builder;
use tokio::task::{spawn_blocking, spawn_local};

use super::dns::{Dns, Reply};
use super::*;
use crate::config::Config;
use crate::workers::Health;

const NAME: &str = "w.test";

/// Case 60, and the refusal of a name that turns to a cloud's metadata; on a runtime like the control plane's.
#[test]
fn a_worker_is_followed_through_failures_and_refusals() {
    let control = Builder::new_current_thread().enable_all().build_local(Default::default()).expect("a runtime");
    control.block_on(async {
        let dns = Arc::new(Dns::start());
        dns.set(NAME, Reply::at("10.0.0.1", 1));
        let resolver = Resolver::with_files(&[dns.address], "/nowhere", "/nowhere").expect("a resolver");
        let worker =
            Arc::new(Worker::new("http://w.test:8000".parse().expect("a URL"), Health::Pending, &Config::of(&[])));
        let resolver = watch::Sender::new(Rc::new(resolver));
        let following = spawn_local(follow(worker.clone(), resolver.subscribe(), Guard::AdminApi(Arc::default())));
        let at = |ip: &str| vec![SocketAddr::new(ip.parse().expect("an address"), 8000)];
        // A question that was under way, both families of one look-up, and one more: a look-up that began after
        // the change has ended.
        let after_a_look_up = async |reply: Reply| {
            dns.set(NAME, reply);
            let dns = dns.clone();
            spawn_blocking(move || dns.wait_for_more(4)).await.expect("more questions");
        };
        assert_eq!(worker.addresses.first().await.expect("addresses"), at("10.0.0.1"));
        for reply in [Reply::NoName, Reply::at("169.254.169.254", 1)] {
            after_a_look_up(reply).await;
            assert_eq!(worker.addresses.list(), at("10.0.0.1"));
        }
        after_a_look_up(Reply::at("10.0.0.2", 1)).await;
        assert_eq!(worker.addresses.list(), at("10.0.0.2"));
        assert!(!following.is_finished());
    });
}

#[test]
fn the_log_gets_the_cause_of_a_refusal() {
    let error = NameError::Refused { ip: [169, 254, 169, 254].into(), why: crate::workers::guard::Refusal::LinkLocal };
    let text = "it resolves to 169.254.169.254, which is refused: the address is link-local";
    assert_eq!(Causes(&error).to_string(), text);
}
