//! Addresses of workers, as flags give them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use http::uri::Authority;

/// Where a worker is: scheme and authority, nothing else. Equal URLs compare equal however they were written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerUrl {
    scheme: Scheme,
    host: String,
    port: u16,
}

/// How a worker is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

impl WorkerUrl {
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What goes into the `Host` field.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.default_port() { host } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for WorkerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl FromStr for WorkerUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("`{text}` is not a worker URL: {why}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return refuse("it must look like http://HOST:PORT");
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return refuse("the scheme must be http or https"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return refuse("it must not contain credentials");
        }
        if rest.contains(['/', '?', '#']) {
            return refuse("it must end after the host and port");
        }
        let Ok(authority) = rest.parse::<Authority>() else {
            return refuse("the host or the port is not valid");
        };
        if authority.as_str() != rest || authority.host().is_empty() {
            return refuse("the host or the port is not valid");
        }
        let port = match rest[authority.host().len()..].strip_prefix(':').map(str::parse) {
            None => scheme.default_port(),
            Some(Ok(port @ 1..)) => port,
            Some(_) => return refuse("the port must be 1 to 65535"),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if ends_in_number(&host) && host.parse::<Ipv4Addr>().is_err() {
            return refuse("an IPv4 address must be four decimal numbers, such as 127.0.0.1");
        }
        Ok(Self { scheme, host, port })
    }
}

/// Whether a host is an IPv4 address to those who read such in every spelling (WHATWG URL, "ends in a number checker"):
/// in decimal, octal or hexadecimal, with fewer than four parts, or with a dot at the end. No name ends in a number.
fn ends_in_number(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let last = host.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    match last.strip_prefix("0x") {
        Some(digits) => is_hexadecimal(digits),
        None => !last.is_empty() && last.bytes().all(|digit| digit.is_ascii_digit()),
    }
}

/// One value of `--worker-urls`: URLs between commas or white space.
#[derive(Debug, Clone)]
pub struct WorkerUrls(pub Vec<WorkerUrl>);

impl FromStr for WorkerUrls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let urls = text.split([',', ' ', '\t', '\n']).filter(|part| !part.is_empty());
        urls.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worker_urls_are_told_apart_by_host_and_port_only() {
        let urls: WorkerUrls =
            "http://A:8000 http://a:8000/,http://b,http://b:80 http://[::1]:9 HTTPS://b:443 https://b:80"
                .parse()
                .expect("urls");
        let shown: Vec<_> = urls.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["http://a:8000", "http://a:8000", "http://b", "http://b", "http://[::1]:9", "https://b", "https://b:80"]
        );
    }

    #[test]
    fn names_may_have_numbers_in_them() {
        for url in ["http://worker-1", "http://1.workers", "http://0xa.b:1", "http://x0", "http://a.b.", "http://[::1]"]
        {
            assert!(url.parse::<WorkerUrl>().is_ok(), "{url}");
        }
    }

    #[test]
    fn bad_worker_urls_say_what_is_wrong() {
        for (url, why) in [
            ("localhost:8000", "must look like"),
            ("ftp://a", "scheme must be http"),
            ("file:///etc/passwd", "scheme must be http"),
            ("http://", "not valid"),
            ("http://user:pw@a", "credentials"),
            ("http://a/v1", "must end after"),
            ("http://a?x", "must end after"),
            ("http://a:0", "1 to 65535"),
            ("http://a:99999", "1 to 65535"),
            ("http://a:", "1 to 65535"),
            ("http://a b\r\n", "not valid"),
            ("http://2852039166", "four decimal numbers"),
            ("http://0XA9fea9fe:80", "four decimal numbers"),
            ("http://0251.0376.0251.0376", "four decimal numbers"),
            ("http://127.1", "four decimal numbers"),
            ("http://127.0.0.1.", "four decimal numbers"),
            ("http://a.0x", "four decimal numbers"),
            ("http://1.2.3.256", "four decimal numbers"),
        ] {
            let error = url.parse::<WorkerUrl>().expect_err(url);
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
