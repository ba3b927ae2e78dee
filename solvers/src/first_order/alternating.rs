//! Alternating minimisation over the base and the tasks' offsets.
//!
//! `A = [sum_t (C_t - R_t S_t)][sum_t S_t]^{-1}` for the offsets, then for each task, with `B = Ahat_t - A`:
//!
//! * asymmetric: `R = P P^T B`, `P` the k leading eigenvectors of `B S_t B^T` (reduced-rank regression):
//!   the minimum over rank k; balanced factors
//! * symmetric, `S_t` the identity: the k leading non-negative eigenparts of `sym B`: the minimum
//! * symmetric, `S_t` another: no closed form; the same of `R - sym((R - B) S_t)/l`, `l` the largest
//!   eigenvalue of `S_t` (projected gradient), which decreases the objective too
//!
//! Converges linearly, at `1 - rho` near a solution of exact tasks (theory.md C5). A step: one
//! gradient, T eigendecompositions, O(T d^3). Here "value and gradient" serve the stopping test alone.

use crate::iterative::solve_with;
use crate::registry::{Entry, Order};
use crate::{
    BaseSolver, Limits, Observer, Problem, Solution, SolveError, Solver, State, StopReason,
};
use faer::{Mat, MatMut, MatRef};
use peftml_linalg::decompose::EigenWorkspace;
use peftml_linalg::{Blocks, DecompositionError, kernel};
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, ProfileObjective};

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "alternating",
    summary: "Alternating minimisation over the base and each task's offset, in closed form where there is one.",
    order: Order::First,
    memory: "(T + 8) d^2 + 3 n",
    guarantees: "decreases the objective; linear convergence at 1 - rho near a solution of exact tasks",
    needs_start: true,
    settings: &[],
    build: |settings| Ok(Box::new(Alternating { limits: settings.limits(Limits::default()) })),
};

/// The method; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alternating {
    /// When it ends.
    pub limits: Limits,
}

impl BaseSolver for Alternating {
    fn solve(
        &self,
        problem: &Problem<'_>,
        start: Option<&Blocks>,
        observer: &mut dyn Observer,
    ) -> Result<Solution, SolveError> {
        let profile = ProfileObjective::new(problem.tasks, problem.kind, problem.rank)?;
        let solver = Alternation { profile: &profile };
        solve_with("alternating", &solver, problem, start, &self.limits, observer)
    }
}

/// The steps on one problem.
struct Alternation<'a> {
    profile: &'a ProfileObjective<'a>,
}

struct Workspace {
    base: Mat<f64>,
    target: Mat<f64>,
    weighted: Mat<f64>,
    spare: Vec<f64>,
    eigen: EigenWorkspace,
    /// Largest eigenvalue of each `S_t`; 1 for exact tasks.
    largest: Vec<f64>,
}

impl Workspace {
    fn new(profile: &ProfileObjective<'_>) -> Self {
        let d = profile.tasks().dimension();
        let mut eigen = EigenWorkspace::new(d);
        let largest = profile
            .tasks()
            .iter()
            .map(|task| match task.second_moment() {
                None => 1.0,
                // The trace bounds it where the decomposition fails.
                Some(s) => match eigen.compute(s) {
                    Ok(()) => eigen.value(d - 1),
                    Err(_) => (0..d).map(|i| s[(i, i)]).sum(),
                },
            })
            .collect();
        let square = || Mat::zeros(d, d);
        Self {
            base: square(),
            target: square(),
            weighted: square(),
            spare: vec![0.0; d * d],
            eigen,
            largest,
        }
    }
}

