//! The LoRA-ML objective with the base eliminated.
//!
//! `F(U) = min_A 1/(2T) sum_t tr((A + R_t - Ahat_t) S_t (A + R_t - Ahat_t)^T)`, `R_t = U_t U_t^T`
//! (blocks `U0..`) or `U_t V_t^T` (blocks `U0.., V0..`), each block d x k. The minimiser is
//! `A(R) = [sum_t (C_t - R_t S_t)][sum_t S_t]^{-1}`. With `E_t = A + R_t - Ahat_t`, `G_t = E_t S_t`:
//!
//! * value `1/(2T) sum <E_t, G_t>`, without the least-squares residual
//! * gradient `(1/T)(G_t + G_t^T) U_t`; asymmetric `(1/T) G_t V_t`, `(1/T) G_t^T U_t`
//! * Hessian product with `dR_t`, `dA = -(sum dR_t S_t)(sum S_t)^{-1}`, `dG_t = (dA + dR_t) S_t`:
//!   `(1/T)[(dG_t + dG_t^T) U_t + (G_t + G_t^T) Z_t]`; asymmetric
//!   `(1/T)(dG_t V_t + G_t Z_v)`, `(1/T)(dG_t^T U_t + G_t^T Z_u)`
//!
//! Exact tasks are the case `S_t = I` (population loss). Source: theory.md, Derivatives.
//! Cost: O(T d^2 k) for exact tasks, O(T d^3) with second moments. Where `T k` is of the order of d,
//! exact tasks go through [`super::factored`] and others through [`super::weighted`], which form no d x d
//! matrices and cost O(T d^2 k).

use super::factored::Factored;
use super::standard::pooled_factor;
use super::weighted::{Value, Weighted};
use super::{Kind, LinearError, Tasks};
use crate::objective::{Gauge, Objective};
use faer::{Mat, MatMut, MatRef};
use peftml_linalg::decompose::CholeskyFactor;
use peftml_linalg::{Blocks, Layout, kernel};

/// The profile objective; see the module's header.
pub struct ProfileObjective<'a> {
    tasks: &'a Tasks,
    kind: Kind,
    rank: usize,
    /// That of the tasks, or larger (see [`ProfileObjective::continued`]).
    dimension: usize,
    layout: Layout,
    pooled: Option<CholeskyFactor>,
    factored: Option<Factored>,
    weighted: Option<Weighted>,
}

/// A step's decrease must be this many roundings of the value's terms for the expanded sum to show it.
const RESOLVED: f64 = 16.0 * f64::EPSILON;

/// Scratch: one d x d residual-moment `G_t` a task, one d x d base, one d x d difference.
struct Work<'w> {
    moments: &'w mut [f64],
    base: &'w mut [f64],
    spare: &'w mut [f64],
}

impl<'a> ProfileObjective<'a> {
    /// The objective of `tasks` with adapters of width `rank`.
    ///
    /// # Errors
    /// [`LinearError::Rank`] for a rank that is not in 1..=d,
    /// [`LinearError::PooledInputsSingular`] where the base is not determined.
    pub fn new(tasks: &'a Tasks, kind: Kind, rank: usize) -> Result<Self, LinearError> {
        let d = tasks.dimension();
        if rank == 0 || rank > d {
            return Err(LinearError::Rank { rank, dimension: d });
        }
        let mut layout = Layout::repeated("U", tasks.count(), d, rank);
        if kind == Kind::Asymmetric {
            layout = layout.followed_by(&Layout::repeated("V", tasks.count(), d, rank));
        }
        let pooled = if tasks.is_exact() { None } else { Some(pooled_factor(tasks)?) };
        let factored = Factored::new(tasks, kind, rank, d);
        let weighted = pooled.as_ref().and_then(|p| Weighted::new(tasks, kind, rank, p));
        Ok(Self { tasks, kind, rank, dimension: d, layout, pooled, factored, weighted })
    }

