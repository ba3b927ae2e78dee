//! C10: fine-tuning rates, with the floor that a base learned from samples adds.
//!
//! A trial fine-tunes one base on `test_samples` of the test task by reduced-rank regression and
//! measures the excess risk beside its prediction. Methods: `exact` (A*, rank k), `sampled` (the global
//! solver's base, rank k, prediction with floor), `two-task` (rank 3k), `standard` (SR, rank k, prediction
//! the floor tail_k), `standard-full` (SR, rank k(T+1)), `least-squares`.

use super::{Found, Question, TheoryConfig, sums};
use crate::figures::{Axis, Figure, Series, Style};
use crate::runs::{Summary, Tables};
use faer::Mat;
use peftml_data::synthetic::linear::exact_tasks;
use peftml_linalg::{Seed, decompose, kernel};
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::{Global, TwoTask, reduced_rank};
use peftml_solvers::{BaseSolver, Problem};
use peftml_theory::linear::{Identification, Kind, predictions, standard};

pub(super) struct Rates;

const COLUMNS: [&str; 2] = ["excess_risk", "predicted_excess_risk"];

impl Question for Rates {
    fn name(&self) -> &'static str {
        "rates"
    }
    fn methods(&self) -> &'static [&'static str] {
        &["exact", "sampled", "two-task", "standard", "standard-full", "least-squares"]
    }
    fn settings(&self) -> &'static [(&'static str, f64, f64)] {
        &[("samples_per_task", 1.0, 1e7), ("test_samples", 1.0, 1e7), ("noise_std", 0.0, 1e6)]
    }
    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }
    fn cost(&self, config: &TheoryConfig, method: &str) -> f64 {
        let samples = match method {
            "sampled" => config.setting("samples_per_task") * config.tasks as f64,
            _ => 0.0,
        };
        (samples + config.setting("test_samples")) * config.dimension as f64 * 30.0
    }

    fn run(&self, config: &TheoryConfig, seed: &Seed, method: &str) -> Result<Found, String> {
        let say = |e: &dyn std::fmt::Display| e.to_string();
        let (d, k, tasks) = (config.dimension, config.rank, config.tasks);
        let (n, noise) = (config.count("test_samples"), config.setting("noise_std"));
        let mut spec = config.spec();
        spec.samples_per_task = config.count("samples_per_task");
        (spec.test_samples, spec.noise_std) = (n, noise);
        let truth = spec.ground_truth(seed);
        let test = spec.test_task(&truth, seed).map_err(|e| say(&e))?;
        let exact = exact_tasks(&truth).map_err(|e| say(&e))?;
        let mut floor = 0.0;
        let (base, rank): (Mat<f64>, usize) = match method {
            "exact" => (truth.base.clone(), k),
            "sampled" => {
                let sampled = spec.retraining_tasks(&truth, seed).map_err(|e| say(&e))?;
                let problem = Problem { tasks: &sampled, kind: Kind::Symmetric, rank: k };
                let found =
                    Global::default().solve(&problem, None, &mut Silent).map_err(|e| say(&e))?;
                let bases: Vec<_> =
                    (0..tasks).map(|t| decompose::orthonormal_basis(truth.left(t))).collect();
                let trace = Identification::new(Kind::Symmetric, &bases, &[])
                    .and_then(|operator| operator.spectrum())
                    .map_err(|e| say(&e))?
                    .inverse_trace;
                let samples = spec.samples_per_task;
                let squared =
                    predictions::base_error_squared_symmetric(d, tasks, samples, noise, trace);
                floor = predictions::fine_tuning_floor(d, k, squared);
                (found.base, k)
            }
            "two-task" => {
                let two = exact.take(2).map_err(|e| say(&e))?;
                let problem = Problem { tasks: &two, kind: Kind::Symmetric, rank: k };
                let found =
                    TwoTask::default().solve(&problem, None, &mut Silent).map_err(|e| say(&e))?;
                (found.base, (3 * k).min(d))
            }
            _ => {
                let base = standard::standard_base(&exact).map_err(|e| say(&e))?;
                let rank = match method {
                    "standard" => k,
                    "standard-full" => (k * (tasks + 1)).min(d),
                    _ => d,
                };
                let mut difference = truth.task(tasks);
                kernel::add_scaled(difference.as_mut(), -1.0, base.as_ref());
                let values =
                    decompose::singular_values(difference.as_ref()).map_err(|e| say(&e))?;
                floor = standard::tails(&values)[rank];
                (base, rank)
            }
        };
        let mut weights = base.clone();
        reduced_rank::fine_tune(base.as_ref(), &test, rank)
            .map_err(|e| say(&e))?
            .add_to(weights.as_mut(), 1.0);
        let risk = truth.excess_risk(tasks, weights.as_ref());
        let formula = predictions::fine_tuning_risk(d, rank, n, noise).unwrap_or(f64::NAN);
        Ok(vec![risk, formula + floor].into())
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        let table = &tables.trials;
        let column = |name: &str| table.column(name);
        let mut series = Vec::new();
        for (colour, method) in self.methods().iter().enumerate() {
            let key = |row: usize| {
                (table.text(row, column("method")) == *method)
                    .then(|| table.text(row, column("settings.test_samples")).to_owned())
            };
            let means = sums(tables, key, COLUMNS);
            for (at, (suffix, style)) in
                [("", Style::Points), (", prediction", Style::Dashed)].into_iter().enumerate()
            {
                series.push(Series {
                    label: format!("{method}{suffix}"),
                    colour,
                    style,
                    x: means.iter().filter_map(|(n, ..)| n.parse().ok()).collect(),
                    y: means.iter().map(|(_, rows, sums)| sums[at] / *rows as f64).collect(),
                    ..Default::default()
                });
            }
        }
        vec![Figure {
            name: "rates".to_owned(),
            title: "Fine-tuning rates, with the floor of a learned base".to_owned(),
            x: Axis::log("test samples n"),
            y: Axis::log("mean excess risk on the test task"),
            series,
            description: "Reduced-rank regression; predictions are the closed forms plus floors."
                .to_owned(),
        }]
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        let table = &tables.trials;
        let column = |name: &str| table.column(name);
        let key = |row: usize| {
            let cell = |name: &str| table.text(row, column(name));
            Some(format!("{} n={}", cell("method"), cell("settings.test_samples")))
        };
        let mut figures = serde_json::Map::new();
        // A course a method: n, measured, predicted.
        let mut courses: Vec<(String, Vec<[f64; 3]>)> = Vec::new();
        for (key, rows, [risk, predicted]) in sums(tables, key, COLUMNS) {
            let n = rows as f64;
            figures.insert(key.clone(), (risk / n).into());
            let Some((method, samples)) = key.split_once(" n=") else { continue };
            let at = [samples.parse().unwrap_or(f64::NAN), risk / n, predicted / n];
            match courses.iter_mut().find(|(known, _)| known == method) {
                Some((_, course)) => course.push(at),
                None => courses.push((method.to_owned(), vec![at])),
            }
        }
        let mut parts = Vec::new();
        for (method, course) in &courses {
            let (Some(first), Some(last)) = (course.first(), course.last()) else { continue };
            let slope = (last[1] / first[1]).ln() / (last[0] / first[0]).ln();
            figures.insert(format!("{method} slope"), slope.into());
            parts.push(format!(
                "{method} {:.2e} to {:.2e} (predicted {:.2e} to {:.2e}; slope {slope:.2})",
                first[1], last[1], first[2], last[2]
            ));
        }
        let ends = courses.first().and_then(|(_, c)| Some((c.first()?[0], c.last()?[0])));
        let (first, last) = ends.unwrap_or((f64::NAN, f64::NAN));
        let answer = format!("Mean excess risk from n = {first} to {last}: {}.", parts.join("; "));
        Summary { answer, figures }
    }
}
