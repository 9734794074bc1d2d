//! What a deployment may choose, as JSON: each key replaces a default, and an empty list turns its check off.
//!
//! ```json
//! {"protected_paths": ["/admin"], "sql_patterns": [], "xss_patterns": [], "traversal_patterns": [], "scanners": []}
//! ```

use serde::Deserialize;

use crate::guard::Guard;
use crate::path::Protected;
use crate::pattern::Pattern;

#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// No JSON, an unknown key, or a value of the wrong type.
    Malformed,
    /// An empty pattern, or a path without a slash at its start.
    Meaningless,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    protected_paths: Option<Vec<String>>,
    sql_patterns: Option<Vec<String>>,
    xss_patterns: Option<Vec<String>>,
    traversal_patterns: Option<Vec<String>>,
    scanners: Option<Vec<String>>,
}

/// `null` is a deployment without a config.
pub fn parse(input: &[u8]) -> Result<Guard, Refused> {
    let config: Option<Config> = serde_json::from_slice(input).map_err(|_| Refused::Malformed)?;
    let mut guard = Guard::default();
    if let Some(config) = config {
        replace(&mut guard.protected, config.protected_paths, Protected::new)?;
        replace(&mut guard.sql, config.sql_patterns, Pattern::new)?;
        replace(&mut guard.xss, config.xss_patterns, Pattern::new)?;
        replace(
            &mut guard.traversal,
            config.traversal_patterns,
            Pattern::new,
        )?;
        replace(&mut guard.scanners, config.scanners, Pattern::new)?;
    }
    Ok(guard)
}

fn replace<T>(
    rules: &mut Vec<T>,
    chosen: Option<Vec<String>>,
    rule: impl Fn(&str) -> Option<T>,
) -> Result<(), Refused> {
    if let Some(texts) = chosen {
        *rules = texts
            .iter()
            .map(|text| rule(text))
            .collect::<Option<_>>()
            .ok_or(Refused::Meaningless)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_the_default() {
        for config in ["null", "{}", r#"{"scanners":null}"#] {
            assert_eq!(parse(config.as_bytes()), Ok(Guard::default()), "{config}");
        }
    }

    #[test]
    fn a_list_replaces_the_default() {
        let config =
            br#"{"protected_paths":["/private"],"sql_patterns":[],"scanners":["Bad Bot"]}"#;
        let expected = Guard {
            protected: Vec::from_iter(Protected::new("/private")),
            sql: Vec::new(),
            scanners: Vec::from_iter(Pattern::new("bad bot")),
            ..Guard::default()
        };
        assert_eq!(parse(config), Ok(expected));
    }

    #[test]
    fn mistakes_are_refused() {
        for config in [
            "",
            "[]",
            "{",
            "{} {}",
            r#"{"protected_path":["/admin"]}"#,
            r#"{"scanners":"nmap"}"#,
            r#"{"scanners":[1]}"#,
            r#"{"scanners":[],"scanners":[]}"#,
        ] {
            assert_eq!(
                parse(config.as_bytes()),
                Err(Refused::Malformed),
                "{config}"
            );
        }
        for config in [
            r#"{"protected_paths":["admin"]}"#,
            r#"{"xss_patterns":["<script",""]}"#,
            r#"{"scanners":[" "]}"#,
        ] {
            assert_eq!(
                parse(config.as_bytes()),
                Err(Refused::Meaningless),
                "{config}"
            );
        }
    }
}
