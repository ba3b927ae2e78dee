//! `peftml solve`: the base that meta-learning with adapters finds for given tasks.

use super::pool::Pool;
use super::{Common, Failure, output, print_json};
use clap::Args;
use peftml_data::folder::{self, FolderTasks};
use peftml_data::linear::{self, Point};
use peftml_linalg::{Blocks, Layout, LowRank, Seed};
use peftml_solvers::iterate::Silent;
use peftml_solvers::{
    BaseSolver, Entry, Problem, Settings, Solution, SolveError, State, entry, registry,
};
use peftml_theory::linear::{Kind, LinearError, TaskMatrices, Tasks};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

/// Find the base that meta-learning with adapters finds
#[derive(Args)]
#[command(group = clap::ArgGroup::new("kind").required(true).args(["symmetric", "asymmetric"]))]
pub struct Arguments {
    /// Tasks (.npz): A; A with S; or X and Y; or a folder of A_0.npy, .. or X_0.npy, Y_0.npy, ..
    #[arg(long, value_name = "FILE")]
    tasks: PathBuf,
    /// Width k of the adapters
    #[arg(long, value_name = "COUNT")]
    rank: usize,
    /// Adapters U U^T; what is not symmetric in the tasks stays in the base
    #[arg(long)]
    symmetric: bool,
    /// Adapters U V^T
    #[arg(long)]
    asymmetric: bool,
    /// The method; `peftml solvers` lists them
    #[arg(long, default_value = "global", value_name = "NAME")]
    solver: String,
    /// Where an iterative method starts (.npz): A, U, and V where asymmetric [default: random]
    #[arg(long, value_name = "FILE")]
    start: Option<PathBuf>,
    /// Standard deviation of the entries of a random start
    #[arg(long, default_value_t = 0.1, value_name = "NUMBER", conflicts_with = "start")]
    start_std: f64,
    /// Most iterations
    #[arg(long, value_name = "COUNT")]
    max_iterations: Option<usize>,
    /// Relative tolerance of the gradient
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    tolerance: Option<f64>,
    /// A setting of the method; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
    /// Where to write iteration, value, gradient norm and evaluations (.csv)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Where to write the solution A, U, and V where asymmetric (.npz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.trim().is_empty());
    let (key, value) = pair.ok_or_else(|| format!("'{text}' is not of the form key=value"))?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    arguments.check_files()?;
    let method = arguments.method()?;
    let settings = Settings {
        max_iterations: arguments.max_iterations,
        tolerance: arguments.tolerance,
        table: arguments.settings.clone(),
    };
    let solver = method.build(&settings)?;
    let opened = match arguments.tasks.is_dir() {
        true => folder::open_tasks(&arguments.tasks)?,
        false => folder::open_archive(&arguments.tasks)?,
    };
    let tasks = match opened {
        FolderTasks::Memory(tasks) => tasks,
        FolderTasks::Matrices(source) => {
            return arguments.solve_matrices(&source, method, &*solver, common);
        }
    };
    let problem = arguments.problem(&tasks)?;
    let start = arguments.start_point(&problem, method, common.seed)?;
    let mut trace = Trace::default();
    let pool = Pool::new(common, &*solver, method.name)?;
    let started = Instant::now();
    let solution = if arguments.trace.is_some() {
        let mut observer = |state: &State| trace.add(state);
        solver.solve_with(&problem, start.as_ref(), &mut observer, &pool)
    } else {
        solver.solve_with(&problem, start.as_ref(), &mut Silent, &pool)
    };
    let seconds = started.elapsed().as_secs_f64();
    let solution = solution.map_err(|error| refusal(error, &tasks))?;
    let trace = arguments.trace.is_some().then_some(&trace);
    arguments.write(&solution, problem.kind, trace)?;
    let mut line = summary(method, &solution, seconds, pool.threads());
    line["residual_loss"] = json!(tasks.residual_loss());
    line["kind"] = json!(problem.kind.name());
    print_json(&line)
}

/// Two tasks under the default solver: the refusal names the method that applies.
fn refusal(error: SolveError, tasks: &Tasks) -> Failure {
    match &error {
        SolveError::OutsideConditions { .. } if tasks.count() == 2 => {
            Failure::refused(format_args!("{error}; for T = 2 there is --solver two-task"))
        }
        _ => error.into(),
    }
}

/// The line of results; what only the problem tells is null.
fn summary(method: &Entry, solution: &Solution, seconds: f64, threads: usize) -> Value {
    json!({
        "loss": solution.loss,
        "residual_loss": null,
        "rho": solution.rho,
        "gap": solution.gap,
        "predicted_error": solution.predicted_error,
        "iterations": solution.iterations,
        "stop_reason": solution.stop_reason.name(),
        "seconds": seconds,
        "threads": threads,
        "solver": method.name,
        "kind": null,
        "rank": solution.adapters.first().map(LowRank::width),
        "dimension": solution.base.nrows(),
        "tasks": solution.adapters.len(),
        "input_asymmetry": solution.input_asymmetry,
        "evaluations": {
            "values": solution.evaluations.values,
            "gradients": solution.evaluations.gradients,
            "hessian_products": solution.evaluations.hessian_products,
            "factorisations": solution.evaluations.factorisations,
        },
    })
}

impl Arguments {
    fn kind(&self) -> Kind {
        if self.symmetric { Kind::Symmetric } else { Kind::Asymmetric }
    }

