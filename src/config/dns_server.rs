//! Addresses of DNS servers, as `--dns-servers` gives them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The port of DNS (RFC 1035 section 4.2).
const PORT: u16 = 53;

/// A server that is asked for the addresses of workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DnsServer(pub SocketAddr);

impl FromStr for DnsServer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let with_port = text.parse::<SocketAddr>();
        let address = with_port.or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT)));
        match address {
            Ok(address) if address.port() == 0 || address.ip().is_unspecified() => Err("nothing can listen there"),
            Ok(address) => Ok(Self(address)),
            Err(_) => Err("it must be an address, such as 10.0.0.2, 10.0.0.2:5353 or [fd00::2]:53; not a name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_server_is_an_address_and_its_port_may_be_left_out() {
        let shown = |text: &str| text.parse::<DnsServer>().map(|server| server.0.to_string());
        assert_eq!(shown("10.0.0.2").as_deref(), Ok("10.0.0.2:53"));
        assert_eq!(shown("10.0.0.2:5353").as_deref(), Ok("10.0.0.2:5353"));
        assert_eq!(shown("fd00::2").as_deref(), Ok("[fd00::2]:53"));
        assert_eq!(shown("[fd00::2]:54").as_deref(), Ok("[fd00::2]:54"));
        for bad in ["", "dns.example", "10.0.0.2:0", "0.0.0.0", "10.0.0.2:x", "udp://10.0.0.2"] {
            assert!(shown(bad).is_err(), "{bad}");
        }
    }
}
