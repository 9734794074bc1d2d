//! Where a listener is: at an address and a port, or at a path.

use std::fmt;
use std::net::SocketAddr;
use std::os::unix::net;
use std::path::PathBuf;
use std::str::FromStr;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// Port 0 takes a free one.
    Tcp(SocketAddr),
    /// Of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddress {
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) if net::SocketAddr::from_pathname(path).is_err() => {
                Err("the path after unix: is too long for a Unix socket, or contains a NUL byte")
            }
            Some(path) if !path.is_empty() => Ok(Self::Unix(path.into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| {
                "it must be an address and a port, such as 0.0.0.0:8443 or [::]:8443, or a Unix socket, such as \
                 unix:/run/smg/admin.sock"
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_paths_are_told_apart() {
        for good in ["127.0.0.1:80", "[::1]:0", "unix:/run/a.sock", "unix:a b"] {
            assert_eq!(good.parse::<ListenAddress>().expect(good).to_string(), good);
        }
        for bad in ["", "80", "localhost:80", "127.0.0.1", "/run/a.sock", "unix:", "unix", "unix:/a\0b"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad:?}");
        }
        let paths = [107, 108].map(|length| format!("unix:/{}", "x".repeat(length - 1)));
        assert_eq!(paths.map(|path| path.parse::<ListenAddress>().is_ok()), [true, false]);
    }
}
