//! Metrics with closed label sets: a label is an enum, so a series can only be one that was known at build time.
//!
//! Each module registers its own metrics on a [`Registry`] and counts on the handles it gets back. Counting is one
//! relaxed addition to a cache line that no other data-plane thread writes; all the formatting happens at scrape time,
//! on the control plane. The encoder is our own: `prometheus-client` writes OpenMetrics only, which a scraper of the
//! older text format takes for untyped series, and one page here writes both.

mod cells;
mod encode;
mod names;

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::cells::Cells;
pub(crate) use self::cells::{THREADS_MAX, thread_number};
pub use self::encode::Format;

/// Series of one metric whose labels come from the configuration ([`Registry::gauge_each`]); more are not shown.
pub const SERIES_MAX: usize = 1_000;

/// Buckets for durations that clients feel, in seconds: from 50 µs (a hit) to 10 s (an origin in trouble).
pub const LATENCY_BUCKETS: &[f64] = &[
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// A closed set of label values.
pub trait Label: Copy + 'static {
    /// The label's name.
    const NAME: &'static str;
    /// Every value, in order of [`Label::index`].
    const VALUES: &'static [&'static str];
    /// The place of this value in [`Label::VALUES`].
    fn index(self) -> usize;
    /// The value's text.
    fn token(self) -> &'static str {
        Self::VALUES.get(self.index()).copied().unwrap_or("unknown")
    }
}

/// A number that only grows.
#[derive(Clone, Debug)]
pub struct Counter(Arc<Cells>);

impl Default for Counter {
    fn default() -> Self {
        Self(Arc::new(Cells::new(1)))
    }
}

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.add(0, n);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.sum(0)
    }
}

/// A number that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Adds `n`, which may be negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Sets the value.
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn value(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One counter per value of a label.
#[derive(Clone, Debug)]
pub struct Family<L>(Arc<Cells>, PhantomData<L>);

impl<L: Label> Family<L> {
    /// Adds one to the counter of `label`.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Adds `n` to the counter of `label`.
    pub fn add(&self, label: L, n: u64) {
        self.0.add(label.index(), n);
    }

    /// The count of `label` so far.
    pub fn value(&self, label: L) -> u64 {
        self.0.sum(label.index())
    }
}

/// One counter per pair of values of two labels.
#[derive(Clone, Debug)]
pub struct Family2<A, B>(Arc<Cells>, PhantomData<(A, B)>);

impl<A: Label, B: Label> Family2<A, B> {
    /// Adds one to the counter of `a` and `b`.
    pub fn inc(&self, a: A, b: B) {
        self.add(a, b, 1);
    }

    /// Adds `n` to the counter of `a` and `b`.
    pub fn add(&self, a: A, b: B, n: u64) {
        self.0.add(Self::place(a, b), n);
    }

    /// The count of `a` and `b` so far.
    pub fn value(&self, a: A, b: B) -> u64 {
        self.0.sum(Self::place(a, b))
    }

    fn place(a: A, b: B) -> usize {
        a.index() * B::VALUES.len() + b.index()
    }
}

/// Observed durations, in seconds, in fixed buckets.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<HistogramCells>);

#[derive(Debug)]
struct HistogramCells {
    bounds: &'static [f64],
    bounds_nanos: Box<[u64]>,
    /// A cell for each bound, one for what lies above them all, and the sum in nanoseconds.
    cells: Cells,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let at = self.0.bounds_nanos.partition_point(|bound| *bound < nanos);
        self.0.cells.add(at, 1);
        self.0.cells.add(self.0.bounds.len() + 1, nanos);
    }

    /// How many durations were observed so far.
    pub fn count(&self) -> u64 {
        (0..=self.0.bounds.len()).map(|at| self.0.cells.sum(at)).sum()
    }
}

/// Where a metric's numbers come from at scrape time.
enum Source {
    /// Counters; the labels of each as they are written.
    Cells { cells: Arc<Cells>, labels: Vec<String> },
    /// One number that is asked for.
    Asked { counter: bool, value: Asked },
    /// Gauges whose label values come from the configuration.
    Each {
        labels: &'static [&'static str],
        series: Series,
    },
    /// Durations.
    Histogram(Arc<HistogramCells>),
}

