//! Figures of a shallow study, from the merged tables alone.
//!
//! * `reference_mse_<point>`: median against the fine-tuning step with the interval of order
//!   statistics, one figure a sweep point
//! * `final_reference_mse`, `final_test_mse`: after fine-tuning against the swept quantity
//! * `paired`: LoRA-ML against SR, one point a trial

use super::ShallowStudy;
use super::methods::RetrainingMethod;
use super::pairs::{cells, comparisons, method_of, several_tunings, tuning_of};
use crate::figures::{Axis, Figure, Series};
use crate::runs::Tables;
use crate::runs::csv::Table;
use crate::statistics::median_interval;
use std::collections::BTreeMap;

/// All figures.
pub(super) fn figures(study: &ShallowStudy, tables: &Tables<'_>) -> Vec<Figure> {
    let mut figures = curves(study, &tables.curves);
    for (measure, what) in [
        ("reference_mse", "mean squared error on the fine-tuning inputs"),
        ("test_mse", "mean squared error on fresh inputs"),
    ] {
        figures.push(finals(study, &tables.trials, measure, what));
    }
    figures.push(paired(study, &tables.trials));
    figures.retain(|figure| !figure.series.is_empty());
    figures
}

/// Values by abscissa, as medians with intervals.
fn medians(label: String, colour: usize, values: &BTreeMap<u64, Vec<f64>>) -> Series {
    let (mut x, mut y) = (Vec::new(), Vec::new());
    let (mut low, mut high) = (Vec::new(), Vec::new());
    for (bits, values) in values {
        let Some(found) = median_interval(values) else { continue };
        x.push(f64::from_bits(*bits));
        y.push(found.median);
        low.push(found.low);
        high.push(found.high);
    }
    Series::line(label, colour, x, y).with_interval(low, high)
}

/// A method's label with its fine-tuning, and its colour: fine-tunings of one method follow each
/// other.
fn label(method: &RetrainingMethod, tuning: &str) -> String {
    let name = method.label();
    if tuning.is_empty() { name } else { format!("{name}, {tuning}") }
}

/// Series of medians, collected row by row. Abscissae are not negative: the order of their bits is
/// that of the numbers.
#[derive(Default)]
struct Collected {
    series: Vec<(String, usize, BTreeMap<u64, Vec<f64>>)>,
}

impl Collected {
    fn add(&mut self, label: &str, colour: usize, x: f64, value: f64) {
        let at = self.series.iter().position(|(known, _, _)| known == label);
        let at = at.unwrap_or_else(|| {
            self.series.push((label.to_owned(), colour, BTreeMap::new()));
            self.series.len() - 1
        });
        self.series[at].2.entry((x + 0.0).to_bits()).or_default().push(value);
    }

    fn into_series(self) -> Vec<Series> {
        let several = self.series.len() > 2;
        let draw = |(index, (label, colour, values)): (usize, (String, usize, _))| {
            medians(label, if several { index } else { colour }, &values)
        };
        self.series.into_iter().enumerate().map(draw).collect()
    }
}

fn trials(study: &ShallowStudy) -> usize {
    study.frame.seeds.len()
}

/// The reference's curves: one figure a sweep point.
fn curves(study: &ShallowStudy, table: &Table<'_>) -> Vec<Figure> {
    let swept = study.frame.swept();
    let column = |name: &str| table.column(name);
    let several = several_tunings(table);
    let mut points: Vec<(String, String, Collected)> = Vec::new();
    for row in 0..table.len() {
        if table.text(row, column("quantity")) != "reference_mse" {
            continue;
        }
        let (x, y) = (table.number(row, column("iteration")), table.number(row, column("value")));
        let (Some(x), Some(y), Some(method)) = (x, y, method_of(table, row)) else { continue };
        let name = swept.point(table, row);
        let at = points.iter().position(|(known, _, _)| *known == name).unwrap_or_else(|| {
            points.push((name, swept.title(table, row), Collected::default()));
            points.len() - 1
        });
        let tuning = if several { tuning_of(table, row) } else { String::new() };
        // Step 0 has no place on a logarithmic axis: it is drawn at 1, before which nothing happens.
        points[at].2.add(&label(&method, &tuning), method.colour(), x.max(1.0), y);
    }
    let figure = |(name, title, collected): (String, String, Collected)| Figure {
        name: ["reference_mse", &name]
            .iter()
            .filter(|p| !p.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("_"),
        title: format!("Fine-tuning, {title}: median of {} trials", trials(study))
            .replace(", :", ":"),
        x: Axis::log("fine-tuning step"),
        y: Axis::log("mean squared error on the fine-tuning inputs"),
        series: collected.into_series(),
        description: format!(
            "Mean squared error against noiseless labels on the fine-tuning inputs over the \
             fine-tuning step, median over {} trials with the 95 % interval of order statistics, by \
             retraining method. {title}",
            trials(study)
        ),
    };
    points.into_iter().map(figure).collect()
}

/// Medians after fine-tuning against the swept quantity.
fn finals(study: &ShallowStudy, table: &Table<'_>, measure: &str, what: &str) -> Figure {
    let swept = study.frame.swept();
    let mut collected = Collected::default();
    for cell in cells(table, &swept, measure) {
        for value in cell.numbers() {
            collected.add(&label(&cell.method, &cell.tuning), cell.method.colour(), cell.x, value);
        }
    }
    Figure {
        name: format!("final_{measure}"),
        title: format!("After fine-tuning: median of {} trials", trials(study)),
        x: swept.axis(table),
        y: Axis::log(what),
        series: collected.into_series(),
        description: format!(
            "After fine-tuning: {what} against {}, median over {} trials with the 95 % interval of \
             order statistics, by retraining method.",
            crate::swept::words(swept.path()),
            trials(study)
        ),
    }
}

/// One point a trial: LoRA-ML against SR; below the diagonal LoRA-ML is better.
fn paired(study: &ShallowStudy, table: &Table<'_>) -> Figure {
    let cells = cells(table, &study.frame.swept(), "reference_mse");
    let mut series = Vec::new();
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for (index, (meta, standard)) in comparisons(&cells).into_iter().enumerate() {
        let (y, x): (Vec<f64>, Vec<f64>) = meta.pairs(standard).into_iter().unzip();
        for value in x.iter().chain(&y).filter(|v| v.is_finite() && **v > 0.0) {
            (least, most) = (least.min(*value), most.max(*value));
        }
        let optimiser = meta.method.optimiser.label.trim_start_matches(", ");
        let parts = [&*meta.title, &*meta.tuning, optimiser];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        series.push(Series::points(parts.join(", "), index, x, y));
    }
    if least < most {
        let ends = vec![least, most];
        series.push(Series::dashed("equal", series.len(), ends.clone(), ends));
    }
    Figure {
        name: "paired".into(),
        title: "LoRA-ML against SR, trial by trial".into(),
        x: Axis::log("SR: mean squared error on the fine-tuning inputs"),
        y: Axis::log("LoRA-ML: the same"),
        series,
        description: "One point a trial, the same truth, samples and starts for both methods: \
                      below the diagonal LoRA-ML is better."
            .into(),
    }
}
