//! Figures as tables: one for each case, the edge first, the others beside it.

use super::figures::{Figure, Measure, Spread};

/// For a terminal.
pub(crate) fn text(figures: &[Figure]) -> String {
    let mut text = String::new();
    for table in tables(figures) {
        text.push_str(&format!("\n{}\n", table.title));
        let widths: Vec<usize> = (0..table.width())
            .map(|column| {
                table
                    .cells(column)
                    .map(|cell| cell.chars().count())
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        for row in &table.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let space = " ".repeat(width.saturating_sub(cell.chars().count()));
                // Names stand at the left, numbers at the right.
                line += &if column == 0 {
                    format!("  {cell}{space}")
                } else {
                    format!("  {space}{cell}")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

/// For a file.
pub(crate) fn markdown(figures: &[Figure]) -> String {
    let mut text = String::new();
    for table in tables(figures) {
        text.push_str(&format!("\n### {}\n\n", table.case));
        for (number, row) in table.rows.iter().enumerate() {
            text.push_str(&format!("| {} |\n", row.join(" | ")));
            if number == 0 {
                text.push_str(&format!("|{}\n", "---|".repeat(row.len())));
            }
        }
    }
    text
}

struct Table<'a> {
    title: String,
    case: &'a str,
    /// The first one is the head.
    rows: Vec<Vec<String>>,
}

impl Table<'_> {
    fn width(&self) -> usize {
        self.rows.first().map_or(0, Vec::len)
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &String> {
        self.rows.iter().filter_map(move |row| row.get(column))
    }
}

fn tables(figures: &[Figure]) -> Vec<Table<'_>> {
    let mut cases: Vec<&Figure> = Vec::new();
    for figure in figures {
        let is_same = |case: &&Figure| case.scenario == figure.scenario && case.case == figure.case;
        if !cases.iter().any(is_same) {
            cases.push(figure);
        }
    }
    let table = |first: &&'_ Figure| {
        let rows: Vec<&Figure> = figures
            .iter()
            .filter(|figure| figure.scenario == first.scenario && figure.case == first.case)
            .collect();
        (first.scenario, rows)
    };
    cases
        .iter()
        .map(|first| {
            let (scenario, rows) = table(first);
            let case = rows.first().map_or("", |figure| figure.case.as_str());
            Table {
                title: format!("{}: {case}", scenario.token()),
                case,
                rows: cells(&rows),
            }
        })
        .collect()
}

fn cells(figures: &[&Figure]) -> Vec<Vec<String>> {
    let mut measures: Vec<Measure> = figures
        .iter()
        .flat_map(|figure| figure.values.keys().copied())
        .collect();
    measures.sort();
    measures.dedup();
    let mut head = vec!["server".to_owned()];
    head.extend(measures.iter().map(|measure| measure.heading().to_owned()));
    let cpu = |figure: &Figure| figure.values.get(&Measure::CpuMicros).map(|spread| spread.median);
    let edge = figures
        .iter()
        .find(|figure| figure.server == "edge")
        .and_then(|figure| cpu(figure));
    if edge.is_some() {
        head.push("edge takes".to_owned());
    }
    let mut rows = vec![head];
    for figure in figures {
        let mut row = vec![match figure.disturbed {
            0 => figure.server.clone(),
            some => format!("{} (disturbed {some}/{})", figure.server, figure.rounds),
        }];
        row.extend(measures.iter().map(|measure| {
            let spread = figure.values.get(measure);
            spread.map_or_else(|| "-".to_owned(), |spread| shown(*spread, figure.rounds))
        }));
        if let Some(edge) = edge {
            let share = cpu(figure).filter(|other| *other > 0.0).map(|other| edge / other);
            row.push(share.map_or_else(|| "-".to_owned(), |share| format!("{share:.2}")));
        }
        rows.push(row);
    }
    rows
}

fn shown(spread: Spread, rounds: usize) -> String {
    if rounds < 2 {
        return number(spread.median);
    }
    format!(
        "{} ({}-{})",
        number(spread.median),
        number(spread.min),
        number(spread.max)
    )
}

/// Three digits that say something.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Figures, Sample};
    use super::*;
    use crate::scenario::Scenario;

    fn figures() -> Figures {
        let mut figures = Figures::default();
        for (server, values) in [("edge", [4.0, 5.0, 6.0]), ("h2o", [8.0, 10.0, 12.0])] {
            for value in values {
                let mut sample = Sample::default();
                sample.set(Measure::CpuMicros, value);
                if server == "edge" {
                    sample.set(Measure::PerSecond, 20_000.0);
                }
                figures.add(Scenario::Hit, "h1 1 KiB", server, sample);
            }
        }
        figures
    }

    #[test]
    fn the_edge_is_set_beside_the_others() {
        let text = text(figures().all());
        let expected = "\nhit: h1 1 KiB\n\
            \x20 server       CPU µs each           per second  edge takes\n\
            \x20 edge    5.00 (4.00-6.00)  20000 (20000-20000)        1.00\n\
            \x20 h2o     10.0 (8.00-12.0)                    -        0.50\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn markdown_has_a_heading_for_each_case() {
        let text = markdown(figures().all());
        assert!(text.starts_with("\n### h1 1 KiB\n\n| server |"), "{text}");
        assert!(text.contains("\n|---|---|---|---|\n| edge |"), "{text}");
    }
}
