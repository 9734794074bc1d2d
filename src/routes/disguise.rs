//! Other spellings of a path. Workers decode percent-encoding, and some normalise paths: `/flush%5Fcache` and
//! `/x/../flush_cache` are `/flush_cache` to them.

use std::borrow::Cow;

use memchr::memchr2;
use percent_encoding::percent_decode_str;

/// Whether this path is none of `names`, and a worker may take it for one of them.
pub fn hides(path: &str, is_name: impl Fn(&str) -> bool) -> bool {
    let bytes = path.as_bytes();
    let is_plain = memchr2(b'%', b'.', bytes).is_none() && !bytes.windows(2).any(|pair| pair == b"//");
    if is_plain {
        return path.strip_suffix('/').is_some_and(is_name);
    }
    // A `%2F` separates segments only for a worker that decodes first.
    let (decoded_first, decoded_last) = (normalised(&decoded(path)), normalised(path));
    is_name(&decoded_first) || is_name(&decoded(&decoded_last))
}

/// The path without percent-encoding. Text that is no UTF-8 is no name.
fn decoded(path: &str) -> Cow<'_, str> {
    percent_decode_str(path).decode_utf8_lossy()
}

/// The path without dot segments (RFC 3986 section 5.2.4), empty segments and a trailing `/`.
fn normalised(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_spelling_that_a_worker_may_understand_is_seen() {
        let is_name = |path: &str| path == "/flush_cache";
        for (path, wanted) in [
            ("/flush%5Fcache", true),
            ("/flush_cach%65", true),
            ("/flush_cache/", true),
            ("/flush_cach%65/", true),
            ("//flush_cache", true),
            ("/flush_cache//", true),
            ("/./flush_cache", true),
            ("/x/../flush_cache", true),
            ("/x/%2E%2e/flush_cache", true),
            ("/x%2f..%2Fflush_cache", true),
            ("/../../flush_cache/.", true),
            ("/a%2Fb/../flush_cache", true),
            ("/flush_cache%2F", true),
            ("/x/flush_cache", false),
            ("/x//flush%5Fcache", false),
            ("/flush%5cache", false),
            ("/flush_cache%", false),
            ("/flush_cache%ff", false),
            ("/v1/models/qwen2.5", false),
            ("/", false),
            ("//", false),
            ("*", false),
            ("", false),
        ] {
            assert_eq!(hides(path, is_name), wanted, "{path}");
        }
    }
}
