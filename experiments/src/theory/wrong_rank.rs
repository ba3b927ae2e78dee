//! C11: retraining adapters of the wrong rank, and tasks that are only nearly low-rank.
//!
//! Tasks are `A* + R*_t + tail E_t`, `||E_t||_F = 1` symmetric, the test task too. `lora-ml` retrains with
//! adapters of `adapter_rank` by L-BFGS (from the leading true factors and from a random start, the
//! lower end counts); `standard` is SR. The risk is that of the best adapter of `adapter_rank` on the
//! exact test task.

use super::{Found, Question, TheoryConfig, sums};
use crate::figures::{Axis, Figure, Series, Style};
use crate::runs::{Summary, Tables};
use faer::Mat;
use peftml_linalg::{Blocks, Seed, compare, decompose, kernel};
use peftml_solvers::first_order::lbfgs::Lbfgs;
use peftml_solvers::iterate::{self, MaxIterations, Silent};
use peftml_theory::Objective;
use peftml_theory::linear::{GroundTruth, Kind, ProfileObjective, Tasks, standard};

pub(super) struct WrongRank;

const COLUMNS: [&str; 2] = ["excess_risk", "base_error_squared"];

impl Question for WrongRank {
    fn name(&self) -> &'static str {
        "wrong_rank"
    }
    fn methods(&self) -> &'static [&'static str] {
        &["lora-ml", "standard"]
    }
    fn settings(&self) -> &'static [(&'static str, f64, f64)] {
        &[("adapter_rank", 1.0, 64.0), ("tail", 0.0, 1e3), ("iterations", 1.0, 1e6)]
    }
    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }
    fn cost(&self, config: &TheoryConfig, method: &str) -> f64 {
        let evaluation =
            (config.tasks * config.dimension.pow(2)) as f64 * config.setting("adapter_rank");
        if method == "standard" {
            evaluation
        } else {
            2.0 * evaluation * config.setting("iterations")
        }
    }

    fn run(&self, config: &TheoryConfig, seed: &Seed, method: &str) -> Result<Found, String> {
        let truth = config.spec().ground_truth(seed);
        let rank = config.count("adapter_rank").min(config.dimension);
        let all: Vec<Mat<f64>> = (0..=config.tasks)
            .map(|t| with_tail(&truth, t, config.setting("tail"), seed))
            .collect();
        let base = match method {
            "standard" => Tasks::exact(all[..config.tasks].iter().cloned())
                .and_then(|tasks| standard::standard_base(&tasks))
                .map_err(|e| e.to_string())?,
            _ => retrained(config, &truth, &all[..config.tasks], rank, seed)?,
        };
        let mut difference = all[config.tasks].clone();
        kernel::add_scaled(difference.as_mut(), -1.0, base.as_ref());
        let values = decompose::singular_values(difference.as_ref()).map_err(|e| e.to_string())?;
        let error = compare::distance(base.as_ref(), truth.base.as_ref());
        Ok(vec![standard::tails(&values)[rank], error * error].into())
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        let table = &tables.trials;
        let mut series: Vec<Series> = Vec::new();
        let column = |name: &str| table.column(name);
        let key = |row: usize| {
            let cell = |name: &str| table.text(row, column(name));
            let (rank, tail) = (cell("settings.adapter_rank"), cell("settings.tail"));
            Some(format!("{rank}|{}, tail {tail}", cell("method")))
        };
        for (key, rows, [risk, _]) in sums(tables, key, COLUMNS) {
            let Some((x, label)) = key.split_once('|') else { continue };
            let at = series.iter().position(|s| s.label == label).unwrap_or_else(|| {
                series.push(Series {
                    label: label.to_owned(),
                    style: Style::Line,
                    colour: series.len(),
                    ..Default::default()
                });
                series.len() - 1
            });
            series[at].x.push(x.parse().unwrap_or(f64::NAN));
            // Zero to rounding has no place on a logarithmic axis.
            series[at].y.push((risk / rows as f64).max(1e-12));
        }
        vec![Figure {
            name: "wrong-rank".to_owned(),
            title: "Adapters of the wrong rank".to_owned(),
            x: Axis::linear("rank of retraining and fine-tuning adapters"),
            y: Axis::log("mean excess risk on the test task"),
            series,
            description: "Values below 1e-12 are drawn at 1e-12.".to_owned(),
        }]
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        let table = &tables.trials;
        let column = |name: &str| table.column(name);
        let key = |row: usize| {
            let cell = |name: &str| table.text(row, column(name));
            Some(format!(
                "{} rank {} tail {}",
                cell("method"),
                cell("settings.adapter_rank"),
                cell("settings.tail")
            ))
        };
        let mut figures = serde_json::Map::new();
        for (key, rows, [risk, _]) in sums(tables, key, COLUMNS) {
            figures.insert(key, (risk / rows as f64).into());
        }
        // One part a tail: by adapter rank, LoRA-ML over standard retraining.
        let place = |row: usize| {
            Some(
                ["settings.tail", "settings.adapter_rank"]
                    .map(|name| table.text(row, column(name)))
                    .join("|"),
            )
        };
        let mut parts: Vec<(String, Vec<String>)> = Vec::new();
        for (place, ..) in sums(tables, place, COLUMNS) {
            let (tail, rank) = place.split_once('|').unwrap_or_default();
            let risk = |method: &str| {
                let found = figures.get(&format!("{method} rank {rank} tail {tail}"));
                found
                    .and_then(serde_json::Value::as_f64)
                    .map_or("-".to_owned(), |r| format!("{r:.2e}"))
            };
            let text = format!("{rank}: {} / {}", risk("lora-ml"), risk("standard"));
            match parts.iter_mut().find(|(known, _)| known == tail) {
                Some((_, texts)) => texts.push(text),
                None => parts.push((tail.to_owned(), vec![text])),
            }
        }
        let parts: Vec<String> = parts
            .iter()
            .map(|(tail, texts)| format!("tail {tail}: {}", texts.join(", ")))
            .collect();
        let answer = format!(
            "Mean excess risk on the test task by adapter rank, LoRA-ML / standard retraining, {}.",
            parts.join("; ")
        );
        Summary { answer, figures }
    }
}

