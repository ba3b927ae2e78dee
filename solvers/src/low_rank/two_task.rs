//! T = 2 in closed form.
//!
//! The objective depends on `dR = R_1 - R_2` alone: `F = 1/4 tr((M - dR) Sigma (M - dR)^T)`,
//! `M = Ahat_1 - Ahat_2`, `Sigma = (S_1^{-1} + S_2^{-1})^{-1}` (exact tasks: I/2).
//!
//! * Symmetric, exact: `U_1 U_1^T` and `U_2 U_2^T` are the k leading eigenparts of the positive and of the
//!   negative part of `sym M`: the balanced solution, `U_1^T U_2 = 0`. Global (theory.md C6).
//! * Symmetric, samples: the minimum over `dR` of inertia at most (k, k) by Gauss-Newton from the
//!   unweighted solution, whose inner conjugate gradients stay off the k^2 flat directions; then `dR`
//!   is split in the balanced way again.
//! * Asymmetric: `dR` = rank-2k truncation of `M Sigma^{1/2}`, times `Sigma^{-1/2}`: closed form for samples
//!   too. Every split is optimal; singular triples 1..k go to task 1, k+1..2k to task 2.
//!
//! The base is the profile minimiser. It is not `A*`: two tasks never identify it (`rho = 0`).

use super::global::{ROUNDING_MARGIN, check_second_moments, rounding_of_gradient};
use super::parts::{from_blocks, to_blocks};
use crate::iterate::{self, Evaluations, MaxIterations, Observer, StopReason};
use crate::problem::{BaseSolver, Problem, Solution, SolveError, input_asymmetry};
use crate::registry::{Entry, Order};
use crate::second_order::GaussNewton;
use faer::{Mat, MatRef};
use peftml_linalg::{Blocks, LowRank, decompose, kernel};
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, LinearError, ProfileObjective, Tasks};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "two-task",
    summary: "Closed form for T = 2: the best split of the tasks' difference.",
    order: Order::Direct,
    memory: "O(d^2)",
    guarantees: "a global minimum for exact tasks; T = 2 does not determine the base",
    needs_start: false,
    settings: &[],
    build: |settings| {
        let default = TwoTask::default();
        let polish_steps = settings.max_iterations.unwrap_or(default.polish_steps);
        Ok(Box::new(TwoTask { polish_steps }))
    },
};

/// Configuration; see the module's header.
#[derive(Clone, Copy, Debug)]
pub struct TwoTask {
    /// Most Gauss-Newton steps for sampled symmetric problems. Default 100.
    pub polish_steps: usize,
}

impl Default for TwoTask {
    fn default() -> Self {
        Self { polish_steps: 100 }
    }
}

impl BaseSolver for TwoTask {
    fn solve(
        &self,
        problem: &Problem<'_>,
        _start: Option<&Blocks>,
        observer: &mut dyn Observer,
    ) -> Result<Solution, SolveError> {
        let Problem { tasks, kind, rank } = *problem;
        if tasks.count() != 2 {
            return Err(SolveError::TaskCount {
                method: "two-task",
                expected: "2",
                found: tasks.count(),
            });
        }
        let d = tasks.dimension();
        if rank == 0 || rank > d {
            return Err(LinearError::Rank { rank, dimension: d }.into());
        }
        check_second_moments(tasks)?;
        let objective = ProfileObjective::new(tasks, kind, rank)?;
        let mut difference = tasks.task(0).least_squares().to_owned();
        kernel::add_scaled(difference.as_mut(), -1.0, tasks.task(1).least_squares());
        let mut evaluations = Evaluations { factorisations: 1, ..Default::default() };
        let mut iterations = 0;
        let mut stop_reason = StopReason::Direct;
        let adapters = match kind {
            Kind::Symmetric => {
                let start = split_symmetric(difference.as_ref(), rank)?;
                if tasks.is_exact() {
                    start
                } else {
                    let x = to_blocks(kind, &start, objective.layout());
                    let rule = MaxIterations(self.polish_steps);
                    let gradient_rounding = rounding_of_gradient(tasks, &x) / ROUNDING_MARGIN;
                    let method = GaussNewton { gradient_rounding, ..Default::default() };
                    let state = iterate::run(&method, &objective, x, &rule, observer)?;
                    iterations = state.iteration;
                    evaluations = state.evaluations;
                    stop_reason = if state.gradient_norm <= rounding_of_gradient(tasks, &state.x) {
                        StopReason::Stationary
                    } else {
                        state.stop.unwrap_or(StopReason::Stagnated)
                    };
                    let found = from_blocks(kind, &state.x);
                    let mut offset = found[0].to_dense();
                    found[1].add_to(offset.as_mut(), -1.0);
                    split_symmetric(offset.as_ref(), rank)?
                }
            }
            Kind::Asymmetric => {
                let offset = weighted_truncation(tasks, difference.as_ref(), 2 * rank)?;
                split_asymmetric(offset.as_ref(), rank)?
            }
        };
        let x = to_blocks(kind, &adapters, objective.layout());
        let base = objective.base(&x);
        let loss = objective.value(&x, &mut vec![0.0; objective.work_len()]);
        Ok(Solution {
            base,
            adapters,
            loss,
            rho: Some(0.0),
            gap: None,
            predicted_error: None,
            iterations,
            stop_reason,
            evaluations,
            input_asymmetry: input_asymmetry(problem),
        })
    }
}