    /// Tasks that stay in their files: only methods that pass over matrices can have them.
    fn solve_matrices(
        &self,
        source: &dyn TaskMatrices,
        method: &Entry,
        solver: &dyn BaseSolver,
        common: &Common,
    ) -> Result<(), Failure> {
        if self.start.is_some() || self.trace.is_some() {
            return Err(Failure::input(
                "--start and --trace are for tasks that fit in memory; these are passed over in their files",
            ));
        }
        let (rank, dimension) = (self.rank, source.dimension());
        if rank == 0 || rank > dimension {
            return Err(LinearError::Rank { rank, dimension }.into());
        }
        let pool = Pool::new(common, solver, method.name)?;
        let started = Instant::now();
        let solution = solver.solve_source(source, self.kind(), rank, &pool)?;
        let seconds = started.elapsed().as_secs_f64();
        self.write(&solution, self.kind(), None)?;
        let mut line = summary(method, &solution, seconds, pool.threads());
        line["kind"] = json!(self.kind().name());
        print_json(&line)
    }

    fn write(&self, solution: &Solution, kind: Kind, trace: Option<&Trace>) -> Result<(), Failure> {
        let (base, adapters) = (solution.base.as_ref(), &solution.adapters);
        let staged = linear::stage_point(&self.out, base, adapters, kind)?;
        if let Some((path, trace)) = self.trace.as_ref().zip(trace) {
            peftml_data::npz::stage_text(path, &trace.text())?.commit()?;
        }
        Ok(staged.commit()?)
    }

    fn check_files(&self) -> Result<(), Failure> {
        let mut inputs = vec![("--tasks", self.tasks.as_path())];
        inputs.extend(self.start.as_deref().map(|start| ("--start", start)));
        output::check_output(&self.out, &inputs)?;
        let Some(trace) = &self.trace else { return Ok(()) };
        inputs.push(("--trace", &self.out));
        output::check_output(trace, &inputs)
    }

    fn method(&self) -> Result<&'static Entry, Failure> {
        entry(&self.solver).ok_or_else(|| {
            let names: Vec<&str> = registry().iter().map(|entry| entry.name).collect();
            let names = names.join(", ");
            Failure::input(format_args!("there is no solver {}; there are {names}", self.solver))
        })
    }

    fn problem<'a>(&self, tasks: &'a Tasks) -> Result<Problem<'a>, Failure> {
        let (rank, dimension) = (self.rank, tasks.dimension());
        if rank == 0 || rank > dimension {
            return Err(LinearError::Rank { rank, dimension }.into());
        }
        Ok(Problem { tasks, kind: self.kind(), rank })
    }

    fn start_point(
        &self,
        problem: &Problem<'_>,
        method: &Entry,
        seed: u64,
    ) -> Result<Option<Blocks>, Failure> {
        if let Some(path) = &self.start {
            let point = linear::read_point(path)?;
            self.check_start(problem, &point)?;
            return Ok(Some(blocks(problem, &point.adapters)));
        }
        if !method.needs_start {
            return Ok(None);
        }
        if !(self.start_std.is_finite() && self.start_std > 0.0) {
            return Err(Failure::input(format_args!(
                "--start-std {} is out of range: a positive finite number is needed",
                self.start_std
            )));
        }
        let mut start = Blocks::zeros(layout(problem));
        let mut stream = Seed::root(seed).child("solve").child("start").stream();
        stream.fill_normal(self.start_std, start.as_mut_slice());
        Ok(Some(start))
    }

    fn check_start(&self, problem: &Problem<'_>, point: &Point) -> Result<(), Failure> {
        let found = (
            point.kind,
            point.adapters.len(),
            point.base.nrows(),
            point.adapters.first().map_or(0, LowRank::width),
        );
        let expected =
            (problem.kind, problem.tasks.count(), problem.tasks.dimension(), problem.rank);
        if found == expected {
            return Ok(());
        }
        let words = |(kind, count, d, rank): (Kind, usize, usize, usize)| {
            format!("{count} {} adapters of rank {rank} in dimension {d}", kind.name())
        };
        Err(Failure::input(format_args!(
            "--start holds {}; this problem needs {}",
            words(found),
            words(expected)
        )))
    }
}

fn layout(problem: &Problem<'_>) -> Layout {
    let (count, d) = (problem.tasks.count(), problem.tasks.dimension());
    let left = Layout::repeated("U", count, d, problem.rank);
    match problem.kind {
        Kind::Symmetric => left,
        Kind::Asymmetric => left.followed_by(&Layout::repeated("V", count, d, problem.rank)),
    }
}

/// The adapters as a point of the profile objective; the caller has checked the shapes.
fn blocks(problem: &Problem<'_>, adapters: &[LowRank]) -> Blocks {
    let mut x = Blocks::zeros(layout(problem));
    for (t, adapter) in adapters.iter().enumerate() {
        x.block_mut(t).copy_from(adapter.left());
        if problem.kind == Kind::Asymmetric {
            x.block_mut(adapters.len() + t).copy_from(adapter.right());
        }
    }
    x
}

/// One line a state.
#[derive(Default)]
struct Trace {
    lines: String,
}

impl Trace {
    fn add(&mut self, state: &State) {
        let State { iteration, value, gradient_norm, evaluations: made, .. } = state;
        // Writing to a string does not fail.
        let _ = writeln!(
            self.lines,
            "{iteration},{value:e},{gradient_norm:e},{},{},{},{}",
            made.values, made.gradients, made.hessian_products, made.factorisations
        );
    }

    fn text(&self) -> String {
        let header =
            "iteration,value,gradient_norm,values,gradients,hessian_products,factorisations";
        format!("{header}\n{}", self.lines)
    }
}
