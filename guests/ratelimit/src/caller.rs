//! Who a request counts for.

use crate::smg::gateway::middleware_types::Header;

/// A key and an address that read alike are two callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Caller<'a> {
    Key(&'a str),
    Address(&'a str),
}

impl<'a> Caller<'a> {
    /// The API key, else the address that a proxy in front of the gateway saw, else everybody unknown together.
    pub fn of(headers: &'a [Header]) -> Self {
        let value = |name| {
            let line = headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))?;
            Some(line.value.trim()).filter(|value| !value.is_empty())
        };
        // The key counts, not how it was sent: a caller who varies the form still has one budget.
        let key = value("authorization")
            .map(without_scheme)
            .or_else(|| value("x-api-key"));
        let forwarded = || value("x-forwarded-for").and_then(first_element);
        match key {
            Some(key) => Self::Key(key),
            None => Self::Address(
                forwarded()
                    .or_else(|| value("x-real-ip"))
                    .unwrap_or("unknown"),
            ),
        }
    }
}

fn without_scheme(credentials: &str) -> &str {
    credentials
        .split_once(' ')
        .map_or(credentials, |(_scheme, key)| key.trim_start())
}

fn first_element(list: &str) -> Option<&str> {
    list.split(',')
        .next()
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> Vec<Header> {
        lines
            .iter()
            .map(|(name, value)| Header {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_key_is_the_same_however_it_is_sent() {
        for line in [
            ("Authorization", "Bearer k"),
            ("authorization", "ApiKey  k"),
            ("authorization", "k"),
            ("X-API-Key", "k"),
        ] {
            assert_eq!(Caller::of(&headers(&[line])), Caller::Key("k"), "{line:?}");
        }
    }

    #[test]
    fn a_key_goes_before_an_address() {
        let both = headers(&[("x-forwarded-for", "10.0.0.1"), ("x-api-key", "k")]);
        assert_eq!(Caller::of(&both), Caller::Key("k"));
    }

    #[test]
    fn the_address_is_the_first_one_forwarded() {
        let forwarded = headers(&[
            ("x-real-ip", "10.0.0.9"),
            ("X-Forwarded-For", " 10.0.0.1 , 10.0.0.2"),
        ]);
        assert_eq!(Caller::of(&forwarded), Caller::Address("10.0.0.1"));
        let real = headers(&[
            ("x-forwarded-for", ""),
            ("x-real-ip", "10.0.0.9"),
            ("authorization", " "),
        ]);
        assert_eq!(Caller::of(&real), Caller::Address("10.0.0.9"));
        assert_eq!(Caller::of(&[]), Caller::Address("unknown"));
    }
}
