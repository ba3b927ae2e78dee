//! C8: how often runs from random starts end at minima that are not global, by d, k and T.
//!
//! A trial makes `starts` runs of one method, each on a fresh problem from a Gaussian start at
//! `start_scale` times the root mean square of `U*`; every end is classified as `peftml check` does
//! (F <= 1e-8 F(0) is global, Hessians only above, after up to ten Newton steps). Methods: `lbfgs` (5000 iterations, gradient
//! 1e-9 rms^3); `gradient-descent` (step 1/L at the iterate, halved until F decreases) and `authors`
//! with `few_starts` runs, on the iid family at `start_scale` 1 alone; `global`, on the problems of `lbfgs`.
//! Spurious points are proved anew by certificate: column `certified`.

use super::{Question, TheoryConfig, sums};
use crate::claims::clopper_pearson;
use crate::figures::{Axis, Figure, Series, Style};
use crate::runs::{Summary, Tables};
use faer::{Mat, MatRef};
use peftml_data::synthetic::linear::exact_tasks;
use peftml_linalg::{Blocks, Seed, decompose, kernel};
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_solvers::first_order::lbfgs::Lbfgs;
use peftml_solvers::iterate::{self, Any, MaxIterations, ScaledGradient, Silent, Target};
use peftml_solvers::low_rank::Global;
use peftml_solvers::{BaseSolver, Problem, SolveError};
use peftml_theory::linear::{GroundTruth, Kind, ProfileObjective, Tasks};
use peftml_theory::optimality::{self, Known, Point, PointVerdict};
use peftml_theory::{Objective, certificate};

pub(super) struct Prevalence;

/// Columns: counts of ends.
const COLUMNS: [&str; 9] = [
    "runs",
    "global",
    "spurious",
    "saddle",
    "diverging",
    "unconverged",
    "refused",
    "certified",
    "first_spurious",
];

/// An end's column.
#[derive(Clone, Copy)]
enum End {
    Global = 1,
    Spurious = 2,
    Saddle = 3,
    Diverging = 4,
    Unconverged = 5,
    Refused = 6,
}

impl Question for Prevalence {
    fn name(&self) -> &'static str {
        "prevalence"
    }
    fn methods(&self) -> &'static [&'static str] {
        &["lbfgs", "gradient-descent", "authors", "global"]
    }
    fn settings(&self) -> &'static [(&'static str, f64, f64)] {
        &[
            ("starts", 1.0, 1e6),
            ("few_starts", 1.0, 1e6),
            ("start_scale", 1e-3, 1e3),
            ("iterations", 1.0, 1e7),
            ("descent_steps", 1.0, 1e7),
        ]
    }
    fn columns(&self) -> &'static [&'static str] {
        &COLUMNS
    }
    fn applies(&self, config: &TheoryConfig, method: &str) -> bool {
        matches!(method, "lbfgs" | "global")
            || (config.family == "iid" && config.setting("start_scale") == 1.0)
    }
    fn cost(&self, config: &TheoryConfig, method: &str) -> f64 {
        let evaluation = (config.tasks * config.dimension * config.dimension * config.rank) as f64;
        match method {
            "lbfgs" => evaluation * 300.0 * config.setting("starts"),
            "gradient-descent" => evaluation * 10_000.0 * config.setting("few_starts"),
            "authors" => evaluation * 30_000.0 * config.setting("few_starts"),
            _ => evaluation * 100.0 * config.setting("starts"),
        }
    }

    fn run(&self, config: &TheoryConfig, seed: &Seed, method: &str) -> Result<Vec<f64>, String> {
        let runs = match method {
            "lbfgs" | "global" => config.count("starts"),
            _ => config.count("few_starts"),
        };
        let mut counts = [0.0; COLUMNS.len()];
        counts[0] = runs as f64;
        counts[8] = f64::NAN;
        for index in 0..runs {
            let node = seed.child(index);
            let truth = config.spec().ground_truth(&node);
            let (end, certified) = one(config, &truth, &node, method).map_err(|e| e.to_string())?;
            counts[end as usize] += 1.0;
            counts[7] += f64::from(u8::from(certified));
            if matches!(end, End::Spurious) && counts[8].is_nan() {
                counts[8] = index as f64;
            }
        }
        Ok(counts.to_vec())
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        let methods = ["lbfgs", "gradient-descent", "authors"];
        methods.iter().filter_map(|method| figure(tables, method)).collect()
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        let table = &tables.trials;
        let column = table.column("method");
        let all = sums(
            tables,
            |row| Some(table.text(row, column).to_owned()),
            ["runs", "spurious", "saddle", "diverging", "unconverged", "refused", "certified"],
        );
        let mut figures = serde_json::Map::new();
        let mut parts = Vec::new();
        for (method, _, [runs, spurious, saddle, diverging, unconverged, refused, certified]) in all
        {
            let answered = (runs - refused) as usize;
            let (low, high) = clopper_pearson(spurious as usize, answered.max(1), 0.025);
            parts.push(format!(
                "{method} ended at a strict non-global minimum in {spurious} of {answered} runs ({:.2} to {:.2} %; {saddle} saddles, {diverging} diverging, {unconverged} unconverged, {refused} refused)",
                100.0 * low, 100.0 * high
            ));
            for (name, value) in [
                ("runs", runs),
                ("spurious", spurious),
                ("certified", certified),
                ("low", low),
                ("high", high),
            ] {
                figures.insert(format!("{method}.{name}"), value.into());
            }
        }
        Summary { answer: format!("Over all cells, {}.", parts.join("; ")), figures }
    }
}

