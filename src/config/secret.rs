//! Keys, as they are typed.

use std::fmt;
use std::str::FromStr;

/// A value that is compared, never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The bytes, to compare in constant time.
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
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
