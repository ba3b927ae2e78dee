//! C5: the stability bound against the error seen.
//!
//! A trial perturbs the true adapters of one problem by `magnitude`, at random or along the direction
//! of H's smallest eigenvalue, and compares `||A - A*||_F` with the explicit bound `(C(eps) + 1) eps`.

use super::{Found, Question, TheoryConfig, sums};
use crate::claims::stability::{Triple, best_response, largest_mismatch, slowest};
use crate::claims::{Sizes, sizes};
use crate::figures::{Axis, Figure, Series, Style};
use crate::runs::{Summary, Tables};
use peftml_data::synthetic::linear::exact_tasks;
use peftml_linalg::{Blocks, Seed, compare};
use peftml_theory::linear::{Kind, ProfileObjective};

pub(super) struct Stability;

const COLUMNS: [&str; 4] = ["eps", "base_error", "bound", "log_ratio"];

impl Question for Stability {
    fn name(&self) -> &'static str {
        "stability"
    }
    fn methods(&self) -> &'static [&'static str] {
        &["random", "slowest"]
    }
    fn settings(&self) -> &'static [(&'static str, f64, f64)] {
        &[("magnitude", 1e-12, 1.0)]
    }
    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }
    fn cost(&self, config: &TheoryConfig, _: &str) -> f64 {
        (config.tasks * config.dimension.pow(3)) as f64 * 100.0
    }

    fn run(&self, config: &TheoryConfig, seed: &Seed, method: &str) -> Result<Found, String> {
        let say = |e: &dyn std::fmt::Display| e.to_string();
        let truth = config.spec().ground_truth(seed);
        let tasks = exact_tasks(&truth).map_err(|e| say(&e))?;
        let s: Sizes = sizes(config.dimension, config.rank, config.tasks);
        let objective = ProfileObjective::new(&tasks, Kind::Symmetric, s.k).map_err(|e| say(&e))?;
        let magnitude = config.setting("magnitude");
        let x = if method == "slowest" {
            let (_, direction) = slowest(&truth, s, seed).map_err(|e| say(&e))?;
            best_response(&truth, s, &direction, magnitude).map_err(|e| say(&e))?
        } else {
            let mut x = Blocks::from_matrices("U", (0..s.tasks).map(|t| truth.left(t)));
            let mut noise = x.zeros_like();
            seed.child("noise").stream().fill_normal(magnitude, noise.as_mut_slice());
            x.add_scaled(1.0, &noise);
            x
        };
        let eps = largest_mismatch(&tasks, &x);
        let error = compare::distance(objective.base(&x).as_ref(), truth.base.as_ref());
        let triple = Triple::best(&truth, s.tasks, eps).map_err(|e| say(&e))?;
        let bound = triple.map_or(f64::INFINITY, |t| (t.constant(eps) + 1.0) * eps);
        Ok(vec![eps, error, bound, (bound / error).log10()].into())
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        let table = &tables.trials;
        let column = |name: &str| table.column(name);
        let magnitudes = table.column("settings.magnitude");
        let mut places: Vec<&str> = Vec::new();
        for place in (0..table.len()).map(|row| table.text(row, magnitudes)) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        // Geometric means a magnitude, with the least and the largest.
        let values = |method: &str, place: &str, name: &str| -> Vec<f64> {
            (0..table.len())
                .filter(|row| table.text(*row, column("method")) == method)
                .filter(|row| table.text(*row, magnitudes) == place)
                .filter_map(|row| table.number(row, column(name)).filter(|v| v.is_finite()))
                .collect()
        };
        let mean = |v: &[f64]| (v.iter().map(|x| x.ln()).sum::<f64>() / v.len() as f64).exp();
        let series = [
            ("random", "base_error", 0),
            ("random", "bound", 1),
            ("slowest", "base_error", 2),
            ("slowest", "bound", 3),
        ]
        .map(|(method, name, colour)| {
            let label = format!("{method} {}", if name == "bound" { "bound" } else { "error" });
            let mut s = Series { label, colour, style: Style::Points, ..Default::default() };
            for place in &places {
                let (eps, found) = (values(method, place, "eps"), values(method, place, name));
                if found.is_empty() {
                    continue;
                }
                s.x.push(mean(&eps));
                s.y.push(mean(&found));
                let (least, most) =
                    found.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), v| (a.min(*v), b.max(*v)));
                s.low.get_or_insert_default().push(least);
                s.high.get_or_insert_default().push(most);
            }
            s
        });
        vec![Figure {
            name: "stability".to_owned(),
            title: "Stability bound against the error seen".to_owned(),
            x: Axis::log("mismatch eps of the tasks' differences"),
            y: Axis::log("error of the base and its bound, Frobenius"),
            series: series.to_vec(),
            description: "Geometric means over trials of one magnitude of the perturbation, with the \
                          least and the largest; where the bound's conditions fail it is infinite and left out."
                .to_owned(),
        }]
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        let table = &tables.trials;
        let column = |name: &str| table.column(name);
        let key = |row: usize| {
            table
                .number(row, column("log_ratio"))
                .filter(|r| r.is_finite())
                .map(|_| table.text(row, column("method")).to_owned())
        };
        let mut figures = serde_json::Map::new();
        let mut parts = Vec::new();
        for (method, rows, [log_ratio]) in sums(tables, key, ["log_ratio"]) {
            let mean = 10.0_f64.powf(log_ratio / rows as f64);
            parts.push(format!(
                "{mean:.1} times the error for {method} perturbations ({rows} trials)"
            ));
            figures.insert(method, mean.into());
        }
        let least = (0..table.len())
            .filter_map(|row| table.number(row, column("log_ratio")))
            .fold(f64::INFINITY, f64::min);
        figures.insert("least".to_owned(), 10.0_f64.powf(least).into());
        let answer = format!(
            "Where its conditions hold, the bound is in geometric mean {}; never below {:.2} times.",
            parts.join(" and "),
            10.0_f64.powf(least)
        );
        Summary { answer, figures }
    }
}
