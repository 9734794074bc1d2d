//! One look-up of a name: the hosts file, then DNS.
//!
//! Each name of the search list is asked for both families before the next one is, and a server that gives no
//! answer ends the look-up: silence must not make another name's addresses this one's.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::DnsError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::time::timeout;

pub use hickory_resolver::net::NetError;

use super::super::guard::Refusal;
use super::followed::Followed;

/// Time for one look-up, all names, servers and tries together.
const LOOK_UP_TIME: Duration = Duration::from_secs(15);
/// Time for the IPv6 addresses of a name after all but a plain no about its IPv4 ones: some servers never answer
/// such questions.
const SECOND_FAMILY_TIME: Duration = Duration::from_secs(1);
/// Time that one server of `--dns-servers` has for one try, and tries after the first.
const SERVER_TIME: Duration = Duration::from_secs(2);
const SERVER_RETRIES: usize = 2;
/// What the hosts file says is looked at again after this time.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// Why a name has no addresses.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    #[error("it is still being looked up")]
    Pending,
    #[error("it is not a host name")]
    Invalid,
    #[error("it does not exist, or has no address")]
    NotFound,
    #[error("no DNS server answered in time")]
    Timeout,
    #[error("the DNS servers failed")]
    Failed(#[source] NetError),
    #[error("it is not in /etc/hosts, and /etc/resolv.conf names no DNS server; --dns-servers does")]
    NoServers(#[source] Arc<NetError>),
    #[error("it resolves to {ip}, which is refused")]
    Refused {
        ip: IpAddr,
        #[source]
        why: Refusal,
    },
}

/// What a look-up found: at least one address.
#[derive(Debug, Clone)]
pub struct Found {
    pub ips: Vec<IpAddr>,
    /// The shortest time to live in the answers: an alias may run out before what it leads to.
    pub ttl: Duration,
    /// Whether it failed to hear of IPv4 or of IPv6 addresses; those it knew may still be good.
    pub v4_unknown: bool,
    pub v6_unknown: bool,
}

/// Resolves names. It belongs to one thread; look-ups may run side by side.
pub struct Resolver {
    hosts: RefCell<Followed<Hosts>>,
    servers: Servers,
}

enum Servers {
    /// Those of resolv.conf, as it is now.
    System(RefCell<Followed<Result<Client, Arc<NetError>>>>),
    Given(Client),
}

impl Resolver {
    /// Asks the `servers`, or those of `/etc/resolv.conf` if there are none. With servers given that file's search
    /// list does not count either.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, NetError> {
        Self::with_files(servers, "/etc/hosts", "/etc/resolv.conf")
    }

    pub(super) fn with_files(servers: &[SocketAddr], hosts: &str, resolv_conf: &str) -> Result<Self, NetError> {
        let servers = match servers {
            [] => Servers::System(RefCell::new(Followed::new(resolv_conf, |bytes| {
                let (config, options) = system_conf::parse_resolv_conf(bytes.map_err(NetError::from)?)?;
                Ok(Client::new(config, options)?)
            }))),
            given => Servers::Given(Client::of(given)?),
        };
        Ok(Self { hosts: RefCell::new(Followed::new(hosts, read_hosts)), servers })
    }

    pub async fn look_up(&self, host: &str) -> Result<Found, NameError> {
        let name = Name::from_ascii(host).map_err(|_| NameError::Invalid)?;
        if let Some(found) = self.without_asking(&name) {
            return Ok(found);
        }
        let client = match &self.servers {
            Servers::Given(client) => client.clone(),
            Servers::System(client) => client.borrow_mut().get().clone().map_err(NameError::NoServers)?,
        };
        timeout(LOOK_UP_TIME, client.search(name)).await.unwrap_or(Err(NameError::Timeout))
    }

    /// The hosts file has the first word, also about `localhost` (RFC 6761 section 6.3).
    fn without_asking(&self, name: &Name) -> Option<Found> {
        let mut hosts = self.hosts.borrow_mut();
        let listed = |family| hosts.get().lookup_static_host(&Query::query(name.clone(), family));
        let lookups = [RecordType::A, RecordType::AAAA].map(listed);
        let records = lookups.iter().flatten().flat_map(|lookup| lookup.answers());
        let mut ips: Vec<_> = records.filter_map(|record| record.data.ip_addr()).collect();
        if ips.is_empty() && name.iter().next_back().is_some_and(|last| last.eq_ignore_ascii_case(b"localhost")) {
            ips = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        }
        (!ips.is_empty()).then_some(Found { ips, ttl: HOSTS_TTL, v4_unknown: false, v6_unknown: false })
    }
}

