//! One problem with its start, and what a method does on it.

use super::config::ComparisonConfig;
use peftml_data::linear;
use peftml_data::synthetic::linear::sample;
use peftml_linalg::{Blocks, Seed};
use peftml_solvers::iterate::Silent;
use peftml_solvers::{Entry, Problem, Settings, Solution, State};
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, ProfileObjective, Tasks};
use std::path::Path;
use std::time::Instant;

/// Most points of a curve.
const POINTS: usize = 200;

/// Repetitions of ours go on for this many seconds, so that runs of microseconds are timed as well as long ones.
const ENOUGH: f64 = 0.2;
/// The least processor time that is told from the grain of the system's account of it (milliseconds).
const LEAST: f64 = 0.05;

/// Seconds that this thread has had a processor for; `None` where the system does not say.
fn processor_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(1e-9 * text.split_whitespace().next()?.parse::<f64>().ok()?)
}

/// A problem with its start and the limits that all methods share.
pub struct Scene {
    /// The tasks.
    pub tasks: Tasks,
    /// Symmetric or asymmetric adapters.
    pub kind: Kind,
    /// Width of the adapters.
    pub rank: usize,
    /// Where iterative methods start.
    pub start: Blocks,
    /// `F` there.
    pub start_value: f64,
    /// Size of a gradient that is not small.
    pub gradient_scale: f64,
    /// Tolerance of the scaled gradient test.
    pub tolerance: f64,
    /// Most iterations.
    pub max_iterations: usize,
    /// See [`ComparisonConfig::max_seconds`].
    pub max_seconds: f64,
    /// Runs of which the shortest counts.
    pub repetitions: usize,
}

/// What a method did.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Shortest time of the repetitions; ours: or their mean processor time where that is less.
    pub seconds: f64,
    /// Iterations; their meaning is the method's.
    pub iterations: usize,
    /// Gradients and values.
    pub gradients: usize,
    /// Hessian and Gauss-Newton products.
    pub hessian_products: usize,
    /// Factorisations.
    pub factorisations: usize,
    /// `F` at the end, by our objective.
    pub loss: f64,
    /// `||grad F||` at the end, by our objective.
    pub gradient_norm: f64,
    /// Why it ended, in its own words.
    pub stop_reason: String,
    /// Seconds and `F` on the way.
    pub curve: Vec<(f64, f64)>,
}

impl Scene {
    /// The problem of a configuration and a seed.
    ///
    /// # Errors
    /// One sentence: unreadable files, sizes that do not fit.
    pub fn new(config: &ComparisonConfig, seed: u64) -> Result<Self, String> {
        let (dimension, rank, count) = config.sizes().map_err(|error| error.to_string())?;
        let kind = config.kind();
        let (tasks, node) = match &config.file {
            Some(file) => {
                let tasks =
                    linear::read_tasks(Path::new(&file.tasks)).map_err(|e| e.to_string())?;
                (tasks, Seed::root(seed).child("bench"))
            }
            None => drawn(config, seed)?,
        };
        if (tasks.dimension(), tasks.count()) != (dimension, count) {
            return Err(format!(
                "the tasks' file holds {} tasks in dimension {}, not {}",
                tasks.count(),
                tasks.dimension(),
                config.size
            ));
        }
        let problem = Problem { tasks: &tasks, kind, rank };
        let gradient_scale = problem.gradient_scale();
        // Factors of this entry size have products as large as the offsets: ||R|| = d u^2 sqrt k.
        let natural = (problem.spread() / (dimension as f64 * (rank as f64).sqrt())).sqrt();
        let f = ProfileObjective::new(&tasks, kind, rank).map_err(|error| error.to_string())?;
        let mut start = Blocks::zeros(f.layout().clone());
        match config.file.as_ref().filter(|file| !file.start.is_empty()) {
            Some(file) => fill(&mut start, Path::new(&file.start), kind)?,
            None => {
                let std = config.start_scale * natural;
                let mut stream = node.child("start").stream();
                stream.fill_normal(if std > 0.0 { std } else { 1.0 }, start.as_mut_slice());
            }
        }
        let start_value = f.value(&start, &mut vec![0.0; f.work_len()]);
        drop(f);
        Ok(Self {
            tasks,
            kind,
            rank,
            start,
            start_value,
            gradient_scale,
            tolerance: config.tolerance,
            max_iterations: config.max_iterations,
            max_seconds: config.max_seconds,
            repetitions: config.repetitions,
        })
    }