/// The k leading eigenparts of the positive and of the negative part of `sym m`.
fn split_symmetric(m: MatRef<'_, f64>, rank: usize) -> Result<Vec<LowRank>, SolveError> {
    let d = m.nrows();
    let mut symmetric = m.to_owned();
    kernel::symmetrise(symmetric.as_mut());
    let (values, vectors) = decompose::symmetric_eigen(symmetric.as_ref())?;
    let part = |sign: f64| {
        Mat::from_fn(d, rank, |i, c| {
            let index = if sign > 0.0 { d - 1 - c } else { c };
            vectors[(i, index)] * (sign * values[index]).max(0.0).sqrt()
        })
    };
    Ok(vec![LowRank::symmetric(part(1.0)), LowRank::symmetric(part(-1.0))])
}

/// Singular triples 1..k to task 1, k+1..2k (with the sign turned) to task 2.
fn split_asymmetric(m: MatRef<'_, f64>, rank: usize) -> Result<Vec<LowRank>, SolveError> {
    let d = m.nrows();
    let svd = decompose::thin_svd(m)?;
    let factor = |vectors: &Mat<f64>, first: usize, sign: f64| {
        Mat::from_fn(d, rank, |i, c| {
            let index = first + c;
            if index < d { sign * vectors[(i, index)] * svd.values[index].sqrt() } else { 0.0 }
        })
    };
    let adapter = |first: usize, sign: f64| {
        LowRank::new(factor(&svd.left, first, sign), factor(&svd.right, first, 1.0))
    };
    Ok([adapter(0, 1.0), adapter(rank, -1.0)].into_iter().flatten().collect())
}

/// `argmin over rank R <= rank of tr((M - R) Sigma (M - R)^T)`.
fn weighted_truncation(
    tasks: &Tasks,
    m: MatRef<'_, f64>,
    rank: usize,
) -> Result<Mat<f64>, SolveError> {
    let d = tasks.dimension();
    let mut inverse_weight = Mat::zeros(d, d);
    for task in tasks.iter() {
        match task.second_moment() {
            None => (0..d).for_each(|i| inverse_weight[(i, i)] += 1.0),
            Some(s) => {
                let inverse = decompose::CholeskyFactor::new(s)?.inverse();
                kernel::add_scaled(inverse_weight.as_mut(), 1.0, inverse.as_ref());
            }
        }
    }
    // Sigma^{-1} = L L^T, so M Sigma^{1/2} is M L^{-T} up to rotation, and R = truncation times L^T.
    let factor = decompose::CholeskyFactor::new(inverse_weight.as_ref())?;
    let mut weighted = m.to_owned();
    factor.solve_right_in_place(weighted.as_mut());
    let mut scaled = Mat::zeros(d, d);
    kernel::mul(scaled.as_mut(), weighted.as_ref(), factor.lower(), 1.0);
    let leading = decompose::thin_svd(scaled.as_ref())?.balanced_factors(rank).to_dense();
    let mut offset = Mat::zeros(d, d);
    kernel::mul(offset.as_mut(), leading.as_ref(), factor.lower().transpose(), 1.0);
    Ok(offset)
}
