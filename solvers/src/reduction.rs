//! Exact tasks in a basis of their own ranges: the same iteration in fewer dimensions.
//!
//! With `D_t = A_t - mean A` the profile objective of exact tasks is
//! `F = 1/(2T) sum_t ||U_t V_t^T - (1/T) sum_s U_s V_s^T - D_t||^2`. Let the columns of `B` (d x p) be an orthonormal
//! basis of all ranges of `D_t` and of the columns of the start's `U_t`, and `B'` likewise of `D_t^T` and
//! `V_t` (`B' = B` where adapters are symmetric). For `U_t = B u_t`, `V_t = B' v_t`:
//!
//! * `F(U, V)` is the objective of the p x p tasks `B^T D_t B'` at `(u, v)`
//! * its gradient and its Hessian products along such directions are `B` and `B'` times theirs
//! * inner products are equal
//!
//! A method whose steps are made of these alone therefore makes the same steps, as often, as on the whole
//! problem, up to rounding ([`crate::Solver::commutes_with_rotations`]). Tasks that follow the model have
//! ranges of dimension T k together, so p = 2 T k from a random start; `B^T D_t B'` vanishes outside of its leading
//! T k rows and columns. An evaluation costs O(T^3 k^3) then, whatever d is; making the basis costs two
//! passes over the tasks.
//!
//! Ranges come from sketches with greedy Gram-Schmidt, and are checked by [`PROBES`] random vectors a task
//! that the basis has not seen: where a task leaves its span by more than rounding (tasks that are only
//! approximately low rank, bases far larger than the offsets), there is no reduction.

use crate::Problem;
use faer::{Mat, MatRef};
use peftml_linalg::{Blocks, Layout, Seed, compare, kernel};
use peftml_theory::linear::{Kind, ProfileObjective, Tasks};

/// Columns of a task that check the basis: one misses a part 100 times as large as the bound with a
/// probability of about 1 %, three with 1e-6.
const PROBES: usize = 3;
/// Below this tolerance the rounding of a reduction could be seen.
pub(crate) const LEAST_TOLERANCE: f64 = 1e-11;
/// What may be left of a probe, relative to the largest sketched column.
///
/// A probe leaves `||(I - B B^T) D_t||_F` in the root mean square, so the reduced problem is that of tasks off by
/// `LEFT ||D||`, its gradient off by `(2/T) sqrt T LEFT ||D|| max ||U_t||`: the share `LEFT max ||U_t|| / spread^(1/2)` of
/// [`Problem::gradient_scale`]. Adapters of the offsets' size make that `LEFT`, a fiftieth of the least tolerance that
/// is reduced; the largest that [`crate::iterate::Diverging`] lets pass, `||U_t||^2 = 100 spread`, a fifth of it.
const LEFT: f64 = LEAST_TOLERANCE / 50.0;
/// What is left of a sketch's column, relative to the largest one, is rounding.
///
/// A sum of d terms rounds by about `u sqrt(d/2)` of itself (partial sums grow like the root of their length), and the
/// tasks' own rounding adds `u ||A_t|| / ||D_t||`, which no basis holds. This is 180 u, against 25 u for d = 1250 (larger
/// problems have no packed form) and bases up to a hundred times the offsets. A tenth of [`LEFT`]: the columns that were sketched
/// choose the basis, probes must not fail where those end.
const FLOOR: f64 = LEFT / 10.0;
/// Evaluations and products of a solve from random factors: L-BFGS took 38 gradients, the trust region 16 with 37
/// products at d = 100, k = 4, T = 10 (`benches/benches/solvers.rs`).
const EVALUATIONS: f64 = 40.0;

