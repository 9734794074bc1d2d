//! What a start refuses without opening anything, and what only the file and the command line together can tell: either
//! may say what the other one needs.

use std::net::SocketAddr;

use clap::{ArgMatches, FromArgMatches};

use super::node::{Node, Value};
use super::problem::{Problem, Report};
use super::{CheckModule, FileConfig, Listener};
use crate::config::{Listen, Tls, Wasm};

/// Where in the file it is written.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    modules: usize,
    /// Of each listener's `address` and `tls`.
    listeners: Vec<(usize, usize)>,
    /// Of `certificates`, right or wrong.
    certificates: Option<usize>,
}

impl Lines {
    pub(super) fn of(document: &Node) -> Self {
        let listeners = match document.get("listeners") {
            Some(Node { value: Value::List(listeners), .. }) => listeners.as_slice(),
            _ => &[],
        };
        let line = |node: &Node, key| node.get(key).unwrap_or(node).line;
        Self {
            modules: document.get("modules").map_or(0, |node| node.line),
            listeners: listeners.iter().map(|node| (line(node, "address"), line(node, "tls"))).collect(),
            certificates: document.get("certificates").map(|node| node.line),
        }
    }
}

/// The settings that other parts of the file depend on.
struct Merged {
    listen: Listen,
    tls: Tls,
    wasm: Wasm,
}

impl Merged {
    fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (listen, tls) = (Listen::from_arg_matches(matches)?, Tls::from_arg_matches(matches)?);
        Ok(Self { listen, tls, wasm: Wasm::from_arg_matches(matches)? })
    }
}

/// Reports what is wrong with a file where these are the settings. The error is clap's, for a command without them.
pub(super) fn check(
    file: &FileConfig,
    matches: &ArgMatches,
    module: CheckModule,
    report: &mut Report,
) -> Result<(), clap::Error> {
    let merged = Merged::of(matches)?;
    let sections = &file.sections;
    if !merged.wasm.enable_wasm && !sections.modules.is_empty() {
        let text = "they need `enable_wasm: true`, or --enable-wasm";
        report.add(Problem::new(file.lines.modules, "modules", text));
    }
    sections.modules.iter().flat_map(|one| module(one, &merged.wasm)).for_each(|problem| report.add(problem));
    // Where one could not be read, it is not known which is which.
    if sections.listeners.len() == file.lines.listeners.len() {
        for (at, listener) in sections.listeners.iter().enumerate() {
            check_listener(at, listener, file, &merged, report);
        }
    }
    Ok(())
}

fn check_listener(at: usize, listener: &Listener, file: &FileConfig, merged: &Merged, report: &mut Report) {
    let (address, tls) = file.lines.listeners[at];
    let has_certificate = merged.tls.tls_cert_path.is_some() || file.lines.certificates.is_some();
    if listener.tls && !has_certificate {
        let text = "it needs a certificate: `certificates`, or `tls_cert_path` and `tls_key_path`";
        report.add(Problem::new(tls, format_args!("listeners[{at}].tls"), text));
    }
    let Some(own) = listener.address.tcp() else { return };
    let listen = &merged.listen;
    let main = SocketAddr::new(listen.host, listen.port);
    let is_taken = if listen.reuse_port { own == main } else { overlap(own, main) };
    let metrics = listen.prometheus_port.map(|port| SocketAddr::new(listen.prometheus_host, port));
    let metrics = metrics.filter(|metrics| overlap(own, *metrics));
    let taken = is_taken.then_some(("`host` and `port` are", main)).filter(|(_, main)| main.port() != 0);
    for (who, other) in taken.into_iter().chain(metrics.map(|metrics| ("`prometheus_port` is", metrics))) {
        let text = format_args!("{who} on {other} already");
        report.add(Problem::new(address, format_args!("listeners[{at}].address"), text));
    }
}

/// Whether the system would not let both be bound.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let is_wild = one.ip().is_unspecified() || other.ip().is_unspecified();
    let is_same = one.ip() == other.ip() || (is_wild && one.is_ipv4() == other.is_ipv4());
    one.port() == other.port() && one.port() != 0 && is_same
}
