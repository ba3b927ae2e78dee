//! C8: how often runs from random starts end at minima that are not global, by d, k and T.
//!
//! A trial makes `starts` runs of one method, each on a fresh problem from a Gaussian start at
//! `start_scale` times the root mean square of `U*`; every end is classified as `peftml check` does
//! (F <= 1e-8 F(0) is global, Hessians only above, after up to ten Newton steps). Methods: `lbfgs`
//! (5000 iterations, gradient 1e-9 rms^3); `gradient-descent` (step 1/L at the iterate, halved until F
//! decreases) and `authors` with `few_starts` runs, on the iid family at `start_scale` 1 alone; `global`,
//! on the problems of `lbfgs`.
//!
//! Every spurious point is kept as an instance and proved anew by certificate where that reaches
//! (column `certified`). `unconverged` are ends that are not stationary or whose curvature has no sign
//! beyond rounding. They stay counted as such; beside it stands where they lead: a trust-region Newton
//! method goes on from there for up to 2000 steps (columns `followed_*`; what is in none of them is
//! unresolved still).

use super::{Found, Question, TheoryConfig, spurious, sums};
use crate::claims::clopper_pearson;
use crate::descent::descend;
use crate::figures::{Axis, Figure, Series, Style};
use crate::runs::{Summary, Tables};
use faer::Mat;
use peftml_data::synthetic::linear::exact_tasks;
use peftml_linalg::{Blocks, Seed};
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_solvers::first_order::lbfgs::Lbfgs;
use peftml_solvers::iterate::{self, Any, MaxIterations, ScaledGradient, Silent, Target};
use peftml_solvers::low_rank::Global;
use peftml_solvers::second_order::trust_region::TrustRegion;
use peftml_solvers::{BaseSolver, Problem, SolveError};
use peftml_theory::certificate::Certificate;
use peftml_theory::linear::{GroundTruth, Kind, ProfileObjective, Tasks};
use peftml_theory::optimality::{self, Known, Point, PointVerdict};
use peftml_theory::{Objective, certificate};
use std::path::Path;

pub(super) struct Prevalence;

/// Columns: counts of ends.
const COLUMNS: [&str; 12] = [
    "runs",
    "global",
    "spurious",
    "saddle",
    "diverging",
    "unconverged",
    "refused",
    "certified",
    "first_spurious",
    "followed_global",
    "followed_spurious",
    "followed_diverging",
];

