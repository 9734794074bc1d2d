//! Where a list or map in brackets begins that does not end. What a YAML parser says of one is the place where it could
//! not go on, which may be far below.

/// The innermost bracket that is open where the text can't be read further, and its line. It need not be right about
/// every text: it is a hint beside an error.
pub(super) fn unclosed(text: &str, until_line: usize) -> Option<(char, usize)> {
    let mut open: Vec<(char, usize)> = Vec::new();
    for (at, line) in text.lines().enumerate().take(until_line) {
        let mut quote = None;
        let mut before = ' ';
        for character in line.chars() {
            let begins = before.is_whitespace() || (!open.is_empty() && matches!(before, '[' | '{' | ',' | ':'));
            match (quote, character) {
                (Some(sign), _) if sign == character => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') if begins => quote = Some(character),
                (None, '#') if before.is_whitespace() => break,
                (None, '[' | '{') if begins => open.push((character, at + 1)),
                (None, ']') if open.last().is_some_and(|(sign, _)| *sign == '[') => drop(open.pop()),
                (None, '}') if open.last().is_some_and(|(sign, _)| *sign == '{') => drop(open.pop()),
                _ => {}
            }
            before = character;
        }
    }
    open.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_open_bracket_is_found() {
        for (text, found) in [
            ("a: [1, 2\nb: 3\n", Some(('[', 1))),
            ("a: [1, 2]\nb: {c: [d, e}\n", Some(('[', 2))),
            ("a: [1,\n  {b: c},\n  d\ne: f", Some(('[', 1))),
            ("a: [1, 2]\nb: {c: d}\n", None),
            ("a: '[' # [\nb: \"{\"\nc: x[1\n", None),
            ("- [[1], [2]\n", Some(('[', 1))),
            ("", None),
        ] {
            assert_eq!(unclosed(text, usize::MAX), found, "{text}");
        }
        assert_eq!(unclosed("a: 1\nb: [\n", 1), None, "what comes later has not been read");
    }
}
