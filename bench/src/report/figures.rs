//! Samples become figures: the median of the rounds, with the least and the most.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::load::Done;
use crate::process::Disturbance;
use crate::scenario::Scenario;

/// What a number is of. The order is that of the columns; the names are those of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Measure {
    /// Microseconds of processor for one answer: of the server's processes, in the kernel for them too.
    #[serde(rename = "cpu_micros")]
    CpuMicros,
    #[serde(rename = "per_second")]
    PerSecond,
    #[serde(rename = "p50_millis")]
    P50Millis,
    #[serde(rename = "p99_millis")]
    P99Millis,
    #[serde(rename = "p999_millis")]
    P999Millis,
    /// How late the generator itself was, at the 99th percentile.
    #[serde(rename = "lag_p99_millis")]
    LagMillis,
    /// Bytes of a body as it was sent.
    #[serde(rename = "wire_bytes")]
    WireBytes,
    /// Questions to the origin for a hundred answers.
    #[serde(rename = "origin_percent")]
    OriginShare,
    /// Answers that said "not modified", of a hundred.
    #[serde(rename = "unchanged_percent")]
    UnchangedShare,
    /// Handshakes that were resumed, of a hundred.
    #[serde(rename = "resumed_percent")]
    ResumedShare,
    #[serde(rename = "resident_kib_each")]
    ResidentKibEach,
    #[serde(rename = "proportional_kib_each")]
    ProportionalKibEach,
    #[serde(rename = "resident_mib")]
    ResidentMib,
    #[serde(rename = "proportional_mib")]
    ProportionalMib,
}

impl Measure {
    /// For the head of a column.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::CpuMicros => "CPU µs each",
            Self::PerSecond => "per second",
            Self::P50Millis => "p50 ms",
            Self::P99Millis => "p99 ms",
            Self::P999Millis => "p99.9 ms",
            Self::LagMillis => "lag p99 ms",
            Self::WireBytes => "bytes",
            Self::OriginShare => "origin %",
            Self::UnchangedShare => "304 %",
            Self::ResumedShare => "resumed %",
            Self::ResidentKibEach => "RSS KiB each",
            Self::ProportionalKibEach => "PSS KiB each",
            Self::ResidentMib => "RSS MiB",
            Self::ProportionalMib => "PSS MiB",
        }
    }
}

/// What one run found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sample {
    values: BTreeMap<Measure, f64>,
    pub(crate) disturbance: Disturbance,
}

impl Sample {
    /// What a run of load says by itself.
    pub(crate) fn of(done: &Done, disturbance: Disturbance) -> Self {
        let mut sample = Self {
            values: BTreeMap::new(),
            disturbance,
        };
        sample.set(Measure::PerSecond, done.per_second());
        let latencies = [
            (Measure::P50Millis, done.millis(0.5)),
            (Measure::P99Millis, done.millis(0.99)),
            (Measure::P999Millis, done.millis(0.999)),
            (Measure::LagMillis, done.lag_millis(0.99)),
        ];
        for (measure, millis) in latencies {
            if let Some(millis) = millis {
                sample.set(measure, millis);
            }
        }
        if done.wire_bytes > 0 && done.answered > 0 {
            sample.set(Measure::WireBytes, done.wire_bytes as f64 / done.answered as f64);
        }
        if done.unchanged > 0 {
            let share = 100.0 * done.unchanged as f64 / done.answered as f64;
            sample.set(Measure::UnchangedShare, share);
        }
        if let Some(resumed) = done.resumed {
            let share = 100.0 * resumed as f64 / done.answered.max(1) as f64;
            sample.set(Measure::ResumedShare, share);
        }
        sample
    }

    /// Notes a value.
    pub(crate) fn set(&mut self, measure: Measure, value: f64) {
        self.values.insert(measure, value);
    }
}

/// The values of all rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of these values; all zero of none.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let middle = values.len() / 2;
        let median = if values.len().is_multiple_of(2) {
            (at(middle.saturating_sub(1)) + at(middle)) / 2.0
        } else {
            at(middle)
        };
        Self {
            median,
            min: at(0),
            max: at(values.len().saturating_sub(1)),
        }
    }
}

/// All that is known of one server in one case.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) scenario: Scenario,
    pub(crate) case: String,
    pub(crate) server: String,
    pub(crate) values: BTreeMap<Measure, Spread>,
    pub(crate) rounds: usize,
    /// Rounds in which others took more of the machine than is good.
    pub(crate) disturbed: usize,
    #[serde(skip)]
    samples: Vec<Sample>,
}

impl Figure {
    fn take(&mut self, sample: Sample) {
        self.rounds += 1;
        self.disturbed += usize::from(!sample.disturbance.is_small());
        self.samples.push(sample);
        let measures: Vec<Measure> = self
            .samples
            .iter()
            .flat_map(|sample| sample.values.keys().copied())
            .collect();
        for measure in measures {
            let values = self
                .samples
                .iter()
                .filter_map(|sample| sample.values.get(&measure));
            self.values.insert(measure, Spread::of(values.copied().collect()));
        }
    }
}

/// All figures, in the order in which their first samples came.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    all: Vec<Figure>,
    notes: Vec<String>,
    faults: Vec<String>,
}

impl Figures {
    /// Takes a sample.
    pub(crate) fn add(&mut self, scenario: Scenario, case: &str, server: &str, sample: Sample) {
        let is_it = |figure: &&mut Figure| {
            figure.scenario == scenario && figure.case == case && figure.server == server
        };
        if let Some(figure) = self.all.iter_mut().find(is_it) {
            return figure.take(sample);
        }
        let mut figure = Figure {
            scenario,
            case: case.to_owned(),
            server: server.to_owned(),
            values: BTreeMap::new(),
            rounds: 0,
            disturbed: 0,
            samples: Vec::new(),
        };
        figure.take(sample);
        self.all.push(figure);
    }

    /// Notes something that a reader should know.
    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Notes something that went wrong: the run has failed, and goes on.
    pub(crate) fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    #[cfg(test)]
    pub(super) fn all(&self) -> &[Figure] {
        &self.all
    }

    /// Figures, notes and faults.
    pub(super) fn into_parts(self) -> (Vec<Figure>, Vec<String>, Vec<String>) {
        (self.all, self.notes, self.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let check = |values: &[f64], median, min, max| {
            assert_eq!(
                Spread::of(values.to_vec()),
                Spread { median, min, max },
                "{values:?}"
            );
        };
        check(&[], 0.0, 0.0, 0.0);
        check(&[3.0], 3.0, 3.0, 3.0);
        check(&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0);
        check(&[4.0, 1.0, 3.0, 2.0], 2.5, 1.0, 4.0);
    }

    #[test]
    fn samples_of_one_case_become_one_figure() {
        let mut figures = Figures::default();
        for (value, others) in [(3.0, 0.0), (1.0, 0.5), (2.0, 0.0)] {
            let mut sample = Sample::default();
            sample.set(Measure::CpuMicros, value);
            sample.disturbance.others = others;
            figures.add(Scenario::Hit, "h1", "edge", sample);
        }
        figures.add(Scenario::Hit, "h1", "h2o", Sample::default());
        let [edge, _] = figures.all() else {
            panic!("{figures:?}");
        };
        assert_eq!((edge.rounds, edge.disturbed), (3, 1));
        assert_eq!(edge.values[&Measure::CpuMicros].median, 2.0);
    }
}