/// Steps of the trust-region method that unconverged ends are followed by.
const FOLLOWED: usize = 2000;

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

    fn run(&self, config: &TheoryConfig, seed: &Seed, method: &str) -> Result<Found, String> {
        let runs = match method {
            "lbfgs" | "global" => config.count("starts"),
            _ => config.count("few_starts"),
        };
        let mut counts = [0.0; COLUMNS.len()];
        counts[0] = runs as f64;
        counts[8] = f64::NAN;
        let mut instances = Vec::new();
        for index in 0..runs {
            let node = seed.child(index);
            let truth = config.spec().ground_truth(&node);
            let scene = Scene::new(config, &truth, &node).map_err(|e| e.to_string())?;
            let (end, followed) = scene.run(method).map_err(|e| e.to_string())?;
            counts[end.end as usize] += 1.0;
            match followed.as_ref().map(|f| f.end) {
                Some(End::Global) => counts[9] += 1.0,
                Some(End::Spurious) => counts[10] += 1.0,
                Some(End::Diverging) => counts[11] += 1.0,
                _ => {}
            }
            if matches!(end.end, End::Spurious) && counts[8].is_nan() {
                counts[8] = index as f64;
            }
            let ends = [Some(&end), followed.as_ref()].into_iter().flatten();
            for point in ends.filter_map(|e| e.point.as_ref()) {
                let certificate = scene.prove(point);
                if matches!(end.end, End::Spurious) {
                    counts[7] += f64::from(u8::from(certificate.is_some()));
                }
                let text = spurious::text(config, &scene.offsets, point, certificate.as_ref());
                instances.push((index, text));
            }
        }
        Ok(Found { figures: counts.to_vec(), instances })
    }

    fn write_instance(&self, text: &str, folder: &Path) -> Result<(), String> {
        spurious::write(text, folder)
    }

    fn figures(&self, tables: &Tables<'_>) -> Vec<Figure> {
        let cells = cells(tables);
        let mut figures: Vec<Figure> = Vec::new();
        for cell in cells.iter().filter(|c| c.method != "global") {
            let mut name = format!("prevalence-{}-{}", cell.method, cell.family);
            let mut title = format!(
                "Strict non-global minima, % of runs: {}, {} tasks",
                cell.method, cell.family
            );
            if let Some(scale) = cell.scale.as_deref() {
                name += &format!("-scale-{scale}");
                title += &format!(", starts at {scale} rms(U*)");
            }
            if !figures.iter().any(|f| f.name == name) {
                figures.push(heat_map(name.clone(), title));
            }
            if let Some(figure) = figures.iter_mut().find(|f| f.name == name) {
                add(figure, cell);
            }
        }
        figures
    }

    fn summary(&self, tables: &Tables<'_>) -> Summary {
        let table = &tables.trials;
        let column = table.column("method");
        let all = sums(
            tables,
            |row| Some(table.text(row, column).to_owned()),
            [
                "runs",
                "spurious",
                "saddle",
                "diverging",
                "unconverged",
                "refused",
                "certified",
                "followed_global",
                "followed_spurious",
                "followed_diverging",
            ],
        );
        let mut figures = serde_json::Map::new();
        let mut parts = Vec::new();
        for (
            method,
            _,
            [
                runs,
                spurious,
                saddle,
                diverging,
                unconverged,
                refused,
                proved,
                to_global,
                to_spurious,
                to_infinity,
            ],
        ) in all
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
                ("certified", proved),
                ("low", low),
                ("high", high),
                ("saddle", saddle),
                ("diverging", diverging),
                ("unconverged", unconverged),
                ("refused", refused),
                ("followed_global", to_global),
                ("followed_spurious", to_spurious),
                ("followed_diverging", to_infinity),
            ] {
                figures.insert(format!("{method}.{name}"), value.into());
            }
        }
        figures.insert("cells".to_owned(), columns(&cells(tables)));
        Summary { answer: format!("Over all cells, {}.", parts.join("; ")), figures }
    }
}

/// Counts of a cell over its seeds.
struct Cell {
    method: String,
    family: String,
    /// Starting scale, where it is swept.
    scale: Option<String>,
    dimension: String,
    rank: String,
    tasks: String,
    runs: f64,
    spurious: f64,
    others: [f64; 4],
}

/// The cells, in order of the table.
fn cells(tables: &Tables<'_>) -> Vec<Cell> {
    let table = &tables.trials;
    const KEYS: [&str; 6] =
        ["method", "family", "settings.start_scale", "dimension", "rank", "tasks"];
    let columns = KEYS.map(|name| table.column(name));
    let key = |row: usize| Some(columns.map(|column| table.text(row, column)).join("|"));
    let counts = ["runs", "spurious", "saddle", "diverging", "unconverged", "refused"];
    let cell = |(key, _, [runs, spurious, others @ ..]): (String, usize, [f64; 6])| {
        let mut parts = key.split('|').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Cell {
            method: next(),
            family: next(),
            scale: Some(next()).filter(|scale| !scale.is_empty()),
            dimension: next(),
            rank: next(),
            tasks: next(),
            runs,
            spurious,
            others,
        }
    };
    sums(tables, key, counts).into_iter().map(cell).collect()
}

impl Cell {
    /// Share of spurious ends among the answered runs, with its interval.
    fn share(&self) -> (f64, (f64, f64)) {
        let answered = (self.runs - self.others[3]).max(0.0);
        let interval = clopper_pearson(self.spurious as usize, (answered as usize).max(1), 0.025);
        (if answered > 0.0 { self.spurious / answered } else { f64::NAN }, interval)
    }
}

