//! What the trials of one group share: problem, data, starts and closed forms.
//!
//! A scene belongs to a sweep point and a seed; every stream in it is named by these and a role, so
//! that methods are compared on the same tasks and from the same starts.

use super::config::LinearConfig;
use faer::{Mat, MatRef};
use peftml_data::synthetic::linear::{LinearSpec, exact_tasks};
use peftml_linalg::{BlockSpec, Blocks, Layout, Seed, compare, decompose, kernel};
use peftml_solvers::Problem;
use peftml_theory::linear::standard::tails;
use peftml_theory::linear::{
    GroundTruth, Identification, Kind, LinearError, Task, Tasks, predictions,
};

/// Problem, data and starts of a sweep point and a seed.
pub struct Scene<'c> {
    /// The point's configuration.
    pub config: &'c LinearConfig,
    /// Its sizes and laws.
    pub spec: LinearSpec,
    /// The truth; the last task is the test task.
    pub truth: GroundTruth,
    /// The retraining tasks from samples.
    pub tasks: Tasks,
    /// The retraining tasks themselves.
    pub exact: Tasks,
    /// The test task from samples.
    pub test: Task,
    /// Closed forms for this truth.
    pub theory: Theory,
    seed: Seed,
    test_truth: Mat<f64>,
}

/// Closed forms that depend on the truth alone.
pub struct Theory {
    /// `||mean_t A*_t - A*||_F^2`: the squared error of the base of standard retraining, in the
    /// population.
    pub standard_error_squared: f64,
    /// `tail_r`, r = 0..=d, of `A*_test - mean_t A*_t` (theory.md C1).
    pub standard_tails: Vec<f64>,
    /// `E||A - A*||_F^2` of meta-learning from N samples to first order (C9); `None` where the tasks
    /// do not identify the base.
    pub meta_error_squared: Option<f64>,
}

impl<'c> Scene<'c> {
    /// Draws the data of `config`'s problem for `seed`, on `truth`.
    ///
    /// # Errors
    /// [`LinearError`] from the tasks' statistics.
    pub fn new(
        config: &'c LinearConfig,
        truth: GroundTruth,
        seed: Seed,
    ) -> Result<Self, LinearError> {
        let spec = config.spec();
        let tasks = spec.retraining_tasks(&truth, &seed)?;
        let test = spec.test_task(&truth, &seed)?;
        let exact = exact_tasks(&truth)?;
        let test_truth = truth.task(spec.tasks);
        let theory = Theory::new(&spec, &truth, &exact, test_truth.as_ref())?;
        Ok(Self { config, spec, truth, tasks, exact, test, theory, seed, test_truth })
    }

