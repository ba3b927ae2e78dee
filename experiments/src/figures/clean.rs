//! What of a figure can be drawn.
//!
//! Drops points that are not finite, are beyond [`LARGEST`] or not positive on a logarithmic
//! axis, and says so in sentences that end up in the description.

use super::{Figure, Scale, Series, Style};

/// Beyond this size differences of two values overflow.
const LARGEST: f64 = 1e300;

/// The drawable part of `figure`; the notes on what was dropped are appended to its description.
pub(super) fn clean(figure: &Figure) -> Figure {
    let mut notes = Vec::new();
    let series = figure
        .series
        .iter()
        .map(|s| clean_series(s, figure.x.scale, figure.y.scale, &mut notes))
        .collect();
    let mut description = printable(figure.description.trim());
    for note in notes {
        // A figure that was read back and drawn again has the note already.
        if !description.contains(&note) {
            if !description.is_empty() {
                description.push(' ');
            }
            description.push_str(&note);
        }
    }
    let mut cleaned = Figure { series, description, name: short(&figure.name), ..figure.clone() };
    cleaned.title = short(&figure.title);
    cleaned.x.label = short(&figure.x.label);
    cleaned.y.label = short(&figure.y.label);
    cleaned
}

/// A label or title: printable, and cut where nobody would read on.
fn short(text: &str) -> String {
    const MOST: usize = 400;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => printable(&text[..end]) + "…",
        None => printable(text),
    }
}

/// XML 1.0 cannot hold control characters, not even escaped.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c })
        .collect()
}

fn drawable(value: f64, scale: Scale) -> bool {
    value.abs() <= LARGEST && (scale == Scale::Linear || value >= f64::MIN_POSITIVE)
}

fn clean_series(
    series: &Series,
    x_scale: Scale,
    y_scale: Scale,
    notes: &mut Vec<String>,
) -> Series {
    let label = short(&series.label);
    let name =
        if label.is_empty() { "a series without label".to_owned() } else { format!("\"{label}\"") };
    let length = series.x.len().min(series.y.len());
    if series.x.len() != series.y.len() {
        notes.push(format!(
            "{name} has {} abscissae and {} ordinates; the first {length} are drawn.",
            series.x.len(),
            series.y.len()
        ));
    }
    let mut kept =
        Series { label, style: series.style, colour: series.colour, ..Series::default() };
    let (mut low, mut high) = (Vec::new(), Vec::new());
    let (mut dropped_points, mut dropped_ends) = (0_usize, 0_usize);
    for i in 0..length {
        let (x, y) = (series.x[i], series.y[i]);
        if !drawable(x, x_scale) || !drawable(y, y_scale) {
            dropped_points += 1;
            continue;
        }
        kept.x.push(x);
        kept.y.push(y);
        let mut end = |values: &Option<Vec<f64>>| match values {
            None => y,
            Some(values) => match values.get(i) {
                Some(&value) if drawable(value, y_scale) => value,
                _ => {
                    dropped_ends += 1;
                    y
                }
            },
        };
        let (a, b) = (end(&series.low), end(&series.high));
        low.push(a.min(b));
        high.push(a.max(b));
    }
    if series.low.is_some() || series.high.is_some() || series.style == Style::Band {
        kept.low = Some(low);
        kept.high = Some(high);
    }
    if dropped_points > 0 {
        let plural = if dropped_points == 1 { "point" } else { "points" };
        notes.push(format!(
            "{name}: {dropped_points} {plural} left out ({}).",
            reason(x_scale, y_scale)
        ));
    }
    if dropped_ends > 0 {
        let plural = if dropped_ends == 1 { "end" } else { "ends" };
        notes.push(format!(
            "{name}: {dropped_ends} {plural} of intervals left out ({}).",
            reason(Scale::Linear, y_scale)
        ));
    }
    kept
}

fn reason(x_scale: Scale, y_scale: Scale) -> &'static str {
    if x_scale == Scale::Log || y_scale == Scale::Log {
        "not a number, infinite, or not positive on a logarithmic axis"
    } else {
        "not a number or infinite"
    }
}