/// The cells as columns: the summary's table.
fn columns(cells: &[Cell]) -> serde_json::Value {
    use serde_json::{Value, json};
    let column = |of: &dyn Fn(&Cell) -> Value| -> Value { cells.iter().map(of).collect() };
    let count = |x: f64| json!(x as u64);
    json!({
        "method": column(&|c| json!(c.method)),
        "family": column(&|c| json!(c.family)),
        "start_scale": column(&|c| json!(c.scale)),
        "d": column(&|c| json!(c.dimension)),
        "k": column(&|c| json!(c.rank)),
        "T": column(&|c| json!(c.tasks)),
        "runs": column(&|c| count(c.runs)),
        "spurious": column(&|c| count(c.spurious)),
        "low": column(&|c| json!(c.share().1.0)),
        "high": column(&|c| json!(c.share().1.1)),
        "saddle": column(&|c| count(c.others[0])),
        "diverging": column(&|c| count(c.others[1])),
        "unconverged": column(&|c| count(c.others[2])),
        "refused": column(&|c| count(c.others[3])),
    })
}

fn heat_map(name: String, title: String) -> Figure {
    Figure {
        name,
        title,
        x: Axis::linear("dimension d"),
        y: Axis::linear("runs, percent (95 % Clopper-Pearson)"),
        series: Vec::new(),
        description:
            "A row a rank k and number of tasks T. The number is the share of runs in percent, \
                      the colour its square root over the largest of the figure."
                .to_owned(),
    }
}

/// Adds a cell to the row of its rank and number of tasks.
fn add(figure: &mut Figure, cell: &Cell) {
    let label = format!("k = {}, T = {}", cell.rank, cell.tasks);
    let Ok(dimension) = cell.dimension.parse() else { return };
    let at = figure.series.iter().position(|s| s.label == label).unwrap_or_else(|| {
        let empty = Some(Vec::new());
        let row = Series {
            style: Style::Cells,
            label,
            low: empty.clone(),
            high: empty,
            ..Default::default()
        };
        figure.series.push(row);
        figure.series.len() - 1
    });
    let (share, (low, high)) = cell.share();
    let row = &mut figure.series[at];
    row.x.push(dimension);
    row.y.push(100.0 * share);
    row.low.get_or_insert_default().push(100.0 * low);
    row.high.get_or_insert_default().push(100.0 * high);
}

/// What a run ended at, and the point, of a spurious minimum.
struct Ended {
    end: End,
    point: Option<Blocks>,
}

impl From<End> for Ended {
    fn from(end: End) -> Self {
        Self { end, point: None }
    }
}

/// A problem with its start.
struct Scene<'a> {
    config: &'a TheoryConfig,
    node: &'a Seed,
    tasks: Tasks,
    offsets: Vec<Mat<f64>>,
    /// Root mean square of the entries of `U*`.
    rms: f64,
}

impl<'a> Scene<'a> {
    fn new(
        config: &'a TheoryConfig,
        truth: &GroundTruth,
        node: &'a Seed,
    ) -> Result<Self, SolveError> {
        let tasks = exact_tasks(truth)?;
        let offsets: Vec<Mat<f64>> = (0..tasks.count()).map(|t| truth.left(t).to_owned()).collect();
        let solution = Blocks::from_matrices("U", offsets.iter().map(Mat::as_ref));
        let rms = solution.norm() / (solution.as_slice().len() as f64).sqrt();
        Ok(Self { config, node, tasks, offsets, rms })
    }

