//! Paths under `/api` and `/v1` need an API key; who has none gets 401.
//!
//! The key is in the source because the example is about the interface. A real module would hold a
//! digest of it, or be given it by its host.

wit_bindgen::generate!({ path: "../../wit/v1", world: "smg" });

mod path;

use std::hint::black_box;

use exports::smg::gateway::middleware_on_request::{Guest as OnRequest, Request};
use exports::smg::gateway::middleware_on_response::{Guest as OnResponse, Response};
use smg::gateway::middleware_types::{Action, Header};

const KEY: &str = "secret-api-key-12345";

struct Auth;
export!(Auth);

impl OnRequest for Auth {
    fn on_request(req: Request) -> Action {
        if !path::is_protected(&req.path) || req.headers.iter().filter_map(offered_key).any(is_key)
        {
            Action::Continue
        } else {
            Action::Reject(401)
        }
    }
}

impl OnResponse for Auth {
    fn on_response(_resp: Response) -> Action {
        Action::Continue
    }
}

/// The key that one header line offers: `x-api-key: K`, `Authorization: Bearer K` or `ApiKey K`.
fn offered_key(header: &Header) -> Option<&str> {
    if header.name.eq_ignore_ascii_case("x-api-key") {
        return Some(header.value.trim());
    }
    if !header.name.eq_ignore_ascii_case("authorization") {
        return None;
    }
    let (scheme, key) = header.value.trim().split_once(' ')?;
    ["bearer", "apikey"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
        .then(|| key.trim_start())
}

/// Takes equally long for every wrong key of the right length, so that time tells nothing of where they differ.
fn is_key(offered: &str) -> bool {
    let differing = offered
        .bytes()
        .zip(KEY.bytes())
        .fold(0, |seen, (a, b)| black_box(seen | (a ^ b)));
    offered.len() == KEY.len() && differing == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(path: &str, headers: &[(&str, &str)]) -> Action {
        Auth::on_request(Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            query: String::new(),
            headers: headers
                .iter()
                .map(|(name, value)| Header {
                    name: (*name).to_owned(),
                    value: (*value).to_owned(),
                })
                .collect(),
            body: Vec::new(),
            request_id: "r-1".to_owned(),
            now_epoch_ms: 0,
        })
    }

    #[test]
    fn the_key_opens_in_each_of_its_forms() {
        for header in [
            ("authorization", "Bearer secret-api-key-12345"),
            ("Authorization", "bearer secret-api-key-12345"),
            ("AUTHORIZATION", "ApiKey  secret-api-key-12345"),
            ("authorization", "APIKEY secret-api-key-12345 "),
            ("X-Api-Key", "secret-api-key-12345"),
        ] {
            assert!(
                matches!(answer("/v1/models", &[header]), Action::Continue),
                "{header:?}"
            );
        }
    }

    #[test]
    fn anything_else_gets_401() {
        for headers in [
            &[][..],
            &[("authorization", "")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "secret-api-key-12345")],
            &[("authorization", "Basic secret-api-key-12345")],
            &[("authorization", "Bearer secret-api-key-1234")],
            &[("authorization", "Bearer secret-api-key-123456")],
            &[("authorization", "Bearer Secret-api-key-12345")],
            &[("x-api-key", "")],
            &[("x-api-keys", "secret-api-key-12345")],
        ] {
            assert!(
                matches!(answer("/api", headers), Action::Reject(401)),
                "{headers:?}"
            );
        }
    }

    #[test]
    fn one_good_key_among_bad_ones_is_enough() {
        let headers = [("authorization", "Bearer no"), ("x-api-key", KEY)];
        assert!(matches!(answer("/v1", &headers), Action::Continue));
    }

    #[test]
    fn other_paths_need_no_key() {
        assert!(matches!(answer("/health", &[]), Action::Continue));
    }
}
