//! Tells environment variables for flags from variables that something else has set.
//!
//! For each service, Kubernetes sets variables in every container of its namespace. Their names begin with the
//! service's name. For a service named `smg`, one of them is `SMG_PORT`, with an address instead of a port.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::{Arg, Args, Command};

use super::Config;
use super::file::nearest;

/// The prefix of the gateway's variables.
pub const PREFIX: &str = "SMG_";

/// Protocols of service ports.
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// Detaches variables from flags that must not read them: variables with addresses of services, and, if the arguments
/// name a subcommand, those of the gateway's own flags. clap would read the latter even then, and `smg health --port=1`
/// would fail because of a variable that it does not need.
pub fn settle(command: Command, arguments: &[OsString]) -> Command {
    let name = arguments.get(1).and_then(|argument| argument.to_str());
    let is_other = name.is_some_and(|name| command.find_subcommand(name).is_some());
    let command = command.mut_subcommands(|command| command.mut_args(without_address));
    match is_other {
        true => command.mut_args(|arg| arg.env(Resettable::Reset)),
        false => command.mut_args(without_address),
    }
}

fn without_address(arg: Arg) -> Arg {
    match arg.get_env().map(|name| (name, std::env::var_os(name))) {
        Some((name, Some(value))) if is_address(name, &value) => arg.env(Resettable::Reset),
        _ => arg,
    }
}

/// Whether a variable has a service's address: `SMG_PORT=tcp://10.96.12.7:3000`.
fn is_address(name: &OsStr, value: &OsStr) -> bool {
    let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { return false };
    let Some((protocol, authority)) = value.split_once("://") else { return false };
    let is_protocol = PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(protocol));
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    name.ends_with("_PORT") && is_protocol && has_port
}

/// Whether Kubernetes sets a variable of this name for a service: `…_SERVICE_HOST`, `…_SERVICE_PORT`,
/// `…_SERVICE_PORT_HTTP`, `…_PORT_3000_TCP`, or the last with the suffix `_PROTO`, `_PORT` or `_ADDR`.
fn is_of_service(name: &str) -> bool {
    let of_port = ["_PROTO", "_PORT", "_ADDR"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let is_port = |rest: &str| {
        let number = rest.rsplit_once("_PORT_").map(|(_, number)| number);
        number.is_some_and(|number| number.parse::<u16>().is_ok())
    };
    let mut protocols = PROTOCOLS.iter().filter_map(|protocol| of_port.strip_suffix(protocol)?.strip_suffix('_'));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || protocols.any(is_port)
}

/// A variable with [`PREFIX`] that the gateway doesn't know.
#[derive(Debug, PartialEq, Eq)]
pub struct Unknown {
    pub name: String,
    /// The known variable with the most similar name.
    pub meant: Option<String>,
}

/// The unknown variables of this process, in the order of their names. The configuration file names those in `named`.
pub fn unknown(named: &BTreeSet<String>) -> Vec<Unknown> {
    let command = Config::augment_args(Command::new("smg"));
    let known: BTreeSet<String> =
        command.get_arguments().filter_map(Arg::get_env).map(|name| name.to_string_lossy().into_owned()).collect();
    among(std::env::vars_os(), &known, named)
}

fn among(
    variables: impl Iterator<Item = (OsString, OsString)>,
    known: &BTreeSet<String>,
    named: &BTreeSet<String>,
) -> Vec<Unknown> {
    let ours = variables.filter(|(name, _)| name.as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    let mut strange: Vec<String> = ours
        .filter(|(name, value)| !is_address(name, value))
        .map(|(name, _)| name.to_string_lossy().into_owned())
        .filter(|name| !known.contains(name) && !named.contains(name) && !is_of_service(name))
        .collect();
    strange.sort_unstable();
    let meant = |name: &str| {
        let meant = nearest(rest_of(name), known.iter().map(|known| rest_of(known.as_str())));
        meant.map(|meant| format!("{PREFIX}{meant}"))
    };
    strange.into_iter().map(|name| Unknown { meant: meant(&name), name }).collect()
}

fn rest_of(name: &str) -> &str {
    name.strip_prefix(PREFIX).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables for a service named `smg-admin` with a named port.
    const SERVICE: [(&str, &str); 9] = [
        ("SMG_ADMIN_SERVICE_HOST", "10.96.12.7"),
        ("SMG_ADMIN_SERVICE_PORT", "3000"),
        ("SMG_ADMIN_SERVICE_PORT_HTTP", "3000"),
        ("SMG_ADMIN_PORT", "tcp://10.96.12.7:3000"),
        ("SMG_ADMIN_PORT_3000_TCP", "tcp://10.96.12.7:3000"),
        ("SMG_ADMIN_PORT_3000_TCP_PROTO", "tcp"),
        ("SMG_ADMIN_PORT_3000_TCP_PORT", "3000"),
        ("SMG_ADMIN_PORT_3000_TCP_ADDR", "10.96.12.7"),
        ("SMG_ADMIN_PORT_53_UDP", "udp://[fd00::7]:53"),
    ];

    fn found(variables: &[(&str, &str)]) -> Vec<Unknown> {
        let known = ["SMG_PORT", "SMG_HOST", "SMG_MAX_PAYLOAD_SIZE"].map(str::to_owned).into();
        let named = ["SMG_OUR_SECRET".to_owned()].into();
        among(variables.iter().map(|(name, value)| (name.into(), value.into())), &known, &named)
    }

    #[test]
    fn variables_of_services_are_nobodys_mistake() {
        assert_eq!(found(&SERVICE), []);
        assert_eq!(found(&[("SMG_PORT", "tcp://10.96.12.7:3000"), ("SMG_OUR_SECRET", "x"), ("HOME", "/")]), []);
        assert!(is_address("SMG_PORT".as_ref(), "tcp://[fd00::7]:3000".as_ref()));
        for value in ["3000", "tcp://", "tcp://a", "http://a:3000", "tcp://a:99999", ""] {
            assert!(!is_address("SMG_PORT".as_ref(), value.as_ref()), "{value}");
        }
        assert!(!is_address("SMG_OTLP_ENDPOINT".as_ref(), "tcp://a:1".as_ref()));
    }

    #[test]
    fn unknown_variables_come_with_the_nearest_known_one() {
        let unknown = |name: &str, meant: Option<&str>| Unknown { name: name.into(), meant: meant.map(str::to_owned) };
        let names = [("SMG_PROT", "1"), ("SMG_COMPLETELY_DIFFERENT", ""), ("SMG_MAXPAYLOAD_SIZE", "1"), ("SMG_", "")];
        assert_eq!(
            found(&names),
            [
                unknown("SMG_", None),
                unknown("SMG_COMPLETELY_DIFFERENT", None),
                unknown("SMG_MAXPAYLOAD_SIZE", Some("SMG_MAX_PAYLOAD_SIZE")),
                unknown("SMG_PROT", Some("SMG_PORT")),
            ]
        );
        let close = found(&[("SMG_PORT_3000_TPC", "1"), ("SMG_SERVICE_HOTS", "1")]);
        assert_eq!(close.len(), 2, "{close:?}");
    }
}
