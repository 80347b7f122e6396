//! Metrics with closed label sets: a label is an enum, so a series can only be one that was known at build time.
//!
//! Each module registers its own metrics on a [`Registry`] and counts on the handles it gets back. Counting is one
//! relaxed atomic addition; all the formatting happens at scrape time, on the control plane.

use std::fmt::Write as _;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds one.
    pub fn inc(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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
pub struct Family<L>(Arc<[AtomicU64]>, PhantomData<L>);

impl<L: Label> Family<L> {
    /// Adds one to the counter of `label`.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Adds `n` to the counter of `label`.
    pub fn add(&self, label: L, n: u64) {
        if let Some(cell) = self.0.get(label.index()) {
            cell.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The count of `label` so far.
    pub fn value(&self, label: L) -> u64 {
        self.0
            .get(label.index())
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }
}

/// Observed durations, in seconds, in fixed buckets.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<HistogramCells>);

#[derive(Debug)]
struct HistogramCells {
    bounds: &'static [f64],
    buckets: Vec<AtomicU64>,
    sum_micros: AtomicU64,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let at = self
            .0
            .bounds
            .iter()
            .position(|bound| seconds <= *bound)
            .unwrap_or(self.0.bounds.len());
        if let Some(bucket) = self.0.buckets.get(at) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.0.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

type Render = Box<dyn Fn(&mut String) + Send + Sync>;

/// All metrics of a node. Cheap to clone.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Vec<Render>>>);

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry(..)")
    }
}

impl Registry {
    /// Registers a counter; `name` ends with `_total`.
    pub fn counter(&self, name: &'static str, help: &'static str) -> Counter {
        let counter = Counter::default();
        let shown = counter.clone();
        self.push(move |out| {
            head(out, name, help, "counter");
            let _ = writeln!(out, "{name} {}", shown.value());
        });
        counter
    }

    /// Registers one counter per value of `L`; `name` ends with `_total`.
    pub fn family<L: Label>(&self, name: &'static str, help: &'static str) -> Family<L> {
        let cells: Arc<[AtomicU64]> = L::VALUES.iter().map(|_| AtomicU64::new(0)).collect();
        let shown = Arc::clone(&cells);
        self.push(move |out| {
            head(out, name, help, "counter");
            for (value, cell) in L::VALUES.iter().zip(shown.iter()) {
                let _ = writeln!(
                    out,
                    "{name}{{{}=\"{value}\"}} {}",
                    L::NAME,
                    cell.load(Ordering::Relaxed)
                );
            }
        });
        Family(cells, PhantomData)
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
        self.push(move |out| {
            head(out, name, help, "gauge");
            let _ = writeln!(out, "{name} {}", value());
        });
    }

    /// Registers a histogram of durations; `name` ends with `_seconds`, `bounds` are seconds, ascending.
    pub fn histogram(&self, name: &'static str, help: &'static str, bounds: &'static [f64]) -> Histogram {
        let buckets = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        let histogram = Histogram(Arc::new(HistogramCells {
            bounds,
            buckets,
            sum_micros: AtomicU64::new(0),
        }));
        let shown = Arc::clone(&histogram.0);
        self.push(move |out| {
            head(out, name, help, "histogram");
            let mut running = 0;
            for (cell, bound) in shown.buckets.iter().zip(shown.bounds.iter()) {
                running += cell.load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}_bucket{{le=\"{bound}\"}} {running}");
            }
            running += shown
                .buckets
                .last()
                .map_or(0, |cell| cell.load(Ordering::Relaxed));
            let sum = shown.sum_micros.load(Ordering::Relaxed) as f64 / 1e6;
            let _ = writeln!(
                out,
                "{name}_bucket{{le=\"+Inf\"}} {running}\n{name}_sum {sum}\n{name}_count {running}"
            );
        });
        histogram
    }

    /// All metrics in the Prometheus text format 0.0.4.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        for render in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            render(&mut out);
        }
        out
    }

    fn push(&self, render: impl Fn(&mut String) + Send + Sync + 'static) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Box::new(render));
    }
}

fn head(out: &mut String, name: &str, help: &str, kind: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}
