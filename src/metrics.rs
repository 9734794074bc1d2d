//! Counters and histograms that a shard writes without contention, and the Prometheus text they become.
//!
//! The data plane only adds to numbers that its own shard owns; a scrape sums the shards. Names and labels
//! exist only at the scrape, so a request never looks a metric up by its labels.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::proto::{self, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

/// The content type of [`Exposition::render`] (Prometheus text format 0.0.4).
pub const TEXT_FORMAT: &str = prometheus::TEXT_FORMAT;

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A counter with one writer at a time: adding is a plain load and store, not a read-modify-write that
/// would bounce a cache line between shards.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// Raises the counter to `value` if it is below.
    pub fn raise_to(&self, value: u64) {
        if value > self.get() {
            self.0.store(value, Relaxed);
        }
    }

    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Upper bounds in seconds for work that takes microseconds: one guest call.
pub const MICRO_BUCKETS: [f64; 20] =
    [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 5.0];

/// Upper bounds in seconds for a whole request to a model server.
pub const REQUEST_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 1800.0];

/// A histogram of durations with one writer at a time, over `N` fixed bounds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds_ns: &'static [u64; N],
    buckets: [Counter; N],
    count: Counter,
    sum_ns: Counter,
    max_ns: Counter,
}

/// [`MICRO_BUCKETS`] in nanoseconds.
pub static MICRO_BOUNDS: [u64; 20] = nanoseconds(MICRO_BUCKETS);
/// [`REQUEST_BUCKETS`] in nanoseconds.
pub static REQUEST_BOUNDS: [u64; 16] = nanoseconds(REQUEST_BUCKETS);

const fn nanoseconds<const N: usize>(seconds: [f64; N]) -> [u64; N] {
    let mut bounds = [0; N];
    let mut at = 0;
    while at < N {
        bounds[at] = (seconds[at] * 1e9 + 0.5) as u64;
        at += 1;
    }
    bounds
}

impl<const N: usize> Histogram<N> {
    pub fn new(bounds_ns: &'static [u64; N]) -> Self {
        let buckets = std::array::from_fn(|_| Counter::default());
        Self { bounds_ns, buckets, count: Counter::default(), sum_ns: Counter::default(), max_ns: Counter::default() }
    }

    pub fn observe(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        if let Some(bucket) = self.bounds_ns.iter().position(|bound| ns <= *bound) {
            self.buckets[bucket].add(1);
        }
        self.count.add(1);
        self.sum_ns.add(ns);
        self.max_ns.raise_to(ns);
    }

    /// What was observed so far.
    pub fn totals(&self) -> HistogramTotals {
        HistogramTotals {
            buckets: self.buckets.iter().map(Counter::get).collect(),
            count: self.count.get(),
            sum_ns: self.sum_ns.get(),
            max_ns: self.max_ns.get(),
        }
    }
}

/// The sum of any number of histograms over the same bounds.
#[derive(Debug, Clone, Default)]
pub struct HistogramTotals {
    /// Observations per bucket, not cumulative.
    pub buckets: Vec<u64>,
    pub count: u64,
    pub sum_ns: u64,
    pub max_ns: u64,
}

