//! The two text formats that Prometheus reads: its own 0.0.4, and OpenMetrics 1.0.
//!
//! They differ in little: OpenMetrics names a counter's family without `_total` and ends with `# EOF`.

use std::fmt::{Display, Write as _};

use super::{Metric, Source};

/// How metrics are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format 0.0.4: what a person with curl, and every older scraper, reads.
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a scraper's `Accept` asks for. OpenMetrics must be named; whoever does not name it gets the older format.
    pub fn negotiate(accept: Option<&str>) -> Self {
        let named = accept.is_some_and(|accept| {
            accept.split(',').any(|range| {
                let mut parts = range.split(';').map(str::trim);
                let named = parts.next() == Some("application/openmetrics-text");
                named && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
            })
        });
        if named {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// For Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All of `metrics`, as text.
pub(super) fn encode(metrics: &[Metric], format: Format) -> String {
    let mut out = String::with_capacity(32 * 1024);
    for metric in metrics {
        head(&mut out, metric, format);
        samples(&mut out, metric);
    }
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
    out
}

/// The labels of a series, as they stand behind a name: empty, or in braces. `names` beyond `values` are left out.
pub(super) fn labels<V: AsRef<str>>(names: &[&str], values: &[V]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let pairs: Vec<_> = names
        .iter()
        .zip(values)
        .map(|(name, value)| format!("{name}=\"{}\"", escape(value.as_ref(), true)))
        .collect();
    format!("{{{}}}", pairs.join(","))
}

fn head(out: &mut String, metric: &Metric, format: Format) {
    let kind = metric.source.kind();
    let family = match format {
        Format::OpenMetrics if kind == "counter" => metric.name.trim_end_matches("_total"),
        Format::OpenMetrics | Format::Prometheus => metric.name,
    };
    // The older format leaves quotes in a help text alone (its escapes are `\\` and `\n` only).
    let help = escape(metric.help, format == Format::OpenMetrics);
    let _ = writeln!(out, "# HELP {family} {help}\n# TYPE {family} {kind}");
}

fn samples(out: &mut String, metric: &Metric) {
    let name = metric.name;
    match &metric.source {
        Source::Cells { cells, labels } => {
            for (at, labels) in labels.iter().enumerate() {
                sample(out, name, labels, cells.sum(at));
            }
        }
        Source::Asked { value, .. } => sample(out, name, "", number(value())),
        Source::Each {
            labels: names,
            series,
        } => {
            for (values, value) in series().into_iter().take(super::SERIES_MAX) {
                sample(out, name, &labels(names, &values), number(value));
            }
        }
        Source::Histogram(cells) => {
            let mut running = 0;
            for (at, bound) in cells.bounds.iter().enumerate() {
                running += cells.cells.sum(at);
                let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {running}", le(*bound));
            }
            running += cells.cells.sum(cells.bounds.len());
            let sum = cells.cells.sum(cells.bounds.len() + 1) as f64 / 1e9;
            let _ = writeln!(
                out,
                "{name}_bucket{{le=\"+Inf\"}} {running}\n{name}_sum {sum}\n{name}_count {running}"
            );
        }
    }
}

fn sample(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = writeln!(out, "{name}{labels} {value}");
}

/// A number as scrapers read it: infinities are spelled with their sign.
fn number(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

/// The bound of a bucket: always with a decimal point, as OpenMetrics wants it, so that it is the same in both formats.
fn le(bound: f64) -> String {
    let text = number(bound);
    if text.contains('.') { text } else { text + ".0" }
}

fn escape(text: &str, quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if quotes => escaped.push_str("\\\""),
            _ => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_given_to_whoever_names_it() {
        let check = |accept, expected| assert_eq!(Format::negotiate(accept), expected, "{accept:?}");
        check(None, Format::Prometheus);
        check(Some("*/*"), Format::Prometheus);
        check(Some("text/plain;version=0.0.4"), Format::Prometheus);
        check(
            Some("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"),
            Format::OpenMetrics,
        );
        check(
            Some("application/openmetrics-text; q=0, text/plain"),
            Format::Prometheus,
        );
        check(Some("x-application/openmetrics-text"), Format::Prometheus);
    }

    #[test]
    fn numbers_are_spelled_as_scrapers_spell_them() {
        let check = |value, expected: &str| assert_eq!(number(value), expected);
        check(1.0, "1");
        check(0.00005, "0.00005");
        check(2.5, "2.5");
        check(f64::INFINITY, "+Inf");
        check(f64::NEG_INFINITY, "-Inf");
        check(f64::NAN, "NaN");
        assert_eq!(le(1.0), "1.0");
        assert_eq!(le(0.00025), "0.00025");
    }

    #[test]
    fn a_label_value_cannot_leave_its_quotes() {
        assert_eq!(
            labels(&["bucket"], &["a\"} 1\nb{c=\"\\"]),
            "{bucket=\"a\\\"} 1\\nb{c=\\\"\\\\\"}"
        );
        assert_eq!(labels::<&str>(&[], &[]), "");
    }
}
