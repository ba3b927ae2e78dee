//! Linear problems at and beyond the edge of what can be solved, and the verdict on an answer.
//!
//! Bound of exact tasks (relative error of A): `20 (u + (u s / gap)^2) / rho`, `s = max ||A_t||_F / min
//! sigma_2k(A_s - A_t)` over pairs of different tasks, `rho` and `gap` those of the true subspaces, `u` that
//! of float64. Samples without noise: `u` times the condition number of the worst `S_t`. Samples with noise: six
//! times the predicted error, which is a root mean square. Where the bound is above 1e-6 it promises nothing, and
//! an answer must keep its own predicted error (six times that, where it is an estimate).

use faer::{Mat, MatRef};
use peftml_linalg::{LowRank, Seed, Sequential, Stream, compare, decompose, kernel};
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::Global;
use peftml_solvers::low_rank::global::within_conditions;
use peftml_solvers::{BaseSolver, Problem, Solution, SolveError};
use peftml_theory::linear::{GroundTruth, Identification, Kind, Task, Tasks};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What makes a problem hard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing: the control.
    Generic,
    /// Offsets whose sizes differ by up to 1e6.
    Scales,
    /// Offsets' ranges that differ by 1 to 1e-7 from a common one.
    Parallel,
    /// A base of norm 1e6 against offsets of 1.
    LargeBase,
    /// Tasks that occur twice or more.
    Duplicates,
    /// The fewest tasks that identify the base, and one fewer.
    FewestTasks,
    /// Zero matrices, zero offsets, offsets of lower rank.
    Degenerate,
    /// Samples without noise, `S_t` of condition up to 1e8.
    Conditioned,
    /// Samples with noise, `S_t` of condition up to 1e8.
    ConditionedNoise,
    /// As few samples as dimensions, give or take three.
    FewSamples,
    /// `A` with second moments of condition up to 1e8.
    Moments,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 11] = [
        Class::Generic,
        Class::Scales,
        Class::Parallel,
        Class::LargeBase,
        Class::Duplicates,
        Class::FewestTasks,
        Class::Degenerate,
        Class::Conditioned,
        Class::ConditionedNoise,
        Class::FewSamples,
        Class::Moments,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Class::Generic => "generic",
            Class::Scales => "offsets of sizes 1e-3 to 1e3",
            Class::Parallel => "nearly parallel ranges",
            Class::LargeBase => "base of norm 1e6, offsets of 1",
            Class::Duplicates => "repeated tasks",
            Class::FewestTasks => "fewest tasks that identify, and one fewer",
            Class::Degenerate => "zero matrices, zero or deficient offsets",
            Class::Conditioned => "samples without noise, S of condition up to 1e8",
            Class::ConditionedNoise => "samples with noise, S of condition up to 1e8",
            Class::FewSamples => "about as many samples as dimensions",
            Class::Moments => "A with S of condition up to 1e8",
        }
    }
}

/// What became of a problem.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// An answer within its bound.
    Right {
        /// Error over bound.
        ratio: f64,
    },
    /// A refusal.
    Refused {
        /// The error's kind.
        reason: &'static str,
        /// Whether the bound promised six digits.
        solvable: bool,
        /// The refusal with the problem's sizes.
        what: String,
    },
    /// A wrong answer, one that is not finite, or a panic.
    Wrong {
        /// What happened.
        what: String,
    },
}

/// Outcomes of a class.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Answers within their bounds.
    pub right: usize,
    /// Refusals.
    pub refused: usize,
    /// Refusals although the bound promised six digits.
    pub solvable: usize,
    /// Everything else.
    pub wrong: usize,
    /// Largest error over bound.
    pub ratio: f64,
    /// Refusals by kind.
    pub reasons: BTreeMap<&'static str, usize>,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Right { ratio } => {
                self.right += 1;
                self.ratio = self.ratio.max(*ratio);
            }
            Outcome::Refused { reason, solvable, .. } => {
                self.refused += 1;
                self.solvable += usize::from(*solvable);
                *self.reasons.entry(reason).or_default() += 1;
            }
            Outcome::Wrong { .. } => self.wrong += 1,
        }
    }

    /// Adds the counts of another class.
    pub fn merge(&mut self, other: &Counts) {
        self.right += other.right;
        self.refused += other.refused;
        self.solvable += other.solvable;
        self.wrong += other.wrong;
        self.ratio = self.ratio.max(other.ratio);
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason).or_default() += count;
        }
    }

    /// A row of the table.
    pub fn row(&self, name: &str) -> String {
        let all = self.right + self.refused + self.wrong;
        format!(
            "| {name} | {all} | {} | {:.1e} | {} | {} | {} |",
            self.right, self.ratio, self.refused, self.solvable, self.wrong
        )
    }
}

