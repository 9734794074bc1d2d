//! Which paths are protected.
//!
//! A worker may undo percent-encoding, empty segments and dots before it routes, so a path is judged both as it was
//! sent and as such a worker would read it. Decoded once, as servers do.

use percent_encoding::percent_decode_str;

/// A path and everything below it.
#[derive(Debug, PartialEq, Eq)]
pub struct Protected {
    segments: Vec<Vec<u8>>,
}

impl Protected {
    /// `None` where the path does not start with a slash.
    pub fn new(path: &str) -> Option<Self> {
        path.starts_with('/').then(|| Self {
            segments: segments(path.as_bytes())
                .into_iter()
                .map(<[u8]>::to_vec)
                .collect(),
        })
    }

    pub fn covers(&self, uri: &str) -> bool {
        let path = uri.split(['?', '#']).next().unwrap_or_default();
        let read: Vec<u8> = percent_decode_str(path).collect();
        let as_sent = path.as_bytes().split(|&byte| byte == b'/').skip(1);
        self.starts(as_sent) || self.starts(segments(&read))
    }

    fn starts<'a>(&self, path: impl IntoIterator<Item = &'a [u8]>) -> bool {
        let mut path = path.into_iter();
        self.segments
            .iter()
            .all(|segment| path.next() == Some(segment))
    }
}

/// The segments of a path, without empty ones and `.`, and with `..` carried out.
fn segments(path: &[u8]) -> Vec<&[u8]> {
    let mut kept = Vec::new();
    for segment in path.split(|&byte| byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(protected: &str, uri: &str) -> bool {
        Protected::new(protected).unwrap().covers(uri)
    }

    #[test]
    fn a_path_is_protected_with_all_below_it() {
        for uri in [
            "/admin",
            "/admin/",
            "/admin/users?x=1",
            "/admin?x",
            "/admin#x",
        ] {
            assert!(covers("/admin", uri), "{uri}");
            assert!(covers("/admin/", uri), "{uri}");
        }
        for uri in [
            "",
            "*",
            "/",
            "/administrator",
            "/x/admin",
            "/a?/admin",
            "/Admin",
        ] {
            assert!(!covers("/admin", uri), "{uri}");
        }
        assert!(covers("/a/b", "/a/b/c"));
        assert!(!covers("/a/b", "/a/bc"));
        assert!(covers("/", "/anything"));
    }

    #[test]
    fn no_spelling_gets_round_it() {
        for uri in [
            "//admin",
            "/./admin/x",
            "/x/../admin",
            "/%61dmin",
            "/%2e/admin",
            "/x%2f..%2Fadmin",
            "/admin/../public",
        ] {
            assert!(covers("/admin", uri), "{uri}");
        }
        assert!(!covers("/admin", "/%2561dmin"));
    }

    #[test]
    fn a_path_starts_with_a_slash() {
        assert_eq!(Protected::new("admin"), None);
        assert_eq!(Protected::new(""), None);
    }
}
