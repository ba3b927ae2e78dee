//! `peftml fine-tune`: a low-rank adapter for one task, the base frozen.

use super::{Common, Failure, output, print_json};
use clap::{Args, ValueEnum};
use faer::MatRef;
use peftml_data::linear;
use peftml_linalg::{Blocks, Layout, LowRank, Seed, kernel};
use peftml_solvers::StopReason;
use peftml_solvers::first_order::fine_tuning::GradientFineTuning;
use peftml_solvers::low_rank::reduced_rank;
use peftml_theory::linear::{LinearError, Task};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Fit a low-rank adapter to one task, the base frozen
#[derive(Args)]
pub struct Arguments {
    /// Base (.npz): A, for instance a solution
    #[arg(long, value_name = "FILE")]
    base: PathBuf,
    /// The task's data (.npz): X and Y; or A
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Width r of the adapter
    #[arg(long, value_name = "COUNT")]
    rank: usize,
    /// How the adapter is found
    #[arg(long, value_enum, default_value_t = Method::ReducedRankRegression)]
    method: Method,
    /// Gradient steps
    #[arg(long, default_value_t = 1000, value_name = "COUNT")]
    steps: usize,
    /// Size of a gradient step
    #[arg(long, default_value_t = 0.005, value_name = "NUMBER", allow_negative_numbers = true)]
    step_size: f64,
    /// Standard deviation of the entries of the adapter that gradient steps start from
    #[arg(long, default_value_t = 0.1, value_name = "NUMBER", allow_negative_numbers = true)]
    start_std: f64,
    /// Where to write the base A, the factors U, V and D = U V^T (.npz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The optimum in closed form; of least norm for fewer samples than dimensions
    ReducedRankRegression,
    /// Steps of the authors' code from a random adapter
    Gradient,
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    let inputs = [("--base", arguments.base.as_path()), ("--data", arguments.data.as_path())];
    output::check_output(&arguments.out, &inputs)?;
    let base = linear::read_base(&arguments.base)?.matrix;
    let data = linear::read_test_task(&arguments.data)?;
    let (rank, dimension) = (arguments.rank, data.dimension());
    if base.nrows() != dimension {
        return Err(Failure::input(format_args!(
            "the base has dimension {} and the data have {dimension}; both need the same",
            base.nrows()
        )));
    }
    if rank == 0 || rank > dimension {
        return Err(LinearError::Rank { rank, dimension }.into());
    }
    let task = data.task(0);
    let started = Instant::now();
    let (adapter, iterations, stop) = arguments.adapt(base.as_ref(), task, common.seed)?;
    let seconds = started.elapsed().as_secs_f64();
    linear::stage_fine_tuned(&arguments.out, base.as_ref(), &adapter)?.commit()?;
    print_json(&json!({
        "loss": loss(base.as_ref(), &adapter, task),
        "residual_loss": task.residual_loss(),
        "iterations": iterations,
        "stop_reason": stop.name(),
        "seconds": seconds,
        "method": arguments.method.to_possible_value().map(|name| name.get_name().to_owned()),
        "rank": rank,
        "dimension": dimension,
        "trainable_parameters": 2 * dimension * rank,
    }))
}

impl Arguments {
    /// The adapter, the steps made and why they ended.
    fn adapt(
        &self,
        base: MatRef<'_, f64>,
        task: &Task,
        seed: u64,
    ) -> Result<(LowRank, usize, StopReason), Failure> {
        if self.method == Method::ReducedRankRegression {
            return Ok((reduced_rank::fine_tune(base, task, self.rank)?, 0, StopReason::Direct));
        }
        if !(self.start_std.is_finite() && self.start_std > 0.0) {
            return Err(Failure::input(format_args!(
                "--start-std {} is out of range: a positive finite number is needed",
                self.start_std
            )));
        }
        let factor = |name| Layout::repeated(name, 1, base.nrows(), self.rank);
        let mut start = Blocks::zeros(factor("U").followed_by(&factor("V")));
        let mut stream = Seed::root(seed).child("fine-tune").child("start").stream();
        stream.fill_normal(self.start_std, start.as_mut_slice());
        let method = GradientFineTuning { steps: self.steps, step_size: self.step_size };
        let adapter = method.fine_tune(base, task, &start, &[], &mut |_, _, _| {})?;
        Ok((adapter, self.steps, StopReason::MaxIterations))
    }
}

/// `1/2 tr(E S E^T)`, `E = A + U V^T - Ahat`: the loss without the least-squares residual. Where `S` is
/// singular, rounding of its zero eigenvalues can make the sum negative; the loss is not.
fn loss(base: MatRef<'_, f64>, adapter: &LowRank, task: &Task) -> f64 {
    let mut error = base.to_owned();
    adapter.add_to(error.as_mut(), 1.0);
    kernel::add_scaled(error.as_mut(), -1.0, task.least_squares());
    match task.second_moment() {
        None => 0.5 * kernel::norm_squared(error.as_ref()),
        Some(s) => {
            let mut weighted = error.clone();
            kernel::mul(weighted.as_mut(), error.as_ref(), s, 1.0);
            (0.5 * kernel::inner(error.as_ref(), weighted.as_ref())).max(0.0)
        }
    }
}