    /// The objective of exact tasks continued by zeros to d x d for a `dimension` d of at least their own: that of
    /// tasks in a basis that begins with their ranges, which need not be stored with their zeros. `None` for
    /// samples, ranks that are not in 1..=d, a smaller dimension, and where [`ProfileObjective::new`] would form d x d
    /// matrices.
    pub fn continued(tasks: &'a Tasks, kind: Kind, rank: usize, dimension: usize) -> Option<Self> {
        if rank == 0 || rank > dimension || dimension < tasks.dimension() {
            return None;
        }
        let mut layout = Layout::repeated("U", tasks.count(), dimension, rank);
        if kind == Kind::Asymmetric {
            layout = layout.followed_by(&Layout::repeated("V", tasks.count(), dimension, rank));
        }
        let factored = Some(Factored::new(tasks, kind, rank, dimension)?);
        let (pooled, weighted) = (None, None);
        Some(Self { tasks, kind, rank, dimension, layout, pooled, factored, weighted })
    }

    /// The tasks.
    pub fn tasks(&self) -> &Tasks {
        self.tasks
    }

    /// Symmetric or asymmetric adapters.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Width of the adapters.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The right factor's block of task `t`: `U_t` itself where adapters are symmetric.
    fn right<'b>(&self, x: &'b Blocks, t: usize) -> MatRef<'b, f64> {
        match self.kind {
            Kind::Symmetric => x.block(t),
            Kind::Asymmetric => x.block(self.tasks.count() + t),
        }
    }

    fn split<'w>(&self, work: &'w mut [f64]) -> Work<'w> {
        let square = self.tasks.dimension() * self.tasks.dimension();
        let (moments, rest) = work.split_at_mut(square * self.tasks.count());
        let (base, rest) = rest.split_at_mut(square);
        Work { moments, base, spare: &mut rest[..square] }
    }

    fn square<'w>(&self, slice: &'w mut [f64]) -> MatMut<'w, f64> {
        let d = self.dimension;
        MatMut::from_column_major_slice_mut(slice, d, d)
    }

    /// `base -= sum_t R_t S_t` with `R_t = left_t right_t^T`, then times `[sum S]^{-1}`; `base` holds
    /// `sum_t C_t` (for the base) or 0 (for its derivative) on entry.
    fn eliminate(
        &self,
        mut base: MatMut<'_, f64>,
        spare: &mut [f64],
        mut add_offset: impl FnMut(usize, MatMut<'_, f64>, f64),
    ) {
        let count = self.tasks.count();
        for t in 0..count {
            match self.tasks.task(t).second_moment() {
                None => add_offset(t, base.as_mut(), -1.0),
                Some(s) => {
                    spare.fill(0.0);
                    let mut offset = self.square(spare);
                    add_offset(t, offset.as_mut(), 1.0);
                    kernel::mul_add(base.as_mut(), offset.as_ref(), s, -1.0);
                }
            }
        }
        match &self.pooled {
            Some(factor) => factor.solve_right_in_place(base),
            None => kernel::scale(base, 1.0 / count as f64),
        }
    }

    /// The minimiser `A(R)`, d x d, into `base`; `spare` holds d^2 numbers.
    pub fn base_into(&self, x: &Blocks, mut base: MatMut<'_, f64>, spare: &mut [f64]) {
        base.fill(0.0);
        let own = self.tasks.dimension();
        for task in self.tasks.iter() {
            kernel::add_scaled(base.as_mut().get_mut(..own, ..own), 1.0, task.cross_moment());
        }
        self.eliminate(base, spare, |t, out, sign| {
            kernel::mul_add(out, x.block(t), self.right(x, t).transpose(), sign)
        });
    }

    /// The base that is best for the adapters `x`: `A(R)`, d x d.
    pub fn base(&self, x: &Blocks) -> Mat<f64> {
        let d = self.dimension;
        let mut base = Mat::zeros(d, d);
        if let Some(weighted) = &self.weighted {
            weighted.base_into(x, base.as_mut(), &mut vec![0.0; weighted.work_len()]);
            return base;
        }
        let mut spare = vec![0.0; d * d];
        self.base_into(x, base.as_mut(), &mut spare);
        base
    }

    /// Fills `G_t` for all tasks and returns the value.
    fn residual_moments(&self, x: &Blocks, work: &mut Work<'_>) -> f64 {
        let square = self.tasks.dimension() * self.tasks.dimension();
        let d = self.tasks.dimension();
        let mut base = MatMut::from_column_major_slice_mut(work.base, d, d);
        self.base_into(x, base.as_mut(), work.spare);
        let mut sum = 0.0;
        for t in 0..self.tasks.count() {
            let task = self.tasks.task(t);
            let mut moment = self.square(&mut work.moments[t * square..(t + 1) * square]);
            let mut error = self.square(work.spare);
            for j in 0..d {
                for i in 0..d {
                    error[(i, j)] = base[(i, j)] - task.least_squares()[(i, j)];
                }
            }
            kernel::mul_add(error.as_mut(), x.block(t), self.right(x, t).transpose(), 1.0);
            match task.second_moment() {
                Some(s) => kernel::mul(moment.as_mut(), error.as_ref(), s, 1.0),
                None => moment.copy_from(error.as_ref()),
            }
            sum += kernel::inner(error.as_ref(), moment.as_ref());
        }
        sum / (2.0 * self.tasks.count() as f64)
    }

    /// `out_t = (1/T)(moment_t + moment_t^T) U_t`, or the asymmetric pair; `accumulate` adds.
    fn contract(&self, t: usize, moment: MatRef<'_, f64>, x: &Blocks, out: &mut Blocks, add: bool) {
        let count = self.tasks.count();
        let weight = 1.0 / count as f64;
        let accum = |out: MatMut<'_, f64>, a, b, add: bool| {
            if add { kernel::mul_add(out, a, b, weight) } else { kernel::mul(out, a, b, weight) }
        };
        accum(out.block_mut(t), moment, self.right(x, t), add);
        match self.kind {
            Kind::Symmetric => accum(out.block_mut(t), moment.transpose(), x.block(t), true),
            Kind::Asymmetric => {
                accum(out.block_mut(count + t), moment.transpose(), x.block(t), add)
            }
        }
    }

    /// `out += sign dR_t`, `dR_t = Z_u right^T + left Z_v^T`.
    fn add_offset_derivative(
        &self,
        x: &Blocks,
        v: &Blocks,
        t: usize,
        mut out: MatMut<'_, f64>,
        sign: f64,
    ) {
        kernel::mul_add(out.as_mut(), v.block(t), self.right(x, t).transpose(), sign);
        kernel::mul_add(out, x.block(t), self.right(v, t).transpose(), sign);
    }

    fn second_derivative(
        &self,
        x: &Blocks,
        v: &Blocks,
        out: &mut Blocks,
        work: &mut [f64],
        full: bool,
    ) {
        if self.factored.is_some() || self.weighted.is_some() {
            self.prepare(x, work);
            return self.prepared_second_derivative(x, v, out, work, full);
        }
        let d = self.tasks.dimension();
        let square = d * d;
        let mut work = self.split(work);
        if full {
            self.residual_moments(x, &mut work);
        }
        let mut base = MatMut::from_column_major_slice_mut(work.base, d, d);
        base.fill(0.0);
        self.eliminate(base.as_mut(), work.spare, |t, out, sign| {
            self.add_offset_derivative(x, v, t, out, sign)
        });
        for t in 0..self.tasks.count() {
            if full {
                let moment = &mut work.moments[t * square..(t + 1) * square];
                let moment = self.square(moment);
                self.contract(t, moment.as_ref(), v, out, false);
            }
            let mut change = self.square(work.spare);
            change.copy_from(base.as_ref());
            self.add_offset_derivative(x, v, t, change.as_mut(), 1.0);
            match self.tasks.task(t).second_moment() {
                None => self.contract(t, change.as_ref(), x, out, full),
                Some(s) => {
                    // The moment of this task has been used: its place holds dG_t.
                    let moment = &mut work.moments[t * square..(t + 1) * square];
                    let mut moment = self.square(moment);
                    kernel::mul(moment.as_mut(), change.as_ref(), s, 1.0);
                    self.contract(t, moment.as_ref(), x, out, full);
                }
            }
        }
    }

    /// As `second_derivative`, `work` being prepared at `x` where there is anything to prepare.
    fn prepared_second_derivative(
        &self,
        x: &Blocks,
        v: &Blocks,
        out: &mut Blocks,
        work: &mut [f64],
        full: bool,
    ) {
        match (&self.factored, &self.weighted) {
            (Some(factored), _) => factored.second_derivative(v, out, work, full),
            (None, Some(weighted)) => weighted.second_derivative(v, out, work, full),
            (None, None) => self.second_derivative(x, v, out, work, full),
        }
    }

    /// Whether the expanded sum hides the decrease `g^2 / (2 L)` that a step can still make, with
    /// second derivatives of size `L = 4 tr N / T`.
    fn hides_decrease(&self, value: &Value, gradient_squared: f64) -> bool {
        let count = self.tasks.count() as f64;
        let left = count * count * gradient_squared / (8.0 * value.curvature);
        let shown = left > RESOLVED * value.terms;
        // Also where one of them is not finite.
        !shown
    }
}