fn read_hosts(bytes: io::Result<Vec<u8>>) -> Hosts {
    let mut hosts = Hosts::default();
    // Without the file, or past a line that is no text, there are no more entries: DNS is asked.
    let _ = bytes.and_then(|bytes| hosts.read_hosts_conf(bytes.as_slice()));
    hosts
}

/// What asks the servers.
#[derive(Clone)]
struct Client {
    resolver: TokioResolver,
    search: Arc<[Name]>,
}

/// What the servers say of one family.
enum Answer {
    Found(Vec<IpAddr>, Duration),
    /// There is none.
    Nothing,
    /// They don't say.
    Unknown(NameError),
}

impl Client {
    fn of(servers: &[SocketAddr]) -> Result<Self, NetError> {
        let servers = servers.iter().map(|server| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = server.port();
                connection
            });
            NameServerConfig::new(server.ip(), true, connections.into())
        });
        let mut options = ResolverOpts::default();
        (options.timeout, options.attempts) = (SERVER_TIME, SERVER_RETRIES);
        Self::new(ResolverConfig::from_name_servers(servers.collect()), options)
    }

    fn new(config: ResolverConfig, options: ResolverOpts) -> Result<Self, NetError> {
        let (domain, mut search, servers) = config.into_parts();
        if search.is_empty() {
            search.extend(domain);
        }
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        *builder.options_mut() = options;
        let options = builder.options_mut();
        // We ask when an answer has run out, so nothing could come out of a cache but what is too old.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        Ok(Self { resolver: builder.build()?, search: search.into() })
    }

    async fn search(&self, name: Name) -> Result<Found, NameError> {
        for full in full_names(name, &self.search, self.resolver.options().ndots) {
            let v4 = self.ask(&full, RecordType::A).await;
            let v6 = match v4 {
                Answer::Nothing => Ok(self.ask(&full, RecordType::AAAA).await),
                Answer::Found(..) | Answer::Unknown(_) => {
                    timeout(SECOND_FAMILY_TIME, self.ask(&full, RecordType::AAAA)).await
                }
            };
            if let Some(found) = both(v4, v6.unwrap_or(Answer::Unknown(NameError::Timeout)))? {
                return Ok(found);
            }
        }
        Err(NameError::NotFound)
    }

    async fn ask(&self, full: &Name, family: RecordType) -> Answer {
        match self.resolver.lookup(full.clone(), family).await {
            Ok(lookup) => {
                let ips: Vec<_> = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
                let ttl = lookup.answers().iter().map(|record| record.ttl).min();
                match ttl {
                    Some(ttl) if !ips.is_empty() => Answer::Found(ips, Duration::from_secs(ttl.into())),
                    _ => Answer::Nothing,
                }
            }
            Err(NetError::Dns(DnsError::NoRecordsFound(_))) => Answer::Nothing,
            Err(NetError::Timeout) => Answer::Unknown(NameError::Timeout),
            Err(error) => Answer::Unknown(NameError::Failed(error)),
        }
    }
}

/// The names to ask for, as resolv.conf(5) has it: with enough dots the name as it is comes first, else last.
fn full_names(name: Name, search: &[Name], ndots: usize) -> Vec<Name> {
    let mut full = name.clone();
    full.set_fqdn(true);
    if name.is_fqdn() {
        return vec![full];
    }
    // A name that gets too long with a suffix can't exist.
    let mut names: Vec<_> = search.iter().filter_map(|suffix| name.clone().append_domain(suffix).ok()).collect();
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    names.insert(if dots >= ndots { 0 } else { names.len() }, full);
    names.iter_mut().for_each(|name| name.set_fqdn(true));
    names
}

/// `None` if the name has neither.
fn both(v4: Answer, v6: Answer) -> Result<Option<Found>, NameError> {
    use Answer::{Found as Has, Nothing, Unknown};
    let found = |ips, ttl| Found { ips, ttl, v4_unknown: false, v6_unknown: false };
    match (v4, v6) {
        (Has(v4, v4_ttl), Has(v6, v6_ttl)) => Ok(Some(found([v4, v6].concat(), v4_ttl.min(v6_ttl)))),
        (Has(ips, ttl), Nothing) | (Nothing, Has(ips, ttl)) => Ok(Some(found(ips, ttl))),
        (Has(ips, ttl), Unknown(_)) => Ok(Some(Found { v6_unknown: true, ..found(ips, ttl) })),
        (Unknown(_), Has(ips, ttl)) => Ok(Some(Found { v4_unknown: true, ..found(ips, ttl) })),
        (Nothing, Nothing) => Ok(None),
        (Unknown(error), _) | (_, Unknown(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests;
