//! Fine-tuning by gradient steps on an asymmetric adapter, the base frozen.
//!
//! `U -= step_size G V`, `V -= step_size G^T U`, both at once, `G = (A + U V^T) S - C` on the test
//! task's `S = X X^T / n`, `C = Y X^T / n`; U, V d x r. These are the reference's steps on samples
//! (divided by n). Source: experiments.md section 1. O(d^2 r) a step; no allocation.
//!
//! Limits: constant step; for the optimum use `low_rank::reduced_rank`.

use super::descent::AdapterDescent;
use super::{check_start, check_step, misfit};
use crate::SolveError;
use faer::MatRef;
use peftml_linalg::{BlockSpec, Blocks, LowRank, panel};
use peftml_theory::linear::{Kind, Task};

/// Steps and step size; the default is the reference's for the sweep over n.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientFineTuning {
    /// Gradient steps.
    pub steps: usize,
    /// Step, for the gradient averaged over samples.
    pub step_size: f64,
}

impl Default for GradientFineTuning {
    fn default() -> Self {
        Self { steps: 1000, step_size: 0.005 }
    }
}

/// Sees the number of steps made, `U` and `V` (d x r each).
pub type FactorObserver<'o> = dyn FnMut(usize, MatRef<'_, f64>, MatRef<'_, f64>) + 'o;

/// The steps up to the next observed one, compiled for the machine's vectors as a whole.
struct Steps<'a>(&'a mut AdapterDescent, usize, f64);

impl pulp::NullaryFnOnce for Steps<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Steps(task, steps, step_size) = self;
        for _ in 0..steps {
            task.step(step_size);
        }
    }
}

impl GradientFineTuning {
    /// Fine-tunes from `start` (blocks `U0`, `V0`, d x r) on `task` with the base frozen.
    ///
    /// `observer` sees step, `U` and `V` after each of the numbers of steps in `observe` (ascending;
    /// 0 is the start; those past `steps` are left out).
    ///
    /// # Errors
    /// [`SolveError::Setting`], [`SolveError::Start`], and [`SolveError::NotFinite`] where the steps
    /// diverge.
    pub fn fine_tune(
        &self,
        base: MatRef<'_, f64>,
        task: &Task,
        start: &Blocks,
        observe: &[usize],
        observer: &mut FactorObserver<'_>,
    ) -> Result<LowRank, SolveError> {
        check_step("step_size", self.step_size)?;
        let d = task.least_squares().nrows();
        let rank = start.layout().specs().first().map_or(0, |spec| spec.cols);
        check_start(start, Kind::Asymmetric, 1, d, rank)?;
        if (base.nrows(), base.ncols()) != (d, d) {
            let spec = BlockSpec { name: "A".into(), rows: base.nrows(), cols: base.ncols() };
            return Err(misfit(&spec, d, d));
        }
        let mut descent =
            AdapterDescent::new(task, Kind::Asymmetric, start.block(0), start.block(1));
        let ld = panel::padded(d);
        let mut frozen = vec![0.0; ld * d];
        panel::load(&mut frozen, ld, base);
        descent.set_base(&frozen);
        let mut done = 0;
        for &next in observe.iter().filter(|step| **step <= self.steps) {
            // Out of order: seen already.
            let Some(steps) = next.checked_sub(done) else { continue };
            panel::vectorised(Steps(&mut descent, steps, self.step_size));
            done = next;
            check_finite(&descent, done)?;
            observer(done, descent.left(), descent.right());
        }
        panel::vectorised(Steps(&mut descent, self.steps - done, self.step_size));
        check_finite(&descent, self.steps)?;
        let (left, right) = descent.factors();
        LowRank::new(left, right).ok_or(SolveError::NotFinite { iteration: self.steps })
    }
}

fn check_finite(descent: &AdapterDescent, iteration: usize) -> Result<(), SolveError> {
    let finite = peftml_linalg::kernel::is_finite(descent.left())
        && peftml_linalg::kernel::is_finite(descent.right());
    if finite { Ok(()) } else { Err(SolveError::NotFinite { iteration }) }
}
