//! What is turned away, and what a response is given.
//!
//! Patterns find what tools and copied payloads send, not who knows them and takes care: workers must still be safe by
//! themselves. The defaults leave out what honest URLs have, such as `onload=`, which many scripts are loaded with.

use std::collections::BTreeMap;

use crate::messages::{Answer, Decision, Request};
use crate::path::Protected;
use crate::pattern::{Pattern, Plain, forms_of_uri};

#[derive(Debug, PartialEq, Eq)]
pub struct Guard {
    pub protected: Vec<Protected>,
    pub sql: Vec<Pattern>,
    pub xss: Vec<Pattern>,
    pub traversal: Vec<Pattern>,
    pub scanners: Vec<Pattern>,
}

const PROTECTED: &[&str] = &["/admin"];

const SQL: &[&str] = &[
    "union select",
    "union all select",
    "union distinct select",
    "union (select",
    "union all (select",
    "select * from",
    "insert into",
    "delete from",
    "drop table",
    "drop database",
    "or 1=1",
    "and 1=1",
    "or '1'='1",
    "' or '",
    "' or 1",
    "' or true",
    "' and '",
    "\" or \"",
    "'--",
    "'; --",
    "into outfile",
    "load_file(",
    "information_schema",
    "waitfor delay",
    "sleep(",
    "pg_sleep(",
    "benchmark(",
    "xp_cmdshell",
];

const XSS: &[&str] = &[
    "<script",
    "</script",
    "<img",
    "<svg",
    "<iframe",
    "<object",
    "<embed",
    "<body",
    "javascript:",
    "vbscript:",
    "data:text/html",
    "onerror=",
    "onclick=",
    "onfocus=",
    "onmouseover=",
    "srcdoc=",
    "document.cookie",
    "document.write(",
    "alert(",
    "eval(",
];

const TRAVERSAL: &[&str] = &[
    "../",
    "..\\",
    "/..",
    "\\..",
    "....//",
    // A dot and a slash in UTF-8 that is too long, which old decoders accept.
    "%c0%ae",
    "%c0%af",
    "/etc/passwd",
    "/etc/shadow",
    "/proc/self",
    "c:\\windows",
];

const SCANNERS: &[&str] = &[
    "acunetix",
    "arachni",
    "dirbuster",
    "feroxbuster",
    "ffuf",
    "fuzz faster u fool",
    "gobuster",
    "havij",
    "masscan",
    "nessus",
    "netsparker",
    "nikto",
    "nmap",
    "nuclei",
    "openvas",
    "sqlmap",
    "w3af",
    "whatweb",
    "wpscan",
    "zgrab",
];

impl Default for Guard {
    fn default() -> Self {
        let patterns =
            |texts: &[&str]| texts.iter().filter_map(|text| Pattern::new(text)).collect();
        Self {
            protected: PROTECTED
                .iter()
                .filter_map(|path| Protected::new(path))
                .collect(),
            sql: patterns(SQL),
            xss: patterns(XSS),
            traversal: patterns(TRAVERSAL),
            scanners: patterns(SCANNERS),
        }
    }
}

impl Guard {
    pub fn on_request(&self, request: &Request) -> Answer {
        if self.needs_credentials(request) {
            return Answer {
                // A 401 has to name a way in.
                add_response_headers: BTreeMap::from([("WWW-Authenticate", "Bearer")]),
                ..Answer::block(401, "Authentication required", &["auth-required"])
            };
        }
        match self.attack(request) {
            Some(tags) => Answer::block(403, "Request blocked", tags),
            None => Answer::ALLOW,
        }
    }

    /// Credentials are only asked for: checking them is up to the worker.
    fn needs_credentials(&self, request: &Request) -> bool {
        let covered = |path: &Protected| path.covers(&request.uri);
        self.protected.iter().any(covered)
            && request
                .header("authorization")
                .all(|value| value.trim().is_empty())
    }

    /// The tag of the first kind of attack that the request looks like.
    fn attack(&self, request: &Request) -> Option<&'static [&'static str]> {
        let uri = forms_of_uri(&request.uri);
        let agents: Vec<_> = request.header("user-agent").map(Plain::new).collect();
        let kinds: [(&[Pattern], &[Plain], &[&str]); 4] = [
            (&self.sql, &uri, &["sql-injection"]),
            (&self.xss, &uri, &["xss"]),
            (&self.traversal, &uri, &["path-traversal"]),
            (&self.scanners, &agents, &["scanner"]),
        ];
        kinds
            .into_iter()
            .find(|(patterns, texts, _)| {
                patterns
                    .iter()
                    .any(|pattern| texts.iter().any(|text| pattern.is_in(text)))
            })
            .map(|(_, _, tags)| tags)
    }
}

/// Tells browsers to be careful with what the worker sent, and nobody what the worker runs on.
pub fn secured_response() -> Answer {
    Answer {
        decision: Decision::Allow,
        add_response_headers: BTreeMap::from([
            ("Referrer-Policy", "no-referrer"),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Frame-Options", "DENY"),
        ]),
        remove_response_headers: &["Server", "X-Powered-By"],
        ..Answer::ALLOW
    }
}

#[cfg(test)]
mod tests;
