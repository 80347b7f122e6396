//! What came of one scenario. A long run is made of pieces: each is kept in a file as soon as it is there, so that what
//! ends it takes no more than the piece under way, and a later run goes on where it ended.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::about::About;
use super::figures::{Figure, Figures};
use super::table;
use crate::error::{Error, Result};
use crate::scenario::Scenario;

/// The figures of one scenario, and how they were got.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) scenario: Scenario,
    pub(super) about: About,
    pub(super) figures: Vec<Figure>,
    notes: Vec<String>,
    pub(super) faults: Vec<String>,
}

impl Piece {
    /// What these figures say of a scenario.
    pub(crate) fn new(scenario: Scenario, about: About, figures: Figures) -> Self {
        let (figures, notes, faults) = figures.into_parts();
        Self {
            scenario,
            about,
            figures,
            notes,
            faults,
        }
    }

    /// The piece of this scenario in `folder`, if there is one.
    pub(crate) fn read(folder: &Path, scenario: Scenario) -> Result<Option<Self>> {
        let file = place(folder, scenario);
        let Ok(text) = fs::read(&file) else {
            return Ok(None);
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|error| Error::Said(format!("{} is no piece: {error}", file.display())))
    }

    /// Into `folder`, whole or not at all.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).map_err(|error| Error::file("create", folder, error))?;
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::Said(error.to_string()))?;
        let (file, half) = (place(folder, self.scenario), folder.join("half"));
        fs::write(&half, text).map_err(|error| Error::file("write", &half, error))?;
        fs::rename(&half, &file).map_err(|error| Error::file("write", &file, error))
    }

    /// When and how it was got, its tables, and what else is to be said.
    pub(super) fn markdown(&self) -> String {
        let mut text = format!("\n## {}\n\n{}\n", self.scenario.about(), self.about.how());
        text.push_str(&table::markdown(&self.figures));
        text.push_str(&self.remarks("\n- "));
        text
    }

    /// Notes and faults, each after `before`.
    pub(super) fn remarks(&self, before: &str) -> String {
        let lines = self.notes.iter().map(|note| format!("{before}{note}"));
        let faults = self.faults.iter().map(|fault| format!("{before}fault: {fault}"));
        let text: String = lines.chain(faults).collect();
        if text.is_empty() { text } else { text + "\n" }
    }
}

fn place(folder: &Path, scenario: Scenario) -> PathBuf {
    folder.join(format!("{}.json", scenario.token()))
}

#[cfg(test)]
mod tests {
    use super::super::{Measure, Report, Sample};
    use super::*;

    fn piece(scenario: Scenario) -> Piece {
        let mut figures = Figures::default();
        for value in [3.5, 4.5, 7.0] {
            let mut sample = Sample::default();
            sample.set(Measure::CpuMicros, value);
            sample.set(Measure::ResumedShare, 66.0);
            figures.add(scenario, "h1", "edge", sample);
        }
        figures.note("h2o resumes two of three".to_owned());
        figures.fault("hitch is gone".to_owned());
        Piece::new(scenario, About::new(&[], &[]), figures)
    }

    #[test]
    fn a_piece_that_was_kept_says_the_same_as_before() {
        let folder = std::env::temp_dir().join(format!("bench-pieces-{}", std::process::id()));
        assert!(Piece::read(&folder, Scenario::Hit).unwrap().is_none());
        piece(Scenario::Hit).write(&folder).unwrap();
        piece(Scenario::Real).write(&folder).unwrap();
        let read = |scenario| Piece::read(&folder, scenario).unwrap();
        assert!(read(Scenario::Large).is_none());
        let kept = Report::new(
            [Scenario::Hit, Scenario::Real]
                .into_iter()
                .filter_map(read)
                .collect(),
        );
        fs::write(place(&folder, Scenario::Idle), "{}").unwrap();
        assert!(Piece::read(&folder, Scenario::Idle).is_err());
        fs::remove_dir_all(&folder).unwrap();
        let made = Report::new(vec![piece(Scenario::Hit), piece(Scenario::Real)]);
        assert_eq!(kept.text(), made.text());
        assert!(kept.has_faults());
        let text = kept.markdown();
        for expected in [
            "## small hits",
            "## the workload",
            "4.50 (3.50-7.00)",
            "\n- fault: hitch is gone\n",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
    }
}
