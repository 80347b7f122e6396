//! Counts, as they are kept in a file, and what two of them say beside each other.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// More than so many in a hundred above what is committed is a regression.
const MORE_MAX: u64 = 5;

/// Instructions of one run of each case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// The compiler that they are of: another one makes other code.
    #[serde(default)]
    rustc: String,
    #[serde(default)]
    counts: BTreeMap<String, u64>,
}

/// What counts say beside those that are committed.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) text: String,
    pub(crate) good: bool,
}

impl Counts {
    /// From a file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| Error::file("read", file, error))?;
        toml::from_str(&text).map_err(|error| Error::Said(format!("{}: {error}", file.display())))
    }

    /// Into a file.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let counts = Self {
            rustc: compiler(),
            counts: self.counts.clone(),
        };
        let text = toml::to_string(&counts).map_err(|error| Error::Said(error.to_string()))?;
        let text = format!(
            "# Instructions of one run of each case, in a release build. Written by\n\
             # cargo run --release --bin bench -- instructions --update\n{text}"
        );
        std::fs::write(file, text).map_err(|error| Error::file("write", file, error))
    }

    /// Notes the count of a case.
    pub(crate) fn set(&mut self, case: &str, count: u64) {
        self.counts.insert(case.to_owned(), count);
    }
}

impl Verdict {
    /// `now` beside `committed`.
    pub(crate) fn of(now: &Counts, committed: &Counts) -> Self {
        let mut text = format!("{:16} {:>10} {:>10}\n", "case", "committed", "now");
        let mut good = true;
        for (case, count) in &now.counts {
            let (before, change) = match committed.counts.get(case) {
                Some(before) => {
                    let change = *count as f64 / (*before).max(1) as f64 - 1.0;
                    let too_many = 100 * count > (100 + MORE_MAX) * before;
                    good &= !too_many;
                    let mark = match too_many {
                        true => "  MORE",
                        false if 100 * count < (100 - MORE_MAX) * before => "  less: commit it",
                        false => "",
                    };
                    (before.to_string(), format!("{:+6.1} %{mark}", 100.0 * change))
                }
                None => {
                    // A case that is new has to be committed; a file without any is a beginning.
                    good &= committed.counts.is_empty();
                    ("-".to_owned(), "not committed yet".to_owned())
                }
            };
            text.push_str(&format!("{case:16} {before:>10} {count:>10} {change}\n"));
        }
        let compiler = compiler();
        if !committed.rustc.is_empty() && committed.rustc != compiler {
            text.push_str(&format!(
                "committed with {}, counted with {compiler}\n",
                committed.rustc
            ));
        }
        Self { text, good }
    }
}

fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output
        .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twentieth_more_is_too_much_and_less_is_good() {
        let counts = |count| Counts {
            rustc: String::new(),
            counts: BTreeMap::from([("key".to_owned(), count)]),
        };
        let check = |now, good| assert_eq!(Verdict::of(&counts(now), &counts(1000)).good, good, "{now}");
        check(1000, true);
        check(1050, true);
        check(1051, false);
        check(100, true);
        assert!(Verdict::of(&counts(1), &Counts::default()).good);
        let mut other = Counts::default();
        other.set("lookup", 1);
        assert!(!Verdict::of(&counts(1), &other).good);
    }

    #[test]
    fn what_is_written_is_read_back() {
        let file = std::env::temp_dir().join(format!("bench-counts-{}", std::process::id()));
        let mut counts = Counts::default();
        counts.set("key", 7);
        counts.write(&file).unwrap();
        let read = Counts::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(read.counts, counts.counts);
    }
}
