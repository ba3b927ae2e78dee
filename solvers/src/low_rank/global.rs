//! The global solver: subspace intersection for T >= 3 tasks.
//!
//! 1. Ranges of pairwise differences, intersected to the offsets' subspaces ([`super::intersection`]).
//! 2. The base from one linear system ([`super::base_system`]).
//! 3. Adapters = best rank-k parts of `Ahat_t - A`, new subspaces from them; 2 and 3 again while the
//!    correction shrinks: an error e of the subspaces enters A as e^2, rounding is refined away.
//! 4. For exact tasks the profile minimiser of these adapters is the answer. With second moments,
//!    Gauss-Newton on the finite-sample profile objective ([`crate::second_order::GaussNewton`]).
//! 5. The answer is judged a posteriori: residual, `rho`, and the error that C9 predicts.
//!
//! Source: theory.md C4, C5, C9, Solvers.
//! Limits: `T >= 3`, `d > 2k`, `(T-1)(d-2k) >= d-k`; every second moment invertible.

use super::base_system::BaseSystem;
use super::intersection::{self, Subspaces};
use super::parts::{PartWorkspace, from_blocks, to_blocks};
use crate::iterate::{self, Evaluations, MaxIterations, Observer, StopReason};
use crate::problem::{BaseSolver, Problem, Solution, SolveError, input_asymmetry};
use crate::registry::{Entry, Order, SettingInfo};
use crate::second_order::GaussNewton;
use faer::{Mat, MatRef};
use peftml_linalg::{Blocks, LowRank, decompose, kernel};
use peftml_theory::Objective;
use peftml_theory::linear::{Identification, Kind, ProfileObjective, TaskSource, Tasks};

/// Smallest `rho` that counts as identified. Below it, an error of u in the data is one of 1e-8 in A.
const SMALLEST_RHO: f64 = 1e-8;
/// Largest predicted error, relative to the offsets' size, of an answer that is given.
const LARGEST_ERROR: f64 = 0.1;
/// Largest `T d^2 k` for which the base's residual is formed in doubled precision; larger problems
/// that are solvable at all have `rho` far from 0 and do not need it.
const LARGEST_COMPENSATED: usize = 1 << 20;
/// Rounds before a polish, which does the rest.
const ROUNDS_BEFORE_POLISH: usize = 2;
/// A run goes on to this fraction of the rounding bound, which typical rounding stays below.
pub(crate) const ROUNDING_MARGIN: f64 = 64.0;
/// Smallest reciprocal condition number of a second moment that leaves `Ahat_t` a few digits.
const SMALLEST_MOMENT: f64 = 1e-12;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "global",
    summary: "Subspace intersection for T >= 3, then Gauss-Newton where second moments are given.",
    order: Order::Direct,
    memory: "O(T d^2)",
    guarantees: "recovers the base from exact generic tasks; refuses where the tasks do not determine it",
    needs_start: false,
    settings: &[
        SettingInfo {
            name: "polish",
            default: "1",
            meaning: "1: Gauss-Newton where second moments are given (--max-iterations limits it); 0: none",
        },
        SettingInfo {
            name: "reach",
            default: "0",
            meaning: "each task is paired with this many on either side; 0 chooses",
        },
    ],
    build: |settings| {
        let default = Global::default();
        Ok(Box::new(Global {
            polish: settings.count("polish", 1, 0, "0 or 1")? > 0,
            polish_steps: settings.max_iterations.unwrap_or(default.polish_steps),
            reach: settings.count("reach", default.reach, 0, "a whole number")?,
            rounds: default.rounds,
        }))
    },
};

/// Configuration; see the module's header.
#[derive(Clone, Copy, Debug)]
pub struct Global {
    /// Polish by Gauss-Newton where second moments are given (default).
    pub polish: bool,
    /// Most Gauss-Newton steps. Default 50.
    pub polish_steps: usize,
    /// Each task is paired with this many tasks on either side (cyclically); 0 chooses: all pairs up
    /// to T = 16, beyond that twice what the theory needs.
    pub reach: usize,
    /// Most rounds of base, adapters and subspaces; refinement takes two or three. Default 8.
    pub rounds: usize,
}

impl Default for Global {
    fn default() -> Self {
        Self { polish: true, polish_steps: 50, reach: 0, rounds: 8 }
    }
}