/// Share of spurious ends against d, a series for each k, T, family and scale that has any.
fn figure(tables: &Tables<'_>, method: &str) -> Option<Figure> {
    let table = &tables.trials;
    let column = |name: &str| table.column(name);
    let (methods, scale) = (column("method"), column("settings.start_scale"));
    let key = |row: usize| {
        let cell = |name: &str| table.text(row, column(name)).to_owned();
        (table.text(row, methods) == method).then(|| {
            let scale = if scale.is_some() {
                format!(", scale {}", table.text(row, scale))
            } else {
                String::new()
            };
            format!(
                "{}|k={}, T={}, {}{scale}",
                cell("dimension"),
                cell("rank"),
                cell("tasks"),
                cell("family")
            )
        })
    };
    let cells = sums(tables, key, ["runs", "spurious"]);
    let mut series: Vec<Series> = Vec::new();
    for (key, _, [runs, spurious]) in &cells {
        let (d, label) = key.split_once('|')?;
        let (low, high) = clopper_pearson(*spurious as usize, *runs as usize, 0.025);
        let at = series.iter().position(|s| s.label == label).unwrap_or_else(|| {
            let style = Style::Line;
            let empty = Some(Vec::new());
            series.push(Series {
                label: label.to_owned(),
                style,
                low: empty.clone(),
                high: empty,
                ..Default::default()
            });
            series.len() - 1
        });
        let s = &mut series[at];
        s.x.push(d.parse().ok()?);
        s.y.push(100.0 * spurious / runs);
        s.low.get_or_insert_default().push(100.0 * low);
        s.high.get_or_insert_default().push(100.0 * high);
    }
    // Only what differs from zero; the table has the rest.
    series.retain(|s| s.y.iter().any(|y| *y > 0.0));
    (!cells.is_empty()).then(|| Figure {
        name: format!("prevalence-{method}"),
        title: format!("Runs that end at a strict non-global minimum: {method}"),
        x: Axis::linear("dimension d"),
        y: Axis::linear("runs, percent (95 % Clopper-Pearson)"),
        series,
        description: format!("Cells of {method} without a spurious end are left out."),
    })
}

/// One run, and whether its spurious end was proved by certificate.
fn one(
    config: &TheoryConfig,
    truth: &GroundTruth,
    node: &Seed,
    method: &str,
) -> Result<(End, bool), SolveError> {
    let tasks = exact_tasks(truth)?;
    let k = config.rank;
    let objective = ProfileObjective::new(&tasks, Kind::Symmetric, k)?;
    let lefts = (0..tasks.count()).map(|t| truth.left(t));
    let solution = Blocks::from_matrices("U", lefts);
    let rms = solution.norm() / (solution.as_slice().len() as f64).sqrt();
    let mut start = Blocks::zeros(objective.layout().clone());
    let scale = config.setting("start_scale");
    node.child("start")
        .child(scale.to_string().as_str())
        .stream()
        .fill_normal(scale * rms, start.as_mut_slice());
    let first = objective.value(&start, &mut vec![0.0; objective.work_len()]);
    let rule = Any(vec![
        Box::new(Target(1e-9 * first)),
        Box::new(ScaledGradient { tolerance: 1e-9, scale: rms.powi(3) }),
        Box::new(MaxIterations(config.count("iterations"))),
    ]);
    let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: k };
    let end = match method {
        "lbfgs" => iterate::run(&Lbfgs { memory: 10 }, &objective, start, &rule, &mut Silent)?.x,
        "gradient-descent" => descend(
            &objective,
            &tasks,
            start,
            config.count("descent_steps"),
            1e-9 * rms.powi(3),
            1e-9 * first,
        )?,
        "authors" => {
            let zero = Mat::zeros(tasks.dimension(), tasks.dimension());
            match AuthorsScheme::default().retrain(&problem, zero.as_ref(), &start, &mut |_| {}) {
                Ok(found) => found.adapters,
                Err(SolveError::NotFinite { .. }) => return Ok((End::Diverging, false)),
                Err(error) => return Err(error),
            }
        }
        _ => match Global::default().solve(&problem, None, &mut Silent) {
            Ok(found) if found.loss <= 1e-8 * first => return Ok((End::Global, false)),
            Ok(found) => Blocks::from_matrices("U", found.adapters.iter().map(|a| a.left())),
            Err(_) => return Ok((End::Refused, false)),
        },
    };
    classify(&tasks, &objective, truth, &end, first, node)
}

