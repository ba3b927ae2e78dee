//! `peftml generate linear`: a linear problem with its ground truth, from the studies' streams.

use super::{Common, Failure, print_json};
use clap::{Args, Subcommand, ValueEnum};
use faer::Mat;
use peftml_data::npz::{self, ArrayRef};
use peftml_data::synthetic::linear::{self, Family, LinearSpec};
use peftml_linalg::Seed;
use peftml_theory::linear::{GroundTruth, Kind};
use serde_json::json;
use std::path::PathBuf;

/// Draw a problem with a known ground truth
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    problem: Problem,
}

#[derive(Subcommand)]
enum Problem {
    /// Linear regression tasks: X, Y (T, d, N) or exact A (T, d, d), with A_true, U_true, V_true
    Linear(Linear),
}

#[derive(Args)]
struct Linear {
    /// Dimension d
    #[arg(long = "d", default_value_t = 10, value_name = "COUNT")]
    dimension: usize,
    /// Rank k of the tasks' offsets
    #[arg(long = "k", default_value_t = 1, value_name = "COUNT")]
    rank: usize,
    /// Retraining tasks T
    #[arg(long, default_value_t = 3, value_name = "COUNT")]
    tasks: usize,
    /// Samples N of each retraining task
    #[arg(long, default_value_t = 5000, value_name = "COUNT", conflicts_with = "exact")]
    samples: usize,
    /// Standard deviation of the noise on each output
    #[arg(long, default_value_t = 0.1, value_name = "NUMBER", allow_negative_numbers = true)]
    noise_std: f64,
    /// Write the tasks' true matrices instead of samples
    #[arg(long)]
    exact: bool,
    /// Offsets U V^T instead of U U^T
    #[arg(long)]
    asymmetric: bool,
    /// Law of the offsets
    #[arg(long, value_enum, default_value_t = FamilyName::Iid)]
    family: FamilyName,
    /// Samples n of the test task [default: 100; with --exact its true matrix]
    #[arg(long, value_name = "COUNT", requires = "test_out")]
    test_samples: Option<usize>,
    /// Where to write the test task (.npz)
    #[arg(long, value_name = "FILE")]
    test_out: Option<PathBuf>,
    /// Where to write the tasks (.npz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum FamilyName {
    /// Independent N(0, 1) entries
    Iid,
    /// A common factor of weight 3 with random sign
    Correlated,
    /// Scales that are log-normal
    BadlyScaled,
}

impl From<FamilyName> for Family {
    fn from(name: FamilyName) -> Self {
        match name {
            FamilyName::Iid => Family::Iid,
            FamilyName::Correlated => Family::Correlated,
            FamilyName::BadlyScaled => Family::BadlyScaled,
        }
    }
}

pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    match &arguments.problem {
        Problem::Linear(arguments) => arguments.run(common),
    }
}

impl Linear {
    fn run(&self, common: &Common) -> Result<(), Failure> {
        let spec = self.spec();
        spec.check()?;
        self.check_size(&spec)?;
        if self.test_out.as_ref().is_some_and(|test| npz::same_file(test, &self.out)) {
            return Err(Failure::input("--out and --test-out name the same file"));
        }
        let seed = spec.seed(common.seed);
        let truth = spec.ground_truth(&seed);
        let tasks = self.stage_tasks(&spec, &truth, &seed)?;
        let test = self.stage_test(&spec, &truth, &seed)?;
        tasks.commit()?;
        test.map_or(Ok(()), npz::Staged::commit)?;
        self.print(&spec, common.seed)
    }

    fn spec(&self) -> LinearSpec {
        LinearSpec {
            dimension: self.dimension,
            rank: self.rank,
            tasks: self.tasks,
            samples_per_task: self.samples,
            test_samples: self.test_samples.unwrap_or(100),
            noise_std: self.noise_std,
            kind: if self.asymmetric { Kind::Asymmetric } else { Kind::Symmetric },
            family: self.family.into(),
        }
    }