/// A problem with its truth.
struct Hard {
    truth: GroundTruth,
    tasks: Tasks,
    /// Largest condition number of an `S_t`.
    condition: f64,
    noisy: bool,
}

/// Draws a problem of a class and judges the solver's answer; odd `number`s of exact tasks go through the
/// solver that only passes over its matrices.
pub fn run(class: Class, seed: &Seed, number: u64) -> Outcome {
    let mut stream = seed.stream();
    let kind = if stream.below(2) == 0 { Kind::Symmetric } else { Kind::Asymmetric };
    let (d, k, count) = sizes(class, &mut stream);
    let hard = match draw(class, kind, d, k, count, &mut stream) {
        Ok(hard) => hard,
        Err(what) => return Outcome::Wrong { what },
    };
    let passes = number / Class::ALL.len() as u64 % 2 == 1 && hard.tasks.is_exact();
    let answer = catch_unwind(AssertUnwindSafe(|| {
        if passes {
            Global::default().solve_matrices(&hard.tasks, kind, k, &Sequential)
        } else {
            let problem = Problem { tasks: &hard.tasks, kind, rank: k };
            Global::default().solve(&problem, None, &mut Silent)
        }
    }));
    match answer {
        Err(_) => Outcome::Wrong { what: format!("a panic at {kind:?} d={d} k={k} T={count}") },
        Ok(answer) => judge(&hard, k, &answer, passes),
    }
}

fn sizes(class: Class, stream: &mut Stream) -> (usize, usize, usize) {
    let k = 1 + stream.below(4) as usize;
    let d = 2 * k + 1 + stream.below(16) as usize;
    let fewest = (3..).find(|count| within_conditions(d, k, *count)).unwrap_or(3);
    let count = match class {
        Class::FewestTasks => (fewest - usize::from(stream.below(8) == 0)).max(2),
        _ => fewest + stream.below(5) as usize,
    };
    (d, k, count)
}

fn draw(
    class: Class,
    kind: Kind,
    d: usize,
    k: usize,
    count: usize,
    stream: &mut Stream,
) -> Result<Hard, String> {
    let mut base = stream.normal_matrix(d, d, 1.0);
    if kind == Kind::Symmetric {
        kernel::symmetrise(base.as_mut());
    }
    if class == Class::LargeBase {
        let norm = kernel::norm(base.as_ref());
        kernel::scale(base.as_mut(), 1e6 / norm);
    }
    let common = [stream.normal_matrix(d, k, 1.0), stream.normal_matrix(d, k, 1.0)];
    let angle = 10f64.powf(-7.0 * stream.uniform());
    let deficient = stream.below(4);
    let mut offsets: Vec<LowRank> = (0..count)
        .map(|t| {
            let scale = match class {
                // Factors: offsets have the square.
                Class::Scales => 10f64.powf(3.0 * stream.uniform() - 1.5),
                Class::LargeBase => 1.0 / (d as f64).sqrt(),
                _ => 1.0,
            };
            let mut factor = |side: usize| {
                let mut u = stream.normal_matrix(d, k, scale);
                match class {
                    Class::Parallel => {
                        kernel::scale(u.as_mut(), angle);
                        kernel::add_scaled(u.as_mut(), 1.0, common[side].as_ref());
                    }
                    Class::Degenerate => degrade(&mut u, deficient, t),
                    _ => {}
                }
                u
            };
            let u = factor(0);
            match kind {
                Kind::Symmetric => LowRank::symmetric(u),
                Kind::Asymmetric => LowRank::new(u, factor(1)).expect("both have k columns"),
            }
        })
        .collect();
    if class == Class::Degenerate && deficient == 3 {
        base.fill(0.0);
    }
    if class == Class::Duplicates {
        for _ in 0..1 + stream.below(count as u64) {
            let from = stream.below(count as u64) as usize;
            let to = stream.below(count as u64) as usize;
            offsets[to] = offsets[from].clone();
        }
    }
    let truth = GroundTruth { base, offsets, kind };
    let exact: Vec<Mat<f64>> = (0..count).map(|t| truth.task(t)).collect();
    let spread = 4.0 * stream.uniform();
    let noise = match class {
        Class::ConditionedNoise => 10f64.powf(-4.0 * stream.uniform()),
        Class::FewSamples if stream.below(2) == 0 => 0.1,
        _ => 0.0,
    };
    let mut condition = 1.0_f64;
    let tasks: Result<Vec<Task>, _> = exact
        .into_iter()
        .enumerate()
        .map(|(t, a)| match class {
            Class::Conditioned | Class::ConditionedNoise | Class::FewSamples => {
                let n = match class {
                    Class::FewSamples => (d + stream.below(7) as usize).saturating_sub(3).max(1),
                    _ => 2 * d + stream.below(20 * d as u64) as usize,
                };
                let spread = if class == Class::FewSamples { 0.0 } else { spread };
                let x = inputs(d, n, spread, stream);
                let mut y = stream.normal_matrix(d, n, noise);
                kernel::mul_add(y.as_mut(), a.as_ref(), x.as_ref(), 1.0);
                condition = condition.max(condition_of(&x));
                Task::from_samples(t, x.as_ref(), y.as_ref())
            }
            Class::Moments => {
                let x = inputs(d, 3 * d, spread, stream);
                condition = condition.max(condition_of(&x));
                let mut s = Mat::zeros(d, d);
                kernel::mul(s.as_mut(), x.as_ref(), x.transpose(), 1.0 / (3 * d) as f64);
                kernel::symmetrise(s.as_mut());
                Ok(Task::with_second_moment(a, s))
            }
            _ => Ok(Task::exact(a)),
        })
        .collect();
    let tasks = tasks.and_then(|tasks| Tasks::new(tasks, f64::EPSILON / 2.0));
    let tasks = tasks.map_err(|error| format!("the tasks themselves were refused: {error}"))?;
    Ok(Hard { truth, tasks, condition, noisy: noise > 0.0 })
}

