//! Heat maps: places of cells, and the numbers in them.
//!
//! Colour goes with the square root of `y` over the figure's largest value, so that small shares are
//! told from none; the numbers say what the colours mean.

use super::layout::{Layout, TICK_EM};
use super::ticks::{Ruler, Tick, plain};
use super::{Figure, Series};

/// Height of a row.
pub(super) const ROW: f64 = 17.0;
/// Em of the numbers.
pub(super) const NUMBER_EM: f64 = TICK_EM;

/// The columns: distinct values of `x`, ascending.
pub(super) fn columns(figure: &Figure) -> Vec<f64> {
    let mut columns: Vec<f64> = figure.series.iter().flat_map(|s| s.x.iter().copied()).collect();
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    columns
}

/// The axes: columns, and rows from the top.
pub(super) fn rulers(figure: &Figure) -> (Ruler, Ruler) {
    let columns = columns(figure).into_iter().map(plain).collect();
    let rows = figure.series.iter().rev().map(|s| s.label.clone()).collect();
    (places(columns), places(rows))
}

/// An axis of named places at 0, 1, ..
fn places(labels: Vec<String>) -> Ruler {
    let count = labels.len().max(1) as f64;
    let tick = |(i, label)| Tick { at: i as f64, label: Some(label) };
    Ruler::of_places(-0.5, count - 0.5, labels.into_iter().enumerate().map(tick).collect())
}

/// A cell: its corners, its share of the largest value, and its number.
pub(super) struct Cell {
    pub from: (f64, f64),
    pub to: (f64, f64),
    pub share: f64,
    pub number: String,
}

impl Cell {
    /// The middle.
    pub fn middle(&self) -> (f64, f64) {
        (0.5 * (self.from.0 + self.to.0), 0.5 * (self.from.1 + self.to.1))
    }
}

/// The cells of row `index`.
pub(super) fn cells(figure: &Figure, layout: &Layout, index: usize) -> Vec<Cell> {
    let columns = columns(figure);
    let largest = figure.series.iter().flat_map(|s| &s.y).fold(0.0_f64, |a, b| a.max(*b));
    let (left, top, right, bottom) = layout.plot;
    let (width, height) = (
        (right - left) / columns.len().max(1) as f64,
        (bottom - top) / figure.series.len().max(1) as f64,
    );
    let Series { x, y, .. } = &figure.series[index];
    let cell = |(x, y): (&f64, &f64)| {
        let column = columns.iter().position(|c| c == x).unwrap_or_default() as f64;
        let from = (left + column * width, top + index as f64 * height);
        let share = if largest > 0.0 { (y / largest).max(0.0).sqrt() } else { 0.0 };
        Cell { from, to: (from.0 + width, from.1 + height), share, number: number(*y) }
    };
    x.iter().zip(y).map(cell).collect()
}

/// At most three digits that say something.
fn number(y: f64) -> String {
    match y.abs() {
        0.0 => "0".to_owned(),
        size if !(5e-3..1e5).contains(&size) => format!("{y:.0e}"),
        size if size >= 10.0 => format!("{y:.0}"),
        size if size >= 1.0 => format!("{y:.1}"),
        _ => format!("{y:.2}"),
    }
}