    /// What cannot be read back is not written.
    fn check_size(&self, spec: &LinearSpec) -> Result<(), Failure> {
        let product = |sizes: &[usize]| {
            sizes.iter().fold(1_u128, |product, n| product.saturating_mul(*n as u128))
        };
        let LinearSpec { dimension: d, rank, tasks, samples_per_task, test_samples, .. } = *spec;
        let data = match self.exact {
            true => product(&[tasks, d, d]),
            false => product(&[2, tasks, d, samples_per_task]),
        };
        let numbers = [
            product(&[d, d]),
            product(&[2, tasks, d, rank]),
            data.max(product(&[2, d, test_samples])),
        ]
        .into_iter()
        .fold(0, u128::saturating_add);
        let most = u128::from(npz::MOST_NUMBERS);
        if numbers <= most {
            return Ok(());
        }
        Err(Failure::input(format_args!(
            "this problem has {numbers} numbers; a file holds at most {most}, so take fewer samples, tasks or dimensions"
        )))
    }

    fn stage_tasks(
        &self,
        spec: &LinearSpec,
        truth: &GroundTruth,
        seed: &Seed,
    ) -> Result<npz::Staged, Failure> {
        let tasks = 0..spec.tasks;
        if self.exact {
            let a: Vec<Mat<f64>> = tasks.clone().map(|t| truth.task(t)).collect();
            let mut arrays = vec![ArrayRef::stack("A", a.iter().map(|a| a.as_ref()))];
            arrays.extend(truth_arrays(truth, tasks));
            return Ok(npz::stage(&self.out, &arrays)?);
        }
        let (x, y): (Vec<_>, Vec<_>) = tasks
            .clone()
            .map(|t| linear::sample(truth, t, spec.samples_per_task, spec.noise_std, seed))
            .unzip();
        let mut arrays = vec![
            ArrayRef::stack("X", x.iter().map(|x| x.as_ref())),
            ArrayRef::stack("Y", y.iter().map(|y| y.as_ref())),
        ];
        arrays.extend(truth_arrays(truth, tasks));
        Ok(npz::stage(&self.out, &arrays)?)
    }

    fn stage_test(
        &self,
        spec: &LinearSpec,
        truth: &GroundTruth,
        seed: &Seed,
    ) -> Result<Option<npz::Staged>, Failure> {
        let Some(path) = &self.test_out else { return Ok(None) };
        let test = spec.tasks;
        let arrays = truth_arrays(truth, test..test + 1);
        if self.exact_test() {
            let a = truth.task(test);
            let arrays = [vec![ArrayRef::matrix("A", a.as_ref())], arrays].concat();
            return Ok(Some(npz::stage(path, &arrays)?));
        }
        let (x, y) = spec.test_samples(truth, seed);
        let data = vec![ArrayRef::matrix("X", x.as_ref()), ArrayRef::matrix("Y", y.as_ref())];
        Ok(Some(npz::stage(path, &[data, arrays].concat())?))
    }

    fn exact_test(&self) -> bool {
        self.exact && self.test_samples.is_none()
    }

    fn print(&self, spec: &LinearSpec, seed: u64) -> Result<(), Failure> {
        let samples = (!self.exact).then_some(spec.samples_per_task);
        let noisy = !self.exact || (self.test_out.is_some() && !self.exact_test());
        let test_samples =
            (self.test_out.is_some() && !self.exact_test()).then_some(spec.test_samples);
        print_json(&json!({
            "out": self.out.to_string_lossy(),
            "test_out": self.test_out.as_ref().map(|p| p.to_string_lossy()),
            "dimension": spec.dimension,
            "rank": spec.rank,
            "tasks": spec.tasks,
            "samples_per_task": samples,
            "test_samples": test_samples,
            "noise_std": noisy.then_some(spec.noise_std),
            "kind": spec.kind.name(),
            "family": spec.family.name(),
            "seed": seed,
        }))
    }
}

/// `A_true` (d, d), `U_true` (T, d, k) and, for asymmetric offsets, `V_true` (T, d, k).
fn truth_arrays(truth: &GroundTruth, tasks: std::ops::Range<usize>) -> Vec<ArrayRef<'_>> {
    let offsets = &truth.offsets[tasks];
    let mut arrays = vec![
        ArrayRef::matrix("A_true", truth.base.as_ref()),
        ArrayRef::stack("U_true", offsets.iter().map(|r| r.left())),
    ];
    if truth.kind == Kind::Asymmetric {
        arrays.push(ArrayRef::stack("V_true", offsets.iter().map(|r| r.right())));
    }
    arrays
}
