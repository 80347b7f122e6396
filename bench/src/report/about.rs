//! When, where, with what and by which command figures were got.

use std::fs;

use serde::Serialize;

use crate::clock;
use crate::peer::Peer;

/// Without this, a figure is hearsay.
#[derive(Debug, Serialize)]
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

    /// As a list.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!(
            "- date: {}\n- machine: {}\n- command: `{}`\n",
            self.date, self.machine, self.command
        );
        for (name, version) in &self.versions {
            text.push_str(&format!("- {name}: {version}\n"));
        }
        text
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
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
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
