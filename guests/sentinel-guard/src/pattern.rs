//! Text to look for, and the forms of a text in which to look for it.
//!
//! Attackers vary case, spaces and encoding, so both sides are brought to one form: lower case, and spaces only between
//! words, one each. `UNION  SELECT` and `union select` are then the same, and so are `x = 1` and `x=1`.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A text in plain form.
#[derive(Debug, PartialEq, Eq)]
pub struct Plain {
    text: String,
    /// The bytes that are in it, a bit for each, as far as 128 bits can tell them apart.
    bytes: u128,
}

impl Plain {
    pub fn new(text: &str) -> Self {
        let text = plain(text);
        let bytes = text
            .bytes()
            .fold(0, |bytes, byte| bytes | 1 << (byte & 0x7f));
        Self { text, bytes }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Pattern(Plain);

impl Pattern {
    /// `None` where nothing is left to look for: it would be found everywhere.
    pub fn new(text: &str) -> Option<Self> {
        let plain = Plain::new(text);
        (!plain.text.is_empty()).then_some(Self(plain))
    }

    /// What is found is whole: `union select` is not in `reunion selection`.
    pub fn is_in(&self, Plain { text, bytes }: &Plain) -> bool {
        // Nearly all texts lack a byte of nearly all patterns, which is seen sooner than that the pattern isn't there.
        if self.0.bytes & !bytes != 0 {
            return false;
        }
        text.match_indices(&self.0.text).any(|(start, found)| {
            let (before, after) = (&text[..start], &text[start + found.len()..]);
            let ends_outside = [before.chars().next_back(), after.chars().next()];
            let ends_inside = [found.chars().next(), found.chars().next_back()];
            ends_inside
                .into_iter()
                .zip(ends_outside)
                .all(|(inside, outside)| !goes_on(inside, outside))
        })
    }
}

/// Whether a word or a name goes on from the end of what was found. Dots go on in names: `/..` is not in `/..data`, nor
/// `../` in `etc../`. Words do not go on in dots: `1.union select` is an attack.
fn goes_on(inside: Option<char>, outside: Option<char>) -> bool {
    let (Some(inside), Some(outside)) = (inside, outside) else {
        return false;
    };
    match inside {
        '.' => is_name(outside),
        _ => is_word(inside) && is_word(outside),
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

fn is_name(char: char) -> bool {
    char == '.' || is_word(char)
}

/// A URI in each form in which a worker might read it, all of them plain: as sent, decoded, and decoded twice.
pub fn forms_of_uri(uri: &str) -> Vec<Plain> {
    let mut forms = Vec::new();
    let mut text = Cow::Borrowed(uri);
    for _ in 0..3 {
        // Next to the text with its comments, not instead of it: nothing hides in what only looks like a comment.
        forms.extend(without_comments(&text).map(|text| Plain::new(&text)));
        forms.push(Plain::new(&text));
        match decoded(&text) {
            Some(next) => text = Cow::Owned(next),
            None => break,
        }
    }
    forms
}

/// `None` where there is nothing to decode.
fn decoded(text: &str) -> Option<String> {
    if !text.contains(['%', '+']) {
        return None;
    }
    let spaced = text.replace('+', " ");
    let bytes: Vec<u8> = percent_decode_str(&spaced).collect();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// `text` as a database reads it, `None` where that is no different. MySQL runs what is in `/*! … */`, so there only
/// the marks are left out.
fn without_comments(text: &str) -> Option<String> {
    if !text.contains("/*") {
        return None;
    }
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("/*") {
        code.push_str(before);
        code.push(' ');
        rest = match after.strip_prefix('!') {
            Some(run) => run.trim_start_matches(|char: char| char.is_ascii_digit()),
            None => after.split_once("*/").map_or("", |(_comment, after)| after),
        };
    }
    code.push_str(rest);
    Some(code.replace("*/", " "))
}

/// Lower case, with spaces and control characters only between words or names, where they are one space.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut after_space = false;
    for char in text.chars() {
        if char.is_whitespace() || char.is_control() {
            after_space = true;
            continue;
        }
        if after_space && is_name(char) && plain.chars().next_back().is_some_and(is_name) {
            plain.push(' ');
        }
        after_space = false;
        plain.push(char.to_ascii_lowercase());
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, uri: &str) -> bool {
        let pattern = Pattern::new(pattern).unwrap();
        forms_of_uri(uri).iter().any(|form| pattern.is_in(form))
    }

    #[test]
    fn one_form_for_all_spellings() {
        for text in [
            "union select",
            "UNION  Select",
            "union\t\r\nselect",
            " union\0select ",
        ] {
            assert_eq!(plain(text), "union select", "{text:?}");
        }
        assert_eq!(plain("' OR 1 = 1 --"), "'or 1=1--");
        assert_eq!(plain("a .. / b.c d"), "a ../b.c d");
        assert_eq!(plain("É é"), "É é");
    }

    #[test]
    fn encoding_hides_nothing() {
        for uri in [
            "/?q=union+select",
            "/?q=UNION%20SELECT",
            "/?q=%75nion%0aselect",
            "/?q=union%2520select",
            "/?q=%2575nion%2Bselect",
            "/union%2f%2a%2a%2fselect",
            "/?q=-1.union+select",
        ] {
            assert!(found("union select", uri), "{uri}");
        }
    }

    #[test]
    fn comments_hide_nothing() {
        for uri in [
            "/?q=union/**/select",
            "/?q=union/*x*//*y*/+/**/select",
            "/?q=/*!50000union*/+/*!select*/",
            "/?q=/*!union/*x*/select",
            "/?q=union+select/*",
            "/?q=/*+union+select",
            "/*?q=union+select*/",
        ] {
            assert!(found("union select", uri), "{uri}");
        }
        assert_eq!(without_comments("a*/b"), None);
        assert_eq!(without_comments("a/b"), None);
    }

    #[test]
    fn words_are_whole() {
        for uri in [
            "/reunion",
            "/selection",
            "/reunion+selection",
            "/?q=reunion+select",
            "/?q=union+selected",
            "/?q=union_select",
            "/unionselect",
            "/union/select",
            "/?q=%C3%A9union+select",
        ] {
            assert!(!found("union select", uri), "{uri}");
        }
    }

    #[test]
    fn names_with_dots_are_whole() {
        for uri in ["/..", "/a/..?b", "/..;/b", "/%2e%2e%5cb"] {
            assert!(found("/..", uri), "{uri}");
        }
        for uri in ["/..data", "/...", "/a..", "/.%2e.env"] {
            assert!(!found("/..", uri), "{uri}");
        }
        assert!(found("../", "/?f=../b"));
        assert!(found("../", "/?f=a+../b"));
        assert!(!found("../", "/?f=etc../b"));
    }

    #[test]
    fn nothing_is_no_pattern() {
        for text in ["", " ", "\n"] {
            assert_eq!(Pattern::new(text), None, "{text:?}");
        }
    }

    #[test]
    fn broken_encoding_is_text() {
        assert!(found("union select", "/%zz%union+select%4"));
        assert!(found("union select", "/%ff+union+select"));
    }
}
