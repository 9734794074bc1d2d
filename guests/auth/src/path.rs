//! Which paths need a key.
//!
//! A worker may undo percent-encoding, empty segments and dots before it routes, so a path is judged both as it was
//! sent and as such a worker would read it. Judging only what was sent would let `/%761/models` and `//v1` in.

use percent_encoding::percent_decode_str;

pub fn is_protected(path: &str) -> bool {
    let first_as_sent = path
        .strip_prefix('/')
        .and_then(|rest| rest.split('/').next());
    // Decoded once, as servers do: `/%25761` is no `/v1`.
    let read: Vec<u8> = percent_decode_str(path).collect();
    let first_as_read = segments(&read).first().copied();
    [first_as_sent.map(str::as_bytes), first_as_read]
        .into_iter()
        .flatten()
        .any(|first| first == b"api" || first == b"v1")
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

    #[test]
    fn the_prefixes_end_at_a_segment() {
        for path in ["/v1", "/v1/", "/v1/chat/completions", "/api", "/api/x"] {
            assert!(is_protected(path), "{path}");
        }
        for path in [
            "",
            "/",
            "*",
            "/v1x",
            "/v12/models",
            "/apis",
            "/health",
            "/x/v1",
            "/V1/models",
        ] {
            assert!(!is_protected(path), "{path}");
        }
    }

    #[test]
    fn no_spelling_gets_round_them() {
        for path in [
            "//v1/models",
            "/./v1/models",
            "/x/../v1/models",
            "/../v1",
            "/%761/models",
            "/%61%70%69",
            "/%2e%2E/v1",
            "/x%2f..%2Fv1",
            "/v1/../health",
        ] {
            assert!(is_protected(path), "{path}");
        }
    }

    #[test]
    fn what_no_server_reads_so_stays_open() {
        for path in ["/%25761", "/%zz%4", "%", "/health/%76%31"] {
            assert!(!is_protected(path), "{path}");
        }
    }
}
