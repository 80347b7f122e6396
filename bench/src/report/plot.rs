//! A picture of the processor time that each server takes for an answer: a group of bars for each case, with a line from the
//! least to the most of all rounds. Each group has a scale of its own, since a large answer takes a thousand times as long
//! as a small one.

use std::fmt::Write as _;

use super::figures::{Figure, Measure};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 180.0;
const RIGHT: f64 = 150.0;
const BAR: f64 = 16.0;
const STEP: f64 = 20.0;
const HEAD: f64 = 34.0;

/// The picture.
pub(crate) fn svg(figures: &[Figure]) -> String {
    let groups = groups(figures);
    let height: f64 = groups
        .iter()
        .map(|group| HEAD + STEP * group.len() as f64)
        .sum::<f64>()
        + 60.0;
    let mut picture = String::new();
    let _ = writeln!(
        picture,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"16\" font-weight=\"bold\">Processor time for each answer, in microseconds: \
         median, least and most</text>"
    );
    let mut top = 48.0;
    for group in &groups {
        top = draw(&mut picture, group, top);
    }
    picture.push_str("</svg>\n");
    picture
}

/// One case. Gives where the next one begins.
fn draw(picture: &mut String, group: &[&Figure], top: f64) -> f64 {
    let most = group
        .iter()
        .filter_map(|figure| figure.values.get(&Measure::CpuMicros))
        .map(|spread| spread.max)
        .fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    if let Some(first) = group.first() {
        let title = format!("{}: {}", first.scenario.token(), first.case);
        let _ = writeln!(
            picture,
            "<text x=\"16\" y=\"{:.1}\" font-weight=\"bold\">{}</text>",
            top + 20.0,
            escaped(&title)
        );
    }
    let mut y = top + HEAD - 6.0;
    for figure in group {
        let Some(spread) = figure.values.get(&Measure::CpuMicros) else {
            continue;
        };
        let (middle, text_y) = (y + BAR / 2.0, y + BAR - 4.0);
        let end = LEFT + spread.median * scale;
        let (least, most) = (LEFT + spread.min * scale, LEFT + spread.max * scale);
        let color = if figure.server == "edge" {
            "#c2410c"
        } else {
            "#94a3b8"
        };
        let _ = writeln!(
            picture,
            "<text x=\"{:.1}\" y=\"{text_y:.1}\" text-anchor=\"end\">{}</text>\n\
             <rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{BAR}\" fill=\"{color}\"/>\n\
             <path d=\"M{least:.1} {middle:.1}H{most:.1}\" stroke=\"#0f172a\" stroke-width=\"1.5\"/>\n\
             <text x=\"{:.1}\" y=\"{text_y:.1}\">{:.2}</text>",
            LEFT - 8.0,
            escaped(&figure.server),
            end - LEFT,
            most.max(end) + 8.0,
            spread.median
        );
        y += STEP;
    }
    top + HEAD + STEP * group.len() as f64
}

/// The figures that have a processor time, case by case.
fn groups(figures: &[Figure]) -> Vec<Vec<&Figure>> {
    let mut groups: Vec<Vec<&Figure>> = Vec::new();
    for figure in figures
        .iter()
        .filter(|figure| figure.values.contains_key(&Measure::CpuMicros))
    {
        let same = |group: &&mut Vec<&Figure>| {
            group
                .first()
                .is_some_and(|first| first.scenario == figure.scenario && first.case == figure.case)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.push(figure),
            None => groups.push(vec![figure]),
        }
    }
    groups
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::figures::{Figures, Sample};
    use super::*;
    use crate::scenario::Scenario;

    #[test]
    fn each_server_has_a_bar_as_long_as_its_time() {
        let mut figures = Figures::default();
        for (server, value) in [("edge", 5.0), ("a<b", 10.0)] {
            let mut sample = Sample::default();
            sample.set(Measure::CpuMicros, value);
            figures.add(Scenario::Hit, "h1", server, sample);
        }
        figures.add(Scenario::Idle, "no time", "edge", Sample::default());
        let picture = svg(figures.all());
        let full = WIDTH - LEFT - RIGHT;
        assert!(picture.contains(&format!(
            "width=\"{:.1}\" height=\"16\" fill=\"#c2410c\"",
            full / 2.0
        )));
        assert!(picture.contains(&format!("width=\"{full:.1}\" height=\"16\" fill=\"#94a3b8\"")));
        assert!(picture.contains("a&lt;b") && !picture.contains("no time"));
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
    }
}
