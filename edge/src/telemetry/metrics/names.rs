//! What the Prometheus conventions ask of names: a prefix, base units, `_total` on counters, a help text.

use super::{Metric, Source};

/// Units that are not base units.
const UNITS_OF_OTHERS: &[&str] = &[
    "bits",
    "kb",
    "kib",
    "kilobytes",
    "mb",
    "megabytes",
    "micros",
    "microseconds",
    "millis",
    "milliseconds",
    "minutes",
    "ms",
    "nanos",
    "nanoseconds",
    "ns",
    "percent",
    "us",
];

/// Everything that is wrong with `metrics`.
pub(super) fn problems(metrics: &[Metric]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, metric) in metrics.iter().enumerate() {
        let name = metric.name;
        let mut problem = |what: &str| found.push(format!("{name}: {what}"));
        if metrics.iter().take(at).any(|earlier| earlier.name == name) {
            problem("registered twice");
        }
        for what in name_problems(name, metric.source.kind()) {
            problem(what);
        }
        if !metric.help.ends_with('.') {
            problem("the help text is not a sentence");
        }
        for what in source_problems(&metric.source) {
            problem(what);
        }
    }
    found
}

fn name_problems(name: &str, kind: &str) -> Vec<&'static str> {
    let words: Vec<_> = name.split('_').collect();
    let spelled = |word: &&str| {
        let mut bytes = word.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_lowercase())
            && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    let total = words.last() == Some(&"total");
    let checks = [
        (
            !words.iter().all(spelled),
            "not lowercase words joined by underscores",
        ),
        (
            !name.starts_with("edge_") && !name.starts_with("process_"),
            "does not begin with edge_ or process_",
        ),
        (
            words.iter().any(|word| UNITS_OF_OTHERS.contains(word)),
            "not in a base unit",
        ),
        (
            total != (kind == "counter"),
            "_total is for counters, and for all of them",
        ),
        (
            kind == "histogram" && words.last() != Some(&"seconds"),
            "a histogram of durations ends with _seconds",
        ),
    ];
    checks
        .into_iter()
        .filter_map(|(bad, what)| bad.then_some(what))
        .collect()
}

fn source_problems(source: &Source) -> Vec<&'static str> {
    let mut found = Vec::new();
    match source {
        Source::Asked { .. } => {}
        Source::Cells { labels, .. } => {
            let repeated =
                |(at, text): (usize, &String)| labels.iter().take(at).any(|earlier| earlier == text);
            if labels.is_empty() || labels.iter().enumerate().any(repeated) {
                found.push("a label without values, or with one twice");
            }
            // `{a="x",b="y"}`: the same name twice is refused by scrapers.
            let names = |text: &String| -> Vec<String> {
                let inside = text.trim_matches(['{', '}']).split(',');
                inside
                    .filter_map(|pair| pair.split_once('='))
                    .map(|(name, _)| name.to_owned())
                    .collect()
            };
            if labels
                .first()
                .map(names)
                .is_some_and(|names| !label_names_are_good(&names))
            {
                found.push("a label's name is taken, repeated or misspelled");
            }
        }
        Source::Each { labels, .. } => {
            if !label_names_are_good(labels) {
                found.push("a label's name is taken, repeated or misspelled");
            }
        }
        Source::Histogram(cells) => {
            let ascending = cells.bounds.is_sorted_by(|a, b| a < b);
            if cells.bounds.is_empty() || !ascending || !cells.bounds.iter().all(|bound| bound.is_finite()) {
                found.push("the buckets are not finite and ascending");
            }
        }
    }
    found
}

fn label_names_are_good<S: AsRef<str>>(names: &[S]) -> bool {
    names.iter().enumerate().all(|(at, name)| {
        let name = name.as_ref();
        let spelled = name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && !name.is_empty();
        let fresh = !names.iter().take(at).any(|earlier| earlier.as_ref() == name);
        spelled && fresh && !name.starts_with('_') && !matches!(name, "le" | "quantile")
    })
}

#[cfg(test)]
mod tests {
    use super::super::{LATENCY_BUCKETS, Registry};

    #[test]
    fn good_names_pass() {
        let registry = Registry::default();
        registry.counter("edge_requests_total", "Requests.");
        registry.gauge("edge_cache_bytes", "Bytes kept.");
        registry.histogram("edge_response_seconds", "Durations.", LATENCY_BUCKETS);
        registry.gauge_each("edge_origin_up", "Buckets.", &["bucket"], Vec::new);
        assert_eq!(registry.problems(), Vec::<String>::new());
    }

    #[test]
    fn each_slip_is_found() {
        fn check(register: impl Fn(&Registry), expected: &str) {
            let registry = Registry::default();
            register(&registry);
            let problems = registry.problems();
            assert!(
                problems.iter().any(|problem| problem.contains(expected)),
                "{expected}: {problems:?}"
            );
        }
        check(|r| drop(r.counter("edge_requests", "A.")), "_total");
        check(|r| drop(r.gauge("edge_open_total", "A.")), "_total");
        check(|r| drop(r.counter("requests_total", "A.")), "begin with");
        check(|r| drop(r.counter("edge_Requests_total", "A.")), "lowercase");
        check(|r| drop(r.gauge("edge_wait_ms", "A.")), "base unit");
        check(|r| drop(r.counter("edge_a_total", "")), "help text");
        check(|r| drop(r.histogram("edge_a", "A.", LATENCY_BUCKETS)), "_seconds");
        check(
            |r| drop(r.histogram("edge_a_seconds", "A.", &[1.0, 0.5])),
            "ascending",
        );
        check(
            |r| r.gauge_each("edge_a", "A.", &["le"], Vec::new),
            "label's name",
        );
        check(
            |r| {
                r.counter("edge_a_total", "A.");
                r.counter("edge_a_total", "A.");
            },
            "registered twice",
        );
    }
}