/// `A*_t + tail E_t`.
fn with_tail(truth: &GroundTruth, t: usize, tail: f64, seed: &Seed) -> Mat<f64> {
    let d = truth.dimension();
    let mut e = seed.child("tail").child(t).stream().normal_matrix(d, d, 1.0);
    kernel::symmetrise(e.as_mut());
    let norm = kernel::norm(e.as_ref());
    let mut task = truth.task(t);
    kernel::add_scaled(task.as_mut(), tail / norm, e.as_ref());
    task
}

fn retrained(
    config: &TheoryConfig,
    truth: &GroundTruth,
    tasks: &[Mat<f64>],
    rank: usize,
    seed: &Seed,
) -> Result<Mat<f64>, String> {
    let tasks = Tasks::exact(tasks.iter().cloned()).map_err(|e| e.to_string())?;
    let objective =
        ProfileObjective::new(&tasks, Kind::Symmetric, rank).map_err(|e| e.to_string())?;
    let rule = MaxIterations(config.count("iterations"));
    let mut best: Option<(f64, Blocks)> = None;
    for start in 0..2_usize {
        let mut x = Blocks::zeros(objective.layout().clone());
        let std = if start == 0 { 0.01 } else { 1.0 };
        seed.child("start").child(start).stream().fill_normal(std, x.as_mut_slice());
        for t in (0..tasks.count()).filter(|_| start == 0) {
            let svd = decompose::thin_svd(truth.left(t)).map_err(|e| e.to_string())?;
            for c in 0..rank.min(config.rank) {
                for i in 0..config.dimension {
                    x.block_mut(t)[(i, c)] += svd.left[(i, c)] * svd.values[c];
                }
            }
        }
        let end = iterate::run(&Lbfgs { memory: 10 }, &objective, x, &rule, &mut Silent)
            .map_err(|e| e.to_string())?;
        if best.as_ref().is_none_or(|(value, _)| end.value < *value) {
            best = Some((end.value, end.x));
        }
    }
    best.map(|(_, x)| objective.base(&x)).ok_or_else(|| "no start".to_owned())
}
