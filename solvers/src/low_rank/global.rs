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
//! Where dense decompositions would cost too much (`T d^2 k` above 2^20 and fewer flops by sketches), steps 1 to
//! 3 are those of `scale`, which only passes over the matrices.
//!
//! Source: theory.md C4, C5, C9, Solvers.
//! Limits: `T >= 3`, `d > 2k`, `(T-1)(d-2k) >= d-k`; every second moment invertible.

use super::base_system::BaseSystem;
use super::intersection::{self, Subspaces};
use super::judgement::{Evidence, Judgement};
use super::parts::{PartWorkspace, from_blocks, to_blocks};
use super::scale;
use super::scale::compressed::Compressed;
use super::scale::passes::Passes;
use crate::iterate::{self, Evaluations, MaxIterations, Observer, StopReason};
use crate::problem::{BaseSolver, Problem, Solution, SolveError, input_asymmetry};
use crate::registry::{Entry, Order, SettingInfo};
use crate::second_order::GaussNewton;
use faer::{Mat, MatRef};
use peftml_linalg::{Blocks, LowRank, Sequential, Workers, decompose, kernel};
use peftml_theory::Objective;
use peftml_theory::linear::{
    Identification, Kind, ProfileObjective, Spectrum, TaskMatrices, Tasks,
};

