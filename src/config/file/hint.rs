//! What was meant by a name that does not exist.

/// Longer names are not compared: the time grows with the product of the lengths.
const LONGEST: usize = 64;

/// ` (did you mean …)`, if a known name is near; otherwise nothing.
pub(super) fn hint<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> String {
    match nearest(name, known) {
        Some(meant) => format!(" (did you mean `{meant}`?)"),
        None => String::new(),
    }
}

/// The known name that takes the fewest typing mistakes: at most one for each three letters.
pub fn nearest<'k>(name: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase().replace('-', "_");
    let distance = |meant: &str| strsim::osa_distance(&name, &meant.to_lowercase().replace('-', "_"));
    let near = known.into_iter().map(|meant| (distance(meant), meant));
    near.filter(|(distance, meant)| *distance <= meant.len().min(name.len()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, meant)| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_near_names_are_offered() {
        let known = ["max_payload_size", "port", "host", "read-only"];
        for (name, meant) in [
            ("max-payload-size", Some("max_payload_size")),
            ("max_paylod_siez", Some("max_payload_size")),
            ("prot", Some("port")),
            ("read_only", Some("read-only")),
            ("", None),
            ("x", None),
            ("request_timeout", None),
        ] {
            assert_eq!(nearest(name, known), meant, "{name}");
        }
        assert_eq!(nearest(&"a".repeat(1 << 20), known), None);
    }
}
