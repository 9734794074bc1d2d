//! Merges the metrics of several workers into one text in the Prometheus format. Each family occurs once, with the
//! samples of all workers, which get the label `worker`.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use std::borrow::Cow;
use std::fmt::Write;

use rustc_hash::FxHashMap;

/// The label that says whose sample it is, and what a worker's own label of that name gets before it, as in Prometheus.
const LABEL: &str = "worker";
const EXPORTED: &str = "exported_";
/// The types that the format has. Other types are those of OpenMetrics.
const TYPES: [&str; 5] = ["counter", "gauge", "histogram", "summary", "untyped"];
/// What the names of a family's samples may have behind that of the family.
const SUFFIXES: [&str; 6] = ["", "_bucket", "_sum", "_count", "_total", "_created"];

struct Family<'a> {
    name: &'a str,
    help: Option<&'a str>,
    kind: Option<&'a str>,
    /// Whether workers disagree about the family's type.
    is_disputed: bool,
    samples: String,
}

struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, &'a str)>,
    value: &'a str,
    /// Milliseconds.
    timestamp: Option<i64>,
}

#[derive(Default)]
struct Families<'a> {
    all: Vec<Family<'a>>,
    places: FxHashMap<&'a str, usize>,
}

impl<'a> Families<'a> {
    fn place(&mut self, name: &'a str) -> usize {
        *self.places.entry(name).or_insert_with(|| {
            let samples = String::new();
            self.all.push(Family { name, help: None, kind: None, is_disputed: false, samples });
            self.all.len() - 1
        })
    }

    fn add(&mut self, worker: &str, text: &'a str) {
        let mut current: Option<usize> = None;
        for line in text.lines() {
            if let Some(comment) = line.strip_prefix('#') {
                let Some((keyword, rest)) = comment.trim_start().split_once(' ') else { continue };
                let (name, rest) = rest.trim_start().split_once(' ').unwrap_or((rest.trim(), ""));
                if !matches!(keyword, "HELP" | "TYPE") || !is_name(name) {
                    continue;
                }
                let place = self.place(name);
                current = Some(place);
                let family = &mut self.all[place];
                let kind = rest.trim();
                if keyword == "HELP" {
                    family.help.get_or_insert(rest);
                } else if TYPES.contains(&kind) {
                    family.is_disputed |= *family.kind.get_or_insert(kind) != kind;
                }
            } else if let Some(sample) = Sample::read(line) {
                let is_current = |place: &usize| {
                    let suffix = sample.name.strip_prefix(self.all[*place].name);
                    suffix.is_some_and(|suffix| SUFFIXES.contains(&suffix))
                };
                let place = current.filter(is_current).unwrap_or_else(|| self.place(sample.name));
                sample.write(worker, &mut self.all[place].samples);
            }
        }
    }
}

impl<'a> Sample<'a> {
    /// `None` if the line is not a sample.
    fn read(line: &'a str) -> Option<Self> {
        let end = line.find(|c: char| !is_name_char(c))?;
        let (name, mut rest) = line.split_at(end);
        let mut labels = Vec::new();
        if let Some(mut inner) = rest.strip_prefix('{') {
            loop {
                inner = inner.trim_start_matches([' ', '\t', ',']);
                if let Some(after) = inner.strip_prefix('}') {
                    rest = after;
                    break;
                }
                let (label, value) = inner.split_once('=')?;
                let value = value.trim_start().strip_prefix('"')?;
                let end = string_end(value)?;
                let label = label.trim();
                let is_twice = labels.iter().any(|(other, _)| *other == label);
                if !is_name(label) || label.contains(':') || label == "__name__" || is_twice {
                    return None;
                }
                labels.push((label, &value[..end]));
                inner = &value[end + 1..];
            }
        }
        // OpenMetrics has exemplars behind it.
        let rest = rest.split_once(" # ").map_or(rest, |(value, _)| value);
        let mut numbers = rest.split_ascii_whitespace();
        let (value, timestamp) = (numbers.next()?, numbers.next());
        let is_number = |text: &str| {
            // Go, in which Prometheus is written, has no signed NaN.
            text.parse::<f64>().is_ok_and(|number| !number.is_nan() || text.len() == "NaN".len())
        };
        let is_sound = is_name(name) && is_number(value) && timestamp.is_none_or(is_number) && numbers.next().is_none();
        // Those of OpenMetrics are fractions of seconds: without one, the sample is of now.
        let timestamp = timestamp.and_then(|timestamp| timestamp.parse().ok());
        is_sound.then_some(Self { name, labels, value, timestamp })
    }

    fn write(&self, worker: &str, out: &mut String) {
        out.push_str(self.name);
        let worker = worker.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{{{LABEL}=\"{worker}\"");
        for (label, value) in &self.labels {
            let mut label = Cow::Borrowed(*label);
            if label == LABEL {
                while label == LABEL || self.labels.iter().any(|(other, _)| *other == label) {
                    label = format!("{EXPORTED}{label}").into();
                }
            }
            let _ = write!(out, ",{label}=\"{}\"", mended(value, true));
        }
        let _ = write!(out, "}} {}", self.value);
        if let Some(timestamp) = self.timestamp {
            let _ = write!(out, " {timestamp}");
        }
        out.push('\n');
    }
}

/// Text in which each backslash begins an escape that the format has; others stand for themselves.
fn mended(text: &str, is_quoted: bool) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 1);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(c);
        if c != '\\' {
            continue;
        }
        match chars.next() {
            Some(escape @ ('\\' | 'n')) => out.push(escape),
            Some('"') if is_quoted => out.push('"'),
            other => {
                out.push('\\');
                out.extend(other);
            }
        }
    }
    out.into()
}