/// Whether the theory promises an answer for these sizes.
pub fn within_conditions(dimension: usize, rank: usize, tasks: usize) -> bool {
    tasks >= 3
        && rank >= 1
        && dimension > 2 * rank
        && (tasks - 1) * (dimension - 2 * rank) >= dimension - rank
}

impl BaseSolver for Global {
    fn solve(
        &self,
        problem: &Problem<'_>,
        _start: Option<&Blocks>,
        observer: &mut dyn Observer,
    ) -> Result<Solution, SolveError> {
        let Problem { tasks, kind, rank } = *problem;
        let (d, count) = (tasks.dimension(), tasks.count());
        if !within_conditions(d, rank, count) {
            return Err(SolveError::OutsideConditions { dimension: d, rank, tasks: count });
        }
        check_second_moments(tasks)?;
        let polish = self.polish && !tasks.is_exact();
        let reach = self.reach_for(d, rank, count);
        let mut found = Fit::by_intersection(tasks, kind, rank, reach, polish, self.rounds)?;
        let objective = ProfileObjective::new(tasks, kind, rank)?;
        let mut x = to_blocks(kind, &found.adapters, objective.layout());
        let mut stop_reason = StopReason::Direct;
        if polish {
            let rule = MaxIterations(self.polish_steps);
            let gradient_rounding = rounding_of_gradient(tasks, &x) / ROUNDING_MARGIN;
            let method = GaussNewton { gradient_rounding, ..Default::default() };
            let state = iterate::run(&method, &objective, x, &rule, observer)?;
            found.iterations += state.iteration;
            found.evaluations.gradients += state.evaluations.gradients;
            found.evaluations.hessian_products += state.evaluations.hessian_products;
            found.evaluations.factorisations += state.evaluations.factorisations;
            stop_reason = if state.gradient_norm <= rounding_of_gradient(tasks, &state.x) {
                StopReason::Stationary
            } else {
                state.stop.unwrap_or(StopReason::Stagnated)
            };
            x = state.x;
            found.adapters = from_blocks(kind, &x);
            found.refresh_subspaces(kind)?;
        }
        let base = objective.base(&x);
        let mut work = vec![0.0; objective.work_len()];
        let loss = objective.value(&x, &mut work);
        let judged = judge(tasks, kind, rank, &found, &base)?;
        Ok(Solution {
            base,
            adapters: found.adapters,
            loss,
            rho: Some(judged.rho),
            gap: Some(found.gap),
            predicted_error: Some(judged.predicted_error),
            iterations: found.iterations,
            stop_reason,
            evaluations: found.evaluations,
            input_asymmetry: input_asymmetry(problem),
        })
    }
}

impl Global {
    fn reach_for(&self, d: usize, rank: usize, count: usize) -> usize {
        match self.reach {
            0 if count <= 16 => count,
            0 => intersection::fewest_partners(d, rank),
            reach => reach,
        }
    }
}

/// What rounding leaves of the gradient: `(1/T) sum` of products `E_t S_t U_t` whose factors `E_t`
/// are differences of matrices of size `||Ahat_t||`, each off by a few u.
pub(crate) fn rounding_of_gradient(tasks: &Tasks, x: &Blocks) -> f64 {
    let d = tasks.dimension() as f64;
    let moment = |s: Option<MatRef<'_, f64>>| s.map_or(1.0, |s| kernel::norm(s) / d.sqrt() * 2.0);
    let size = tasks
        .iter()
        .map(|t| kernel::norm(t.least_squares()) * moment(t.second_moment()))
        .fold(0.0, f64::max);
    8.0 * d * f64::EPSILON * size * x.norm() / tasks.count() as f64
}

pub(crate) fn check_second_moments(tasks: &Tasks) -> Result<(), SolveError> {
    for (t, task) in tasks.iter().enumerate() {
        if let Some(s) = task.second_moment() {
            let values = decompose::symmetric_eigenvalues(s)?;
            let (least, most) = (values[0], values[values.len() - 1]);
            if least <= SMALLEST_MOMENT * most {
                return Err(SolveError::InputsSingular { task: t, smallest: least, largest: most });
            }
        }
    }
    Ok(())
}

/// Subspaces, base and adapters while they are being found.
struct Fit {
    operator: Identification,
    adapters: Vec<LowRank>,
    gap: f64,
    iterations: usize,
    evaluations: Evaluations,
}

