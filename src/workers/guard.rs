//! Which addresses a worker may have, so that nobody makes the gateway a way to places that it can reach and
//! they can't (server-side request forgery).
//!
//! Workers live on loopback and in private networks, so those pass. Looked at are addresses, never names: a
//! name is judged by what it resolves to, each time that it is resolved.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

/// Where clouds hand out credentials, besides link-local addresses: AWS and Google Cloud over IPv6, Alibaba,
/// Azure, Oracle.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// Why an address may not be a worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the address is unspecified")]
    Unspecified,
    #[error("the address is a multicast or broadcast one")]
    Many,
    #[error("the address is link-local")]
    LinkLocal,
    #[error("a cloud serves its metadata at the address")]
    Metadata,
    #[error("the gateway itself listens there")]
    Own,
    #[error("the name ends with a dot")]
    TrailingDot,
}

/// What holds for one worker's addresses.
#[derive(Debug, Clone)]
pub enum Guard {
    /// Flags or the configuration file named it: whoever starts the gateway can reach everything anyway.
    Operator,
    /// The admin API added it. These are the addresses at which the gateway listens.
    AdminApi(Arc<[SocketAddr]>),
}

impl Guard {
    /// `is_local` tells whether an address belongs to this machine; it is asked only about ports at which the
    /// gateway listens on all addresses.
    pub fn check(&self, address: SocketAddr, is_local: impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
        let ips = [Some(address.ip()), embedded(address.ip()).map(IpAddr::V4)];
        ips.into_iter().flatten().try_for_each(|ip| {
            sends_to_one(ip)?;
            match self {
                Guard::Operator => Ok(()),
                Guard::AdminApi(own) => is_offered(ip).and_then(|()| not_own(own, ip, address.port(), &is_local)),
            }
        })
    }

    /// A name that ends with a dot is another spelling of the one without. Operators have a use for it: it keeps search
    /// domains out.
    pub fn check_name(&self, host: &str) -> Result<(), Refusal> {
        match self {
            Guard::AdminApi(_) if host.ends_with('.') => Err(Refusal::TrailingDot),
            Guard::AdminApi(_) | Guard::Operator => Ok(()),
        }
    }
}

/// Whether an address belongs to this machine: only to such can a socket be bound.
pub fn is_local(ip: IpAddr) -> bool {
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

fn sends_to_one(ip: IpAddr) -> Result<(), Refusal> {
    match ip {
        // All of 0.0.0.0/8: RFC 1122 section 3.2.1.3.
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Err(Refusal::Unspecified),
        IpAddr::V4(v4) if v4.is_broadcast() => Err(Refusal::Many),
        _ if ip.is_unspecified() => Err(Refusal::Unspecified),
        _ if ip.is_multicast() => Err(Refusal::Many),
        _ => Ok(()),
    }
}

fn is_offered(ip: IpAddr) -> Result<(), Refusal> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match link_local {
        true => Err(Refusal::LinkLocal),
        false if METADATA.contains(&ip) => Err(Refusal::Metadata),
        false => Ok(()),
    }
}

fn not_own(own: &[SocketAddr], ip: IpAddr, port: u16, is_local: &impl Fn(IpAddr) -> bool) -> Result<(), Refusal> {
    let is_own = own.iter().filter(|own| own.port() == port).any(|own| match own.ip().to_canonical() {
        any if any.is_unspecified() => ip.is_loopback() || is_local(ip),
        one => one == ip,
    });
    if is_own { Err(Refusal::Own) } else { Ok(()) }
}

/// The IPv4 address that an IPv6 address stands for, or that a translator or tunnel on the way makes of it.
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return None };
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match v6.segments() {
        // `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        // IPv4-compatible and IPv4-mapped (RFC 4291 section 2.5.5), translated (RFC 2765 section 2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(v4(high, low)),
        // NAT64, well known (RFC 6052 section 2.1) and, as most use it, local (RFC 8215).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => Some(v4(high, low)),
        // 6to4 (RFC 3056 section 2).
        [0x2002, high, low, ..] => Some(v4(high, low)),
        // Teredo, in which the client's address is inverted (RFC 4380 section 4).
        [0x2001, 0, .., high, low] => Some(v4(!high, !low)),
        // ISATAP (RFC 5214 section 6.1).
        [.., 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| SocketAddr::new(text.parse().expect("an address"), 8000)).collect()
    }

    #[test]
    fn the_admin_api_adds_no_worker_at_a_place_that_is_none() {
        let guard = Guard::AdminApi(Arc::default());
        use Refusal::{LinkLocal, Many, Metadata, Unspecified};
        for (refusal, texts) in [
            (Unspecified, ["0.0.0.0", "0.1.2.3", "::", "::ffff:0.0.0.0", "64:ff9b::", "2002::"].as_slice()),
            (Many, &["224.0.0.1", "239.1.2.3", "255.255.255.255", "ff02::1", "::ffff:224.0.0.1"]),
            (LinkLocal, &["169.254.169.254", "169.254.0.0", "fe80::1", "febf::1", "::ffff:169.254.169.254"]),
            (LinkLocal, &["::169.254.169.254", "::ffff:0:a9fe:a9fe", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe"]),
            (LinkLocal, &["2002:a9fe:a9fe::1", "2001::5601:5601", "fd00::5efe:169.254.169.254"]),
            (Metadata, &["fd00:ec2::254", "100.100.100.200", "::ffff:100.100.100.200", "168.63.129.16"]),
        ] {
            for address in addresses(texts) {
                assert_eq!(guard.check(address, |_| false), Err(refusal), "{address}");
            }
        }
        let fine = ["127.0.0.1", "::1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "fd00::1", "2001:db8::1", "1.1.1.1"];
        for address in addresses(&fine) {
            assert_eq!(guard.check(address, |_| true), Ok(()), "{address}");
        }
    }

    #[test]
    fn an_operator_may_name_all_that_is_one_address() {
        for address in addresses(&["169.254.169.254", "fe80::1", "127.0.0.1", "fd00:ec2::254"]) {
            assert_eq!(Guard::Operator.check(address, |_| true), Ok(()), "{address}");
        }
        for address in addresses(&["0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0"]) {
            assert!(Guard::Operator.check(address, |_| true).is_err(), "{address}");
        }
    }

    #[test]
    fn the_gateway_is_not_its_own_worker() {
        let own = |listening: &str, worker: &str| {
            let guard = Guard::AdminApi([listening.parse().expect("an address")].into());
            guard.check(worker.parse().expect("an address"), |ip| ip == IpAddr::from([10, 0, 0, 1])).err()
        };
        for worker in ["127.0.0.1:3000", "127.8.8.8:3000", "[::1]:3000", "10.0.0.1:3000", "[::ffff:10.0.0.1]:3000"] {
            assert_eq!(own("0.0.0.0:3000", worker), Some(Refusal::Own), "{worker}");
            assert_eq!(own("[::]:3000", worker), Some(Refusal::Own), "{worker}");
        }
        assert_eq!(own("10.0.0.1:3000", "[::ffff:10.0.0.1]:3000"), Some(Refusal::Own));
        for (listening, worker) in
            [("0.0.0.0:3000", "10.0.0.2:3000"), ("0.0.0.0:3000", "127.0.0.1:3001"), ("10.0.0.1:3000", "127.0.0.1:3000")]
        {
            assert_eq!(own(listening, worker), None, "{listening} {worker}");
        }
        assert!(is_local(IpAddr::from([127, 0, 0, 1])) && !is_local(IpAddr::from([192, 0, 2, 1])));
    }
}