type Asked = Box<dyn Fn() -> f64 + Send + Sync>;
type Series = Box<dyn Fn() -> Vec<(Vec<String>, f64)> + Send + Sync>;

impl Source {
    fn kind(&self) -> &'static str {
        match self {
            Self::Cells { .. } | Self::Asked { counter: true, .. } => "counter",
            Self::Asked { .. } | Self::Each { .. } => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

struct Metric {
    name: &'static str,
    help: &'static str,
    source: Source,
}

/// All metrics of a node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Vec<Metric>>>);

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry(..)")
    }
}

impl Registry {
    /// Registers a counter; `name` ends with `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        self.cells(name, help, &counter.0, vec![String::new()]);
        counter
    }

    /// Registers one counter per value of `L`; `name` ends with `_total`.
    pub fn family<L: Label>(&self, name: &'static str, help: &'static str) -> Family<L> {
        let cells = Arc::new(Cells::new(L::VALUES.len()));
        let each = |value: &&str| encode::labels(&[L::NAME], &[*value]);
        self.cells(name, help, &cells, L::VALUES.iter().map(each).collect());
        Family(cells, PhantomData)
    }

    /// Registers one counter per pair of values of `A` and `B`; `name` ends with `_total`.
    pub fn family2<A: Label, B: Label>(&self, name: &'static str, help: &'static str) -> Family2<A, B> {
        let cells = Arc::new(Cells::new(A::VALUES.len() * B::VALUES.len()));
        let pairs = A::VALUES
            .iter()
            .flat_map(|a| B::VALUES.iter().map(move |b| [*a, *b]));
        let each = |pair: [&str; 2]| encode::labels(&[A::NAME, B::NAME], &pair);
        self.cells(name, help, &cells, pairs.map(each).collect());
        Family2(cells, PhantomData)
    }

    /// Registers a counter that somebody else keeps and that is asked at scrape time; `name` ends with `_total`.
    pub fn counter_fn<F>(&self, name: &'static str, help: &'static str, value: F)
    where
        F: Fn() -> f64 + Send + Sync + 'static,
    {
        let value = Box::new(value);
        self.push(name, help, Source::Asked { counter: true, value });
    }

    /// Registers a gauge that its owner moves.
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Gauge {
        let gauge = Gauge::default();
        let shown = gauge.clone();
        self.gauge_fn(name, help, move || shown.value() as f64);
        gauge
    }

    /// Registers a gauge that is asked at scrape time.
    pub fn gauge_fn<F>(&self, name: &'static str, help: &'static str, value: F)
    where
        F: Fn() -> f64 + Send + Sync + 'static,
    {
        let counter = false;
        let value = Box::new(value);
        self.push(name, help, Source::Asked { counter, value });
    }

    /// Registers gauges whose label values come from the configuration (a bucket's id, a certificate's name), never
    /// from a request. They are asked at scrape time; beyond [`SERIES_MAX`] they are not shown.
    pub fn gauge_each<F>(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        series: F,
    ) where
        F: Fn() -> Vec<(Vec<String>, f64)> + Send + Sync + 'static,
    {
        let series = Box::new(series);
        self.push(name, help, Source::Each { labels, series });
    }

    /// Registers a histogram of durations; `name` ends with `_seconds`, `bounds` are seconds, ascending.
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Histogram {
        let cells = Arc::new(HistogramCells {
            bounds,
            bounds_nanos: bounds.iter().map(|bound| (bound * 1e9).round() as u64).collect(),
            cells: Cells::new(bounds.len() + 2),
        });
        self.push(name, help, Source::Histogram(Arc::clone(&cells)));
        Histogram(cells)
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn encode(&self) -> String {
        self.encode_as(Format::Prometheus)
    }

    /// All metrics in `format`.
    pub fn encode_as(&self, format: Format) -> String {
        encode::encode(&self.metrics(), format)
    }

    /// What is wrong with the names, help texts and labels of what was registered; a test asks for this to be empty.
    pub fn problems(&self) -> Vec<String> {
        names::problems(&self.metrics())
    }

    fn cells(&self, name: &'static str, help: &'static str, cells: &Arc<Cells>, labels: Vec<String>) {
        let cells = Arc::clone(cells);
        self.push(name, help, Source::Cells { cells, labels });
    }

    fn push(&self, name: &'static str, help: &'static str, source: Source) {
        self.metrics().push(Metric { name, help, source });
    }

    fn metrics(&self) -> MutexGuard<'_, Vec<Metric>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Copy)]
    enum Colour {
        Red,
        Blue,
    }

    impl Label for Colour {
        const NAME: &'static str = "colour";
        const VALUES: &'static [&'static str] = &["red", "blue"];
        fn index(self) -> usize {
            self as usize
        }
    }

    #[test]
    fn every_kind_is_written_in_the_older_format() {
        let registry = Registry::default();
        registry.counter("edge_a_total", "A \\ \"quoted\"\ntext.").add(3);
        let family = registry.family::<Colour>("edge_b_total", "B.");
        family.inc(Colour::Blue);
        let pairs = registry.family2::<Colour, Colour>("edge_c_total", "C.");
        pairs.add(Colour::Blue, Colour::Red, 7);
        registry.gauge("edge_d", "D.").set(-2);
        let histogram = registry.histogram("edge_e_seconds", "E.", &[0.001, 1.0]);
        histogram.observe(Duration::from_millis(1));
        histogram.observe(Duration::from_millis(2));
        histogram.observe(Duration::from_secs(3));
        registry.gauge_each("edge_f", "F.", &["bucket"], || vec![(vec!["eu".into()], 1.0)]);
        assert_eq!(family.value(Colour::Red), 0);
        assert_eq!(pairs.value(Colour::Blue, Colour::Red), 7);
        assert_eq!(histogram.count(), 3);
        let expected = "\
# HELP edge_a_total A \\\\ \"quoted\"\\ntext.
# TYPE edge_a_total counter
edge_a_total 3
# HELP edge_b_total B.
# TYPE edge_b_total counter
edge_b_total{colour=\"red\"} 0
edge_b_total{colour=\"blue\"} 1
# HELP edge_c_total C.
# TYPE edge_c_total counter
edge_c_total{colour=\"red\",colour=\"red\"} 0
edge_c_total{colour=\"red\",colour=\"blue\"} 0
edge_c_total{colour=\"blue\",colour=\"red\"} 7
edge_c_total{colour=\"blue\",colour=\"blue\"} 0
# HELP edge_d D.
# TYPE edge_d gauge
edge_d -2
# HELP edge_e_seconds E.
# TYPE edge_e_seconds histogram
edge_e_seconds_bucket{le=\"0.001\"} 1
edge_e_seconds_bucket{le=\"1.0\"} 2
edge_e_seconds_bucket{le=\"+Inf\"} 3
edge_e_seconds_sum 3.003
edge_e_seconds_count 3
# HELP edge_f F.
# TYPE edge_f gauge
edge_f{bucket=\"eu\"} 1
";
        assert_eq!(registry.encode(), expected);
    }

    #[test]
    fn openmetrics_names_the_family_without_total_and_ends_with_eof() {
        let registry = Registry::default();
        registry.counter("edge_a_total", "A.").inc();
        assert_eq!(
            registry.encode_as(Format::OpenMetrics),
            "# HELP edge_a A.\n# TYPE edge_a counter\nedge_a_total 1\n# EOF\n"
        );
    }

    #[test]
    fn series_from_the_configuration_are_bounded() {
        let registry = Registry::default();
        registry.gauge_each("edge_a", "A.", &["n"], || {
            (0..5_000).map(|n| (vec![n.to_string()], 1.0)).collect()
        });
        assert_eq!(registry.encode().lines().count(), SERIES_MAX + 2);
    }
}