impl Fit {
    fn by_intersection(
        tasks: &Tasks,
        kind: Kind,
        rank: usize,
        reach: usize,
        polish: bool,
        rounds: usize,
    ) -> Result<Self, SolveError> {
        let (d, count) = (tasks.dimension(), tasks.count());
        let estimates: Vec<_> = tasks.iter().map(|t| t.least_squares()).collect();
        let Subspaces { left, right, gap, factorisations, .. } =
            intersection::intersect(&estimates, kind, rank, reach)?;
        let targets = targets(&estimates, kind);
        let mut operator = Identification::new(kind, &left, &right)?;
        let compensated = tasks.is_exact() && count * d * d * rank <= LARGEST_COMPENSATED;
        let mut system = BaseSystem::new(&operator, kind, compensated);
        let mut parts = PartWorkspace::new(kind, d, rank);
        let mut base = Mat::zeros(d, d);
        for target in &targets {
            kernel::add_scaled(base.as_mut(), 1.0 / count as f64, target.as_ref());
        }
        let (mut z, mut rest) = (Mat::zeros(d, d), Mat::zeros(d, d));
        let (mut q, mut p) = (Mat::zeros(d, rank), Mat::zeros(d, rank));
        let mut evaluations = Evaluations { factorisations, ..Default::default() };
        let (mut iterations, mut last) = (0, f64::INFINITY);
        let mut factors: Vec<_> =
            (0..count).map(|_| (Mat::zeros(d, rank), Mat::zeros(d, rank))).collect();
        let most_rounds = if polish { rounds.min(ROUNDS_BEFORE_POLISH) } else { rounds };
        while iterations < most_rounds {
            evaluations.hessian_products +=
                system.solve(&operator, &targets, base.as_ref(), z.as_mut());
            iterations += 1;
            kernel::add_scaled(base.as_mut(), 1.0, z.as_ref());
            for (t, (target, (left, right))) in targets.iter().zip(&mut factors).enumerate() {
                rest.copy_from(target);
                kernel::add_scaled(rest.as_mut(), -1.0, base.as_ref());
                parts.compute(rest.as_ref())?;
                parts.bases_into(&mut q, &mut p);
                operator.set(t, q.as_ref(), p.as_ref());
                parts.factors_into(left, right);
            }
            evaluations.factorisations += count;
            // Refinement ends where it no longer halves the correction, or at the rounding of A.
            let change = kernel::norm(z.as_ref());
            if change > 0.5 * last || change <= f64::EPSILON * kernel::norm(base.as_ref()) {
                break;
            }
            last = change;
        }
        let adapters = factors.into_iter().filter_map(|(left, right)| match kind {
            Kind::Symmetric => Some(LowRank::symmetric(left)),
            Kind::Asymmetric => LowRank::new(left, right),
        });
        let adapters = adapters.collect();
        Ok(Self { operator, adapters, gap, iterations, evaluations })
    }

    /// The operator at the adapters' own subspaces.
    fn refresh_subspaces(&mut self, kind: Kind) -> Result<(), SolveError> {
        for (t, adapter) in self.adapters.iter().enumerate() {
            let left = decompose::orthonormal_basis(adapter.left());
            match kind {
                Kind::Symmetric => self.operator.set(t, left.as_ref(), left.as_ref()),
                Kind::Asymmetric => {
                    let right = decompose::orthonormal_basis(adapter.right());
                    self.operator.set(t, left.as_ref(), right.as_ref());
                }
            }
        }
        Ok(())
    }
}

/// `Ahat_t`, its symmetric part where offsets are symmetric.
fn targets(estimates: &[MatRef<'_, f64>], kind: Kind) -> Vec<Mat<f64>> {
    let one = |a: &MatRef<'_, f64>| {
        let mut target = a.to_owned();
        if kind == Kind::Symmetric {
            kernel::symmetrise(target.as_mut());
        }
        target
    };
    estimates.iter().map(one).collect()
}

struct Judgement {
    rho: f64,
    predicted_error: f64,
}