impl HistogramTotals {
    pub fn add(&mut self, other: &HistogramTotals) {
        self.buckets.resize(self.buckets.len().max(other.buckets.len()), 0);
        for (sum, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += more;
        }
        self.count += other.count;
        self.sum_ns += other.sum_ns;
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// The upper bound, in microseconds, of the bucket that holds the `q`-quantile (0 to 1), but no more
    /// than the largest observation; `None` without observations.
    pub fn quantile_us(&self, q: f64, bounds_ns: &[u64]) -> Option<f64> {
        let rank = ((self.count as f64) * q).ceil().max(1.0) as u64;
        if self.count == 0 {
            return None;
        }
        let mut seen = 0;
        for (bucket, bound) in self.buckets.iter().zip(bounds_ns) {
            seen += bucket;
            if seen >= rank {
                return Some((*bound).min(self.max_ns) as f64 / 1e3);
            }
        }
        Some(self.max_ns as f64 / 1e3)
    }
}

/// Label names and values of one series.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// Collects metric families for one scrape.
#[derive(Default)]
pub struct Exposition(BTreeMap<&'static str, MetricFamily>);

impl Exposition {
    pub fn counter(&mut self, name: &'static str, help: &str, labels: Labels, value: f64) {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        let mut metric = proto::Metric::from_label(pairs(labels));
        metric.set_counter(counter);
        self.push(name, help, MetricType::COUNTER, metric);
    }

    pub fn gauge(&mut self, name: &'static str, help: &str, labels: Labels, value: f64) {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        let mut metric = proto::Metric::from_label(pairs(labels));
        metric.set_gauge(gauge);
        self.push(name, help, MetricType::GAUGE, metric);
    }

    /// `bounds` are the upper bounds in seconds that `totals` was counted over.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        labels: Labels,
        totals: &HistogramTotals,
        bounds: &[f64],
    ) {
        let mut cumulative = 0;
        let buckets = bounds.iter().zip(&totals.buckets).map(|(bound, count)| {
            cumulative += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(cumulative);
            bucket
        });
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(totals.count);
        histogram.set_sample_sum(totals.sum_ns as f64 / 1e9);
        let mut metric = proto::Metric::from_label(pairs(labels));
        metric.set_histogram(histogram);
        self.push(name, help, MetricType::HISTOGRAM, metric);
    }

    fn push(&mut self, name: &'static str, help: &str, kind: MetricType, metric: proto::Metric) {
        let family = self.0.entry(name).or_insert_with(|| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(help.to_owned());
            family.set_field_type(kind);
            family
        });
        family.mut_metric().push(metric);
    }

    /// The Prometheus text format.
    pub fn render(self) -> String {
        let families: Vec<_> = self.0.into_values().collect();
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("every family has a name and a metric");
        String::from_utf8(text).expect("the encoder writes UTF-8")
    }
}

fn pairs(labels: Labels) -> Vec<proto::LabelPair> {
    labels
        .iter()
        .map(|(name, value)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_in_text_and_ends_in_infinity() {
        let histogram = Histogram::new(&MICRO_BOUNDS);
        for us in [1, 1, 3, 10_000_000] {
            histogram.observe(Duration::from_micros(us));
        }
        let mut exposition = Exposition::default();
        exposition.histogram("t_seconds", "help", &[("a", "b")], &histogram.totals(), &MICRO_BUCKETS);
        let text = exposition.render();
        assert!(text.contains("t_seconds_bucket{a=\"b\",le=\"0.000001\"} 2"), "{text}");
        assert!(text.contains("t_seconds_bucket{a=\"b\",le=\"0.000005\"} 3"), "{text}");
        assert!(text.contains("t_seconds_bucket{a=\"b\",le=\"5\"} 3"), "{text}");
        assert!(text.contains("t_seconds_bucket{a=\"b\",le=\"+Inf\"} 4"), "{text}");
    }

    #[test]
    fn quantiles_are_bucket_bounds_capped_by_the_maximum() {
        let histogram = Histogram::new(&MICRO_BOUNDS);
        assert_eq!(histogram.totals().quantile_us(0.5, &MICRO_BOUNDS), None);
        (0..99).for_each(|_| histogram.observe(Duration::from_nanos(1500)));
        histogram.observe(Duration::from_micros(300));
        let totals = histogram.totals();
        assert_eq!(totals.quantile_us(0.5, &MICRO_BOUNDS), Some(2.0));
        assert_eq!(totals.quantile_us(1.0, &MICRO_BOUNDS), Some(300.0));
    }

    #[test]
    fn label_values_are_escaped() {
        let mut exposition = Exposition::default();
        exposition.counter("c_total", "help", &[("module", "a\"b\nc")], 1.0);
        assert!(exposition.render().contains("module=\"a\\\"b\\nc\""));
    }
}
