//! The keys that a request presents, and the fields that it presents them in: `Authorization: Bearer KEY` as OpenAI's
//! clients do, `x-api-key: KEY` as Anthropic's, `api-key: KEY` as Azure's.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName};

use super::{Goes, Key, Keys};
use crate::headers::{KEY_FIELDS, is_misspelt};

/// Parts into which the value of a field is split, to find a key in a field that does not present one.
const MOST_PARTS: usize = 16;

/// What a request says in [`KEY_FIELDS`].
pub struct Credentials<'a> {
    pub presented: Presented<'a>,
    /// The fields of [`KEY_FIELDS`] that carry a key of the gateway alone, in that order.
    own: [bool; KEY_FIELDS.len()],
    /// Others that carry one: [`KEY_FIELDS`] with `_` for `-`, which is the same to CGI-style programs.
    misspelt: Vec<HeaderName>,
}

/// Whose key a request presents.
pub enum Presented<'a> {
    Nothing,
    Key(&'a Arc<Key>),
    /// None that is known.
    Unknown,
    /// Fields that disagree.
    Conflict,
}

impl Credentials<'_> {
    /// Removes the fields that nobody behind the gateway may see.
    pub fn strip(&self, headers: &mut HeaderMap) {
        for (name, _) in KEY_FIELDS.iter().zip(self.own).filter(|(_, is_own)| *is_own) {
            headers.remove(name);
        }
        for name in &self.misspelt {
            headers.remove(name);
        }
    }
}

/// A key in one of the fields, and whether there is such a key.
#[derive(Clone, Copy)]
struct Offer<'h, 'k> {
    token: &'h [u8],
    key: Option<&'k Arc<Key>>,
}

impl Keys {
    /// Reads the keys that a request presents. An empty value presents none, nor does a scheme other than `Bearer`:
    /// that is between the caller and the worker, or a proxy in front of the gateway.
    ///
    /// Where callers need no key, fields that disagree are theirs to explain to the worker, unless one has a key that is
    /// known here. A value with a comma may be several fields that somebody has joined: if one of its parts is a key that is
    /// known, it disagrees with itself.
    pub fn credentials(&self, headers: &HeaderMap) -> Credentials<'_> {
        let mut own = [false; KEY_FIELDS.len()];
        let mut first: Option<Offer> = None;
        let (mut disagree, mut is_known) = (false, false);
        for (name, own) in KEY_FIELDS.iter().zip(&mut own) {
            let value = headers.get(name).map_or(&b""[..], |value| value.as_bytes().trim_ascii());
            if value.is_empty() {
                continue;
            }
            let token = if name == header::AUTHORIZATION { bearer(value) } else { Some(value) };
            let token = token.filter(|token| !token.is_empty());
            let key = match (token, first) {
                (Some(token), Some(offer)) if token == offer.token => offer.key,
                (Some(token), _) => self.find(token),
                (None, _) => None,
            };
            let carried = match (key, token) {
                (Some(_), _) => Carried::default().with(key),
                (None, Some(token)) if !token.iter().any(is_separator) => Carried::default(),
                (None, _) => self.carried(value),
            };
            *own = carried.own;
            let Some(token) = token else { continue };
            let is_joined = key.is_none() && carried.any && token.contains(&b',');
            is_known |= key.is_some() || is_joined;
            disagree |= is_joined || first.is_some_and(|offer| token != offer.token);
            first.get_or_insert(Offer { token, key });
        }
        let presented = match first {
            None => Presented::Nothing,
            Some(_) if disagree && (is_known || !self.is_open()) => Presented::Conflict,
            Some(Offer { key: Some(key), .. }) => Presented::Key(key),
            Some(Offer { key: None, .. }) => Presented::Unknown,
        };
        Credentials { presented, own, misspelt: self.misspelt(headers) }
    }

    /// The keys in a field that does not present one: bare, after some scheme, in a parameter or in a list.
    fn carried(&self, value: &[u8]) -> Carried {
        let mut carried = Carried::default();
        let mut look_up = |candidate: &[u8]| {
            if !candidate.is_empty() {
                carried = carried.with(self.find(candidate));
            }
        };
        look_up(value);
        if let Some(after) = after_first(value, |byte| matches!(byte, b' ' | b'\t')) {
            look_up(after);
        }
        value.splitn(MOST_PARTS, is_separator).for_each(&mut look_up);
        // A key may itself have a `=` in it, most often at its end.
        for word in value.splitn(MOST_PARTS, |byte| is_separator(byte) && *byte != b'=') {
            if let Some(parameter) = after_first(word, |byte| *byte == b'=') {
                look_up(word);
                look_up(parameter);
            }
        }
        carried
    }

    /// The fields with a misspelt name that carry a key of the gateway alone.
    fn misspelt(&self, headers: &HeaderMap) -> Vec<HeaderName> {
        let is_key_field = |name: &HeaderName| {
            let name = name.as_str();
            // Most names have another length.
            matches!(name.len(), 7 | 9)
                && KEY_FIELDS
                    .iter()
                    .any(|field| field.as_str().len() == name.len() && is_misspelt(name, field.as_str()))
        };
        let carries =
            |name: &&HeaderName| headers.get_all(*name).iter().any(|value| self.carried(value.as_bytes()).own);
        headers.keys().filter(|name| is_key_field(name)).filter(carries).cloned().collect()
    }
}

