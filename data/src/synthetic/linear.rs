//! Linear problems with a known ground truth.
//!
//! `A* = (G + G^T)/2` with `G_ij ~ N(0, 1)`; offsets `R*_t = U*_t U*_t^T`, `U*_t` d x k from a
//! [`Family`]. Task t: `x ~ N(0, I_d)`, `y = (A* + R*_t) x + e`, `e ~ N(0, noise_std^2 I_d)`; N
//! samples for each of the T retraining tasks, n for the test task T. Asymmetric problems have
//! `R*_t = U*_t V*_t^T` with `V*_t` of the same law, and `A* = G`.
//!
//! ```
//! use peftml_data::synthetic::linear::{Family, LinearSpec};
//! use peftml_theory::linear::Kind;
//!
//! let spec = LinearSpec {
//!     dimension: 10,
//!     rank: 1,
//!     tasks: 3,
//!     samples_per_task: 100,
//!     test_samples: 20,
//!     noise_std: 0.1,
//!     kind: Kind::Symmetric,
//!     family: Family::Iid,
//! };
//! spec.check()?;
//! let seed = spec.seed(7);
//! let truth = spec.ground_truth(&seed);
//! let tasks = spec.retraining_tasks(&truth, &seed).expect("more samples than dimensions");
//! assert_eq!((tasks.count(), tasks.dimension()), (3, 10));
//! assert_eq!(truth.count(), 4, "the test task's offset comes last");
//! // The same number, the same truth, whatever is drawn besides.
//! assert_eq!(spec.ground_truth(&spec.seed(7)).task(0), truth.task(0));
//! # Ok::<(), peftml_data::DataError>(())
//! ```
//!
//! Every draw has its own stream below [`LinearSpec::seed`], so that methods are paired and the
//! truth does not depend on noise, family or kind beyond what these mean. Sources: experiments.md
//! section 1; families: theory.md C8.

use crate::DataError;
use faer::{Mat, MatRef};
use peftml_linalg::{LowRank, Seed, kernel};
use peftml_theory::linear::{GroundTruth, Kind, LinearError, Task, Tasks};

/// Weight of the common factor in [`Family::Correlated`].
const COMMON_WEIGHT: f64 = 3.0;

/// The law of the offsets' factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// Independent N(0, 1) entries.
    Iid,
    /// `N(0, 1) + 3 s_t U_0`, `s_t = +-1`, `U_0` of N(0, 1) entries common to all tasks.
    Correlated,
    /// `exp(g_t) N(0, 1)`, `g_t ~ N(0, 1)`.
    BadlyScaled,
}

impl Family {
    /// All families.
    pub const ALL: [Family; 3] = [Family::Iid, Family::Correlated, Family::BadlyScaled];

    /// `"iid"`, `"correlated"` or `"badly-scaled"`.
    pub fn name(self) -> &'static str {
        match self {
            Family::Iid => "iid",
            Family::Correlated => "correlated",
            Family::BadlyScaled => "badly-scaled",
        }
    }
}

/// Sizes and laws of a linear problem.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSpec {
    /// Dimension d.
    pub dimension: usize,
    /// True adapter rank k, at most d.
    pub rank: usize,
    /// Retraining tasks T; the test task comes on top.
    pub tasks: usize,
    /// Samples N of each retraining task.
    pub samples_per_task: usize,
    /// Samples n of the test task.
    pub test_samples: usize,
    /// Standard deviation of the noise on each output coordinate.
    pub noise_std: f64,
    /// Symmetric or asymmetric offsets.
    pub kind: Kind,
    /// Law of the offsets' factors.
    pub family: Family,
}

impl LinearSpec {
    /// Checks that the problem exists.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a size of 0, a rank above d, or a noise that is no finite number
    /// from 0.
    pub fn check(&self) -> Result<(), DataError> {
        let sizes = [
            ("dimension", self.dimension),
            ("rank", self.rank),
            ("tasks", self.tasks),
            ("samples_per_task", self.samples_per_task),
            ("test_samples", self.test_samples),
        ];
        for (name, value) in sizes {
            if value == 0 {
                return Err(DataError::Setting { name, value: 0.0, expected: "1 or more" });
            }
        }
        if self.rank > self.dimension {
            let expected = "at most the dimension";
            return Err(DataError::Setting { name: "rank", value: self.rank as f64, expected });
        }
        if !self.noise_std.is_finite() || self.noise_std < 0.0 {
            return Err(DataError::Setting {
                name: "noise_std",
                value: self.noise_std,
                expected: "a finite number, 0 or more",
            });
        }
        Ok(())
    }