/// Largest `T d^2 k` for which dense decompositions are used and the base's residual is formed in doubled
/// precision; larger problems that are solvable at all have `rho` far from 0 and do not need it.
const LARGEST_COMPENSATED: usize = 1 << 20;
/// Rounds before a polish, which does the rest.
const ROUNDS_BEFORE_POLISH: usize = 2;
/// A run goes on to this fraction of the rounding bound, which typical rounding stays below.
pub(crate) const ROUNDING_MARGIN: f64 = 64.0;
/// Smallest reciprocal condition number of a second moment that leaves `Ahat_t` a few digits.
const SMALLEST_MOMENT: f64 = 1e-12;
/// Most tasks of which all pairs are tried where few do not explain exact tasks.
const MOST_ALL_PAIRS: usize = 32;

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
        SettingInfo {
            name: "sketch-seed",
            default: "0",
            meaning: "number of the random sketch's stream (large d)",
        },
    ],
    build: |settings| {
        let default = Global::default();
        Ok(Box::new(Global {
            polish: settings.count("polish", 1, 0, "0 or 1")? > 0,
            polish_steps: settings.max_iterations.unwrap_or(default.polish_steps),
            reach: settings.count("reach", default.reach, 0, "a whole number")?,
            rounds: default.rounds,
            sketch_seed: settings.count("sketch-seed", 0, 0, "a whole number")? as u64,
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
    /// Number of the stream that the sketch of large tasks is drawn from. Default 0.
    pub sketch_seed: u64,
}

impl Default for Global {
    fn default() -> Self {
        Self { polish: true, polish_steps: 50, reach: 0, rounds: 8, sketch_seed: 0 }
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
        start: Option<&Blocks>,
        observer: &mut dyn Observer,
    ) -> Result<Solution, SolveError> {
        self.solve_with(problem, start, observer, &Sequential)
    }

    fn solve_with(
        &self,
        problem: &Problem<'_>,
        _start: Option<&Blocks>,
        observer: &mut dyn Observer,
        workers: &dyn Workers,
    ) -> Result<Solution, SolveError> {
        let Problem { tasks, kind, rank } = *problem;
        let (d, count) = (tasks.dimension(), tasks.count());
        check_sizes(d, rank, count)?;
        let at_scale = self.at_scale(kind, d, rank, count);
        if tasks.is_exact() {
            if at_scale {
                return self.solve_matrices(tasks, kind, rank, workers);
            }
            check_offsets(problem)?;
        }
        check_second_moments(tasks)?;
        let polish = self.polish && !tasks.is_exact();
        let rounds = if polish { self.rounds.min(ROUNDS_BEFORE_POLISH) } else { self.rounds };
        let mut found = if at_scale {
            let settings = self.settings(kind, rank, self.reach_at_scale(d, rank), rounds);
            Fit::by_sketches(scale::find(Passes { source: tasks, workers }, settings)?)
        } else {
            let reach = self.reach_for(d, rank, count);
            Fit::by_intersection(tasks, kind, rank, reach, rounds)?
        };
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
            found.refresh_subspaces(kind, workers)?;
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

    fn solve_source(
        &self,
        source: &dyn TaskMatrices,
        kind: Kind,
        rank: usize,
        workers: &dyn Workers,
    ) -> Result<Solution, SolveError> {
        self.solve_matrices(source, kind, rank, workers)
    }

    fn uses_workers(&self) -> bool {
        true
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

    fn reach_at_scale(&self, d: usize, rank: usize) -> usize {
        if self.reach == 0 { intersection::fewest_partners(d, rank) } else { self.reach }
    }

    fn settings(&self, kind: Kind, rank: usize, reach: usize, rounds: usize) -> scale::Settings {
        scale::Settings { kind, rank, reach, rounds, sketch_seed: self.sketch_seed }
    }

    /// Sketches where dense decompositions with a residual in doubled precision cost too much for what they
    /// give, and the sketches cost less.
    fn at_scale(&self, kind: Kind, d: usize, rank: usize, count: usize) -> bool {
        let small = count.saturating_mul(d * d).saturating_mul(rank) <= LARGEST_COMPENSATED;
        let partners = (count - 1).div_ceil(2).min(self.reach_for(d, rank, count));
        !small && scale::pays(kind, d, rank, count, count * partners)
    }

    /// Solves for matrices that are only passed over (the module `scale`), on the caller's workers; they may lie in
    /// files. Estimates are not polished. The base is the profile minimiser of the adapters in the population
    /// loss.
    ///
    /// # Errors
    /// As [`BaseSolver::solve`], and [`LinearError::Unreadable`](peftml_theory::linear::LinearError).
    pub fn solve_matrices(
        &self,
        source: &dyn TaskMatrices,
        kind: Kind,
        rank: usize,
        workers: &dyn Workers,
    ) -> Result<Solution, SolveError> {
        let (d, count) = (source.dimension(), source.count());
        check_sizes(d, rank, count)?;
        let passes = Passes { source, workers };
        let reach = self.reach_at_scale(d, rank);
        let mut found = scale::find(passes, self.settings(kind, rank, reach, self.rounds))?;
        let all = (count - 1).div_ceil(2);
        if source.is_exact() && reach < all && count <= MOST_ALL_PAIRS {
            let (residual, allowed) = evidence(source, kind, rank, &found).residual();
            if residual > allowed {
                // Tasks that repeat or share directions: more partners may tell what few did not.
                found = scale::find(passes, self.settings(kind, rank, all, self.rounds))?;
            }
        }
        let evidence = evidence(source, kind, rank, &found);
        let judged = if source.is_exact() {
            evidence.exact(|| found.rho())?
        } else {
            evidence.estimates(found.spectrum()?, source.entry_variance()?)?
        };
        let asymmetry = match kind {
            Kind::Symmetric => skew_size(&found.base) / (found.squares / count as f64).sqrt(),
            Kind::Asymmetric => 0.0,
        };
        let loss = found.residual_squares / (2.0 * count as f64);
        let (rounds, gap, evaluations) = (found.rounds, found.gap, found.evaluations);
        let (mut base, mut adapters) = (found.base, found.adapters);
        if source.transposed() {
            transpose(&mut base);
            if kind == Kind::Asymmetric {
                adapters = adapters.into_iter().map(LowRank::transposed).collect();
            }
        }
        Ok(Solution {
            base,
            adapters,
            loss,
            rho: Some(judged.rho),
            gap: Some(gap),
            predicted_error: Some(judged.predicted_error),
            iterations: rounds,
            stop_reason: StopReason::Direct,
            evaluations,
            input_asymmetry: asymmetry,
        })
    }
}

fn check_sizes(dimension: usize, rank: usize, tasks: usize) -> Result<(), SolveError> {
    if within_conditions(dimension, rank, tasks) {
        Ok(())
    } else {
        Err(SolveError::OutsideConditions { dimension, rank, tasks })
    }
}

/// Tasks that are equal to rounding have no offsets: any base with some common adapter explains them.
fn check_offsets(problem: &Problem<'_>) -> Result<(), SolveError> {
    let floor = 4.0 * problem.tasks.storage_roundoff() * problem.tasks.norm();
    if problem.spread() <= floor {
        return Err(SolveError::RankTooLarge { rank: problem.rank });
    }
    Ok(())
}

fn evidence<'f>(
    source: &dyn TaskMatrices,
    kind: Kind,
    rank: usize,
    found: &'f scale::Found<'_>,
) -> Evidence<'f> {
    Evidence {
        kind,
        rank,
        dimension: source.dimension(),
        adapters: &found.adapters,
        residual_squares: found.residual_squares,
        squares: found.squares,
        storage_roundoff: source.storage_roundoff(),
        gap: found.gap,
    }
}

/// `||m - m^T||_F`, in tiles.
fn skew_size(m: &Mat<f64>) -> f64 {
    let mut sum = 0.0;
    over_tiles(m.nrows(), |i, j| sum += 2.0 * (m[(i, j)] - m[(j, i)]).powi(2));
    sum.sqrt()
}

/// `m = m^T`, in tiles.
fn transpose(m: &mut Mat<f64>) {
    over_tiles(m.nrows(), |i, j| {
        let above = m[(i, j)];
        m[(i, j)] = m[(j, i)];
        m[(j, i)] = above;
    });
}

/// Every pair i < j, tile by tile: both (i, j) and (j, i) then lie in the cache.
fn over_tiles(d: usize, mut visit: impl FnMut(usize, usize)) {
    const TILE: usize = 32;
    for column in (0..d).step_by(TILE) {
        for row in (0..=column).step_by(TILE) {
            for j in column..(column + TILE).min(d) {
                for i in row..(row + TILE).min(j) {
                    visit(i, j);
                }
            }
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
struct Fit<'a> {
    operator: Operator<'a>,
    adapters: Vec<LowRank>,
    gap: f64,
    iterations: usize,
    evaluations: Evaluations,
}

/// What decides on identifiability, in the form that is at hand.
enum Operator<'a> {
    Full(Identification),
    Span(Box<Compressed<'a>>),
}

impl Operator<'_> {
    fn rho(&self) -> Result<f64, SolveError> {
        match self {
            Operator::Full(operator) => Ok(operator.rho()?),
            Operator::Span(equation) => equation.rho(),
        }
    }

    fn spectrum(&self) -> Result<Spectrum, SolveError> {
        match self {
            Operator::Full(operator) => Ok(operator.spectrum()?),
            Operator::Span(equation) => equation.spectrum(),
        }
    }
}

impl<'a> Fit<'a> {
    fn by_sketches(found: scale::Found<'a>) -> Self {
        Self {
            operator: Operator::Span(Box::new(found.equation)),
            adapters: found.adapters,
            gap: found.gap,
            iterations: found.rounds,
            evaluations: found.evaluations,
        }
    }

    fn by_intersection(
        tasks: &Tasks,
        kind: Kind,
        rank: usize,
        reach: usize,
        most_rounds: usize,
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
        let operator = Operator::Full(operator);
        Ok(Self { operator, adapters, gap, iterations, evaluations })
    }

    /// The operator at the adapters' own subspaces.
    fn refresh_subspaces(
        &mut self,
        kind: Kind,
        workers: &'a dyn Workers,
    ) -> Result<(), SolveError> {
        let operator = match &mut self.operator {
            Operator::Full(operator) => operator,
            Operator::Span(equation) => {
                **equation = scale::equation_of(&self.adapters, kind, workers)?;
                return Ok(());
            }
        };
        for (t, adapter) in self.adapters.iter().enumerate() {
            let left = decompose::orthonormal_basis(adapter.left());
            match kind {
                Kind::Symmetric => operator.set(t, left.as_ref(), left.as_ref()),
                Kind::Asymmetric => {
                    let right = decompose::orthonormal_basis(adapter.right());
                    operator.set(t, left.as_ref(), right.as_ref());
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

/// Accepts or refuses an answer by its own figures.
fn judge(
    tasks: &Tasks,
    kind: Kind,
    rank: usize,
    found: &Fit<'_>,
    base: &Mat<f64>,
) -> Result<Judgement, SolveError> {
    let mut squares = 0.0;
    let mut rest = Mat::zeros(base.nrows(), base.ncols());
    for (task, adapter) in tasks.iter().zip(&found.adapters) {
        rest.copy_from(task.least_squares());
        kernel::add_scaled(rest.as_mut(), -1.0, base.as_ref());
        adapter.add_to(rest.as_mut(), -1.0);
        squares += kernel::norm_squared(rest.as_ref());
    }
    let evidence = Evidence {
        kind,
        rank,
        dimension: tasks.dimension(),
        adapters: &found.adapters,
        residual_squares: squares,
        squares: tasks.norm().powi(2),
        storage_roundoff: tasks.storage_roundoff(),
        gap: found.gap,
    };
    if tasks.is_exact() {
        evidence.exact(|| found.operator.rho())
    } else {
        evidence.estimates(found.operator.spectrum()?, tasks.entry_variance()?)
    }
}