/// Zero offsets for all, for all but two or for one task, or columns of 0.
fn degrade(u: &mut Mat<f64>, how: u64, t: usize) {
    let zero = match how {
        0 => t >= 2,
        1 => t == 0,
        2 => false,
        _ => true,
    };
    if zero {
        u.fill(0.0);
    } else if how == 2 {
        let last = u.ncols() - 1;
        u.as_mut().subcols_mut(last, 1).fill(0.0);
    }
}

/// `X` whose second moment has condition number about `10^(2 spread)`, along random directions.
fn inputs(d: usize, n: usize, spread: f64, stream: &mut Stream) -> Mat<f64> {
    let mut x = stream.normal_matrix(d, n, 1.0);
    for i in 0..d {
        let scale = 10f64.powf(-spread * i as f64 / (d - 1).max(1) as f64);
        kernel::scale(x.as_mut().subrows_mut(i, 1), scale);
    }
    let turn = decompose::orthonormal_basis(stream.normal_matrix(d, d, 1.0).as_ref());
    let mut out = Mat::zeros(d, n);
    kernel::mul(out.as_mut(), turn.as_ref(), x.as_ref(), 1.0);
    out
}

fn condition_of(x: &Mat<f64>) -> f64 {
    let Ok(values) = decompose::singular_values(x.as_ref()) else { return f64::INFINITY };
    let (most, least) = (values[0], values[values.len() - 1]);
    if x.ncols() < x.nrows() { f64::INFINITY } else { (most / least).powi(2) }
}

/// Relative error that the data allow.
fn bound(hard: &Hard, rank: usize) -> f64 {
    let truth = &hard.truth;
    let basis = |m: MatRef<'_, f64>| decompose::orthonormal_basis(m);
    let left: Vec<_> = truth.offsets.iter().map(|o| basis(o.left())).collect();
    let right: Vec<_> = truth.offsets.iter().map(|o| basis(o.right())).collect();
    let operator = Identification::new(truth.kind, &left, &right);
    let rho = operator.and_then(|operator| operator.rho()).unwrap_or(0.0);
    let gap = truth_gap(&left).min(truth_gap(&right));
    let most = (0..truth.count()).map(|t| kernel::norm(truth.task(t).as_ref())).fold(0.0, f64::max);
    let mut least = f64::INFINITY;
    for t in 0..truth.count() {
        for s in 0..t {
            let mut difference = truth.offsets[t].to_dense();
            truth.offsets[s].add_to(difference.as_mut(), -1.0);
            let values = decompose::singular_values(difference.as_ref()).unwrap_or_default();
            let last = values.get(2 * rank - 1).copied().unwrap_or(0.0);
            // Equal tasks tell nothing, and spoil nothing.
            if values.first().is_some_and(|first| *first > 1e-12 * most) {
                least = least.min(last);
            }
        }
    }
    let u = f64::EPSILON / 2.0 * hard.condition;
    let size = most / kernel::norm(truth.base.as_ref()).max(f64::MIN_POSITIVE);
    20.0 * size.max(1.0) * (u + (u * (most / least) / gap).powi(2)) / rho
}

