//! How far the work is: a bar on a terminal, a line for each finished part elsewhere. Both on standard error, so that
//! standard output holds nothing but the result.

use std::io::{IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// As bars.
    Bars,
    /// As lines.
    Lines,
    /// Not at all.
    None,
}

impl Progress {
    /// Bars on a terminal, lines elsewhere.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() {
            Self::Bars
        } else {
            Self::Lines
        }
    }

    /// Begins a part of `total` steps.
    pub fn part(self, what: &'static str, total: usize) -> Part {
        let bar = match self {
            Self::Bars => {
                let bar = ProgressBar::new(total as u64);
                let style = ProgressStyle::with_template("{msg:>10} [{bar:40}] {pos}/{len} {elapsed}");
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_message(what);
                Some(bar)
            }
            Self::Lines | Self::None => None,
        };
        Part {
            progress: self,
            what,
            bar,
        }
    }

    /// Says something.
    pub fn say(self, line: &str) {
        if self != Self::None {
            // Nobody may be listening, and the work goes on.
            let _ = writeln!(std::io::stderr(), "{line}");
        }
    }
}

/// A part of the work.
#[derive(Clone, Debug)]
pub struct Part {
    progress: Progress,
    what: &'static str,
    bar: Option<ProgressBar>,
}

impl Part {
    /// One step is done.
    pub fn step(&self) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }

    /// The part is done.
    pub fn done(self, result: &str) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.progress.say(&format!("{:>10}  {result}", self.what));
    }
}