    /// One run of `method`, and where its end leads if it is unconverged.
    fn run(&self, method: &str) -> Result<(Ended, Option<Ended>), SolveError> {
        let config = self.config;
        let objective = ProfileObjective::new(&self.tasks, Kind::Symmetric, config.rank)?;
        let mut start = Blocks::zeros(objective.layout().clone());
        let scale = config.setting("start_scale");
        self.node
            .child("start")
            .child(scale.to_string().as_str())
            .stream()
            .fill_normal(scale * self.rms, start.as_mut_slice());
        let first = objective.value(&start, &mut vec![0.0; objective.work_len()]);
        let problem = Problem { tasks: &self.tasks, kind: Kind::Symmetric, rank: config.rank };
        let end = match method {
            "lbfgs" => {
                let rule = self.rule(first, 1e-9, config.count("iterations"));
                iterate::run(&Lbfgs { memory: 10 }, &objective, start, &rule, &mut Silent)?.x
            }
            "gradient-descent" => descend(
                &objective,
                &self.tasks,
                start,
                config.count("descent_steps"),
                1e-9 * self.rms.powi(3),
                1e-9 * first,
            )?,
            "authors" => {
                let d = self.tasks.dimension();
                let zero = Mat::zeros(d, d);
                let scheme = AuthorsScheme::default();
                match scheme.retrain(&problem, zero.as_ref(), &start, &mut |_| {}) {
                    Ok(found) => found.adapters,
                    Err(SolveError::NotFinite { .. }) => return Ok((End::Diverging.into(), None)),
                    Err(error) => return Err(error),
                }
            }
            _ => match Global::default().solve(&problem, None, &mut Silent) {
                Ok(found) if found.loss <= 1e-8 * first => return Ok((End::Global.into(), None)),
                Ok(found) => Blocks::from_matrices("U", found.adapters.iter().map(|a| a.left())),
                Err(_) => return Ok((End::Refused.into(), None)),
            },
        };
        let ended = self.classify(&objective, &end, first);
        let followed = match ended.end {
            End::Unconverged if method != "global" => {
                let rule = self.rule(first, 1e-12, FOLLOWED);
                let newton = TrustRegion::default();
                iterate::run(&newton, &objective, end, &rule, &mut Silent)
                    .ok()
                    .map(|state| self.classify(&objective, &state.x, first))
            }
            _ => None,
        };
        Ok((ended, followed))
    }

    fn rule(&self, first: f64, tolerance: f64, iterations: usize) -> Any {
        Any(vec![
            Box::new(Target(1e-9 * first)),
            Box::new(ScaledGradient { tolerance, scale: self.rms.powi(3) }),
            Box::new(MaxIterations(iterations)),
        ])
    }

    fn classify(&self, objective: &ProfileObjective<'_>, end: &Blocks, first: f64) -> Ended {
        if objective.value(end, &mut vec![0.0; objective.work_len()]) <= 1e-8 * first {
            return End::Global.into();
        }
        let known = Known { zero_is_attained: true, solver_value: None };
        // Newton steps to the stationary point near by: weak curvature is told from zero only there.
        let polished = optimality::polish(objective, end, 10).ok().flatten();
        let end = polished.as_ref().unwrap_or(end);
        let verdict = Point::from_blocks(&self.tasks, objective.base(end), end, Kind::Symmetric)
            .and_then(|point| optimality::assess(&self.tasks, &point, known, self.node))
            .map(|assessment| assessment.verdict);
        match verdict {
            Ok(PointVerdict::GlobalMinimum) => End::Global.into(),
            Ok(PointVerdict::StrictLocalMinimum) => {
                Ended { end: End::Spurious, point: Some(end.clone()) }
            }
            Ok(PointVerdict::StrictSaddle) => End::Saddle.into(),
            Ok(PointVerdict::Diverging) => End::Diverging.into(),
            _ => End::Unconverged.into(),
        }
    }

    /// A certificate of a spurious point, where the method reaches.
    fn prove(&self, point: &Blocks) -> Option<Certificate> {
        if point.as_slice().len() > certificate::LARGEST_UNKNOWNS {
            return None;
        }
        let found = certificate::certify("C8", &self.offsets, point).ok()?;
        certificate::verify(&found).is_ok().then_some(found)
    }
}