    /// The root of this problem's streams: one per number and sizes `d, k, T, N, n`.
    ///
    /// Noise, kind and family are not in the path, so that problems that differ in these alone are
    /// paired. Roles below it: `"ground-truth"`; `"task"`, t with `"inputs"` and `"noise"` (t = T is
    /// the test task); `"start"`, the initial adapters of retraining; `"adapter"`, the fresh
    /// adapters of fine-tuning; `"standard-adapters"`, the untrained adapters that the reference
    /// code's standard retraining carries.
    pub fn seed(&self, seed: u64) -> Seed {
        let Self { dimension, rank, tasks, samples_per_task, test_samples, .. } = self;
        let key = format!("d={dimension} k={rank} T={tasks} N={samples_per_task} n={test_samples}");
        Seed::root(seed).child("linear").child(key.as_str())
    }

    /// The truth: T + 1 offsets, the last one being the test task's.
    pub fn ground_truth(&self, seed: &Seed) -> GroundTruth {
        let seed = seed.child("ground-truth");
        let d = self.dimension;
        let mut base = seed.child("base").stream().normal_matrix(d, d, 1.0);
        if self.kind == Kind::Symmetric {
            kernel::symmetrise(base.as_mut());
        }
        let offsets = (0..=self.tasks).map(|t| self.offset(&seed, t)).collect();
        GroundTruth { base, offsets, kind: self.kind }
    }

    fn offset(&self, seed: &Seed, t: usize) -> LowRank {
        let task = seed.child("offset").child(t);
        let left = self.factor(&task, seed, "left");
        match self.kind {
            Kind::Symmetric => LowRank::symmetric(left),
            Kind::Asymmetric => {
                let right = self.factor(&task, seed, "right");
                LowRank::new(left, right).expect("both factors have `rank` columns")
            }
        }
    }

    /// One factor; sign and scale belong to the task, so that both factors share them.
    fn factor(&self, task: &Seed, all: &Seed, side: &str) -> Mat<f64> {
        let (d, k) = (self.dimension, self.rank);
        let mut factor = task.child(side).stream().normal_matrix(d, k, 1.0);
        match self.family {
            Family::Iid => {}
            Family::Correlated => {
                let common = all.child("common").child(side).stream().normal_matrix(d, k, 1.0);
                let sign = task.child("sign").stream().sign();
                kernel::add_scaled(factor.as_mut(), COMMON_WEIGHT * sign, common.as_ref());
            }
            Family::BadlyScaled => {
                let scale = task.child("scale").stream().normal().exp();
                kernel::scale(factor.as_mut(), scale);
            }
        }
        factor
    }

    /// The T retraining tasks from N samples each; `seed` as for [`LinearSpec::ground_truth`].
    ///
    /// # Errors
    /// As [`Tasks::from_samples`].
    pub fn retraining_tasks(&self, truth: &GroundTruth, seed: &Seed) -> Result<Tasks, LinearError> {
        let tasks: Result<Vec<_>, _> = (0..self.tasks)
            .map(|t| {
                let (x, y) = sample(truth, t, self.samples_per_task, self.noise_std, seed);
                Task::from_samples(t, x.as_ref(), y.as_ref())
            })
            .collect();
        Tasks::new(tasks?, f64::EPSILON / 2.0)
    }

    /// The test task from n samples.
    ///
    /// # Errors
    /// As [`Task::from_samples`].
    pub fn test_task(&self, truth: &GroundTruth, seed: &Seed) -> Result<Task, LinearError> {
        let (x, y) = self.test_samples(truth, seed);
        Task::from_samples(0, x.as_ref(), y.as_ref())
    }

    /// The test task's samples (`X`, `Y`), each d x n.
    pub fn test_samples(&self, truth: &GroundTruth, seed: &Seed) -> (Mat<f64>, Mat<f64>) {
        sample(truth, self.tasks, self.test_samples, self.noise_std, seed)
    }
}

/// The retraining tasks of `truth` (all but the last) as exact matrices.
///
/// # Errors
/// As [`Tasks::exact`].
pub fn exact_tasks(truth: &GroundTruth) -> Result<Tasks, LinearError> {
    Tasks::exact((0..truth.count().saturating_sub(1)).map(|t| truth.task(t)))
}