/// `1 - ` the second largest eigenvalue of the mean projector, over tasks: how well pairs tell a subspace.
fn truth_gap(bases: &[Mat<f64>]) -> f64 {
    let mut gap = 1.0_f64;
    for (t, own) in bases.iter().enumerate() {
        for (s, other) in bases.iter().enumerate() {
            if s == t {
                continue;
            }
            let mut overlap = Mat::zeros(own.ncols(), other.ncols());
            kernel::mul(overlap.as_mut(), own.transpose(), other.as_ref(), 1.0);
            let cosine =
                decompose::singular_values(overlap.as_ref()).map_or(1.0, |v| v[0].min(1.0));
            if cosine < 1.0 - 1e-14 {
                gap = gap.min(1.0 - cosine * cosine);
            }
        }
    }
    gap
}

fn judge(hard: &Hard, rank: usize, answer: &Result<Solution, SolveError>, passes: bool) -> Outcome {
    let bound = bound(hard, rank);
    let solution = match answer {
        Ok(solution) => solution,
        Err(error) => {
            let solvable = bound <= 1e-6 && !hard.noisy;
            let what = format!(
                "{:?} d={} k={rank} T={} {}, bound {bound:.1e}: {error}",
                hard.truth.kind,
                hard.truth.dimension(),
                hard.truth.count(),
                if passes { "passes" } else { "dense" },
            );
            return Outcome::Refused { reason: reason(error), solvable, what };
        }
    };
    let (d, count) = (hard.truth.dimension(), hard.truth.count());
    let size = kernel::norm(hard.truth.base.as_ref()).max(f64::MIN_POSITIVE);
    let error = compare::distance(solution.base.as_ref(), hard.truth.base.as_ref());
    let predicted = solution.predicted_error.unwrap_or(0.0);
    let finite = kernel::is_finite(solution.base.as_ref())
        && solution.loss.is_finite()
        && predicted.is_finite()
        && solution
            .adapters
            .iter()
            .all(|a| kernel::is_finite(a.left()) && kernel::is_finite(a.right()));
    // A bound that promises nothing allows nothing: then the answer's own figure has to hold. That of estimates
    // is a root mean square, whether the residual that it comes from is noise or amplified rounding.
    let own = if hard.tasks.is_exact() { predicted } else { 6.0 * predicted };
    let promised = if bound <= 1e-6 && !hard.noisy { bound * size } else { 0.0 };
    let allowed = own.max(promised);
    let ratio = error / allowed;
    if finite && ratio <= 1.0 {
        return Outcome::Right { ratio };
    }
    let what = format!(
        "{:?} d={d} k={rank} T={count} {}: error {:.1e} of A, predicted {:.1e}, bound {bound:.1e}, rho {:.1e}, gap {:.1e}, condition {:.1e}",
        hard.truth.kind,
        if passes { "passes" } else { "dense" },
        error / size,
        predicted / size,
        solution.rho.unwrap_or(f64::NAN),
        solution.gap.unwrap_or(f64::NAN),
        hard.condition,
    );
    Outcome::Wrong { what }
}

fn reason(error: &SolveError) -> &'static str {
    match error {
        SolveError::OutsideConditions { .. } => "OutsideConditions",
        SolveError::NotIdentifiable { .. } => "NotIdentifiable",
        SolveError::RankMismatch { .. } => "RankMismatch",
        SolveError::RankTooLarge { .. } => "RankTooLarge",
        SolveError::InputsSingular { .. } => "InputsSingular",
        SolveError::Linear(_) => "Linear",
        SolveError::Decomposition(_) => "Decomposition",
        _ => "another",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_hard_problem_gets_a_wrong_answer() {
        let mut counts = vec![Counts::default(); Class::ALL.len()];
        for number in 0..40 * Class::ALL.len() as u64 {
            let index = number as usize % Class::ALL.len();
            let seed = Seed::root(5).child("hard").child(number);
            let outcome = run(Class::ALL[index], &seed, number);
            assert!(!matches!(outcome, Outcome::Wrong { .. }), "{outcome:?}");
            counts[index].add(&outcome);
        }
        assert!(counts[0].right > 30, "control: generic problems are solved");
        assert!(counts[6].refused > 10, "control: degenerate ones are not");
    }

    #[test]
    fn a_wrong_answer_would_be_noticed() {
        let mut stream = Seed::root(6).child("hard").stream();
        let hard = draw(Class::Generic, Kind::Symmetric, 9, 2, 5, &mut stream).unwrap();
        let problem = Problem { tasks: &hard.tasks, kind: Kind::Symmetric, rank: 2 };
        let mut solution = Global::default().solve(&problem, None, &mut Silent).unwrap();
        let right = judge(&hard, 2, &Ok(solution.clone()), false);
        assert!(matches!(right, Outcome::Right { .. }), "{right:?}");
        solution.base[(0, 1)] += 1e-9;
        let wrong = judge(&hard, 2, &Ok(solution), false);
        assert!(matches!(wrong, Outcome::Wrong { .. }), "{wrong:?}");
    }
}
