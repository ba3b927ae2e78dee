//! The global solver over d, T and k, beside the machine's limits in one run.
//!
//! `cargo xtask bench --suite scale` prints the tables of docs/performance.md: seconds (best of many), the flops
//! of the model that the solver itself decides by, and what fraction of the machine's measured product speed
//! that is; the exponent in T; a sampled problem with polish.

use clap::Parser;
use faer::Mat;
use peftml_benches::problem;
use peftml_data::synthetic::linear::{Family, LinearSpec, exact_tasks};
use peftml_linalg::{Workers, compare, kernel};
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::{Global, flops};
use peftml_solvers::{BaseSolver, Problem};
use peftml_theory::linear::{GroundTruth, Kind, Tasks};
use rayon::prelude::*;
use std::process::ExitCode;
use std::time::Instant;

/// The global solver at the size of real layers.
#[derive(Parser)]
struct Arguments {
    /// Threads
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Repetitions; the best counts
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Largest d of the tables
    #[arg(long, default_value_t = 2000)]
    largest: usize,
    /// Leave the sampled problem out (d = 500, N = 20000: minutes)
    #[arg(long)]
    no_samples: bool,
}

struct Pool(rayon::ThreadPool);

impl Workers for Pool {
    fn run(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        self.0.install(|| (0..count).into_par_iter().with_max_len(1).for_each(job));
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match tables(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("peftml-bench-scale: {message}");
            ExitCode::FAILURE
        }
    }
}