    fn problem(&self) -> Problem<'_> {
        Problem { tasks: &self.tasks, kind: self.kind, rank: self.rank }
    }

    /// `F` and `||grad F||` at a point, whoever found it.
    ///
    /// # Errors
    /// Where the objective cannot be made.
    pub fn judge(&self, point: &Blocks) -> Result<(f64, f64), String> {
        let f = ProfileObjective::new(&self.tasks, self.kind, self.rank)
            .map_err(|error| error.to_string())?;
        let mut gradient = point.zeros_like();
        let value = f.gradient(point, &mut gradient, &mut vec![0.0; f.work_len()]);
        Ok((value, gradient.norm()))
    }

    /// One of our own methods: a run that is watched for its curve, then runs that are timed.
    ///
    /// # Errors
    /// The method's refusal.
    pub fn ours(&self, entry: &Entry) -> Result<Measured, String> {
        let settings = Settings {
            max_iterations: Some(self.max_iterations),
            tolerance: Some(self.tolerance),
            ..Settings::default()
        };
        let method = entry.build(&settings).map_err(|error| error.to_string())?;
        let start = Some(&self.start);
        let mut curve = Vec::new();
        let begun = Instant::now();
        let solution = method
            .solve(&self.problem(), start, &mut |state: &State| {
                curve.push((begun.elapsed().as_secs_f64(), state.value));
            })
            .map_err(|error| error.to_string())?;
        let mut seconds = f64::INFINITY;
        let (first, before) = (begun.elapsed().as_secs_f64(), processor_seconds());
        let (mut spent, mut runs) = (0.0, 0);
        while first + spent <= self.max_seconds && (runs < self.repetitions || spent < ENOUGH) {
            let begun = Instant::now();
            let again = method.solve(&self.problem(), start, &mut Silent);
            let took = begun.elapsed().as_secs_f64();
            again.map_err(|error| error.to_string())?;
            seconds = seconds.min(took);
            spent += took;
            runs += 1;
        }
        if let (Some(before), Some(after)) = (before, processor_seconds())
            && after - before > LEAST
        {
            seconds = seconds.min((after - before) / runs as f64);
        }
        if !seconds.is_finite() {
            // The watched run alone took longer than all may take.
            seconds = first;
        }
        let end = self.end(&solution);
        let (loss, gradient_norm) = self.judge(&end)?;
        if curve.is_empty() {
            curve = vec![(0.0, self.start_value), (seconds, loss)];
        }
        Ok(Measured {
            seconds,
            iterations: solution.iterations,
            gradients: solution.evaluations.gradients + solution.evaluations.values,
            hessian_products: solution.evaluations.hessian_products,
            factorisations: solution.evaluations.factorisations,
            loss,
            gradient_norm,
            stop_reason: solution.stop_reason.name().to_owned(),
            curve: thinned(curve),
        })
    }

    fn end(&self, solution: &Solution) -> Blocks {
        let mut end = self.start.zeros_like();
        let count = self.tasks.count();
        for (t, adapter) in solution.adapters.iter().enumerate() {
            end.block_mut(t).copy_from(adapter.left());
            if self.kind == Kind::Asymmetric {
                end.block_mut(count + t).copy_from(adapter.right());
            }
        }
        end
    }
}

fn drawn(config: &ComparisonConfig, seed: u64) -> Result<(Tasks, Seed), String> {
    let spec = config.spec().map_err(|error| error.to_string())?;
    let node = spec.seed(seed);
    let truth = spec.ground_truth(&node);
    let tasks = if config.samples_per_task == 0 {
        Tasks::exact((0..spec.tasks).map(|t| truth.task(t)))
    } else {
        let pairs: Vec<_> = (0..spec.tasks)
            .map(|t| sample(&truth, t, spec.samples_per_task, spec.noise_std, &node))
            .collect();
        Tasks::from_samples(pairs.iter().map(|(x, y)| (x.as_ref(), y.as_ref())))
    };
    Ok((tasks.map_err(|error| error.to_string())?, node))
}

/// The start of a file, which must fit the problem.
fn fill(start: &mut Blocks, path: &Path, kind: Kind) -> Result<(), String> {
    let point = linear::read_point(path).map_err(|error| error.to_string())?;
    let count = point.adapters.len();
    let factors = if kind == Kind::Symmetric { count } else { 2 * count };
    let shape = |i: usize| (start.block(i).nrows(), start.block(i).ncols());
    let fits = point.kind == kind
        && factors == start.count()
        && point
            .adapters
            .iter()
            .all(|adapter| (adapter.left().nrows(), adapter.width()) == shape(0));
    if !fits {
        return Err(format!(
            "{}: the start does not fit: {} {} adapters, rows and columns as the tasks ask for, are needed",
            path.display(),
            start.count() / if kind == Kind::Symmetric { 1 } else { 2 },
            kind.name()
        ));
    }
    for (t, adapter) in point.adapters.iter().enumerate() {
        start.block_mut(t).copy_from(adapter.left());
        if kind == Kind::Asymmetric {
            start.block_mut(count + t).copy_from(adapter.right());
        }
    }
    Ok(())
}

/// At most [`POINTS`] points, evenly on a logarithmic scale of their number, with first and last.
fn thinned(curve: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if curve.len() <= POINTS {
        return curve;
    }
    let keep = crate::grid::log_grid(curve.len() - 1, 40);
    keep.into_iter().map(|i| curve[i]).collect()
}
