//! What was found: figures with their spread, as a table, as Markdown, as JSON, as a plot.

mod about;
mod figures;
mod piece;
mod plot;
mod table;

pub(crate) use about::About;
pub(crate) use figures::{Figures, Measure, Sample};
pub(crate) use piece::Piece;

use std::path::Path;

use crate::error::{Error, Result};
use figures::Figure;

/// Everything that one run says, or several that were made one after the other.
#[derive(Debug)]
pub(crate) struct Report {
    pieces: Vec<Piece>,
}

impl Report {
    /// What is to be said of these pieces, in this order.
    pub(crate) fn new(pieces: Vec<Piece>) -> Self {
        Self { pieces }
    }

    /// For a terminal.
    pub(crate) fn text(&self) -> String {
        table::text(&self.figures())
            + &self
                .pieces
                .iter()
                .map(|piece| piece.remarks("\n"))
                .collect::<String>()
    }

    /// For programs.
    pub(crate) fn json(&self) -> Result<String> {
        serde_json::to_string_pretty(&self.pieces).map_err(|error| Error::Said(error.to_string()))
    }

    /// For a file that is kept.
    pub(crate) fn markdown(&self) -> String {
        let abouts: Vec<(&str, &About)> = self
            .pieces
            .iter()
            .map(|piece| (piece.scenario.token(), &piece.about))
            .collect();
        let sections: String = self.pieces.iter().map(Piece::markdown).collect();
        format!("# Results\n\n{}{sections}", About::markdown(&abouts))
    }

    /// A picture of the processor time of each case.
    pub(crate) fn plot(&self, file: &Path) -> Result<()> {
        std::fs::write(file, plot::svg(&self.figures())).map_err(|error| Error::file("write", file, error))
    }

    /// Whether something went wrong.
    pub(crate) fn has_faults(&self) -> bool {
        self.pieces.iter().any(|piece| !piece.faults.is_empty())
    }

    fn figures(&self) -> Vec<Figure> {
        self.pieces
            .iter()
            .flat_map(|piece| piece.figures.iter().cloned())
            .collect()
    }
}
