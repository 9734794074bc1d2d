//! `listeners`: sockets beside the one of `host` and `port`. `certificates`: what those with TLS show.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::node::Node;
use super::problem::Report;
use super::section::Section;

/// A socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map")]
pub struct Listener {
    /// Port 0 takes a free one.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// TLS, with the certificate of the name that the client asks for.
    #[serde(default)]
    pub tls: bool,
    /// The admin API answers here and on no listener without it, and no requests for workers do.
    #[serde(default)]
    pub admin: bool,
}

impl Listener {
    pub(super) fn read(document: &Node, report: &mut Report) -> Vec<Self> {
        let section = Section::<Self>::read(document, "listeners", report);
        let fixed = |listener: &Self| (listener.address.port() != 0).then_some(listener.address);
        section.unique("address", |listener| fixed(listener).into_iter().collect(), report);
        section.values()
    }
}

/// A certificate, and the names that it is shown for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map")]
pub struct Certificate {
    /// PEM file with the certificate and those between it and the root.
    pub cert: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// Names in lower case, `*.` in front for one label; without any, it is shown where no other fits.
    #[serde(default, deserialize_with = "hosts")]
    pub hosts: Vec<String>,
}

impl Certificate {
    pub(super) fn read(document: &Node, report: &mut Report) -> Vec<Self> {
        let section = Section::<Self>::read(document, "certificates", report);
        section.unique("hosts", |certificate| certificate.hosts.clone(), report);
        let mut rest = section.items.iter().filter(|item| item.value.hosts.is_empty());
        rest.next();
        for item in rest {
            section.report(item, "hosts", "another certificate without hosts is there already", report);
        }
        section.values()
    }
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = || de::Error::custom("it must be an address and a port, such as 0.0.0.0:8443 or [::]:8443");
    text.parse().map_err(|_| wrong())
}

fn hosts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let hosts = Vec::<String>::deserialize(deserializer)?;
    hosts.into_iter().map(|host| host_name(&host).map_err(de::Error::custom)).collect()
}

/// RFC 1123, section 2.1, and RFC 6125, section 6.4.3: a star stands for the whole leftmost label.
fn host_name(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        let is_edge_hyphen = label.starts_with('-') || label.ends_with('-');
        let is_byte = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && !is_edge_hyphen && label.bytes().all(is_byte)
    };
    if text.len() <= 253 && name.split('.').all(is_label) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(format!("`{text}` is not a host name, such as a.example or *.a.example"))
    }
}