/// `count` samples of task `t`: inputs `X` (d x count) and outputs `Y` (d x count), samples as
/// columns. `seed` is the problem's root; the first columns do not depend on `count`. Panics if the
/// truth has no task `t`.
pub fn sample(
    truth: &GroundTruth,
    t: usize,
    count: usize,
    noise_std: f64,
    seed: &Seed,
) -> (Mat<f64>, Mat<f64>) {
    let d = truth.dimension();
    let seed = seed.child("task").child(t);
    let x = seed.child("inputs").stream().normal_matrix(d, count, 1.0);
    let mut y = seed.child("noise").stream().normal_matrix(d, count, noise_std);
    kernel::mul_add(y.as_mut(), truth.task(t).as_ref(), x.as_ref(), 1.0);
    (x, y)
}

/// A smaller problem inside `truth`: the leading `dimension` rows and columns of the base, the
/// first `rank` columns of the offsets' factors, the first `tasks` tasks and the last one as test
/// task. Sizes beyond those of `truth` are an error.
///
/// # Errors
/// [`DataError::Setting`].
pub fn cut(
    truth: &GroundTruth,
    dimension: usize,
    rank: usize,
    tasks: usize,
) -> Result<GroundTruth, DataError> {
    let width = truth.offsets.first().map_or(0, LowRank::width);
    let limits = [
        ("dimension", dimension, truth.dimension()),
        ("rank", rank, width),
        ("tasks", tasks, truth.count().saturating_sub(1)),
    ];
    for (name, value, most) in limits {
        if value > most {
            let expected = "at most that of the truth to be cut";
            return Err(DataError::Setting { name, value: value as f64, expected });
        }
    }
    let leading = |m: MatRef<'_, f64>, cols| m.submatrix(0, 0, dimension, cols).to_owned();
    let kept = truth.offsets[..tasks].iter().chain(truth.offsets.last());
    let offsets = kept
        .map(|offset| {
            let (left, right) = (leading(offset.left(), rank), leading(offset.right(), rank));
            LowRank::new(left, right).expect("both factors have `rank` columns")
        })
        .collect();
    Ok(GroundTruth { base: leading(truth.base.as_ref(), dimension), offsets, kind: truth.kind })
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::compare;

    fn spec(family: Family, kind: Kind) -> LinearSpec {
        LinearSpec {
            dimension: 6,
            rank: 2,
            tasks: 3,
            samples_per_task: 40,
            test_samples: 9,
            noise_std: 0.1,
            kind,
            family,
        }
    }

    #[test]
    fn the_base_is_symmetric_exactly_where_the_problem_is() {
        for family in Family::ALL {
            for (kind, symmetric) in [(Kind::Symmetric, true), (Kind::Asymmetric, false)] {
                let spec = spec(family, kind);
                let truth = spec.ground_truth(&spec.seed(1));
                assert_eq!(truth.count(), 4);
                for t in 0..4 {
                    let a = truth.task(t);
                    // a_ij and a_ji are the same sums in the same order: equal to the last bit.
                    assert_eq!(a == a.transpose().to_owned(), symmetric, "{family:?} {kind:?} {t}");
                }
            }
        }
    }

    #[test]
    fn samples_obey_the_model_and_the_noise_has_its_standard_deviation() {
        let spec = LinearSpec { samples_per_task: 20_000, ..spec(Family::Iid, Kind::Symmetric) };
        let seed = spec.seed(3);
        let truth = spec.ground_truth(&seed);
        let (x, y) = sample(&truth, 1, 20_000, 0.1, &seed);
        let mut rest = y.clone();
        kernel::mul_add(rest.as_mut(), truth.task(1).as_ref(), x.as_ref(), -1.0);
        let count = (6 * 20_000) as f64;
        let variance = kernel::norm_squared(rest.as_ref()) / count;
        // The mean of `count` squares of N(0, s^2) has standard error s^2 sqrt(2/count); six of them.
        assert!((variance / 0.01 - 1.0).abs() < 6.0 * (2.0 / count).sqrt());
        // Control: against another task's truth the rest is the tasks' difference, not noise.
        let mut wrong = y.clone();
        kernel::mul_add(wrong.as_mut(), truth.task(2).as_ref(), x.as_ref(), -1.0);
        assert!(kernel::norm_squared(wrong.as_ref()) / count > 0.1);
    }

    #[test]
    fn problems_that_differ_in_noise_family_or_kind_share_their_inputs() {
        let plain = spec(Family::Iid, Kind::Symmetric);
        let other = LinearSpec { noise_std: 0.0, ..spec(Family::Correlated, Kind::Asymmetric) };
        let (a, b) = (plain.ground_truth(&plain.seed(1)), other.ground_truth(&other.seed(1)));
        let inputs = |spec: &LinearSpec, truth: &GroundTruth, seed| {
            sample(truth, 0, 5, spec.noise_std, &spec.seed(seed)).0
        };
        assert_eq!(inputs(&plain, &a, 1), inputs(&other, &b, 1));
        assert_ne!(inputs(&plain, &a, 1), inputs(&plain, &a, 2));
        // Sizes do name another problem.
        let larger = LinearSpec { samples_per_task: 41, ..plain.clone() };
        assert_ne!(inputs(&plain, &a, 1), inputs(&larger, &a, 1));
        // More samples begin with the same ones.
        let (few, _) = sample(&a, 0, 5, 0.1, &plain.seed(1));
        let (many, _) = sample(&a, 0, 8, 0.1, &plain.seed(1));
        assert_eq!(few.as_ref(), many.as_ref().subcols(0, 5));
    }

    #[test]
    fn a_cut_keeps_the_leading_part_and_the_test_task() {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            let spec = spec(Family::Iid, kind);
            let truth = spec.ground_truth(&spec.seed(1));
            let small = cut(&truth, 4, 1, 2).unwrap();
            assert_eq!((small.dimension(), small.count(), small.offsets[0].width()), (4, 3, 1));
            assert_eq!(small.base.as_ref(), truth.base.as_ref().submatrix(0, 0, 4, 4));
            for (t, original) in [(0, 0), (1, 1), (2, 3)] {
                let whole = truth.offsets[original].clone();
                let part = &small.offsets[t];
                assert_eq!(part.left(), whole.left().submatrix(0, 0, 4, 1));
                assert_eq!(part.right(), whole.right().submatrix(0, 0, 4, 1));
            }
            assert_eq!(cut(&truth, 6, 2, 3).unwrap(), truth);
            for (d, k, tasks) in [(7, 1, 1), (4, 3, 1), (4, 1, 4)] {
                assert!(matches!(cut(&truth, d, k, tasks), Err(DataError::Setting { .. })));
            }
        }
    }

    #[test]
    fn families_have_their_laws() {
        // Correlated: U_t + 3 s_t U_0 over many tasks; the span of U_0 carries (T times) nine times
        // the energy. Badly scaled: the norms' logarithms spread with standard deviation 1.
        let count = 400;
        let with = |family| LinearSpec { tasks: count - 1, ..spec(family, Kind::Symmetric) };
        let energy = |family| {
            let spec = with(family);
            let truth = spec.ground_truth(&spec.seed(5));
            let squares = (0..count).map(|t| kernel::norm_squared(truth.left(t)));
            squares.collect::<Vec<f64>>()
        };
        let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
        let (iid, correlated, scaled) =
            (energy(Family::Iid), energy(Family::Correlated), energy(Family::BadlyScaled));
        // E||U||^2 = d k = 12, variance 2 d k; six standard errors of the mean of 400.
        assert!((mean(&iid) - 12.0).abs() < 6.0 * (24.0_f64 / 400.0).sqrt());
        assert!(mean(&correlated) > 2.0 * mean(&iid));
        let logs = |v: &[f64]| v.iter().map(|s| 0.5 * s.ln()).collect::<Vec<f64>>();
        let spread = |v: &[f64]| {
            let m = mean(v);
            (v.iter().map(|x| (x - m).powi(2)).sum::<f64>() / (v.len() - 1) as f64).sqrt()
        };
        // log|U| of the iid family spreads by about 1/sqrt(2 d k) = 0.2; sample standard deviations
        // of 400 draws have relative standard error 1/sqrt(2 * 399) = 0.035.
        assert!(spread(&logs(&iid)) < 0.3);
        assert!((spread(&logs(&scaled)) - (1.0_f64 + 0.04).sqrt()).abs() < 6.0 * 0.036);
    }

    #[test]
    fn exact_tasks_leave_the_test_task_out() {
        let spec = spec(Family::Iid, Kind::Asymmetric);
        let truth = spec.ground_truth(&spec.seed(1));
        let tasks = exact_tasks(&truth).unwrap();
        assert_eq!(tasks.count(), 3);
        assert!(compare::distance(tasks.task(2).least_squares(), truth.task(2).as_ref()) == 0.0);
    }

    #[test]
    fn impossible_sizes_are_refused_by_name() {
        let good = spec(Family::Iid, Kind::Symmetric);
        assert!(good.check().is_ok());
        for bad in [
            LinearSpec { rank: 7, ..good.clone() },
            LinearSpec { dimension: 0, ..good.clone() },
            LinearSpec { tasks: 0, ..good.clone() },
            LinearSpec { noise_std: f64::NAN, ..good.clone() },
            LinearSpec { noise_std: -0.1, ..good.clone() },
        ] {
            assert!(matches!(bad.check(), Err(DataError::Setting { .. })), "{bad:?}");
        }
    }
}
