//! What was found: figures with their spread, as a table, as Markdown, as JSON, as a plot.

mod about;
mod figures;
mod plot;
mod table;

pub(crate) use about::About;
pub(crate) use figures::{Figures, Measure, Sample};

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use figures::Figure;

/// Everything that a run says.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a> {
    pub(crate) about: About,
    figures: &'a [Figure],
    notes: &'a [String],
    faults: &'a [String],
}

impl<'a> Report<'a> {
    /// What is to be said of these figures.
    pub(crate) fn new(about: About, figures: &'a Figures) -> Self {
        Self {
            about,
            figures: figures.all(),
            notes: figures.notes(),
            faults: figures.faults(),
        }
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        table::text(self.figures) + &self.remarks("\n")
    }

    /// For programs.
    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(self).map_err(|error| Error::Said(error.to_string()))
    }

    /// For a file that is kept.
    pub(crate) fn markdown(&self) -> String {
        format!(
            "# Results\n\n{}\n{}{}",
            self.about.markdown(),
            table::markdown(self.figures),
            self.remarks("\n- ")
        )
    }

    /// A picture of the processor time of each case.
    pub(crate) fn plot(&self, file: &Path) -> Result<()> {
        std::fs::write(file, plot::svg(self.figures)).map_err(|error| Error::file("write", file, error))
    }

    fn remarks(&self, before: &str) -> String {
        let lines = self.notes.iter().map(|note| format!("{before}{note}"));
        let faults = self.faults.iter().map(|fault| format!("{before}fault: {fault}"));
        let text: String = lines.chain(faults).collect();
        if text.is_empty() { text } else { text + "\n" }
    }
}
