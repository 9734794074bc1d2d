//! Where spans are sent, and what is said of the gateway with them: a flag, and the variables that every OpenTelemetry
//! program reads.

use std::str::FromStr;

use http::Uri;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery};
use percent_encoding::percent_decode_str;

/// Where it is when the endpoint does not say (OTLP specification, "OTLP/HTTP Request").
const DEFAULT_PATH: PathAndQuery = PathAndQuery::from_static("/v1/traces");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

/// A collector that takes OTLP over HTTP, as `--otlp-endpoint` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub scheme: Scheme,
    /// Host name or address, IPv6 without brackets.
    pub host: String,
    pub port: u16,
    pub path: PathAndQuery,
    /// What goes into `Host`.
    pub authority: Authority,
}

impl FromStr for Endpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Uri = text.parse().map_err(|_| "it must look like http://HOST:4318")?;
        let (scheme, default_port) = match uri.scheme_str() {
            Some("http") => (Scheme::Http, 80),
            Some("https") => (Scheme::Https, 443),
            _ => return Err("it must begin with http:// or https://"),
        };
        let authority = uri.authority().ok_or("the host is missing")?.clone();
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if authority.as_str().contains('@') || text.contains('#') {
            return Err("it must not contain credentials or a fragment");
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            // A port that is none is not a port to `http`.
            None if host.is_empty() || authority.as_str() != authority.host() => {
                return Err("host or port is not valid");
            }
            None => default_port,
        };
        let path = uri.path_and_query().filter(|path| path.as_str() != "/").cloned().unwrap_or(DEFAULT_PATH);
        Ok(Self { scheme, host, port, path, authority })
    }
}

/// A variable that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {why}")]
pub struct EnvironmentError {
    variable: &'static str,
    why: &'static str,
}

/// What the environment says of the gateway and of the way to the collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Attributes of the resource, each name once.
    pub resource: Vec<(String, String)>,
    /// Sent with each batch; they may hold keys.
    pub headers: HeaderMap,
}

impl Environment {
    /// `variable` reads one, as [`std::env::var`] does. Empty ones are as if they were not set. `instance` is this
    /// process's own id.
    pub fn read(variable: impl Fn(&str) -> Option<String>, instance: String) -> Result<Self, EnvironmentError> {
        let list = |name: &'static str| {
            let pairs = pairs(&variable(name).unwrap_or_default());
            pairs.ok_or(EnvironmentError { variable: name, why: "it must be name=value,name=value" })
        };
        let mut resource = vec![
            ("service.name".to_owned(), env!("CARGO_PKG_NAME").to_owned()),
            ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id".to_owned(), instance),
        ];
        let name = variable("OTEL_SERVICE_NAME").filter(|name| !name.is_empty());
        let name = name.map(|name| ("service.name".to_owned(), name));
        for (key, value) in list("OTEL_RESOURCE_ATTRIBUTES")?.into_iter().chain(name) {
            resource.retain(|(known, _)| *known != key);
            resource.push((key, value));
        }
        let variable = "OTEL_EXPORTER_OTLP_HEADERS";
        let mut headers = HeaderMap::new();
        for (name, value) in list(variable)? {
            let invalid = |why| EnvironmentError { variable, why };
            let name = HeaderName::from_str(&name).map_err(|_| invalid("a name is not valid"))?;
            let mut value = HeaderValue::from_str(&value).map_err(|_| invalid("a value is not valid"))?;
            if [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION].contains(&name) {
                return Err(invalid("host, connection and framing can't be set"));
            }
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Self { resource, headers })
    }
}

/// A list in the format of W3C Baggage, without properties: values are percent-encoded.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let decode = |part: &str| Some(percent_decode_str(part.trim()).decode_utf8().ok()?.into_owned());
    let pair = |member: &str| {
        let (key, value) = member.split_once('=')?;
        Some((decode(key).filter(|key| !key.is_empty())?, decode(value)?))
    };
    text.split(',').filter(|member| !member.trim().is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_without_a_path_has_the_usual_one() {
        for (text, scheme, host, port, path) in [
            ("http://collector:4318", Scheme::Http, "collector", 4318, "/v1/traces"),
            ("http://[::1]/", Scheme::Http, "::1", 80, "/v1/traces"),
            ("HTTPS://c.example/otlp/v1/traces?x=1", Scheme::Https, "c.example", 443, "/otlp/v1/traces?x=1"),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            let got = (endpoint.scheme, endpoint.host.as_str(), endpoint.port, endpoint.path.as_str());
            assert_eq!(got, (scheme, host, port, path));
        }
        for bad in [
            "",
            "collector:4318",
            "grpc://c:4317",
            "http://",
            "http://k@c",
            "http://c:99999",
            "http://c/#a",
            "http://c:",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_environment_adds_to_what_is_known() {
        let read = |attributes: &str, headers: &str| {
            let variable = |name: &str| match name {
                "OTEL_RESOURCE_ATTRIBUTES" => Some(attributes.to_owned()),
                "OTEL_SERVICE_NAME" => Some("edge".to_owned()),
                _ => Some(headers.to_owned()),
            };
            Environment::read(variable, "i".to_owned())
        };
        let environment = read("service.name=lost, region=eu%2C1 ,", "api-key=a%20b").expect("valid");
        let mut resource: Vec<_> = environment.resource.iter().map(|(key, value)| format!("{key}={value}")).collect();
        resource.sort();
        let version = concat!("service.version=", env!("CARGO_PKG_VERSION"));
        assert_eq!(resource, ["region=eu,1", "service.instance.id=i", "service.name=edge", version]);
        assert_eq!(environment.headers["api-key"], "a b");
        assert!(!format!("{environment:?}").contains("a b"), "a key does not print");
        for (attributes, headers) in [("region", ""), ("=1", ""), ("a=%ff", ""), ("", "bad name=1"), ("", "host=x")] {
            assert!(read(attributes, headers).is_err(), "{attributes} {headers}");
        }
    }
}
