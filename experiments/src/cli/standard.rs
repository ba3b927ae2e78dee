//! `peftml standard`: the base of standard retraining, and what it leaves to adapt.

use super::{Common, Failure, output, print_json};
use clap::Args;
use peftml_data::linear;
use peftml_linalg::Blocks;
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, ProfileObjective, Tasks, standard};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Find the base of standard retraining (one set of weights for all tasks)
#[derive(Args)]
pub struct Arguments {
    /// Tasks (.npz): A; A with S; or X and Y
    #[arg(long, value_name = "FILE")]
    tasks: PathBuf,
    /// Test task (.npz): adds residual_rank, singular_values and tail (r = 0..d) of test minus base
    #[arg(long, value_name = "FILE")]
    test: Option<PathBuf>,
    /// Where to write the base A (.npz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(arguments: &Arguments, _: &Common) -> Result<(), Failure> {
    let mut inputs = vec![("--tasks", arguments.tasks.as_path())];
    inputs.extend(arguments.test.as_deref().map(|test| ("--test", test)));
    output::check_output(&arguments.out, &inputs)?;
    let tasks = linear::read_tasks(&arguments.tasks)?;
    let test = arguments.test.as_deref().map(linear::read_test_task).transpose()?;
    if let Some(test) = test.as_ref().filter(|test| test.dimension() != tasks.dimension()) {
        return Err(Failure::input(format_args!(
            "the test task has dimension {} and the tasks have {}; both need the same",
            test.dimension(),
            tasks.dimension()
        )));
    }
    let started = Instant::now();
    let base = standard::standard_base(&tasks)?;
    let residual = test.as_ref().map(|test| {
        let roundoff = tasks.storage_roundoff().max(test.storage_roundoff());
        standard::residual(test.task(0).least_squares(), base.as_ref(), roundoff)
    });
    let residual = residual.transpose()?;
    let seconds = started.elapsed().as_secs_f64();
    let mut result = json!({
        "loss": loss(&tasks)?,
        "residual_loss": tasks.residual_loss(),
        "seconds": seconds,
        "dimension": tasks.dimension(),
        "tasks": tasks.count(),
    });
    if let Some(residual) = residual {
        result["residual_rank"] = json!(residual.rank);
        result["singular_values"] = json!(residual.singular_values);
        result["tail"] = json!(residual.tails);
    }
    linear::stage_base(&arguments.out, base.as_ref())?.commit()?;
    print_json(&result)
}

/// `(1/T) sum_t L_t(A_SR)` without the least-squares residual: the profile objective where all
/// adapters are 0.
fn loss(tasks: &Tasks) -> Result<f64, Failure> {
    let objective = ProfileObjective::new(tasks, Kind::Symmetric, 1)?;
    let zero = Blocks::zeros(objective.layout().clone());
    Ok(objective.value(&zero, &mut vec![0.0; objective.work_len()]))
}