/// Whether making the basis costs less than it saves. In units of `2 T d^2 k`, the part of an evaluation that
/// multiplies by all `D_t`, and with `s = 2 T k / d`, the share of the dimensions that is left:
///
/// * an evaluation costs `1 + 3 s/4` (the rest are products with Gram matrices, `3 d T^2 k^2`), in the basis
///   `s^2/4 + 3 s^2/4 = s^2`, since `D_t` fills half of the dimensions
/// * the basis costs `(k + 8)/k` for sketches of k + 2 columns and probes on both sides, and `T (1 + s/2)` for the
///   cores `B^T D_t B`
fn pays(d: usize, rank: usize, count: usize) -> bool {
    let (k, t) = (rank as f64, count as f64);
    let share = 2.0 * t * k / d as f64;
    let saved = 1.0 + 0.75 * share - share * share;
    share < 1.0 && (k + 8.0) / k + t * (1.0 + 0.5 * share) < EVALUATIONS * saved
}

/// Below this d there is nothing to gain.
const SMALLEST: usize = 24;

/// A problem in the basis of its ranges; see the module's header.
pub(crate) struct Reduction {
    kind: Kind,
    rank: usize,
    /// `B`, d x p.
    left: Mat<f64>,
    /// `B'`, d x p; `None` for symmetric adapters.
    right: Option<Mat<f64>>,
    /// `mean A`.
    mean: Mat<f64>,
    /// The leading parts of `B^T D_t B'`, outside of which they vanish.
    tasks: Tasks,
    /// The whole problem's layout.
    layout: Layout,
}

impl Reduction {
    /// The reduction of `problem` from `start`, whose shapes have been checked; `None` where there is none
    /// or it does not pay.
    pub fn new(problem: &Problem<'_>, start: &Blocks) -> Option<Self> {
        let Problem { tasks, kind, rank } = *problem;
        let (d, count) = (tasks.dimension(), tasks.count());
        let columns = count * rank;
        let most = d - 1;
        if !tasks.is_exact() || d < SMALLEST || !pays(d, rank, count) || !start.is_finite() {
            return None;
        }
        let mut mean = Mat::zeros(d, d);
        for task in tasks.iter() {
            kernel::add_scaled(mean.as_mut(), 1.0 / count as f64, task.least_squares());
        }
        let sketches = Sketches::new(problem, mean.as_ref())?;
        let symmetric = kind == Kind::Symmetric;
        let mut left = sketches.left.range(most - columns)?;
        let mut right = match &sketches.right {
            Some(right) => Some(right.range(most - columns)?),
            None => None,
        };
        let cores: Vec<Mat<f64>> = {
            let left = left.matrix();
            let right = right.as_ref().map_or(left, Basis::matrix);
            cores(tasks, mean.as_ref(), left, right, symmetric)
        };
        let factors = |first: usize| {
            let slice = &start.as_slice()[first * d * rank..][..d * columns];
            MatRef::from_column_major_slice(slice, d, columns)
        };
        left.extend(factors(0).to_owned(), 0.0, most)?;
        if let Some(right) = &mut right {
            right.extend(factors(count).to_owned(), 0.0, most)?;
        }
        // One dimension for both sides: the smaller basis gets columns of zeros, whose coordinates stay 0.
        let p = left.count.max(right.as_ref().map_or(0, |basis| basis.count));
        let tasks = Tasks::exact(squares(cores)).ok()?;
        let left = left.padded(p);
        let right = right.map(|basis| basis.padded(p));
        Some(Self { kind, rank, left, right, mean, tasks, layout: start.layout().clone() })
    }