/// Where the quotes are that end a value.
fn string_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| match byte {
        _ if std::mem::take(&mut is_escaped) => false,
        b'\\' => {
            is_escaped = true;
            false
        }
        _ => byte == b'"',
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_name_char) && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':')
}

/// Merges texts, each with its worker's name. Lines that can't be parsed are omitted. If workers disagree about a
/// family's type, the type is omitted, too.
pub fn merged<'a>(texts: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut families = Families::default();
    for (worker, text) in texts {
        families.add(worker, text);
    }
    let mut out = String::new();
    for family in families.all.iter().filter(|family| !family.samples.is_empty()) {
        if let Some(help) = family.help {
            let _ = writeln!(out, "# HELP {} {}", family.name, mended(help, false));
        }
        if let Some(kind) = family.kind.filter(|_| !family.is_disputed) {
            let _ = writeln!(out, "# TYPE {} {kind}", family.name);
        }
        out.push_str(&family.samples);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(texts: &[&str]) -> String {
        merged(["http://a", "http://b"].into_iter().zip(texts.iter().copied()))
    }

    #[test]
    fn samples_of_a_family_stand_together() {
        let first = "# HELP t Time.\n# TYPE t histogram\nt_bucket{le=\"+Inf\"} 2\nt_sum 3.5\nt_count 2\n# TYPE u counter\nu 1\n";
        let second = "u{x=\"1\"} 4 1700000000\n# TYPE t histogram\nt_bucket{le=\"+Inf\",} 5\nt_sum NaN\nt_count 5";
        let wanted = "# HELP t Time.\n# TYPE t histogram\n\
                      t_bucket{worker=\"http://a\",le=\"+Inf\"} 2\nt_sum{worker=\"http://a\"} 3.5\nt_count{worker=\"http://a\"} 2\n\
                      t_bucket{worker=\"http://b\",le=\"+Inf\"} 5\nt_sum{worker=\"http://b\"} NaN\nt_count{worker=\"http://b\"} 5\n\
                      # TYPE u counter\nu{worker=\"http://a\"} 1\nu{worker=\"http://b\",x=\"1\"} 4 1700000000\n";
        assert_eq!(merge(&[first, second]), wanted);
    }

    #[test]
    fn values_of_labels_may_hold_anything() {
        let text = "a{x=\"} 1\\\"\\\\\" , worker = \"w\" } 2\n";
        assert_eq!(merge(&[text]), "a{worker=\"http://a\",x=\"} 1\\\"\\\\\",exported_worker=\"w\"} 2\n");
    }

    #[test]
    fn what_is_no_sample_is_left_out() {
        for line in [
            "",
            "a",
            "a x",
            "a 1 2 3",
            "1a 1",
            "{} 1",
            "a{ 1",
            "a{x} 1",
            "a{x=1} 1",
            "a{x=\"1} 1",
            "a{x=\"1\\\"} 1",
            "é 1",
            "# EOF",
            "#",
            "# TYPE",
            "# TYPE x",
            "# HELP 1 x",
            "<html>",
            "a{-=\"1\"} 1",
            "a{b:c=\"1\"} 1",
            "a{__name__=\"1\"} 1",
            "a{b=\"1\",b=\"2\"} 1",
            "a -NaN",
            "a 1 x",
        ] {
            assert_eq!(merge(&[line]), "", "{line}");
        }
        assert_eq!(merge(&["a 1 # {trace=\"x\"} 2"]), "a{worker=\"http://a\"} 1\n");
    }

    #[test]
    fn what_only_other_formats_have_is_mended() {
        for (text, wanted) in [
            ("a 1 1.5", "a{worker=\"http://a\"} 1\n"),
            ("a 1 99999999999999999999", "a{worker=\"http://a\"} 1\n"),
            ("a 1 -5", "a{worker=\"http://a\"} 1 -5\n"),
            ("# TYPE a unicorn\na 1", "a{worker=\"http://a\"} 1\n"),
            ("# TYPE a info\n# TYPE a gauge\na 1", "# TYPE a gauge\na{worker=\"http://a\"} 1\n"),
            ("# HELP a b\\q \\\" \\n \\\\ \\\na 1", "# HELP a b\\\\q \\\\\" \\n \\\\ \\\\\na{worker=\"http://a\"} 1\n"),
            ("a{b=\"\\q\\\"\\n\"} 1", "a{worker=\"http://a\",b=\"\\\\q\\\"\\n\"} 1\n"),
            (
                "a{worker=\"q\",exported_worker=\"z\"} 2",
                "a{worker=\"http://a\",exported_exported_worker=\"q\",exported_worker=\"z\"} 2\n",
            ),
        ] {
            assert_eq!(merge(&[text]), wanted, "{text}");
        }
    }

    #[test]
    fn a_disputed_family_has_no_type() {
        let merged = merge(&["# TYPE a gauge\na 1\n", "# TYPE a counter\na 2\n"]);
        assert_eq!(merged, "a{worker=\"http://a\"} 1\na{worker=\"http://b\"} 2\n");
    }
}