/// Accepts or refuses an answer by its own figures.
fn judge(
    tasks: &Tasks,
    kind: Kind,
    rank: usize,
    found: &Fit,
    base: &Mat<f64>,
) -> Result<Judgement, SolveError> {
    let count = tasks.count() as f64;
    let (mut squares, mut offsets) = (0.0, 0.0);
    let mut rest = Mat::zeros(base.nrows(), base.ncols());
    for (task, adapter) in tasks.iter().zip(&found.adapters) {
        rest.copy_from(task.least_squares());
        kernel::add_scaled(rest.as_mut(), -1.0, base.as_ref());
        adapter.add_to(rest.as_mut(), -1.0);
        squares += kernel::norm_squared(rest.as_ref());
        offsets += kernel::norm_squared(adapter.to_dense().as_ref());
    }
    let residual = squares.sqrt() / tasks.norm().max(f64::MIN_POSITIVE);
    let offset_size = (offsets / count).sqrt();
    let (rho, predicted_error) = if tasks.is_exact() {
        let allowed = (32.0 * tasks.storage_roundoff()).max(1e-12);
        if residual > allowed {
            return Err(SolveError::RankMismatch { rank, residual, allowed });
        }
        let rho = found.operator.rho()?;
        // A zero-loss answer whose adapters have lower rank is not the only one (theory.md C11).
        let rounding = 20.0 * tasks.storage_roundoff() * tasks.norm() / count.sqrt() / rho;
        if full_rank_adapters(&found.adapters, rounding)? < 3 {
            return Err(SolveError::RankTooLarge { rank });
        }
        (rho, rounding)
    } else {
        let spectrum = found.operator.spectrum()?;
        let variance = noise_variance(tasks, kind, rank, squares)?;
        let d = tasks.dimension() as f64;
        let skew = match kind {
            Kind::Symmetric => d * (d - 1.0) / (2.0 * count),
            Kind::Asymmetric => 0.0,
        };
        let noise = (variance * (skew + spectrum.inverse_trace)).sqrt();
        let rounding = 20.0 * tasks.storage_roundoff() * tasks.norm() / count.sqrt() / spectrum.rho;
        (spectrum.rho, noise + rounding)
    };
    let relative = predicted_error / offset_size.max(f64::MIN_POSITIVE);
    // A NaN figure refuses too.
    if rho > SMALLEST_RHO && relative <= LARGEST_ERROR {
        Ok(Judgement { rho, predicted_error })
    } else {
        Err(SolveError::NotIdentifiable { rho, gap: found.gap, residual, predicted: relative })
    }
}

/// How many adapters have all their singular values above `floor`.
fn full_rank_adapters(adapters: &[LowRank], floor: f64) -> Result<usize, SolveError> {
    let mut count = 0;
    for adapter in adapters {
        // Balanced factors: the k-th singular value of the left one is the root of the product's.
        let values = decompose::singular_values(adapter.left())?;
        let least = values.last().copied().unwrap_or(0.0);
        count += usize::from(least * least > floor);
    }
    Ok(count)
}

/// Variance of an entry of `Ahat_t`. Two estimates: from the least-squares residuals of the samples
/// (pooled `noise_std^2 trace(S^-1) / (d N)`), and from the fit's own residual per degree of freedom.
/// The first counts where there are samples, unless the second is above it by six of its standard
/// deviations `sqrt(2 / freedom)`: then the rank is too small for the tasks, and the misfit counts.
fn noise_variance(tasks: &Tasks, kind: Kind, rank: usize, squares: f64) -> Result<f64, SolveError> {
    let (d, count, k) = (tasks.dimension() as f64, tasks.count() as f64, rank as f64);
    let entries = d * d * (count - 1.0);
    let adapters = match kind {
        Kind::Symmetric => count * (k * d - k * (k - 1.0) / 2.0),
        Kind::Asymmetric => count * k * (2.0 * d - k),
    };
    let freedom = entries - adapters;
    let from_fit = if freedom > 0.0 { squares / freedom } else { 0.0 };
    let (mut from_samples, mut sampled) = (0.0, true);
    for task in tasks.iter() {
        if let (TaskSource::Samples { count: n }, Some(s)) = (task.source(), task.second_moment())
            && n as f64 > d
        {
            let n = n as f64;
            let noise = 2.0 * task.residual_loss() * n / ((n - d) * d);
            let inverse = decompose::symmetric_eigenvalues(s)?.iter().map(|v| 1.0 / v).sum::<f64>();
            from_samples += noise * inverse / (d * n) / count;
        } else {
            sampled = false;
        }
    }
    let explained = from_samples * (1.0 + 6.0 * (2.0 / freedom.max(1.0)).sqrt());
    Ok(if sampled && from_fit <= explained { from_samples } else { from_fit.max(from_samples) })
}