    /// The objective in coordinates.
    pub fn objective(&self) -> Option<ProfileObjective<'_>> {
        ProfileObjective::continued(&self.tasks, self.kind, self.rank, self.left.ncols())
    }

    /// [`Problem::spread`], in coordinates.
    pub fn spread(&self) -> f64 {
        Problem { tasks: &self.tasks, kind: self.kind, rank: self.rank }.spread()
    }

    /// The whole problem's layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn right(&self) -> &Mat<f64> {
        self.right.as_ref().unwrap_or(&self.left)
    }

    /// Coordinates of `x`: `B^T U_t`, `B'^T V_t`.
    pub fn coordinates(&self, x: &Blocks) -> Blocks {
        let (p, count) = (self.left.ncols(), self.tasks.count());
        let mut layout = Layout::repeated("U", count, p, self.rank);
        if self.kind == Kind::Asymmetric {
            layout = layout.followed_by(&Layout::repeated("V", count, p, self.rank));
        }
        let mut out = Blocks::zeros(layout);
        for i in 0..x.count() {
            let basis = if i < count { &self.left } else { self.right() };
            kernel::mul(out.block_mut(i), basis.transpose(), x.block(i), 1.0);
        }
        out
    }

    /// The point with coordinates `x`: `B u_t`, `B' v_t`.
    pub fn lift(&self, x: &Blocks, out: &mut Blocks) {
        for i in 0..x.count() {
            let basis = if i < self.tasks.count() { &self.left } else { self.right() };
            kernel::mul(out.block_mut(i), basis.as_ref(), x.block(i), 1.0);
        }
    }

    /// The base for the whole problem's adapters `x`: `mean A - (1/T) sum U_t V_t^T`.
    pub fn base(&self, x: &Blocks) -> Mat<f64> {
        let (d, count) = (self.mean.nrows(), self.tasks.count());
        let columns = count * self.rank;
        let factors = |first: usize| {
            let slice = &x.as_slice()[first * d * self.rank..][..d * columns];
            MatRef::from_column_major_slice(slice, d, columns)
        };
        let right = factors(if self.right.is_some() { count } else { 0 });
        let mut base = self.mean.clone();
        kernel::mul_add(base.as_mut(), factors(0), right.transpose(), -1.0 / count as f64);
        base
    }
}

/// `L^T D_t R` for all tasks.
fn cores(
    tasks: &Tasks,
    mean: MatRef<'_, f64>,
    left: MatRef<'_, f64>,
    right: MatRef<'_, f64>,
    symmetric: bool,
) -> Vec<Mat<f64>> {
    let mut difference = mean.to_owned();
    let mut image = Mat::zeros(mean.nrows(), right.ncols());
    let core = |task: &peftml_theory::linear::Task| {
        kernel::subtract(difference.as_mut(), task.least_squares(), mean);
        kernel::mul(image.as_mut(), difference.as_ref(), right, 1.0);
        let mut core = Mat::zeros(left.ncols(), right.ncols());
        kernel::mul(core.as_mut(), left.transpose(), image.as_ref(), 1.0);
        if symmetric {
            kernel::symmetrise(core.as_mut());
        }
        core
    };
    tasks.iter().map(core).collect()
}

/// Matrices of one shape, continued by zeros to squares.
fn squares(cores: Vec<Mat<f64>>) -> impl Iterator<Item = Mat<f64>> {
    cores.into_iter().map(|core| {
        let (rows, columns) = (core.nrows(), core.ncols());
        if rows == columns {
            return core;
        }
        let mut out = Mat::zeros(rows.max(columns), rows.max(columns));
        out.get_mut(..rows, ..columns).copy_from(&core);
        out
    })
}

/// What is known of the ranges of all `D_t`, or of all `D_t^T`.
struct Sketch {
    /// `D_t Omega_t` side by side, `Omega_t` Gaussian with k + 2 columns.
    images: Mat<f64>,
    /// `D_t P` side by side, `P` Gaussian with [`PROBES`] columns, independent of all `Omega_t`.
    probes: Mat<f64>,
}

/// Both sides' sketches, from one pass over the tasks.
struct Sketches {
    left: Sketch,
    /// `None` where adapters are symmetric.
    right: Option<Sketch>,
}

