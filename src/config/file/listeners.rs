//! `listeners`: sockets beside the one of `host` and `port`. `certificates`: what those with TLS show.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::node::Node;
use super::problem::Report;
use super::section::Section;
use crate::config::ListenAddress;

/// A socket to listen on.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map")]
pub struct Listener {
    #[serde(deserialize_with = "address")]
    pub address: ListenAddress,
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
        let is_fixed = |address: &ListenAddress| address.tcp().is_none_or(|address| address.port() != 0);
        let fixed = |listener: &Self| Some(listener.address.clone()).filter(is_fixed);
        section.unique("address", |listener| fixed(listener).into_iter().collect(), report);
        for item in section.items.iter().filter(|item| item.value.address.tcp().is_none()) {
            if item.value.tls {
                section.report(item, "tls", "a Unix socket does not speak TLS", report);
            }
            if !item.value.admin {
                section.report(item, "admin", "a Unix socket is for the admin API: it needs `admin: true`", report);
            }
        }
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

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ListenAddress, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
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
