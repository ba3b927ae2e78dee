//! Standard retraining (SR) by gradient steps on the pooled tasks.
//!
//! `A -= step_size (1/T) sum_t (A S_t - C_t + R_t S_t)`; the limit is `[sum C_t][sum S_t]^{-1}`. Two
//! quirks of the reference are switches: its learner carries adapters `R_t = U_t U_t^T` that are
//! never trained, so that the limit is least squares minus (at `S_t = I`) the mean of the `R_t`; and
//! its gradient is summed over tasks. Source: experiments.md section 1; the tail-exact answer without
//! iteration is `theory::linear::standard`.
//!
//! Cost a step: one d x d product, whatever T; no allocation.

use super::{check_step, misfit};
use crate::SolveError;
use faer::{Mat, MatRef};
use peftml_linalg::{BlockSpec, Blocks, kernel, panel};
use peftml_theory::linear::Tasks;

/// The scheme's numbers; the default is the reference's without its quirks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StandardScheme {
    /// Gradient steps.
    pub steps: usize,
    /// Step, for the gradient averaged over samples and tasks.
    pub step_size: f64,
    /// Quirk: the start's adapters stay in the forward pass and are never trained.
    pub untrained_adapters: bool,
    /// Quirk: the gradient is summed over tasks, T times the average.
    pub summed_over_tasks: bool,
}

impl Default for StandardScheme {
    fn default() -> Self {
        Self { steps: 3000, step_size: 0.03, untrained_adapters: false, summed_over_tasks: false }
    }
}

