//! Addresses of workers, as flags give them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, PathAndQuery};
use percent_encoding::percent_decode_str;

/// Longest base path, in bytes.
const LONGEST_BASE: usize = 1024;
/// Longest target that `http` takes, in bytes.
const LONGEST_TARGET: usize = u16::MAX as usize - 1;

/// Where a worker is: scheme, authority, and the path below which it serves. Equal URLs compare equal however they were
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WorkerUrl {
    scheme: Scheme,
    host: String,
    port: u16,
    /// Begins with `/` and does not end with one; `None` if requests keep the path that they have.
    base: Option<Box<str>>,
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

    pub fn has_base_path(&self) -> bool {
        self.base.is_some()
    }

    /// What a request for `target` asks this worker for: the base path, then the path of the request. A base path that
    /// names a version itself (`/openai/v1`, `/v1beta/openai`, `/api/paas/v4`) takes the place of the request's `/v1`,
    /// as in clients of the OpenAI API, which append `/chat/completions` to their base URL. Such a worker serves `/v1`
    /// and paths below it only: otherwise `/chat/completions` would be a second name of `/v1/chat/completions`, which
    /// the paths of modules and routes don't match.
    ///
    /// A worker without a base path is asked for `target` itself.
    pub fn target(&self, target: &Uri) -> Result<Uri, TargetError> {
        let Some((base, path)) = self.parts(target)? else { return Ok(target.clone()) };
        let whole = match target.query() {
            Some(query) => format!("{base}{path}?{query}"),
            None => format!("{base}{path}"),
        };
        PathAndQuery::try_from(whole).map(Uri::from).map_err(|_| TargetError::TooLong)
    }

    /// Whether [`WorkerUrl::target`] is an error for this target.
    pub fn check(&self, target: &Uri) -> Result<(), TargetError> {
        let Some((base, path)) = self.parts(target)? else { return Ok(()) };
        let query = target.query().map_or(0, |query| 1 + query.len());
        if base.len() + path.len() + query > LONGEST_TARGET { Err(TargetError::TooLong) } else { Ok(()) }
    }

    /// The base path and what is appended to it; `None` if the target stays as it is.
    fn parts<'t>(&self, target: &'t Uri) -> Result<Option<(&str, &'t str)>, TargetError> {
        let (Some(base), path) = (&self.base, target.path()) else { return Ok(None) };
        // `*` names the server, not a path on it.
        if !path.starts_with('/') {
            return Ok(None);
        }
        if has_dot_segment(path) {
            return Err(TargetError::DotSegment);
        }
        if !names_version(base) {
            return Ok(Some((base, path)));
        }
        let below_version = path.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with('/'));
        below_version.map(|rest| Some((&**base, rest))).ok_or(TargetError::OutsideVersion)
    }

    /// What the gateway calls a path of the worker's: the inverse of [`WorkerUrl::target`]. `None` if that is the same,
    /// or if the path is not below the worker's base path.
    pub fn path_at_gateway(&self, path: &str) -> Option<String> {
        let base = self.base.as_deref()?;
        let rest = path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#']))?;
        Some(if names_version(base) { format!("/v1{rest}") } else { rest.to_owned() })
    }
}

/// Why a worker with a base path can't be asked for a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetError {
    /// It could lead out of the base path, which other tenants of the host may be beside.
    DotSegment,
    /// Together with the base path.
    TooLong,
    /// The base path names a version, and the target is not below `/v1`.
    OutsideVersion,
}

/// Whether a segment is `.` or `..`, however a server might decode it, or separate it from others.
fn has_dot_segment(path: &str) -> bool {
    if !path.contains(['.', '%']) {
        return false;
    }
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(|segment| {
        let name = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        matches!(name, b"." | b"..")
    })
}

/// Whether a segment is a version, such as `v1`, `v1beta` or `v2rc1`.
fn names_version(base: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    base.split('/').any(|segment| {
        let Some(version) = segment.strip_prefix('v') else { return false };
        let (number, stage) = version.split_at(digits(version));
        let revision = ["alpha", "beta", "rc"].iter().find_map(|name| stage.strip_prefix(name)).unwrap_or(stage);
        !number.is_empty() && digits(revision) == revision.len()
    })
}