fn best(repetitions: usize, mut work: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..repetitions.max(1) {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn tables(arguments: &Arguments) -> Result<(), String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(arguments.threads).build();
    let pool = Pool(pool.map_err(|error| error.to_string())?);
    let peak = machine(arguments, &pool);
    println!("\n| kind | d | T | k | error of A | ms | Gflop | Gflop/s | of the peak | readings |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let cases = [(200, 16, 8), (500, 16, 8), (1000, 16, 8), (2000, 16, 8)]
        .into_iter()
        .chain([(1000, 4, 8), (1000, 8, 8), (1000, 32, 8)])
        .chain([(1000, 16, 1), (1000, 16, 2), (1000, 16, 4), (1000, 16, 16)]);
    for (d, count, k) in cases.filter(|(d, ..)| *d <= arguments.largest) {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            row(arguments, &pool, kind, (d, count, k), peak)?;
        }
    }
    many_tasks(arguments, &pool)?;
    if arguments.no_samples { Ok(()) } else { samples(arguments, &pool) }
}

/// Speed of a product of d = 768 on every thread, and of reading 256 MiB; Gflop/s.
fn machine(arguments: &Arguments, pool: &Pool) -> f64 {
    let n = 768;
    let a = Mat::from_fn(n, n, |i, j| ((i * 7 + j * 13) % 31) as f64 - 15.0);
    let product = |out: &mut Mat<f64>| kernel::mul(out.as_mut(), a.as_ref(), a.as_ref(), 1.0);
    let mut alone = Mat::zeros(n, n);
    let one = best(4 * arguments.repetitions, || product(&mut alone));
    let all = best(4 * arguments.repetitions, || {
        pool.run(arguments.threads, &|_| product(&mut Mat::zeros(n, n)));
    });
    let gflop = 2.0 * (n as f64).powi(3) / 1e9;
    let (one, all) = (gflop / one, gflop * arguments.threads as f64 / all);
    let numbers: Vec<f64> = (0..1 << 25).map(|i| (i % 3) as f64).collect();
    let reading = best(4 * arguments.repetitions, || {
        std::hint::black_box(kernel::dot(&numbers, &numbers));
    });
    let bandwidth = (numbers.len() * 8) as f64 / 1e9 / reading;
    println!(
        "product of order {n}: {one:.1} Gflop/s on one thread, {all:.1} on {} threads; reading {bandwidth:.1} GB/s on one",
        arguments.threads
    );
    all
}

fn drawn(kind: Kind, (d, count, k): (usize, usize, usize)) -> Result<(GroundTruth, Tasks), String> {
    let spec = LinearSpec {
        dimension: d,
        rank: k,
        tasks: count,
        samples_per_task: 1,
        test_samples: 1,
        noise_std: 0.0,
        kind,
        family: Family::Iid,
    };
    let truth = spec.ground_truth(&spec.seed(0));
    let tasks = exact_tasks(&truth).map_err(|error| error.to_string())?;
    Ok((truth, tasks))
}

fn row(
    arguments: &Arguments,
    pool: &Pool,
    kind: Kind,
    sizes: (usize, usize, usize),
    peak: f64,
) -> Result<(), String> {
    let (d, count, k) = sizes;
    let (truth, tasks) = drawn(kind, sizes)?;
    let reading = best(arguments.repetitions, || {
        let sum: f64 = tasks.iter().map(|t| kernel::norm_squared(t.least_squares())).sum();
        std::hint::black_box(sum);
    });
    let solve = || Global::default().solve_matrices(&tasks, kind, k, pool);
    let solution = solve().map_err(|error| error.to_string())?;
    let error = compare::relative_error(solution.base.as_ref(), truth.base.as_ref());
    let seconds = best(arguments.repetitions, || drop(solve()));
    let work = flops(kind, d, k, count, solution.iterations) / 1e9;
    println!(
        "| {} | {d} | {count} | {k} | {error:.1e} | {:.1} | {work:.2} | {:.1} | {:.0} % | {:.1} |",
        kind.name(),
        1e3 * seconds,
        work / seconds,
        100.0 * work / seconds / peak,
        seconds / reading,
    );
    Ok(())
}

/// d = 50, k = 2: the exponent in T.
fn many_tasks(arguments: &Arguments, pool: &Pool) -> Result<(), String> {
    println!("\n| d | k | T | ms | error of A | exponent in T |\n|---|---|---|---|---|---|");
    let mut last: Option<(usize, f64)> = None;
    for count in [100, 1000, 10_000] {
        let (truth, tasks) = drawn(Kind::Symmetric, (50, count, 2))?;
        let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: 2 };
        let solve = || Global::default().solve_with(&problem, None, &mut Silent, pool);
        let solution = solve().map_err(|error| error.to_string())?;
        let error = compare::relative_error(solution.base.as_ref(), truth.base.as_ref());
        let seconds = best(arguments.repetitions, || drop(solve()));
        let exponent = last.map_or(String::new(), |(before, then)| {
            let exponent = (seconds / then).ln() / (count as f64 / before as f64).ln();
            format!("{exponent:.2}")
        });
        println!("| 50 | 2 | {count} | {:.1} | {error:.1e} | {exponent} |", 1e3 * seconds);
        last = Some((count, seconds));
    }
    Ok(())
}

/// d = 500, T = 8, k = 4, N = 20000, noise 0.1: with polish.
fn samples(_: &Arguments, pool: &Pool) -> Result<(), String> {
    let (d, k, count, n) = (500, 4, 8, 20_000);
    let start = Instant::now();
    let sampled = problem::sampled(d, k, count, n);
    println!(
        "\n{}: drawn and summed in {:.1} s",
        problem::id(d, k, count, n),
        start.elapsed().as_secs_f64()
    );
    let tasks = sampled.tasks;
    let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: k };
    let start = Instant::now();
    let solution = Global::default().solve_with(&problem, None, &mut Silent, pool);
    let solution = solution.map_err(|error| error.to_string())?;
    println!(
        "solved in {:.2} s: {}, loss {:e}, {} iterations, {} products, predicted error {:.2e} of A",
        start.elapsed().as_secs_f64(),
        solution.stop_reason.name(),
        solution.loss,
        solution.iterations,
        solution.evaluations.hessian_products,
        solution.predicted_error.unwrap_or(f64::NAN) / kernel::norm(solution.base.as_ref()),
    );
    Ok(())
}
