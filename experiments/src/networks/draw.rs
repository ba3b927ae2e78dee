//! Figures of a study of networks, from the merged tables alone.
//!
//! * `accuracy`: test accuracy against the numbers that fine-tuning trains, by retraining method
//! * `paired`: each retraining method against the baseline, one point a seed
//! * `retraining`, `fine_tuning_<method>`: validation accuracy against the step
//!
//! Of a sweep, the last three show the first point alone.

use super::NetworkStudy;
use super::answer::{Mean, cells, comparisons};
use super::config::Staged;
use crate::figures::{Axis, Figure, Series};
use crate::runs::Tables;
use crate::runs::csv::Table;
use std::collections::BTreeMap;

/// All figures.
pub(super) fn figures<C: Staged>(study: &NetworkStudy<C>, tables: &Tables<'_>) -> Vec<Figure> {
    let mut figures = vec![accuracy(study, &tables.trials), paired(study, &tables.trials)];
    figures.push(curves(study, &tables.curves, None));
    let mut tunings: Vec<&String> = study.methods.iter().flat_map(|(_, all)| all).collect();
    tunings.sort();
    tunings.dedup();
    figures.extend(tunings.into_iter().map(|name| curves(study, &tables.curves, Some(name))));
    figures.retain(|figure| !figure.series.is_empty());
    figures
}

/// A retraining method's colour: its place among the cells.
fn colour<C: Staged>(study: &NetworkStudy<C>, name: &str) -> usize {
    study.methods.iter().position(|(known, _)| known == name).unwrap_or_default()
}

fn seeds<C: Staged>(study: &NetworkStudy<C>) -> String {
    let [_, synthetic] = study.resolved.config.words().synthetic;
    match study.seeds.len() {
        1 => format!("1 seed{synthetic}"),
        n => format!("{n} seeds{synthetic}"),
    }
}

fn accuracy<C: Staged>(study: &NetworkStudy<C>, table: &Table<'_>) -> Figure {
    let cells = cells(table, &study.resolved.swept, "accuracy", &[]);
    let first = cells.first().map(|cell| cell.title.clone()).unwrap_or_default();
    let mut series = Vec::new();
    for (name, _) in &study.methods {
        let mut points: Vec<(f64, Mean)> = cells
            .iter()
            .filter(|cell| cell.retraining == *name && cell.title == first)
            .filter_map(|cell| Some((cell.parameters, Mean::of(&cell.numbers())?)))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (x, means): (Vec<f64>, Vec<Mean>) = points.into_iter().unzip();
        let end = |sign: f64| {
            means.iter().map(|m| m.mean + sign * m.error.unwrap_or(0.0)).collect::<Vec<_>>()
        };
        let (low, high) = (end(-1.0), end(1.0));
        let y = means.iter().map(|m| m.mean).collect();
        if !x.is_empty() {
            let points = Series::points(name.as_str(), colour(study, name), x, y);
            series.push(points.with_interval(low, high));
        }
    }
    let words = study.resolved.config.words();
    let mut guess = String::new();
    if let Some(chance) = study.resolved.config.chance() {
        let ends = series.iter().flat_map(|series| &series.x);
        let (low, high) = ends.fold((f64::INFINITY, 0.0_f64), |(l, h), x| (l.min(*x), h.max(*x)));
        if low <= high {
            // One fine-tuning method has one abscissa, and a line has a length.
            let (low, high) = if low < high { (low, high) } else { (low / 2.0, high * 2.0) };
            let place = study.methods.len();
            series.push(Series::dashed("chance", place, vec![low, high], vec![chance; 2]));
            guess = format!(" The dashed line is a guess, {chance}.");
        }
    }
    Figure {
        name: "accuracy".into(),
        title: format!("{}: mean of {}", words.title, seeds(study)),
        x: Axis::log("trained parameters in fine-tuning"),
        y: Axis::linear("test accuracy after the last step"),
        series,
        description: format!(
            "Test accuracy on {} after the last fine-tuning step against the number of \
             parameters that the fine-tuning method trains, mean of {} with one standard error each \
             way, by retraining method. Each abscissa is a fine-tuning method.{guess}",
            words.unseen,
            seeds(study)
        ),
    }
}

