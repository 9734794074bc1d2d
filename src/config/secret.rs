//! Keys, as they are typed.

use std::fmt;
use std::str::FromStr;

use subtle::ConstantTimeEq;

/// Longest key, in bytes.
const LONGEST: usize = 8192;

/// A value that is compared, never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The bytes, to compare in constant time.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl FromStr for Secret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("a key must not be empty"),
            _ if text.len() > LONGEST => Err("a key has at most 8192 bytes"),
            _ if !text.bytes().all(|byte| byte.is_ascii_graphic()) => Err("a key is visible ASCII without spaces"),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let secret: Secret = "hunter2".parse().expect("a secret");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert!("".parse::<Secret>().is_err());
    }
}