impl Sketches {
    /// `None` where adapters are symmetric and the tasks' differences are not.
    fn new(problem: &Problem<'_>, mean: MatRef<'_, f64>) -> Option<Self> {
        let (d, count, width) = (mean.nrows(), problem.tasks.count(), problem.rank + 2);
        let seed = Seed::root(0).child("reduction");
        // Task t takes the columns from t on: Gaussian for every task, and cheaper than one draw a task.
        let random = seed.child("sketch").stream().normal_matrix(d, width + count - 1, 1.0);
        let probes = seed.child("probe").stream().normal_matrix(d, PROBES, 1.0);
        let blank = || Sketch {
            images: Mat::zeros(d, count * width),
            probes: Mat::zeros(d, count * PROBES),
        };
        let mut left = blank();
        let mut right = blank();
        let mut difference = Mat::zeros(d, d);
        let symmetric = problem.kind == Kind::Symmetric;
        for (t, task) in problem.tasks.iter().enumerate() {
            kernel::subtract(difference.as_mut(), task.least_squares(), mean);
            let omega = random.subcols(t, width);
            let sides = [(&mut left, difference.as_ref()), (&mut right, difference.transpose())];
            for (index, (sketch, difference)) in sides.into_iter().enumerate() {
                if index == 0 || !symmetric {
                    let out = sketch.images.subcols_mut(t * width, width);
                    kernel::mul(out, difference, omega, 1.0);
                }
                let out = sketch.probes.subcols_mut(t * PROBES, PROBES);
                kernel::mul(out, difference, probes.as_ref(), 1.0);
            }
        }
        if !symmetric {
            return Some(Self { left, right: Some(right) });
        }
        let skew = compare::distance(left.probes.as_ref(), right.probes.as_ref());
        (skew <= LEFT * kernel::norm(left.probes.as_ref())).then_some(Self { left, right: None })
    }
}

impl Sketch {
    /// A basis of the joint range with at most `most` columns, checked.
    fn range(&self, most: usize) -> Option<Basis> {
        let images = &self.images;
        let scale = (0..images.ncols()).map(|j| kernel::norm(images.subcols(j, 1)));
        let scale = scale.fold(0.0, f64::max);
        let mut basis = Basis { d: images.nrows(), count: 0, columns: Vec::new() };
        basis.extend(images.clone(), FLOOR * scale, most)?;
        // (I - Q Q^T) D_t P.
        let mut rest = self.probes.clone();
        let mut overlaps = Mat::zeros(basis.count, rest.ncols());
        kernel::mul(overlaps.as_mut(), basis.matrix().transpose(), rest.as_ref(), 1.0);
        kernel::mul_add(rest.as_mut(), basis.matrix(), overlaps.as_ref(), -1.0);
        let left = (0..rest.ncols()).map(|j| kernel::norm(rest.subcols(j, 1)));
        (scale > 0.0 && left.fold(0.0, f64::max) <= LEFT * scale).then_some(basis)
    }
}

/// Orthonormal columns that grow.
struct Basis {
    d: usize,
    count: usize,
    /// Column-major, d x count.
    columns: Vec<f64>,
}

