//! The keys that a request presents, and the fields that it presents them in: `Authorization: Bearer KEY` as OpenAI's
//! clients do, `x-api-key: KEY` as Anthropic's, `api-key: KEY` as Azure's.

use std::sync::Arc;

use http::header::{self, HeaderMap};

use super::{Goes, Key, Keys};
use crate::headers::KEY_FIELDS;

/// What a request says in [`KEY_FIELDS`].
pub struct Credentials<'a> {
    pub presented: Presented<'a>,
    /// The fields that carry a key of the gateway alone, in the order of [`KEY_FIELDS`].
    own: [bool; KEY_FIELDS.len()],
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
    /// known here.
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
                (Some(key), _) => Some(key),
                (None, Some(token)) if !token.contains(&b' ') => None,
                (None, _) => self.carried(value),
            };
            *own = carried.is_some_and(|key| key.goes == Goes::Nowhere);
            let Some(token) = token else { continue };
            is_known |= key.is_some();
            disagree |= first.is_some_and(|offer| token != offer.token);
            first.get_or_insert(Offer { token, key });
        }
        let presented = match first {
            None => Presented::Nothing,
            Some(_) if disagree && (is_known || !self.is_open()) => Presented::Conflict,
            Some(Offer { key: Some(key), .. }) => Presented::Key(key),
            Some(Offer { key: None, .. }) => Presented::Unknown,
        };
        Credentials { presented, own }
    }

    /// The key in a field that does not present one: bare, or after some scheme.
    fn carried(&self, value: &[u8]) -> Option<&Arc<Key>> {
        let blank = value.iter().position(|byte| *byte == b' ');
        let after = blank.and_then(|blank| self.find(value[blank..].trim_ascii()));
        after.or_else(|| self.find(value))
    }
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
}
