//! The key that a worker wants, as it is sent: made once, not for each request.

use http::HeaderValue;
use http::header::{self, HeaderMap};

use crate::config::Secret;
use crate::headers::KEY_FIELDS;

/// What one worker is sent in `Authorization`.
#[derive(Debug, Default, PartialEq)]
pub struct Credentials {
    /// With requests, in place of what their callers present; `None` lets that pass.
    requests: Option<HeaderValue>,
    /// With what the gateway itself asks.
    questions: Option<HeaderValue>,
}

impl Credentials {
    /// `key` is the worker's. `shared` is what callers present to gateway and worker alike: the worker may ask the
    /// gateway for it, too.
    pub fn new(key: Option<&Secret>, shared: Option<&Secret>) -> Self {
        let requests = key.map(bearer);
        Self { questions: requests.clone().or_else(|| shared.map(bearer)), requests }
    }

    /// Whether requests go on with a key of the worker's.
    pub fn replace_callers(&self) -> bool {
        self.requests.is_some()
    }

    /// Puts the worker's key in place of the caller's, which is nobody's business but the gateway's then.
    pub fn apply_to_request(&self, headers: &mut HeaderMap) {
        if let Some(key) = &self.requests {
            for name in &KEY_FIELDS {
                headers.remove(name);
            }
            headers.insert(header::AUTHORIZATION, key.clone());
        }
    }

    /// Adds the key to a question of the gateway's own.
    pub fn apply_to_question(&self, headers: &mut HeaderMap) {
        if let Some(key) = &self.questions {
            headers.insert(header::AUTHORIZATION, key.clone());
        }
    }
}

fn bearer(key: &Secret) -> HeaderValue {
    let value = [b"Bearer ", key.expose()].concat();
    let mut value = HeaderValue::from_bytes(&value).expect("a key is visible ASCII");
    // It does not print, and HTTP/2 does not keep it in a table (RFC 7541 section 7.1.3).
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> HeaderMap {
        KEY_FIELDS.iter().map(|name| (name.clone(), HeaderValue::from_static("caller"))).collect()
    }

    #[test]
    fn a_workers_key_takes_the_place_of_the_callers_and_a_shared_one_does_not() {
        let [key, shared] = ["worker", "shared"].map(|key| key.parse::<Secret>().expect("a key"));
        let both = Credentials::new(Some(&key), Some(&shared));
        let mut sent = headers();
        both.apply_to_request(&mut sent);
        assert_eq!((sent.len(), &sent["authorization"]), (1, &HeaderValue::from_static("Bearer worker")));
        assert!(!format!("{both:?} {sent:?}").contains("worker"));
        let mut asked = HeaderMap::new();
        both.apply_to_question(&mut asked);
        assert_eq!(asked["authorization"], "Bearer worker");

        let only_shared = Credentials::new(None, Some(&shared));
        let mut sent = headers();
        only_shared.apply_to_request(&mut sent);
        assert_eq!(sent, headers());
        only_shared.apply_to_question(&mut asked);
        assert_eq!(asked["authorization"], "Bearer shared");
        assert!(!only_shared.replace_callers() && both.replace_callers());
    }
}
