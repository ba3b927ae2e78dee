//! The answer of a study of networks, from trials.csv alone: accuracies with standard errors, and every
//! retraining method beside the baseline under the same fine-tuning.
//!
//! Differences are paired by seed; `p_value` is that of the exact sign-flip test, `corrected` Holm's over
//! all comparisons. With n seeds no p is below `2 / 2^n`.

use super::NetworkStudy;
use super::config::Staged;
use crate::report::paired::{holm, sign_flip};
use crate::runs::csv::Table;
use crate::runs::{Summary, Tables};
use crate::swept::Swept;
use serde_json::{Map, Value, json};

/// Trials of one sweep point and pair of methods.
pub struct Cell {
    /// Swept values in words; empty where nothing is swept.
    pub title: String,
    /// Retraining method.
    pub retraining: String,
    /// Fine-tuning method.
    pub fine_tuning: String,
    /// Seed and value.
    pub values: Vec<(String, f64)>,
    /// Numbers that fine-tuning trains.
    pub parameters: f64,
    /// Of each of the values' rows, the cells of the suite's own columns.
    pub own: Vec<Vec<String>>,
}

/// A mean with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Mean.
    pub mean: f64,
    /// Standard error; `None` for one value.
    pub error: Option<f64>,
    /// Number of values.
    pub count: usize,
}

impl Mean {
    /// Of `values`; `None` for none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let error = (values.len() > 1).then(|| (squares / (n - 1.0) / n).sqrt());
        (!values.is_empty()).then_some(Self { mean, error, count: values.len() })
    }

    /// As it stands in summary.json.
    pub fn json(self) -> Value {
        json!({ "mean": self.mean, "standard_error": self.error, "seeds": self.count })
    }

    /// `0.812 ± 0.004`.
    pub fn text(self) -> String {
        match self.error {
            Some(error) => format!("{:.3} ± {error:.3}", self.mean),
            None => format!("{:.3}", self.mean),
        }
    }
}

impl Cell {
    /// Values alone.
    pub fn numbers(&self) -> Vec<f64> {
        self.values.iter().map(|(_, value)| *value).collect()
    }

    /// Values of `self` and `other` at seeds that both have.
    pub fn pairs(&self, other: &Cell) -> Vec<(f64, f64)> {
        let partner = |(seed, value): &(String, f64)| {
            let (_, partner) = other.values.iter().find(|(known, _)| known == seed)?;
            Some((*value, *partner))
        };
        self.values.iter().filter_map(partner).collect()
    }

    /// Retraining and fine-tuning, with the sweep's values where there are any.
    pub fn name(&self) -> String {
        let pair = format!("{} > {}", self.retraining, self.fine_tuning);
        if self.title.is_empty() { pair } else { format!("{}: {pair}", self.title) }
    }
}

/// All cells with values of `column`, in order of appearance.
pub fn cells(table: &Table<'_>, swept: &[String], column: &str, own: &[&str]) -> Vec<Cell> {
    let swept = Swept { paths: swept, default: "seed" };
    let mut cells: Vec<Cell> = Vec::new();
    for row in 0..table.len() {
        let Some(value) = table.number(row, table.column(column)) else { continue };
        let text = |name: &str| table.text(row, table.column(name)).to_owned();
        let (title, retraining, fine_tuning) =
            (swept.title(table, row), text("retraining"), text("fine_tuning"));
        let found = cells.iter().position(|cell| {
            (&cell.title, &cell.retraining, &cell.fine_tuning)
                == (&title, &retraining, &fine_tuning)
        });
        let at = found.unwrap_or_else(|| {
            let parameters = table.number(row, table.column("trainable_parameters"));
            let (values, own, parameters) =
                (Vec::new(), Vec::new(), parameters.unwrap_or(f64::NAN));
            cells.push(Cell { title, retraining, fine_tuning, values, parameters, own });
            cells.len() - 1
        });
        cells[at].values.push((text("seed"), value));
        cells[at].own.push(own.iter().map(|name| text(name)).collect());
    }
    cells
}

/// Each cell beside the baseline's of the same point and fine-tuning.
pub fn comparisons<'c>(cells: &'c [Cell], baseline: &str) -> Vec<(&'c Cell, &'c Cell)> {
    let other = |cell: &Cell| {
        cells.iter().find(|other| {
            other.retraining == baseline
                && other.title == cell.title
                && other.fine_tuning == cell.fine_tuning
        })
    };
    let compared = cells.iter().filter(|cell| cell.retraining != baseline);
    compared.filter_map(|cell| Some((cell, other(cell)?))).collect()
}

/// The summary.
pub(super) fn summary<C: Staged>(study: &NetworkStudy<C>, tables: &Tables<'_>) -> Summary {
    let (config, mut figures) = (&study.resolved.config, Map::new());
    let words = config.words();
    let mut sentences = Vec::new();
    for measure in ["accuracy", "best_accuracy"] {
        let cells = cells(&tables.trials, &study.resolved.swept, measure, C::OWN_COLUMNS);
        let means =
            cells.iter().filter_map(|cell| Some((cell.name(), Mean::of(&cell.numbers())?.json())));
        figures.insert(measure.to_owned(), Value::Object(means.collect()));
        let pairs = comparisons(&cells, config.leaves().baseline);
        let differences: Vec<Vec<f64>> = pairs
            .iter()
            .map(|(cell, other)| cell.pairs(other).iter().map(|(a, b)| a - b).collect())
            .collect();
        let p: Vec<Option<f64>> = differences.iter().map(|d| sign_flip(d)).collect();
        let corrected = holm(&p);
        let mut tests = Map::new();
        for (i, (cell, other)) in pairs.iter().enumerate() {
            let Some(difference) = Mean::of(&differences[i]) else { continue };
            tests.insert(
                cell.name(),
                json!({
                    "against": other.name(), "difference": difference.mean,
                    "standard_error": difference.error, "seeds": difference.count,
                    "p_value": p[i], "corrected": corrected[i],
                }),
            );
            if measure == "accuracy" {
                sentences.extend(sentence(cell, other, difference, corrected[i]));
            }
        }
        figures.insert(format!("{measure}_sign_flip_test"), tests.into());
    }
    let [kind, _] = words.synthetic;
    figures.insert("synthetic".into(), (!kind.is_empty()).into());
    let answer = match sentences.is_empty() {
        true => format!("{kind}No pair of trials is finished yet."),
        false => format!(
            "{kind}Test accuracy on {} after the last step: {}. p: exact sign-flip test \
             over seeds, Holm-corrected over {} comparisons.",
            words.unseen,
            sentences.join("; "),
            sentences.len()
        ),
    };
    let mut summary = Summary { answer, figures };
    let cells = cells(&tables.trials, &study.resolved.swept, "accuracy", C::OWN_COLUMNS);
    config.complete(&cells, &mut summary);
    summary
}

/// `lora-ml > lora 0.812 ± 0.004 against 0.801 ± 0.003 (+0.011, p = 0.31)`.
fn sentence(cell: &Cell, other: &Cell, difference: Mean, p: Option<f64>) -> Option<String> {
    let (own, baseline) = (Mean::of(&cell.numbers())?, Mean::of(&other.numbers())?);
    let p = p.map(|p| format!(", p = {p:.2}")).unwrap_or_default();
    Some(format!(
        "{} {} against {} ({:+.3}{p})",
        cell.name(),
        own.text(),
        baseline.text(),
        difference.mean
    ))
}