fn paired<C: Staged>(study: &NetworkStudy<C>, table: &Table<'_>) -> Figure {
    let baseline = study.resolved.config.leaves().baseline;
    let cells = cells(table, &study.resolved.swept, "accuracy", &[]);
    let first = cells.first().map(|cell| cell.title.clone()).unwrap_or_default();
    let mut by_method: Vec<(&str, Vec<f64>, Vec<f64>)> = Vec::new();
    for (cell, other) in comparisons(&cells, baseline).iter().filter(|(c, _)| c.title == first) {
        let found = by_method.iter().position(|(known, _, _)| *known == cell.retraining);
        let at = found.unwrap_or_else(|| {
            by_method.push((&cell.retraining, Vec::new(), Vec::new()));
            by_method.len() - 1
        });
        for (own, base) in cell.pairs(other) {
            by_method[at].1.push(base);
            by_method[at].2.push(own);
        }
    }
    let all = by_method.iter().flat_map(|(_, x, y)| x.iter().chain(y));
    let (low, high) = all.fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(*v), h.max(*v)));
    let mut series: Vec<Series> = by_method
        .into_iter()
        .map(|(name, x, y)| Series::points(name, colour(study, name), x, y))
        .collect();
    if low < high {
        let ends = vec![low, high];
        series.push(Series::dashed("equal", study.methods.len(), ends.clone(), ends));
    }
    Figure {
        name: "paired".into(),
        title: format!("Against {baseline}, seed by seed"),
        x: Axis::linear(format!("{baseline}: test accuracy")),
        y: Axis::linear("the other: test accuracy"),
        series,
        description: format!(
            "One point a seed and fine-tuning method, {} for both: above \
             the diagonal the method is better than {baseline}. {}.",
            study.resolved.config.words().same,
            seeds(study)
        ),
    }
}

/// Validation accuracy against the step, mean over seeds: of retraining, or of the fine-tuning method
/// `tuning`.
fn curves<C: Staged>(
    study: &NetworkStudy<C>,
    table: &Table<'_>,
    tuning: Option<&String>,
) -> Figure {
    let stage = if tuning.is_some() { "fine_tuning" } else { "retraining" };
    let column = |name: &str| table.column(name);
    let point = |row: usize| {
        let cell = |path: &String| table.text(row, table.column(path)).to_owned();
        study.resolved.swept.iter().map(cell).collect::<Vec<_>>()
    };
    let mut series = Vec::new();
    for (name, tunings) in &study.methods {
        // Every trial tells its base's course: one of them is enough.
        let Some(tuning) = tuning.or(tunings.first()) else { continue };
        let mut values: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
        for row in 0..table.len() {
            let wanted = [
                ("retraining", name.as_str()),
                ("fine_tuning", tuning.as_str()),
                ("stage", stage),
                ("quantity", "validation_accuracy"),
            ];
            let is_wanted = wanted.iter().all(|(c, text)| table.text(row, column(c)) == *text);
            if !is_wanted || point(row) != point(0) {
                continue;
            }
            let step = table.text(row, column("step")).parse::<u64>();
            if let (Ok(step), Some(value)) = (step, table.number(row, column("value"))) {
                values.entry(step).or_default().push(value);
            }
        }
        let means: Vec<(f64, Mean)> = values
            .into_iter()
            .filter_map(|(step, values)| Some((step as f64, Mean::of(&values)?)))
            .collect();
        if means.is_empty() {
            continue;
        }
        let (x, y) = means.iter().map(|(step, mean)| (*step, mean.mean)).unzip();
        let end = |sign: f64| {
            let end = |(_, m): &(f64, Mean)| m.mean + sign * m.error.unwrap_or(0.0);
            means.iter().map(end).collect::<Vec<_>>()
        };
        let line = Series::line(name.as_str(), colour(study, name), x, y);
        series.push(line.with_interval(end(-1.0), end(1.0)));
    }
    let (what, name) = match tuning {
        Some(tuning) => (format!("Fine-tuning by {tuning}"), format!("fine_tuning_{tuning}")),
        None => ("Retraining".to_owned(), "retraining".to_owned()),
    };
    Figure {
        title: format!("{what}: mean of {}", seeds(study)),
        x: Axis::linear("step"),
        y: Axis::linear("validation accuracy"),
        series,
        description: format!(
            "{what}: validation accuracy against the optimiser step, mean of {} with one standard error \
             each way, by retraining method.",
            seeds(study)
        ),
        name,
    }
}