impl Solver for Alternation<'_> {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        let mut state = State::at(f, x, 0, 0)?;
        state.scratch.get_or_insert_with(|| Workspace::new(self.profile));
        Ok(state)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        let work = state.scratch.get_or_insert_with(|| Workspace::new(self.profile));
        self.profile.base_into(&state.x, work.base.as_mut(), &mut work.spare);
        let count = self.profile.tasks().count();
        for t in 0..count {
            match self.profile.kind() {
                Kind::Symmetric => self.update_symmetric(t, &mut state.x, work)?,
                Kind::Asymmetric => self.update_asymmetric(t, &mut state.x, work)?,
            }
        }
        state.evaluations.factorisations += count;
        let (value, gradient_norm) = (state.value, state.gradient_norm);
        state.value = f.gradient(&state.x, &mut state.gradient, &mut state.work);
        state.evaluations.gradients += 1;
        state.gradient_norm = state.gradient.norm();
        state.iteration += 1;
        if state.value >= value && state.gradient_norm >= gradient_norm {
            state.stop = Some(StopReason::Stagnated);
        }
        Ok(())
    }
}

impl Alternation<'_> {
    /// `target = Ahat_t - A`.
    fn set_target(&self, t: usize, work: &mut Workspace) {
        work.target.copy_from(self.profile.tasks().task(t).least_squares());
        kernel::add_scaled(work.target.as_mut(), -1.0, work.base.as_ref());
    }

    fn update_symmetric(
        &self,
        t: usize,
        x: &mut Blocks,
        work: &mut Workspace,
    ) -> Result<(), DecompositionError> {
        self.set_target(t, work);
        if let Some(s) = self.profile.tasks().task(t).second_moment() {
            // R - (R - B) S / l.
            let u = x.block(t);
            kernel::mul_add(work.target.as_mut(), u, u.transpose(), -1.0);
            kernel::mul(work.weighted.as_mut(), work.target.as_ref(), s, 1.0 / work.largest[t]);
            kernel::mul_add(work.weighted.as_mut(), u, u.transpose(), 1.0);
            std::mem::swap(&mut work.target, &mut work.weighted);
        }
        kernel::symmetrise(work.target.as_mut());
        work.eigen.compute(work.target.as_ref())?;
        let d = work.target.nrows();
        let mut u = x.block_mut(t);
        for j in 0..u.ncols() {
            let root = work.eigen.value(d - 1 - j).max(0.0).sqrt();
            scaled_column(u.as_mut(), j, root, work.eigen.vectors().subcols(d - 1 - j, 1));
        }
        Ok(())
    }

    fn update_asymmetric(
        &self,
        t: usize,
        x: &mut Blocks,
        work: &mut Workspace,
    ) -> Result<(), DecompositionError> {
        self.set_target(t, work);
        let target = work.target.as_ref();
        let d = target.nrows();
        let mut gram = MatMut::from_column_major_slice_mut(&mut work.spare, d, d);
        match self.profile.tasks().task(t).second_moment() {
            Some(s) => {
                kernel::mul(work.weighted.as_mut(), target, s, 1.0);
                kernel::mul(gram.as_mut(), work.weighted.as_ref(), target.transpose(), 1.0);
            }
            None => kernel::mul(gram.as_mut(), target, target.transpose(), 1.0),
        }
        kernel::symmetrise(gram.as_mut());
        work.eigen.compute(gram.as_ref())?;
        let count = self.profile.tasks().count();
        for j in 0..self.profile.rank() {
            let vector = work.eigen.vectors().subcols(d - 1 - j, 1);
            let mut right = x.block_mut(count + t).subcols_mut(j, 1);
            kernel::mul(right.as_mut(), target.transpose(), vector, 1.0);
            // Balanced: both columns of norm sqrt(||B^T p||).
            let root = kernel::norm(right.as_ref()).sqrt();
            kernel::scale(right, if root > 0.0 { 1.0 / root } else { 0.0 });
            scaled_column(x.block_mut(t), j, root, vector);
        }
        Ok(())
    }
}

/// Column `j` of `out` becomes `factor * vector`.
fn scaled_column(mut out: MatMut<'_, f64>, j: usize, factor: f64, vector: MatRef<'_, f64>) {
    for i in 0..out.nrows() {
        out[(i, j)] = factor * vector[(i, 0)];
    }
}