impl Objective for ProfileObjective<'_> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn work_len(&self) -> usize {
        if let Some(factored) = &self.factored {
            return factored.work_len();
        }
        let square = self.tasks.dimension() * self.tasks.dimension();
        let weighted = self.weighted.as_ref().map_or(0, |w| w.work_len() + w.squares_len());
        weighted.max(square * (self.tasks.count() + 2))
    }

    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64 {
        if let Some(factored) = &self.factored {
            return factored.evaluate(x, None, work);
        }
        if let Some(weighted) = &self.weighted {
            // Without a gradient there is no telling what the expanded sum would hide.
            let (work, squares) = work.split_at_mut(weighted.work_len());
            weighted.evaluate(x, None, work);
            let sum = weighted.sum_of_squares(self.tasks, work, squares);
            return 0.5 / self.tasks.count() as f64 * sum;
        }
        let mut work = self.split(work);
        self.residual_moments(x, &mut work)
    }

    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        if let Some(factored) = &self.factored {
            return factored.evaluate(x, Some(out), work);
        }
        if let Some(weighted) = &self.weighted {
            let (work, squares) = work.split_at_mut(weighted.work_len());
            let value = weighted.evaluate(x, Some(out), work);
            let sum = if self.hides_decrease(&value, out.dot(out)) {
                weighted.sum_of_squares(self.tasks, work, squares)
            } else {
                value.sum
            };
            return 0.5 / self.tasks.count() as f64 * sum;
        }
        let square = self.tasks.dimension() * self.tasks.dimension();
        let mut work = self.split(work);
        let value = self.residual_moments(x, &mut work);
        for t in 0..self.tasks.count() {
            let moment = self.square(&mut work.moments[t * square..(t + 1) * square]);
            self.contract(t, moment.as_ref(), x, out, false);
        }
        value
    }

    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.second_derivative(x, v, out, work, true);
    }

    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.second_derivative(x, v, out, work, false);
    }

    fn prepare(&self, x: &Blocks, work: &mut [f64]) {
        match (&self.factored, &self.weighted) {
            (Some(factored), _) => factored.prepare(x, work),
            (None, Some(weighted)) => weighted.prepare(x, work),
            (None, None) => {}
        }
    }

    fn prepared_hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.prepared_second_derivative(x, v, out, work, true);
    }

    fn prepared_gauss_newton_product(
        &self,
        x: &Blocks,
        v: &Blocks,
        out: &mut Blocks,
        work: &mut [f64],
    ) {
        self.prepared_second_derivative(x, v, out, work, false);
    }

    fn gauge(&self) -> Gauge {
        match self.kind {
            Kind::Symmetric => Gauge::Orthogonal,
            Kind::Asymmetric => Gauge::GeneralLinear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::Seed;

    /// The weighted form against the plain one: derivatives to rounding, and values to what hides no
    /// step; near a stationary point the value is formed plainly.
    #[test]
    fn the_weighted_form_agrees_with_the_plain_one() {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            for (d, k, count) in [(3, 1, 2), (5, 2, 3), (10, 1, 3), (17, 3, 4), (20, 2, 5)] {
                let mut stream = Seed::root(43).child("weighted").stream();
                let base = stream.normal_matrix(d, d, 1.0);
                let mut pairs = Vec::new();
                let mut solution = Vec::new();
                for _ in 0..count {
                    let u = stream.normal_matrix(d, k, 1.0);
                    let v = match kind {
                        Kind::Symmetric => u.clone(),
                        Kind::Asymmetric => stream.normal_matrix(d, k, 1.0),
                    };
                    let mut truth = base.clone();
                    kernel::mul_add(truth.as_mut(), u.as_ref(), v.transpose(), 1.0);
                    let x = stream.normal_matrix(d, 20 * d, 1.0);
                    let mut y = stream.normal_matrix(d, 20 * d, 0.1);
                    kernel::mul_add(y.as_mut(), truth.as_ref(), x.as_ref(), 1.0);
                    pairs.push((x, y));
                    solution.push((u, v));
                }
                let tasks =
                    Tasks::from_samples(pairs.iter().map(|(x, y)| (x.as_ref(), y.as_ref())));
                let tasks = tasks.unwrap();
                let fast = ProfileObjective::new(&tasks, kind, k).unwrap();
                assert!(fast.weighted.is_some());
                let mut plain = ProfileObjective::new(&tasks, kind, k).unwrap();
                plain.weighted = None;
                for noise in [1.0, 1e-3, 1e-9] {
                    let mut x = Blocks::zeros(fast.layout().clone());
                    stream.fill_normal(noise, x.as_mut_slice());
                    if noise < 1.0 {
                        for (t, (u, v)) in solution.iter().enumerate() {
                            kernel::add_scaled(x.block_mut(t), 1.0, u.as_ref());
                            if kind == Kind::Asymmetric {
                                kernel::add_scaled(x.block_mut(count + t), 1.0, v.as_ref());
                            }
                        }
                    }
                    compare_derivatives(&fast, &plain, &x);
                    let mut work = vec![0.0; fast.work_len()];
                    let mut gradient = x.zeros_like();
                    let a = fast.gradient(&x, &mut gradient, &mut work);
                    // Terms of size ||x||^4, a few hundred roundings of them.
                    let b = plain.value(&x, &mut work);
                    assert!((a - b).abs() <= 1e-13 * x.norm().powi(4), "{a} {b}");
                }
            }
        }
    }

    #[test]
    fn where_the_expanded_sum_hides_a_step_the_value_is_formed_entry_by_entry() {
        let mut stream = Seed::root(44).child("weighted").stream();
        let base = stream.normal_matrix(6, 6, 1.0);
        let offsets: Vec<Mat<f64>> = (0..3).map(|_| stream.normal_matrix(6, 1, 1.0)).collect();
        let mut pairs = Vec::new();
        for u in &offsets {
            let x = stream.normal_matrix(6, 80, 1.0);
            let mut truth = base.clone();
            kernel::mul_add(truth.as_mut(), u.as_ref(), u.transpose(), 1.0);
            let mut y = Mat::zeros(6, 80);
            kernel::mul(y.as_mut(), truth.as_ref(), x.as_ref(), 1.0);
            pairs.push((x, y));
        }
        let tasks = Tasks::from_samples(pairs.iter().map(|(x, y)| (x.as_ref(), y.as_ref())));
        let tasks = tasks.unwrap();
        let fast = ProfileObjective::new(&tasks, Kind::Symmetric, 1).unwrap();
        let weighted = fast.weighted.as_ref().unwrap();
        let x = Blocks::from_matrices("U", offsets.iter().map(|u| u.as_ref()));
        let (mut out, mut work) = (x.zeros_like(), vec![0.0; fast.work_len()]);
        let value = weighted.evaluate(&x, Some(&mut out), &mut work);
        assert!(fast.hides_decrease(&value, out.dot(&out)));
        let (a, b) = (fast.gradient(&x, &mut out, &mut work), fast.value(&x, &mut work));
        // Without noise the truth has loss 0: squares of differences of rounding size (least squares
        // is off by the condition of S, below 10 here, times a few units), and of nothing else.
        assert!(a >= 0.0 && a.max(b) < 1e-26 * value.terms, "{a} {b}");
        // The control: the expanded sum keeps rounding of its terms. Far from the truth it is kept.
        assert!(value.sum.abs() > 1e-20 * value.terms, "{}", value.sum);
        let mut far = x.clone();
        far.scale(1.1);
        let value = weighted.evaluate(&far, Some(&mut out), &mut work);
        assert!(!fast.hides_decrease(&value, out.dot(&out)));
    }

    #[test]
    fn badly_conditioned_inputs_take_the_plain_form() {
        let mut stream = Seed::root(45).child("weighted").stream();
        let mut x = stream.normal_matrix(4, 80, 1.0);
        (0..80).for_each(|j| x[(0, j)] *= 1e-3);
        let y = stream.normal_matrix(4, 80, 1.0);
        let tasks = Tasks::from_samples([(x.as_ref(), y.as_ref()); 2]).unwrap();
        assert!(ProfileObjective::new(&tasks, Kind::Symmetric, 1).unwrap().weighted.is_none());
    }

    /// The factored form against the plain one, which sees the same tasks with second moments I.
    #[test]
    fn both_forms_agree_at_random_points_and_near_solutions() {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            for (d, k, count) in [(3, 1, 2), (5, 2, 3), (10, 1, 3), (17, 3, 4), (20, 2, 5)] {
                let mut stream = Seed::root(41).child("factored").stream();
                let base = stream.normal_matrix(d, d, 1.0);
                let mut solution = Vec::new();
                let mut truths = Vec::new();
                for _ in 0..count {
                    let u = stream.normal_matrix(d, k, 1.0);
                    let v = match kind {
                        Kind::Symmetric => u.clone(),
                        Kind::Asymmetric => stream.normal_matrix(d, k, 1.0),
                    };
                    let mut truth = base.clone();
                    kernel::mul_add(truth.as_mut(), u.as_ref(), v.transpose(), 1.0);
                    truths.push(truth);
                    solution.push((u, v));
                }
                let exact = Tasks::exact(truths).unwrap();
                let fast = ProfileObjective::new(&exact, kind, k).unwrap();
                assert!(fast.factored.is_some());
                let mut plain = ProfileObjective::new(&exact, kind, k).unwrap();
                plain.factored = None;
                for noise in [1.0, 1e-3, 1e-9] {
                    let mut x = Blocks::zeros(fast.layout().clone());
                    stream.fill_normal(noise, x.as_mut_slice());
                    if noise < 1.0 {
                        for (t, (u, v)) in solution.iter().enumerate() {
                            kernel::add_scaled(x.block_mut(t), 1.0, u.as_ref());
                            if kind == Kind::Asymmetric {
                                kernel::add_scaled(x.block_mut(count + t), 1.0, v.as_ref());
                            }
                        }
                    }
                    compare_forms(&fast, &plain, &x, noise);
                }
            }
        }
    }

    fn compare_forms(
        fast: &ProfileObjective<'_>,
        plain: &ProfileObjective<'_>,
        x: &Blocks,
        noise: f64,
    ) {
        compare_derivatives(fast, plain, x);
        let mut work = (vec![0.0; fast.work_len()], vec![0.0; plain.work_len()]);
        let mut out = x.zeros_like();
        // Entries are of size 10 at most: sums of d products round by d 1e-14 against differences of
        // size `noise`; the expanded value keeps 1e-10 of itself.
        let size = 1e-11 * x.norm().powi(2);
        let a = fast.gradient(x, &mut out, &mut work.0);
        let b = plain.value(x, &mut work.1);
        assert!((a - b).abs() <= 1e-9 * b + size * 1e-3 * noise, "{a} {b} at {noise}");
        assert!(fast.value(x, &mut work.0) == a);
    }

    fn compare_derivatives(fast: &ProfileObjective<'_>, plain: &ProfileObjective<'_>, x: &Blocks) {
        let mut work = (vec![0.0; fast.work_len()], vec![0.0; plain.work_len()]);
        let mut out = (x.zeros_like(), x.zeros_like());
        let v = {
            let mut v = x.zeros_like();
            Seed::root(42).child("v").stream().fill_normal(1.0, v.as_mut_slice());
            v
        };
        fast.gradient(x, &mut out.0, &mut work.0);
        plain.gradient(x, &mut out.1, &mut work.1);
        let gap = |pair: &(Blocks, Blocks)| {
            let mut gap = pair.0.clone();
            gap.add_scaled(-1.0, &pair.1);
            gap.norm()
        };
        assert!(gap(&out) <= 1e-12 * x.norm().powi(3), "gradient");
        assert!(out.1.norm() > gap(&out), "control: the gradient is not within the bound of 0");
        fast.hessian_product(x, &v, &mut out.0, &mut work.0);
        plain.hessian_product(x, &v, &mut out.1, &mut work.1);
        assert!(gap(&out) <= 1e-12 * x.norm().powi(2) * v.norm(), "Hessian");
        // Several products on one preparation are those of a fresh one each.
        fast.prepare(x, &mut work.0);
        let mut again = x.zeros_like();
        fast.prepared_gauss_newton_product(x, &v, &mut again, &mut work.0);
        fast.prepared_hessian_product(x, &v, &mut again, &mut work.0);
        assert_eq!(again, out.0);
        fast.gauss_newton_product(x, &v, &mut out.0, &mut work.0);
        plain.gauss_newton_product(x, &v, &mut out.1, &mut work.1);
        assert!(gap(&out) <= 1e-12 * x.norm().powi(2) * v.norm(), "Gauss-Newton");
    }
}