fn classify(
    tasks: &Tasks,
    objective: &ProfileObjective<'_>,
    truth: &GroundTruth,
    end: &Blocks,
    first: f64,
    node: &Seed,
) -> Result<(End, bool), SolveError> {
    let value = objective.value(end, &mut vec![0.0; objective.work_len()]);
    if value <= 1e-8 * first {
        return Ok((End::Global, false));
    }
    let known = Known { zero_is_attained: true, solver_value: None };
    // Newton steps to the stationary point near by: weak curvature is told from zero only there.
    let polished = optimality::polish(objective, end, 10).ok().flatten();
    let end = polished.as_ref().unwrap_or(end);
    let verdict = Point::from_blocks(tasks, objective.base(end), end, Kind::Symmetric)
        .and_then(|point| optimality::assess(tasks, &point, known, node))
        .map(|assessment| assessment.verdict);
    let proved = || {
        let offsets: Vec<Mat<f64>> = (0..tasks.count()).map(|t| truth.left(t).to_owned()).collect();
        end.as_slice().len() <= certificate::LARGEST_UNKNOWNS
            && certificate::certify("C8", &offsets, end)
                .is_ok_and(|c| certificate::verify(&c).is_ok())
    };
    Ok(match verdict {
        Ok(PointVerdict::GlobalMinimum) => (End::Global, false),
        Ok(PointVerdict::StrictLocalMinimum) => (End::Spurious, proved()),
        Ok(PointVerdict::StrictSaddle) => (End::Saddle, false),
        Ok(PointVerdict::Diverging) => (End::Diverging, false),
        _ => (End::Unconverged, false),
    })
}

/// Gradient descent with step 1/L, `L = (2/T)(2 max ||U_t||_2^2 + max ||sym G_t||_2)` at the iterate,
/// halved until F decreases.
fn descend(
    objective: &ProfileObjective<'_>,
    tasks: &Tasks,
    mut x: Blocks,
    steps: usize,
    tolerance: f64,
    target: f64,
) -> Result<Blocks, SolveError> {
    let mut work = vec![0.0; objective.work_len()];
    let (mut g, mut trial) = (x.zeros_like(), x.zeros_like());
    let mut value = objective.gradient(&x, &mut g, &mut work);
    for _ in 0..steps {
        if value <= target || g.norm() <= tolerance {
            break;
        }
        let mut step = 1.0 / lipschitz(objective, tasks, &x)?;
        let mut moved = false;
        for _ in 0..60 {
            trial.copy_from(&x);
            trial.add_scaled(-step, &g);
            if objective.value(&trial, &mut work) < value {
                moved = true;
                break;
            }
            step *= 0.5;
        }
        if !moved {
            break;
        }
        std::mem::swap(&mut x, &mut trial);
        value = objective.gradient(&x, &mut g, &mut work);
    }
    Ok(x)
}

fn lipschitz(
    objective: &ProfileObjective<'_>,
    tasks: &Tasks,
    x: &Blocks,
) -> Result<f64, SolveError> {
    let base = objective.base(x);
    let (mut adapters, mut moments) = (0.0_f64, 0.0_f64);
    for t in 0..tasks.count() {
        let u: MatRef<'_, f64> = x.block(t);
        let mut small = Mat::zeros(u.ncols(), u.ncols());
        kernel::mul(small.as_mut(), u.transpose(), u, 1.0);
        let values = decompose::symmetric_eigenvalues(small.as_ref())?;
        adapters = adapters.max(values[values.len() - 1]);
        let mut error = base.clone();
        kernel::mul_add(error.as_mut(), u, u.transpose(), 1.0);
        kernel::add_scaled(error.as_mut(), -1.0, tasks.task(t).least_squares());
        kernel::symmetrise(error.as_mut());
        let values = decompose::symmetric_eigenvalues(error.as_ref())?;
        moments = moments.max(values[0].abs()).max(values[values.len() - 1].abs());
    }
    Ok(2.0 / tasks.count() as f64 * (2.0 * adapters + moments))
}