impl Basis {
    fn matrix(&self) -> MatRef<'_, f64> {
        MatRef::from_column_major_slice(&self.columns, self.d, self.count)
    }

    /// The basis with columns of zeros behind, d x p.
    fn padded(self, p: usize) -> Mat<f64> {
        Mat::from_fn(self.d, p, |i, j| self.columns.get(j * self.d + i).copied().unwrap_or(0.0))
    }

    /// Appends columns until what is left of every column of `y` is at most `floor`, or [`FLOOR`] of it;
    /// the largest one first. `None` where more than `most` columns in all would be needed.
    fn extend(&mut self, mut y: Mat<f64>, floor: f64, most: usize) -> Option<()> {
        let d = self.d;
        let mut sizes: Vec<f64> = (0..y.ncols()).map(|j| kernel::norm(y.subcols(j, 1))).collect();
        let floors: Vec<f64> = sizes.iter().map(|size| floor.max(FLOOR * size)).collect();
        // What the basis holds already.
        let mut overlaps = Mat::zeros(self.count, y.ncols());
        kernel::mul(overlaps.as_mut(), self.matrix().transpose(), y.as_ref(), 1.0);
        kernel::mul_add(y.as_mut(), self.matrix(), overlaps.as_ref(), -1.0);
        let mut open: Vec<usize> = (0..y.ncols()).collect();
        for &j in &open {
            sizes[j] = kernel::norm(y.subcols(j, 1));
        }
        loop {
            open.retain(|&j| sizes[j] > floors[j]);
            let Some(&pivot) = open.iter().max_by(|a, b| sizes[**a].total_cmp(&sizes[**b])) else {
                return Some(());
            };
            if self.count == most {
                return None;
            }
            let mut column: Vec<f64> = (0..d).map(|i| y[(i, pivot)]).collect();
            // Again: what rounding left of the earlier columns is not small beside a small remainder.
            for other in self.columns.chunks_exact(d) {
                kernel::axpy(-kernel::dot(other, &column), other, &mut column);
            }
            let norm = kernel::dot(&column, &column).sqrt();
            if norm.is_nan() || norm <= floors[pivot] {
                sizes[pivot] = 0.0;
                continue;
            }
            column.iter_mut().for_each(|x| *x /= norm);
            open.retain(|&j| j != pivot);
            for &j in &open {
                let rest = y.col_mut(j).try_as_col_major_mut()?.as_slice_mut();
                let overlap = kernel::dot(&column, rest);
                kernel::axpy(-overlap, &column, rest);
                sizes[j] = kernel::dot(rest, rest).sqrt();
            }
            self.columns.append(&mut column);
            self.count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iterate::{self, MaxIterations, Silent};
    use crate::{Settings, State, entry};
    use peftml_theory::Objective;

    /// Tasks of the model with `noise` on every entry, and a random start.
    fn drawn(kind: Kind, noise: f64) -> (Tasks, Blocks) {
        let (d, k, count) = (40, 2, 4);
        let mut stream = Seed::root(3).child("reduction-test").stream();
        let base = stream.normal_matrix(d, d, 1.0);
        let truths: Vec<Mat<f64>> = (0..count)
            .map(|_| {
                let u = stream.normal_matrix(d, k, 1.0);
                let v = if kind == Kind::Symmetric {
                    u.clone()
                } else {
                    stream.normal_matrix(d, k, 1.0)
                };
                let mut truth = base.clone();
                kernel::mul_add(truth.as_mut(), u.as_ref(), v.transpose(), 1.0);
                let noise = stream.normal_matrix(d, d, noise);
                kernel::add_scaled(truth.as_mut(), 1.0, noise.as_ref());
                truth
            })
            .collect();
        let layout = Layout::repeated("U", count, d, k);
        let layout = match kind {
            Kind::Symmetric => layout,
            Kind::Asymmetric => layout.followed_by(&Layout::repeated("V", count, d, k)),
        };
        let mut start = Blocks::zeros(layout);
        stream.fill_normal(1.0, start.as_mut_slice());
        (Tasks::exact(truths).unwrap(), start)
    }

    #[test]
    fn the_reduced_iteration_is_the_whole_one() {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            let (tasks, start) = drawn(kind, 0.0);
            let problem = Problem { tasks: &tasks, kind, rank: 2 };
            let reduction = Reduction::new(&problem, &start).unwrap();
            assert_eq!(reduction.tasks.dimension(), 4 * 2);
            let whole = ProfileObjective::new(&tasks, kind, 2).unwrap();
            let small = reduction.objective().unwrap();
            assert_eq!(small.layout().specs()[0].rows, 2 * 4 * 2);
            let solver = crate::first_order::lbfgs::Lbfgs { memory: 10 };
            // Rounding grows by a factor a step: ten steps stay within a few digits.
            let mut values = Vec::new();
            let mut note = |state: &State| values.push(state.value);
            iterate::run(&solver, &whole, start.clone(), &MaxIterations(10), &mut note).unwrap();
            let mut index = 0;
            let mut compare = |state: &State| {
                let value = values[index];
                assert!((state.value - value).abs() < 1e-9 * values[0], "step {index}");
                index += 1;
            };
            let coordinates = reduction.coordinates(&start);
            let rule = MaxIterations(10);
            let end = iterate::run(&solver, &small, coordinates, &rule, &mut compare).unwrap();
            assert_eq!(index, 11);
            let mut x = start.zeros_like();
            reduction.lift(&end.x, &mut x);
            let base = whole.base(&x);
            let found = reduction.base(&x);
            assert!(compare::relative_error(found.as_ref(), base.as_ref()) < 1e-13);
        }
    }

    #[test]
    fn a_basis_is_made_where_it_pays() {
        assert!(pays(100, 4, 10) && pays(1000, 4, 10));
        // It would be the whole space, or its cores cost more than all evaluations.
        assert!(!pays(80, 4, 10) && !pays(1000, 1, 100));
    }

    #[test]
    fn observers_see_the_whole_problem_and_stationary_points_are_its_own() {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            let (tasks, start) = drawn(kind, 0.0);
            let problem = Problem { tasks: &tasks, kind, rank: 2 };
            let f = ProfileObjective::new(&tasks, kind, 2).unwrap();
            let mut work = vec![0.0; f.work_len()];
            let (mut gradient, scale) = (start.zeros_like(), problem.gradient_scale());
            for name in
                ["lbfgs", "gradient-descent", "scaled-gradient", "trust-region", "gauss-newton"]
            {
                let settings = Settings { max_iterations: Some(2000), ..Settings::default() };
                let method = entry(name).unwrap().build(&settings).unwrap();
                let mut check = |state: &State| {
                    let value = f.gradient(&state.x, &mut gradient, &mut work);
                    gradient.add_scaled(-1.0, &state.gradient);
                    assert!(gradient.norm() < 1e-11 * scale, "{name}");
                    // The objective's expanded value keeps eight digits, and none of a loss of rounding's size.
                    assert!((value - state.value).abs() < 1e-7 * (value + state.value) + 1e-18);
                };
                let watched = method.solve(&problem, Some(&start), &mut check).unwrap();
                let alone = method.solve(&problem, Some(&start), &mut Silent).unwrap();
                assert_eq!(watched.base, alone.base, "watching changes nothing");
                assert_eq!(watched.stop_reason.name(), "stationary", "{name}");
            }
        }
    }

    #[test]
    fn what_a_small_basis_does_not_hold_is_left_whole() {
        let reduces = |kind, noise| {
            let (tasks, start) = drawn(kind, noise);
            Reduction::new(&Problem { tasks: &tasks, kind, rank: 2 }, &start).is_some()
        };
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            assert!(reduces(kind, 0.0), "control");
            assert!(!reduces(kind, 1e-9), "{}", kind.name());
        }
        // Symmetric adapters on offsets that are not.
        let (tasks, start) = drawn(Kind::Asymmetric, 0.0);
        let half = Blocks::from_matrices("U", (0..4).map(|i| start.block(i)));
        let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: 2 };
        assert!(Reduction::new(&problem, &half).is_none());
        // A base that swamps the offsets: their rounding fills the space.
        let (tasks, start) = drawn(Kind::Symmetric, 0.0);
        let swamped = tasks.iter().map(|task| {
            let mut a = task.least_squares().to_owned();
            (0..40).for_each(|i| a[(i, (7 * i) % 40)] += 1e6 / 3.0);
            a
        });
        let swamped = Tasks::exact(swamped).unwrap();
        let problem = Problem { tasks: &swamped, kind: Kind::Symmetric, rank: 2 };
        assert!(Reduction::new(&problem, &start).is_none());
    }
}
