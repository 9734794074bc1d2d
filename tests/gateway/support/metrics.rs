//! What `/metrics` says.

/// One scrape.
pub struct Metrics(Vec<Series>);

pub struct Series {
    pub name: String,
    labels: Vec<(String, String)>,
    pub value: f64,
}

impl Series {
    /// The label's value, empty if there is no such label.
    pub fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }
}

impl Metrics {
    #[track_caller]
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Metrics(lines.map(series).collect())
    }

    /// The sum of the series of `name` that have all of `labels`.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.of(name).filter(|s| labels.iter().all(|(label, value)| s.label(label) == *value)).map(|s| s.value).sum()
    }

    pub fn of(&self, name: &str) -> impl Iterator<Item = &Series> {
        self.0.iter().filter(move |series| series.name == name)
    }
}

#[track_caller]
fn series(line: &str) -> Series {
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
    let value = value.parse().unwrap_or_else(|e| panic!("{e} in {line:?}"));
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no end of labels in {line:?}"));
    let labels = labels.split("\",").filter(|label| !label.is_empty()).map(|label| {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("no value of a label in {line:?}"));
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    Series { name: name.to_owned(), labels: labels.collect(), value }
}
