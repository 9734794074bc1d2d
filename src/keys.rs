//! Who may call: named keys with a role, and how much each may ask for. Only digests of keys are kept, and only names
//! go to logs, metrics, modules and workers; but for `--api-key`, which workers may share.

mod credentials;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::HeaderValue;
use http::header::HeaderName;
use subtle::ConstantTimeEq;

use crate::admission::{Admission, AdmissionSettings};
use crate::config::Config;
use crate::config::file::{self, KeyDigest, Role};
use crate::metrics::Exposition;
use crate::rate::Rate;

pub use self::credentials::{Credentials, Presented};

/// The field in which modules and workers are told whose request it is.
pub static KEY_NAME: HeaderName = HeaderName::from_static("x-smg-key-name");

/// The keys that are in force.
pub struct Keys {
    all: Vec<Arc<Key>>,
    /// Callers need a key.
    is_closed: bool,
}

/// One key.
pub struct Key {
    pub name: HeaderValue,
    written: file::Key,
    pub rate: Option<Rate>,
    /// Requests at once.
    pub admission: Option<Arc<Admission>>,
    /// Presented it and are no administration; refused ones, too.
    pub requests: AtomicU64,
    pub goes: Goes,
}

/// How far a key goes that a request presents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goes {
    /// It is this gateway's alone.
    Nowhere,
    /// Workers may ask for the same one.
    ToWorkers,
}

impl Key {
    fn new(written: file::Key, goes: Goes) -> Self {
        let rate = written.rate_limit_tokens_per_second.map(|rate| match written.burst {
            Some(burst) => Rate::new(rate, burst.into()),
            None => Rate::per_second(rate),
        });
        let most = written.max_concurrent_requests.map(u32::from);
        let admission = most.map(|limit| Admission::new(AdmissionSettings { limit, queue: 0 }));
        let name = HeaderValue::from_bytes(written.name.as_bytes());
        let name = name.unwrap_or_else(|_| HeaderValue::from_static("(unnamed)"));
        Self { name, written, rate, admission, requests: AtomicU64::new(0), goes }
    }

    /// Its name as text.
    pub fn label(&self) -> &str {
        &self.written.name
    }

    pub fn role(&self) -> Role {
        self.written.role
    }
}

impl Keys {
    /// The keys of flags and of the file. Those of `before` that are still the same keep their counts.
    pub fn new(config: &Config, before: Option<&Keys>) -> Self {
        let access = &config.access;
        let of_flag = |name: &str, secret: &crate::config::Secret| file::Key {
            name: name.to_owned(),
            role: Role::Admin,
            digest: KeyDigest::of(secret.expose()),
            rate_limit_tokens_per_second: None,
            burst: None,
            max_concurrent_requests: None,
        };
        let api_key = access.api_key.as_ref().map(|key| of_flag("api-key", key));
        let admin_key = access.admin_key.as_ref().map(|key| of_flag("admin-key", key));
        let own = admin_key.into_iter().chain(config.sections.keys.iter().cloned());
        let written = api_key.into_iter().map(|key| (key, Goes::ToWorkers)).chain(own.map(|key| (key, Goes::Nowhere)));
        let known = |written: &file::Key| before?.all.iter().find(|key| key.written == *written).cloned();
        let key = |(written, goes)| known(&written).unwrap_or_else(|| Arc::new(Key::new(written, goes)));
        let all = written.map(key).collect();
        Self { all, is_closed: access.api_key.is_some() || !config.sections.keys.is_empty() }
    }

    /// There is no key at all.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Anybody may call.
    pub fn is_open(&self) -> bool {
        !self.is_closed
    }

    /// The key whose secret this is. Every key is compared, in the same time wherever they differ, so that the time taken
    /// does not tell which one was close.
    fn find(&self, secret: &[u8]) -> Option<&Arc<Key>> {
        let digest = KeyDigest::of(secret);
        let same = |key: &&Arc<Key>| bool::from(key.written.digest.expose().ct_eq(digest.expose()));
        self.all.iter().fold(None, |found, key| if same(&key) { Some(key) } else { found })
    }

    pub fn expose(&self, exposition: &mut Exposition) {
        const HELP: &str = "Requests by the name of their key, those that a limit refused included.";
        for key in &self.all {
            let labels = [("key", key.written.name.as_str())];
            let requests = key.requests.load(Relaxed) as f64;
            exposition.counter("smg_key_requests_total", HELP, &labels, requests);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_key_alone_leaves_calls_open() {
        let is_open = |flags: &[&str]| Keys::new(&Config::of(flags), None).is_open();
        assert!(is_open(&[]) && is_open(&["--admin-key=a"]) && !is_open(&["--api-key=k"]));
    }

    #[test]
    fn counts_outlive_a_reload_unless_the_key_changed() {
        let before = Keys::new(&Config::of(&["--api-key=k", "--admin-key=a"]), None);
        before.all.iter().for_each(|key| key.requests.store(7, Relaxed));
        let after = Keys::new(&Config::of(&["--api-key=k", "--admin-key=b"]), Some(&before));
        let counts: Vec<_> = after.all.iter().map(|key| key.requests.load(Relaxed)).collect();
        assert_eq!(counts, [7, 0]);
    }
}