impl StandardScheme {
    /// Runs the scheme from `base` (d x d; the reference starts at 0). `adapters` (blocks `U0..`, d x
    /// k) is read only where `untrained_adapters` is set. `observer` sees step 0 and every later one
    /// with the base.
    ///
    /// # Errors
    /// [`SolveError::Setting`], [`SolveError::Start`], and [`SolveError::NotFinite`] where the scheme
    /// diverges.
    pub fn retrain(
        &self,
        tasks: &Tasks,
        base: MatRef<'_, f64>,
        adapters: Option<&Blocks>,
        observer: &mut dyn FnMut(usize, MatRef<'_, f64>),
    ) -> Result<Mat<f64>, SolveError> {
        check_step("step_size", self.step_size)?;
        let d = tasks.dimension();
        if (base.nrows(), base.ncols()) != (d, d) {
            let spec = BlockSpec { name: "A".into(), rows: base.nrows(), cols: base.ncols() };
            return Err(misfit(&spec, d, d));
        }
        let ld = panel::padded(d);
        let packed = |m: MatRef<'_, f64>| {
            let mut out = vec![0.0; ld * d];
            panel::load(&mut out, ld, m);
            out
        };
        let (second, offset) = self.pooled(tasks, adapters)?;
        let (second, offset) = (packed(second.as_ref()), packed(offset.as_ref()));
        let mut base = packed(base);
        let mut gradient = vec![0.0; ld * d];
        let factor = if self.summed_over_tasks { tasks.count() as f64 } else { 1.0 };
        let step_size = self.step_size * factor;
        fn view(m: &[f64], d: usize, ld: usize) -> MatRef<'_, f64> {
            MatRef::from_column_major_slice_with_stride(m, d, d, ld)
        }
        observer(0, view(&base, d, ld));
        for step in 1..=self.steps {
            let (base_now, out) = (&base, &mut gradient);
            panel::vectorised(|| panel::mul(out, base_now, ld, d, &second, ld, d));
            panel::add_scaled(&mut gradient, 1.0, &offset);
            panel::add_scaled(&mut base, -step_size, &gradient);
            if !base.iter().all(|x| x.is_finite()) {
                return Err(SolveError::NotFinite { iteration: step });
            }
            observer(step, view(&base, d, ld));
        }
        Ok(view(&base, d, ld).to_owned())
    }

    /// `mean S_t` and `mean (R_t S_t - C_t)`.
    fn pooled(
        &self,
        tasks: &Tasks,
        adapters: Option<&Blocks>,
    ) -> Result<(Mat<f64>, Mat<f64>), SolveError> {
        let d = tasks.dimension();
        let weight = 1.0 / tasks.count() as f64;
        let (mut second, mut offset) = (Mat::zeros(d, d), Mat::zeros(d, d));
        for task in tasks.iter() {
            match task.second_moment() {
                Some(s) => kernel::add_scaled(second.as_mut(), weight, s),
                None => (0..d).for_each(|i| second[(i, i)] += weight),
            }
            kernel::add_scaled(offset.as_mut(), -weight, task.cross_moment());
        }
        if self.untrained_adapters {
            let adapters = crate::problem::start_of("standard with untrained adapters", adapters)?;
            let rank = adapters.layout().specs().first().map_or(0, |spec| spec.cols);
            let kind = peftml_theory::linear::Kind::Symmetric;
            super::check_start(adapters, kind, tasks.count(), d, rank)?;
            let mut weighted = Mat::zeros(d, rank);
            for (t, task) in tasks.iter().enumerate() {
                let u = adapters.block(t);
                task.apply_second_moment(weighted.as_mut(), u);
                kernel::mul_add(offset.as_mut(), u, weighted.transpose(), weight);
            }
        }
        Ok((second, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::{Seed, compare};
    use peftml_theory::linear::standard::standard_base;

    #[test]
    fn steps_end_at_least_squares_and_with_the_quirk_at_least_squares_minus_the_adapters() {
        let mut stream = Seed::root(21).child("standard").stream();
        let (d, count) = (6, 3);
        let tasks = Tasks::exact((0..count).map(|_| stream.normal_matrix(d, d, 1.0))).unwrap();
        let expected = standard_base(&tasks).unwrap();
        let plain = StandardScheme::default();
        let zero = Mat::zeros(d, d);
        let reached = plain.retrain(&tasks, zero.as_ref(), None, &mut |_, _| {}).unwrap();
        // (1 - 0.03)^3000 is far below rounding.
        assert!(compare::relative_error(reached.as_ref(), expected.as_ref()) < 1e-14);

        let us: Vec<_> = (0..count).map(|_| stream.normal_matrix(d, 2, 0.3)).collect();
        let adapters = Blocks::from_matrices("U", us.iter().map(|u| u.as_ref()));
        let quirky = StandardScheme { untrained_adapters: true, ..plain };
        assert!(quirky.retrain(&tasks, zero.as_ref(), None, &mut |_, _| {}).is_err());
        let reached =
            quirky.retrain(&tasks, zero.as_ref(), Some(&adapters), &mut |_, _| {}).unwrap();
        let mut shifted = expected.clone();
        for u in &us {
            kernel::mul_add(shifted.as_mut(), u.as_ref(), u.transpose(), -1.0 / count as f64);
        }
        assert!(compare::relative_error(reached.as_ref(), shifted.as_ref()) < 1e-14);
        assert!(compare::relative_error(reached.as_ref(), expected.as_ref()) > 1e-2);
    }

    #[test]
    fn one_step_of_the_summed_gradient_is_t_times_the_averaged_one() {
        let mut stream = Seed::root(22).child("standard").stream();
        let tasks = Tasks::exact((0..4).map(|_| stream.normal_matrix(5, 5, 1.0))).unwrap();
        let zero = Mat::zeros(5, 5);
        let once = |summed_over_tasks| {
            let scheme = StandardScheme { steps: 1, summed_over_tasks, ..Default::default() };
            scheme.retrain(&tasks, zero.as_ref(), None, &mut |_, _| {}).unwrap()
        };
        let fourfold = faer::Scale(4.0) * once(false);
        assert!(compare::relative_error(once(true).as_ref(), fourfold.as_ref()) < 1e-15);
    }
}