    /// The sampled problem.
    pub fn problem(&self) -> Problem<'_> {
        Problem { tasks: &self.tasks, kind: self.spec.kind, rank: self.spec.rank }
    }

    /// The problem without noise and sampling.
    pub fn exact_problem(&self) -> Problem<'_> {
        Problem { tasks: &self.exact, kind: self.spec.kind, rank: self.spec.rank }
    }

    /// Initial adapters of retraining.
    pub fn start(&self) -> Blocks {
        self.adapters("start", self.spec.kind == Kind::Asymmetric)
    }

    /// The adapters that the reference's standard retraining carries along.
    pub fn standard_adapters(&self) -> Blocks {
        self.adapters("standard-adapters", false)
    }

    fn adapters(&self, role: &str, asymmetric: bool) -> Blocks {
        let LinearSpec { dimension: d, rank: k, tasks, .. } = self.spec;
        let mut layout = Layout::repeated("U", tasks, d, k);
        if asymmetric {
            layout = layout.followed_by(&Layout::repeated("V", tasks, d, k));
        }
        let mut start = Blocks::zeros(layout);
        let std = self.config.retraining.start_std;
        for t in 0..tasks {
            let task = self.seed.child(role).child(t);
            start.block_mut(t).copy_from(task.child("left").stream().normal_matrix(d, k, std));
            if asymmetric {
                let right = task.child("right").stream().normal_matrix(d, k, std);
                start.block_mut(tasks + t).copy_from(right);
            }
        }
        start
    }

    /// Fresh fine-tuning adapters `U0`, `V0`, d x `rank`. `unpaired` draws them from `role`.
    pub fn fresh_adapters(&self, rank: usize, unpaired: Option<&str>) -> Blocks {
        let d = self.spec.dimension;
        let block = |name: &str| BlockSpec { name: name.to_owned(), rows: d, cols: rank };
        let mut fresh = Blocks::zeros(Layout::new([block("U0"), block("V0")]));
        let mut seed = self.seed.child("adapter");
        if let Some(role) = unpaired {
            seed = seed.child(role);
        }
        let std = self.config.fine_tuning.start_std;
        for (index, side) in ["left", "right"].into_iter().enumerate() {
            let draw = seed.child(side).stream().normal_matrix(d, rank, std);
            fresh.block_mut(index).copy_from(draw);
        }
        fresh
    }

    /// `||A - A*||_F^2`.
    pub fn base_error_squared(&self, base: MatRef<'_, f64>) -> f64 {
        compare::distance(base, self.truth.base.as_ref()).powi(2)
    }

    /// Losses of the weights `w` on the test task.
    pub fn losses(&self, w: MatRef<'_, f64>) -> Losses {
        let d = self.spec.dimension;
        let error = Mat::from_fn(d, d, |i, j| self.test_truth[(i, j)] - w[(i, j)]);
        let mut weighted = Mat::zeros(d, d);
        self.test.apply_second_moment(weighted.as_mut(), error.transpose());
        let in_sample = kernel::inner(error.as_ref(), weighted.transpose());
        Losses {
            reference_loss: self.spec.test_samples as f64 * in_sample,
            excess_risk: 0.5 * kernel::norm_squared(error.as_ref()),
        }
    }
}

/// Losses on the test task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Losses {
    /// `||(A*_test - W) X||_F^2` on the n fine-tuning inputs: what the reference reports.
    pub reference_loss: f64,
    /// `1/2 ||A*_test - W||_F^2`.
    pub excess_risk: f64,
}

impl Theory {
    fn new(
        spec: &LinearSpec,
        truth: &GroundTruth,
        exact: &Tasks,
        test: MatRef<'_, f64>,
    ) -> Result<Self, LinearError> {
        let d = spec.dimension;
        let mut mean = Mat::zeros(d, d);
        for task in exact.iter() {
            kernel::add_scaled(mean.as_mut(), 1.0 / spec.tasks as f64, task.least_squares());
        }
        let standard_error_squared = compare::distance(mean.as_ref(), truth.base.as_ref()).powi(2);
        let difference = Mat::from_fn(d, d, |i, j| test[(i, j)] - mean[(i, j)]);
        let values = decompose::singular_values(difference.as_ref()).map_err(|source| {
            LinearError::Decomposition { what: "test task minus mean", source }
        })?;
        Ok(Self {
            standard_error_squared,
            standard_tails: tails(&values),
            meta_error_squared: meta_error_squared(spec, truth)?,
        })
    }
}

/// `E||A - A*||_F^2` of meta-learning at the truth's subspaces (C9).
fn meta_error_squared(spec: &LinearSpec, truth: &GroundTruth) -> Result<Option<f64>, LinearError> {
    if spec.tasks < 3 || spec.dimension <= spec.rank {
        return Ok(None);
    }
    let bases = |side: fn(&peftml_linalg::LowRank) -> MatRef<'_, f64>| -> Vec<Mat<f64>> {
        truth.offsets[..spec.tasks]
            .iter()
            .map(|offset| decompose::orthonormal_basis(side(offset)))
            .collect()
    };
    let (left, right) = (bases(|offset| offset.left()), bases(|offset| offset.right()));
    let trace = Identification::new(spec.kind, &left, &right)?.spectrum()?.inverse_trace;
    let error = match spec.kind {
        Kind::Symmetric => predictions::base_error_squared_symmetric(
            spec.dimension,
            spec.tasks,
            spec.samples_per_task,
            spec.noise_std,
            trace,
        ),
        Kind::Asymmetric => {
            predictions::base_error_squared_asymmetric(spec.samples_per_task, spec.noise_std, trace)
        }
    };
    Ok(Some(error).filter(|error| error.is_finite()))
}