/// Which keys there are in a field.
#[derive(Debug, Clone, Copy, Default)]
struct Carried {
    /// One that is known.
    any: bool,
    /// One of the gateway alone.
    own: bool,
}

impl Carried {
    fn with(self, key: Option<&Arc<Key>>) -> Self {
        let is_own = key.is_some_and(|key| key.goes == Goes::Nowhere);
        Self { any: self.any || key.is_some(), own: self.own || is_own }
    }
}

/// Whether a byte stands between a key and what else is in a field.
fn is_separator(byte: &u8) -> bool {
    matches!(byte, b' ' | b'\t' | b',' | b';' | b'=' | b'"' | b'\'')
}

/// What follows the first byte that is one of these.
fn after_first(value: &[u8], is_one: impl Fn(&u8) -> bool) -> Option<&[u8]> {
    let at = value.iter().position(is_one)?;
    Some(value[at + 1..].trim_ascii())
}

/// What follows `Bearer`, in any case (RFC 6750 section 2.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;
    use crate::config::Config;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v))).collect()
    }

    fn told(presented: &Presented) -> String {
        match presented {
            Presented::Nothing => "nothing".to_owned(),
            Presented::Key(key) => key.label().to_owned(),
            Presented::Unknown => "unknown".to_owned(),
            Presented::Conflict => "conflict".to_owned(),
        }
    }

    #[test]
    fn a_key_is_presented_in_one_field_or_in_several_that_agree() {
        let closed = Keys::new(&Config::of(&["--api-key=k", "--admin-key=boss"]), None);
        let open = Keys::new(&Config::of(&["--admin-key=boss"]), None);
        // What is presented where callers need a key, where they don't, and the fields that then remain.
        for (fields, when_closed, when_open, left) in [
            (&[][..], "nothing", "nothing", 0),
            (&[("authorization", "Bearer k")][..], "api-key", "unknown", 1),
            (&[("authorization", "bearer  k ")], "api-key", "unknown", 1),
            (&[("authorization", "Bearer boss")], "admin-key", "admin-key", 0),
            (&[("authorization", "Bearer kk")], "unknown", "unknown", 1),
            (&[("authorization", "Bearer ")], "nothing", "nothing", 1),
            (&[("authorization", "Basic k")], "nothing", "nothing", 1),
            (&[("authorization", "k")], "nothing", "nothing", 1),
            (&[("authorization", "boss")], "nothing", "nothing", 0),
            (&[("authorization", "ApiKey boss")], "nothing", "nothing", 0),
            (&[("x-api-key", "k")], "api-key", "unknown", 1),
            (&[("api-key", "boss")], "admin-key", "admin-key", 0),
            (&[("api-key", "Bearer boss")], "unknown", "unknown", 0),
            (&[("authorization", "Bearer\tboss")], "nothing", "nothing", 0),
            (&[("authorization", "Bearer x, Bearer boss")], "conflict", "conflict", 0),
            (&[("authorization", "Bearer boss,")], "conflict", "conflict", 0),
            (&[("authorization", "Bearer Bearer boss")], "unknown", "unknown", 0),
            (&[("authorization", "Token token=boss")], "nothing", "nothing", 0),
            (&[("authorization", "Token token=\"boss\"; x=y")], "nothing", "nothing", 0),
            (&[("authorization", "Bearer boss=x")], "unknown", "unknown", 0),
            (&[("x-api-key", "boss, x")], "conflict", "conflict", 0),
            (&[("x-api-key", "x boss y")], "unknown", "unknown", 0),
            (&[("x-api-key", "k,x")], "conflict", "unknown", 1),
            (&[("x-api-key", "y,x")], "unknown", "unknown", 1),
            (&[("api-key", "\"boss\"")], "unknown", "unknown", 0),
            (&[("api-key", "'boss'")], "unknown", "unknown", 0),
            (&[("api-key", "bossy, x=bos")], "unknown", "unknown", 1),
            (&[("x_api_key", "boss")], "nothing", "nothing", 0),
            (&[("x_api-key", "x, boss")], "nothing", "nothing", 0),
            (&[("api_key", "boss"), ("x_api_key", "x"), ("api-key", "k")], "api-key", "unknown", 2),
            (&[("api_keys", "boss"), ("x_api_kez", "boss")], "nothing", "nothing", 2),
            (&[("x-api-key", "boss"), ("api-key", "boss")], "admin-key", "admin-key", 0),
            (&[("x-api-key", "boss"), ("authorization", "Basic k")], "admin-key", "admin-key", 1),
            (&[("x-api-key", ""), ("api-key", "k")], "api-key", "unknown", 2),
            (&[("x-api-key", "k"), ("api-key", "x")], "conflict", "unknown", 2),
            (&[("x-api-key", "y"), ("api-key", "x")], "conflict", "unknown", 2),
            (&[("x-api-key", "y"), ("api-key", "boss")], "conflict", "conflict", 1),
        ] {
            let mut headers = map(fields);
            assert_eq!(told(&closed.credentials(&headers).presented), when_closed, "{fields:?}");
            let credentials = open.credentials(&headers);
            assert_eq!(told(&credentials.presented), when_open, "{fields:?}");
            credentials.strip(&mut headers);
            assert_eq!(headers.len(), left, "{fields:?}");
        }
    }

    #[test]
    fn a_key_with_separators_in_it_is_found() {
        let keys = Keys::new(&Config::of(&["--admin-key=a=b,c=="]), None);
        for value in ["Bearer a=b,c==", "Token a=b,c==", "a=b,c=="] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            keys.credentials(&headers).strip(&mut headers);
            assert!(headers.is_empty(), "{value}");
        }
        let keys = Keys::new(&Config::of(&["--admin-key=Zm9v=="]), None);
        for value in ["Bearer Bearer Zm9v==", "Token token=Zm9v==, x=y", "Token x, Zm9v==", "Token token=\"Zm9v==\""] {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            keys.credentials(&headers).strip(&mut headers);
            assert!(headers.is_empty(), "{value}");
        }
    }

    #[test]
    fn the_work_for_a_long_field_is_bounded() {
        let keys = Keys::new(&Config::of(&["--admin-key=boss"]), None);
        for separator in [" ", "=", ",", "\""] {
            let value = HeaderValue::from_str(&format!("x{}", format!("{separator}x=").repeat(20_000))).expect("ASCII");
            let headers = HeaderMap::from_iter([(HeaderName::from_static("api-key"), value)]);
            let began = std::time::Instant::now();
            assert_eq!(keys.credentials(&headers).own, [false; 3]);
            assert!(began.elapsed() < std::time::Duration::from_secs(2), "{separator:?}: {:?}", began.elapsed());
        }
    }
}
