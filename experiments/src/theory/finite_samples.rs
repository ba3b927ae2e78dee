//! C9: the error of the base at finite N, by T, symmetric against asymmetric retraining.
//!
//! A trial solves one sampled problem with symmetric offsets by the global solver, with symmetric or
//! asymmetric adapters, and measures `||A - A*||_F^2` beside its prediction.

use super::{Found, Question, TheoryConfig, sums};
use crate::figures::{Axis, Figure, Series, Style};
use crate::runs::{Summary, Tables};
use peftml_linalg::{Seed, compare, decompose};
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::Global;
use peftml_solvers::{BaseSolver, Problem};
use peftml_theory::linear::{Identification, Kind, predictions};

pub(super) struct FiniteSamples;

const COLUMNS: [&str; 2] = ["base_error_squared", "predicted_base_error_squared"];

impl Question for FiniteSamples {
    fn name(&self) -> &'static str {
        "finite_samples"
    }
    fn methods(&self) -> &'static [&'static str] {
        &["symmetric", "asymmetric"]
    }
    fn settings(&self) -> &'static [(&'static str, f64, f64)] {
        &[("samples_per_task", 1.0, 1e7), ("noise_std", 0.0, 1e6)]
    }
    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }
    fn cost(&self, config: &TheoryConfig, _: &str) -> f64 {
        config.setting("samples_per_task") * (config.tasks * config.dimension) as f64 * 30.0
    }

    fn run(&self, config: &TheoryConfig, seed: &Seed, method: &str) -> Result<Found, String> {
        let mut spec = config.spec();
        spec.samples_per_task = config.count("samples_per_task");
        spec.noise_std = config.setting("noise_std");
        let truth = spec.ground_truth(seed);
        let tasks = spec.retraining_tasks(&truth, seed).map_err(|e| e.to_string())?;
        let kind = if method == "symmetric" { Kind::Symmetric } else { Kind::Asymmetric };
        let problem = Problem { tasks: &tasks, kind, rank: config.rank };
        let found =
            Global::default().solve(&problem, None, &mut Silent).map_err(|e| e.to_string())?;
        let bases: Vec<_> =
            (0..config.tasks).map(|t| decompose::orthonormal_basis(truth.left(t))).collect();
        let trace = Identification::new(kind, &bases, &bases)
            .and_then(|operator| operator.spectrum())
            .map_err(|e| e.to_string())?
            .inverse_trace;
        let (samples, noise) = (spec.samples_per_task, spec.noise_std);
        let predicted = match kind {
            Kind::Symmetric => predictions::base_error_squared_symmetric(
                config.dimension,
                config.tasks,
                samples,
                noise,
                trace,
            ),
            Kind::Asymmetric => predictions::base_error_squared_asymmetric(samples, noise, trace),
        };
        let error = compare::distance(found.base.as_ref(), truth.base.as_ref());
        Ok(vec![error * error, predicted].into())
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        let table = &tables.trials;
        let mut series = Vec::new();
        for (colour, method) in self.methods().iter().enumerate() {
            let key = |row: usize| {
                (table.text(row, table.column("method")) == *method)
                    .then(|| table.text(row, table.column("tasks")).to_owned())
            };
            let means = sums(tables, key, COLUMNS);
            for (at, (what, style)) in
                [("mean over problems", Style::Points), ("prediction", Style::Dashed)]
                    .into_iter()
                    .enumerate()
            {
                series.push(Series {
                    label: format!("{method} adapters, {what}"),
                    colour,
                    style,
                    x: means.iter().filter_map(|(tasks, ..)| tasks.parse().ok()).collect(),
                    y: means.iter().map(|(_, rows, sums)| sums[at] / *rows as f64).collect(),
                    ..Default::default()
                });
            }
        }
        vec![Figure {
            name: "finite-samples".to_owned(),
            title: "Error of the base at finite sample size".to_owned(),
            x: Axis::log("retraining tasks T"),
            y: Axis::log("mean squared error of the base, Frobenius"),
            series,
            description: "Symmetric offsets; samples per task are the same for every T.".to_owned(),
        }]
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        let table = &tables.trials;
        let key = |row: usize| {
            let (tasks, method) = (table.column("tasks"), table.column("method"));
            Some(format!("{} T={}", table.text(row, method), table.text(row, tasks)))
        };
        let mut figures = serde_json::Map::new();
        let mut parts = Vec::new();
        for (key, rows, [error, predicted]) in sums(tables, key, COLUMNS) {
            let n = rows as f64;
            parts.push(format!("{key}: {:.2e} (predicted {:.2e})", error / n, predicted / n));
            figures.insert(key, (error / n).into());
        }
        Summary {
            answer: format!("Mean squared error of the base, {}.", parts.join("; ")),
            figures,
        }
    }
}