/// The path of a worker's URL without its last `/`, or what is wrong with it. It is written as it will be sent, so there
/// is nothing in it that some servers read in another way than others.
fn base_path(path: &str) -> Result<Option<Box<str>>, &'static str> {
    let Some(path) = Some(path.strip_suffix('/').unwrap_or(path)).filter(|path| !path.is_empty()) else {
        return Ok(None);
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&()*+;=:@".contains(&byte);
    let is_segment = |segment: &str| !segment.is_empty() && segment.bytes().all(is_plain);
    match path.strip_prefix('/') {
        _ if path.len() > LONGEST_BASE => Err("its path is longer than 1024 bytes"),
        Some(segments) if segments.split('/').any(|segment| segment == "." || segment == "..") => {
            Err("its path must not contain . or ..")
        }
        Some(segments) if segments.split('/').all(is_segment) => Ok(Some(path.into())),
        _ => Err("its path must be segments of letters, digits and -._~!$&()*+;=:@ with a single / between them"),
    }
}

impl fmt::Display for WorkerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.as_str(), self.authority(), self.base.as_deref().unwrap_or_default())
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
        let (rest, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if rest.contains('@') {
            return refuse("it must not contain credentials");
        }
        if path.contains(['?', '#']) {
            return refuse("it must end after its path, without a query or fragment");
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
        let base = match base_path(path) {
            Ok(base) => base,
            Err(why) => return refuse(why),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if ends_in_number(&host) && host.parse::<Ipv4Addr>().is_err() {
            return refuse("an IPv4 address must be four decimal numbers, such as 127.0.0.1");
        }
        Ok(Self { scheme, host, port, base })
    }
}

/// Whether a host is an IPv4 address to those who read such in every spelling (WHATWG URL, "ends in a number checker"):
/// in decimal, octal or hexadecimal, with fewer than four parts, or with a dot at the end. No name ends in a number. An
/// IPv6 address may: `::ffff:127.0.0.1`.
fn ends_in_number(host: &str) -> bool {
    if host.contains(':') {
        return false;
    }
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
    fn worker_urls_are_told_apart_by_host_port_and_path_only() {
        let urls: WorkerUrls =
            "http://A:8000 http://a:8000/,http://b,http://b:80 http://[::1]:9 HTTPS://b:443 https://b:80 \
             https://B/V1/ https://b/V1"
                .parse()
                .expect("urls");
        let shown: Vec<_> = urls.0.iter().map(ToString::to_string).collect();
        #[rustfmt::skip]
        let wanted = [
            "http://a:8000", "http://a:8000", "http://b", "http://b", "http://[::1]:9", "https://b", "https://b:80",
            "https://b/V1", "https://b/V1",
        ];
        assert_eq!(shown, wanted);
        assert_eq!(urls.0[7], urls.0[8]);
        assert!(urls.0[7].has_base_path() && !urls.0[1].has_base_path());
    }

    #[test]
    fn paths_are_appended_to_the_base_path_and_its_version_counts() {
        for (url, target, wanted) in [
            ("http://a", "/v1/models?x=%2F", "/v1/models?x=%2F"),
            ("http://a/v1", "/v1/chat/completions", "/v1/chat/completions"),
            ("http://a/v1/", "/v1/models?limit=1", "/v1/models?limit=1"),
            ("http://a/v1", "/v1", "/v1"),
            ("http://a/v1", "/v1?x", "/v1?x"),
            ("http://a/v1", "/v1//x", "/v1//x"),
            ("http://a/llama", "/health", "/llama/health"),
            ("http://a/v2ray/llama", "/v1/models", "/v2ray/llama/v1/models"),
            ("http://a/v1-team", "/v1/models", "/v1-team/v1/models"),
            ("http://a/v1.5", "/v1/models", "/v1.5/v1/models"),
            ("http://a/v1betas", "/v1/models", "/v1betas/v1/models"),
            ("http://a/v", "/v1/models", "/v/v1/models"),
            ("http://a/vbeta", "/v1/models", "/vbeta/v1/models"),
            ("http://a/v1alpha2", "/v1/models", "/v1alpha2/models"),
            ("http://a/x/v10rc1", "/v1/models", "/x/v10rc1/models"),
            ("http://a/openai/v1", "/v1/chat/completions", "/openai/v1/chat/completions"),
            ("http://a/llama", "/v1/models/org%2Fname", "/llama/v1/models/org%2Fname"),
            ("http://a/vllm", "/v1/models", "/vllm/v1/models"),
            ("http://a/v1beta/openai/", "/v1/chat/completions", "/v1beta/openai/chat/completions"),
            ("http://a/api/paas/v4", "/v1/chat/completions", "/api/paas/v4/chat/completions"),
            ("http://a/v1", "*", "*"),
        ] {
            let url: WorkerUrl = url.parse().expect(url);
            let target = target.parse().expect(target);
            assert_eq!(url.check(&target), Ok(()), "{url}: {target}");
            let target = url.target(&target).expect("it is short");
            assert_eq!(target, wanted, "{url}");
        }
        for (url, path, wanted) in [
            ("http://a", "/x", None),
            ("http://a/llama", "/llama/v1/x?y", Some("/v1/x?y")),
            ("http://a/llama", "/llamas", None),
            ("http://a/openai/v1", "/openai/v1/x", Some("/v1/x")),
            ("http://a/v1beta/openai", "/v1beta/openai", Some("/v1")),
            ("http://a/v1beta/openai", "/x", None),
        ] {
            let url: WorkerUrl = url.parse().expect(url);
            assert_eq!(url.path_at_gateway(path).as_deref(), wanted, "{url}: {path}");
        }
        let url: WorkerUrl = "http://a/v1".parse().expect("a URL");
        for target in ["/chat/completions", "/", "/v11/x", "/V1/x", "/%761/x", "//v1/x", "/?/v1/x"] {
            let target = target.parse().expect(target);
            let wanted = Err(TargetError::OutsideVersion);
            assert_eq!((url.check(&target), url.target(&target).map(drop)), (wanted, wanted), "{target}");
        }
        let base: WorkerUrl = "http://a/abc".parse().expect("a URL");
        for (length, wanted) in [(65_530, Ok(())), (65_531, Err(TargetError::TooLong))] {
            for query in ["", "?x"] {
                let path = "x".repeat(length - 1 - query.len());
                let target = format!("/{path}{query}").parse().expect("a target");
                assert_eq!((base.check(&target), base.target(&target).map(drop)), (wanted, wanted), "{length}{query}");
            }
        }
        for target in ["/..", "/v1/../admin", "/v1/%2e%2E/admin", "/x%2f..%2fadmin", "/..;x/admin", "/x%5c../a", "/./x"]
        {
            let (target, wanted) = (target.parse().expect(target), Err(TargetError::DotSegment));
            assert_eq!((url.check(&target), url.target(&target).map(drop)), (wanted, wanted), "{target}");
        }
        assert!(url.target(&"/v1/a..b/...?x=/../".parse().expect("a target")).is_ok());
    }

    #[test]
    fn names_may_have_numbers_in_them() {
        for url in ["http://worker-1", "http://1.workers", "http://0xa.b:1", "http://x0", "http://a.b.", "http://[::1]"]
        {
            assert!(url.parse::<WorkerUrl>().is_ok(), "{url}");
        }
        let mapped: WorkerUrl = "http://[::ffff:127.0.0.1]:8000".parse().expect("an IPv6 address");
        assert_eq!((mapped.host(), mapped.port()), ("::ffff:127.0.0.1", 8000));
    }

    #[test]
    fn bad_worker_urls_say_what_is_wrong() {
        for (url, why) in [
            ("localhost:8000", "must look like"),
            ("ftp://a", "scheme must be http"),
            ("file:///etc/passwd", "scheme must be http"),
            ("http://", "not valid"),
            ("http://user:pw@a", "credentials"),
            ("http://user@a/v1", "credentials"),
            ("http://a?x", "query or fragment"),
            ("http://a/v1?x", "query or fragment"),
            ("http://a#/v1", "query or fragment"),
            ("http://a//", "a single /"),
            ("http://a/x//v1", "a single /"),
            ("http://a/x%2e/v1", "letters, digits"),
            ("http://a/x\\..", "letters, digits"),
            ("http://a/../v1", ". or .."),
            ("http://a/v1/..", ". or .."),
            ("http://a/./v1", ". or .."),
            ("http:///v1", "not valid"),
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
