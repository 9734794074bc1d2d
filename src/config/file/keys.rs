//! `keys`: who may call, and how much. Keys are kept as digests only; where they came from is forgotten.

use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, de};
use sha2::{Digest, Sha256};

use super::decode::decode;
use super::node::Node;
use super::pools::name;
use super::problem::{Path, Problem, Report};
use super::routes::rate;
use super::section::Section;
use crate::config::Secret;

/// One caller.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// For logs and metrics.
    pub name: String,
    pub role: Role,
    pub digest: KeyDigest,
    /// Requests a second that are let through.
    pub rate_limit_tokens_per_second: Option<f64>,
    /// Requests at once, after a pause; the rate of a second if it is left out.
    pub burst: Option<NonZeroU32>,
    pub max_concurrent_requests: Option<NonZeroU32>,
}

/// What a key admits to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Calls, and what the admin API only shows.
    ReadOnly,
    /// Calls.
    Caller,
}

/// SHA-256 of a key: compared in constant time, never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyDigest([u8; 32]);

impl KeyDigest {
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(…)")
    }
}

/// A key as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a map")]
struct Written {
    #[serde(deserialize_with = "name")]
    name: String,
    role: Role,
    #[serde(default, deserialize_with = "secret")]
    key: Option<KeyDigest>,
    #[serde(default)]
    key_env: Option<String>,
    #[serde(default, deserialize_with = "hexadecimal")]
    key_sha256: Option<KeyDigest>,
    #[serde(default, deserialize_with = "rate")]
    rate_limit_tokens_per_second: Option<f64>,
    #[serde(default)]
    burst: Option<NonZeroU32>,
    #[serde(default)]
    max_concurrent_requests: Option<NonZeroU32>,
}

impl Key {
    pub(super) fn read(document: &Node, environment: Environment<'_>, report: &mut Report) -> Vec<Self> {
        let one = |node: &Node, path: &Path<'_>, report: &mut Report| {
            let written: Written = decode(node, path, report)?;
            let at = |field: &str| node.get(field).map_or(node.line, |node| node.line);
            if written.burst.is_some() && written.rate_limit_tokens_per_second.is_none() {
                let text = "it needs rate_limit_tokens_per_second beside it";
                report.add(Problem::new(at("burst"), Path::Key(path, "burst"), text));
            }
            match written.digest(environment) {
                Ok(digest) => Some(written.with(digest)),
                Err(Fault::Unset(stand_in)) => {
                    report.unset(at("key_env"), Path::Key(path, "key_env"));
                    Some(written.with(stand_in))
                }
                Err(Fault::Fields) => {
                    let text = "set exactly one of key, key_env and key_sha256";
                    report.add(Problem::new(node.line, path, text));
                    None
                }
                Err(Fault::Value(field, text)) => {
                    report.add(Problem::new(at(field), Path::Key(path, field), text));
                    None
                }
            }
        };
        let section = Section::read_with(document, "keys", report, one);
        section.unique("name", |key| vec![key.name.clone()], report);
        section.unique("key", |key| vec![key.digest.clone()], report);
        section.values()
    }
}

/// The process's environment, or a test's.
pub(super) type Environment<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// The key that a variable holds, or `None` if the variable is not set. Its name is not repeated in errors: some write
/// the key itself there.
pub(super) fn secret_in(environment: Environment<'_>, variable: &str) -> Result<Option<Secret>, &'static str> {
    let Some(value) = environment(variable) else { return Ok(None) };
    let secret = value.to_str().and_then(|value| value.parse().ok());
    secret.map(Some).ok_or("the variable's value must be visible ASCII without spaces")
}

/// Why there is no digest.
enum Fault {
    /// The environment variable is not set. No key has this digest.
    Unset(KeyDigest),
    /// None of the fields that may hold the key is there, or several are.
    Fields,
    /// What is wrong with a field.
    Value(&'static str, &'static str),
}

impl Written {
    fn digest(&self, environment: Environment<'_>) -> Result<KeyDigest, Fault> {
        match (&self.key, &self.key_env, &self.key_sha256) {
            (Some(digest), None, None) | (None, None, Some(digest)) => Ok(digest.clone()),
            (None, Some(variable), None) => {
                let secret = secret_in(environment, variable).map_err(|why| Fault::Value("key_env", why))?;
                let Some(secret) = secret else {
                    return Err(Fault::Unset(KeyDigest::of(&[b"\0", variable.as_bytes()].concat())));
                };
                Ok(KeyDigest::of(secret.expose()))
            }
            _ => Err(Fault::Fields),
        }
    }

    fn with(self, digest: KeyDigest) -> Key {
        Key {
            name: self.name,
            role: self.role,
            digest,
            rate_limit_tokens_per_second: self.rate_limit_tokens_per_second,
            burst: self.burst,
            max_concurrent_requests: self.max_concurrent_requests,
        }
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<KeyDigest>, D::Error> {
    let secret: Secret = String::deserialize(deserializer)?.parse().map_err(de::Error::custom)?;
    Ok(Some(KeyDigest::of(secret.expose())))
}

fn hexadecimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<KeyDigest>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let byte = |pair: &[u8]| {
        let (high, low) = (char::from(pair[0]).to_digit(16)?, char::from(pair[1]).to_digit(16)?);
        u8::try_from(high * 16 + low).ok()
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|pair| byte(pair)).collect();
    let digest = bytes.filter(|_| rest.is_empty()).and_then(|bytes| bytes.try_into().ok());
    digest.map(|digest| Some(KeyDigest(digest))).ok_or_else(|| de::Error::custom("it must be 64 hexadecimal digits"))
}
