//! When, where, with what and by which command figures were got.

use std::fs;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::peer::Peer;

/// Without this, a figure is hearsay.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct About {
    date: String,
    machine: String,
    command: String,
    versions: Vec<(String, String)>,
}

impl About {
    /// Of this run.
    pub(crate) fn new(peers: &[Peer], more: &[(String, String)]) -> Self {
        let versions = peers
            .iter()
            .map(|peer| (peer.name().to_owned(), peer.version.clone()));
        let words: Vec<String> = std::env::args().skip(1).collect();
        Self {
            date: httpdate::fmt_http_date(clock::today()),
            machine: machine(),
            command: format!("bench {}", words.join(" ")),
            versions: versions.chain(more.iter().cloned()).collect(),
        }
    }

    /// When and by which command.
    pub(super) fn how(&self) -> String {
        format!("{}, `{}`", self.date, self.command)
    }

    /// As a list: machine and versions of all of these, each said once. What is not the same everywhere names the scenarios
    /// that it is of.
    pub(super) fn markdown(all: &[(&str, &Self)]) -> String {
        let mut lines: Vec<(&str, &str, Vec<&str>)> = Vec::new();
        for (scenario, about) in all {
            let versions = about
                .versions
                .iter()
                .map(|(name, version)| (name.as_str(), version.as_str()));
            for (name, value) in [("machine", about.machine.as_str())].into_iter().chain(versions) {
                match lines.iter_mut().find(|line| (line.0, line.1) == (name, value)) {
                    Some(line) => line.2.push(scenario),
                    None => lines.push((name, value, vec![scenario])),
                }
            }
        }
        let is_alone = |name: &str| lines.iter().filter(|line| line.0 == name).count() == 1;
        lines
            .iter()
            .map(|(name, value, scenarios)| match is_alone(name) {
                true => format!("- {name}: {value}\n"),
                false => format!("- {name}: {value} ({})\n", scenarios.join(", ")),
            })
            .collect()
    }
}

/// Processor, cores, memory and kernel.
fn machine() -> String {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    // Not what this process may use, which is pinned to one of them.
    let cores = read("/proc/cpuinfo")
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let memory: u64 = field(&read("/proc/meminfo"), "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or_default();
    format!(
        "{}, {cores} cores, {:.0} GiB, Linux {}",
        field(&read("/proc/cpuinfo"), "model name"),
        memory as f64 / 1024.0 / 1024.0,
        read("/proc/sys/kernel/osrelease").trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_pieces_says_where() {
        let about = |edge: &str| About {
            date: String::new(),
            machine: "one".to_owned(),
            command: String::new(),
            versions: vec![
                ("edge".to_owned(), edge.to_owned()),
                ("h2o".to_owned(), "2.2".to_owned()),
            ],
        };
        let (old, new) = (about("0.1"), about("0.2"));
        let text = About::markdown(&[("hit", &old), ("large", &new), ("real", &new)]);
        let expected = "- machine: one\n- edge: 0.1 (hit)\n- h2o: 2.2\n- edge: 0.2 (large, real)\n";
        assert_eq!(text, expected);
    }
}
