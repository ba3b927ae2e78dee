//! C2: what standard retraining leaves to adapt, in norm: tails against theory, by T.
//!
//! A trial draws `problems` problems and averages tail_0 and tail_k of SR's base over them, beside the
//! closed forms: E tail_0, the large-d formula and the limit of E tail_k. For LoRA-ML the tail is 0.

use super::{Found, Question, TheoryConfig, sums};
use crate::figures::{Axis, Figure, Series, Style};
use crate::runs::{Summary, Tables};
use faer::Mat;
use peftml_data::synthetic::linear::exact_tasks;
use peftml_linalg::{Seed, decompose, kernel};
use peftml_theory::linear::{predictions, standard};

pub(super) struct Tails;

const COLUMNS: [&str; 6] =
    ["problems", "tail_zero", "tail_rank", "predicted_tail_zero", "predicted_tail_rank", "limit"];

impl Question for Tails {
    fn name(&self) -> &'static str {
        "standard_norm"
    }
    fn methods(&self) -> &'static [&'static str] {
        &["standard"]
    }
    fn settings(&self) -> &'static [(&'static str, f64, f64)] {
        &[("problems", 1.0, 1e7)]
    }
    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }
    fn cost(&self, config: &TheoryConfig, _: &str) -> f64 {
        let d = config.dimension as f64;
        config.setting("problems")
            * (20.0 * d.powi(3) + d * d * (config.tasks * config.rank) as f64)
    }
    fn run(&self, config: &TheoryConfig, seed: &Seed, _: &str) -> Result<Found, String> {
        let (d, k, tasks) = (config.dimension, config.rank, config.tasks);
        let count = config.count("problems");
        let (mut zero, mut rank) = (0.0, 0.0);
        for index in 0..count {
            let truth = config.spec().ground_truth(&seed.child(index));
            let exact = exact_tasks(&truth).map_err(|e| e.to_string())?;
            let base = standard::standard_base(&exact).map_err(|e| e.to_string())?;
            let mut difference: Mat<f64> = truth.task(tasks);
            kernel::add_scaled(difference.as_mut(), -1.0, base.as_ref());
            let values =
                decompose::singular_values(difference.as_ref()).map_err(|e| e.to_string())?;
            let tails = standard::tails(&values);
            zero += tails[0] / count as f64;
            rank += tails[k] / count as f64;
        }
        Ok(vec![
            count as f64,
            zero,
            rank,
            predictions::standard_tail_zero(d, k, tasks),
            predictions::standard_tail_large_dimension(d, k, tasks),
            predictions::standard_tail_limit(d, k),
        ]
        .into())
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        let table = &tables.trials;
        let mut series: Vec<Series> = Vec::new();
        for (at, (label, style)) in [
            ("after rank-k fine-tuning, mean over problems", Style::Points),
            ("large-d formula", Style::Dashed),
            ("limit for many tasks (upper bound)", Style::Dashed),
        ]
        .into_iter()
        .enumerate()
        {
            let key = |row: usize| Some(table.text(row, table.column("tasks")).to_owned());
            let means = sums(tables, key, ["tail_rank", "predicted_tail_rank", "limit"]);
            series.push(Series {
                label: label.to_owned(),
                style,
                // The formula goes with what it predicts.
                colour: at / 2,
                x: means.iter().filter_map(|(tasks, ..)| tasks.parse().ok()).collect(),
                y: means.iter().map(|(_, rows, sums)| sums[at] / *rows as f64).collect(),
                ..Default::default()
            });
        }
        vec![Figure {
            name: "standard-norm".to_owned(),
            title: "What standard retraining leaves after rank-k fine-tuning".to_owned(),
            x: Axis::log("retraining tasks T"),
            y: Axis::linear("expected excess risk, E tail_k"),
            series,
            description: "LoRA-ML leaves 0 for T of 3 or more.".to_owned(),
        }]
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        let table = &tables.trials;
        let key = |row: usize| Some(table.text(row, table.column("tasks")).to_owned());
        let means = sums(tables, key, ["tail_zero", "tail_rank", "limit"]);
        let mut figures = serde_json::Map::new();
        let mut parts = Vec::new();
        for (tasks, rows, [zero, rank, limit]) in &means {
            let n = *rows as f64;
            parts.push(format!("{:.1} of {:.1} at T = {tasks}", rank / n, zero / n));
            figures.insert(format!("tail_rank.T={tasks}"), (rank / n).into());
            figures.insert("limit".to_owned(), (limit / n).into());
        }
        let limit = means.first().map_or(0.0, |(_, rows, sums)| sums[2] / *rows as f64);
        let answer = format!(
            "Of the standard base's excess risk, rank-k fine-tuning leaves {}: it does not vanish with more tasks (limit at most {limit:.1}), where LoRA-ML leaves 0.",
            parts.join(", ")
        );
        Summary { answer, figures }
    }
}
