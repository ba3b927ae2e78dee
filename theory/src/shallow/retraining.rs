//! The retraining objective of the shallow network.
//!
//! `F = sum_t 1/N_t sum_s (c^T sigmoid((W + R_t) x_ts + b) + b_out - y_ts)^2` with adapters
//! `R_t = U_t V_t^T` or `U_t U_t^T`; standard retraining is the case without adapters. Blocks: the
//! network's (`W` h x d, `c` h x 1, perhaps `b`, `b_out`), then `U0..` h x k, then `V0..` d x k (the
//! reference's `B` and `A^T`). The sum over tasks, not their mean, is the reference's. With
//! `e_s` the residuals, `s = sigmoid(z)`:
//!
//! * `G_t = 2/N_t sum_s e_s (c o s (1 - s)) x_s^T`, `dF/dW = sum_t G_t`
//! * `dF/dc = sum_t 2/N_t sum_s e_s s`
//! * `dF/dU_t = G_t V_t`, `dF/dV_t = G_t^T U_t`; symmetric: `(G_t + G_t^T) U_t`
//!
//! Source: Block et al. 2025 (arXiv:2410.22264), experiments. All in double precision. Cost of a
//! gradient: `4 h (d + k)` flops and one logistic function a hidden unit, for every sample.

use super::gauss_newton::{self, Derivative, Trained};
use super::kernel::{GradientSums, Panels, Pass, ResidualSums, pack};
use super::lanes::{Quad, dispatch};
use super::network::{check_sizes, output_bias, pack_first};
use super::samples::{Samples, aligned, scratch_len};
use super::second_order::{Curvature, SecondOrder, SecondOrderSums};
use super::{ShallowError, Sizes};
use crate::linear::Kind;
use crate::objective::{Gauge, Objective};
use faer::MatMut;
use peftml_linalg::{Blocks, Layout};

/// Which adapters are trained beside the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapters {
    /// `U U^T` or `U V^T`.
    pub kind: Kind,
    /// Columns of the factors.
    pub rank: usize,
}

impl Adapters {
    /// Factors of `count` adapters of a network of `sizes`: `U0..` h x r, then `V0..` d x r.
    ///
    /// # Errors
    /// [`ShallowError::NotSquare`], [`ShallowError::Zero`].
    pub fn layout(&self, sizes: Sizes, count: usize) -> Result<Layout, ShallowError> {
        sizes.check()?;
        let Sizes { inputs, hidden, .. } = sizes;
        if self.rank == 0 {
            return Err(ShallowError::Zero { name: "the adapters' rank" });
        }
        let left = Layout::repeated("U", count, hidden, self.rank);
        match self.kind {
            Kind::Symmetric if inputs != hidden => Err(ShallowError::NotSquare { hidden, inputs }),
            Kind::Symmetric => Ok(left),
            Kind::Asymmetric => {
                Ok(left.followed_by(&Layout::repeated("V", count, inputs, self.rank)))
            }
        }
    }

    /// The group that leaves `R` alone.
    pub(crate) fn gauge(&self) -> Gauge {
        match self.kind {
            Kind::Symmetric => Gauge::Orthogonal,
            Kind::Asymmetric => Gauge::GeneralLinear,
        }
    }
}

/// The objective; see the module's header.
#[derive(Debug)]
pub struct RetrainingObjective<'a> {
    sizes: Sizes,
    adapters: Option<Adapters>,
    tasks: &'a [Samples],
    layout: Layout,
}

/// Scratch in doubles and in quads.
struct Work<'w> {
    /// h x columns panels of a task's first layer, and of a direction's.
    first: &'w mut [f64],
    direction: &'w mut [f64],
    /// h: c as a panel.
    second: &'w mut [f64],
    /// G_t and its derivative, h x columns, column-major.
    gradient: &'w mut [f64],
    gradient_change: &'w mut [f64],
    /// (4 h + 2) x block width.
    samples: &'w mut [Quad],
    /// 2 h (columns + 1) lane sums.
    sums: &'w mut [Quad],
}

impl<'a> RetrainingObjective<'a> {
    /// The objective on `tasks`, with one adapter a task or none.
    ///
    /// # Errors
    /// [`ShallowError`]: no tasks, samples of other sizes, adapters that are not defined.
    pub fn new(
        sizes: Sizes,
        adapters: Option<Adapters>,
        tasks: &'a [Samples],
    ) -> Result<Self, ShallowError> {
        sizes.check()?;
        if tasks.is_empty() {
            return Err(ShallowError::NoTasks);
        }
        for (t, samples) in tasks.iter().enumerate() {
            check_sizes(t, samples, sizes)?;
        }
        let layout = match adapters {
            None => sizes.layout(),
            Some(adapters) => sizes.layout().followed_by(&adapters.layout(sizes, tasks.len())?),
        };
        Ok(Self { sizes, adapters, tasks, layout })
    }

    /// Sizes of the network.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn block_width(&self) -> usize {
        self.tasks.iter().map(Samples::block_width).max().unwrap_or(0)
    }

    /// Lengths of [`Work`]'s parts: doubles, then quads.
    fn lengths(&self) -> ([usize; 5], [usize; 2]) {
        let (h, columns) = (self.sizes.hidden, self.sizes.columns());
        let matrix = h * columns;
        (
            [matrix, matrix, h, matrix, matrix],
            [(4 * h + 2) * self.block_width(), 2 * h * (columns + 1)],
        )
    }

    fn split<'w>(&self, work: &'w mut [f64]) -> Work<'w> {
        let (doubles, quads) = self.lengths();
        let (first, rest) = work.split_at_mut(doubles[0]);
        let (direction, rest) = rest.split_at_mut(doubles[1]);
        let (second, rest) = rest.split_at_mut(doubles[2]);
        let (gradient, rest) = rest.split_at_mut(doubles[3]);
        let (gradient_change, rest) = rest.split_at_mut(doubles[4]);
        let (samples, rest) = aligned(rest).split_at_mut(quads[0]);
        let sums = &mut rest[..quads[1]];
        Work { first, direction, second, gradient, gradient_change, samples, sums }
    }

    /// The blocks of task `t`'s factors (left, right), as ranges of the point's scalars.
    fn factors(&self, adapters: Adapters, t: usize) -> [std::ops::Range<usize>; 2] {
        let (h, d, k) = (self.sizes.hidden, self.sizes.inputs, adapters.rank);
        let network = self.sizes.layout_len();
        let left = network + t * h * k;
        match adapters.kind {
            Kind::Symmetric => [left..left + h * k, left..left + h * k],
            Kind::Asymmetric => {
                let right = network + self.tasks.len() * h * k + t * d * k;
                [left..left + h * k, right..right + d * k]
            }
        }
    }

    /// Packs `[W + R_t, b]`.
    fn pack_task(&self, x: &Blocks, t: usize, panels: &mut [f64]) {
        let Some(adapters) = self.adapters else {
            return pack_first(self.sizes, x, panels);
        };
        let (h, d) = (self.sizes.hidden, self.sizes.inputs);
        let values = x.as_slice();
        let [left, right] = self.factors(adapters, t).map(|range| &values[range]);
        pack(h, self.sizes.columns(), panels, |i, j| {
            if j < d {
                (0..adapters.rank)
                    .fold(values[j * h + i], |sum, r| sum + left[r * h + i] * right[r * d + j])
            } else {
                values[h * d + h + i]
            }
        });
    }

    /// Packs `[dW + dU V^T + U dV^T, db]`.
    fn pack_direction(&self, x: &Blocks, v: &Blocks, t: usize, panels: &mut [f64]) {
        let Some(adapters) = self.adapters else {
            return pack_first(self.sizes, v, panels);
        };
        let (h, d) = (self.sizes.hidden, self.sizes.inputs);
        let [left, right] = self.factors(adapters, t).map(|range| &x.as_slice()[range]);
        let [d_left, d_right] = self.factors(adapters, t).map(|range| &v.as_slice()[range]);
        let values = v.as_slice();
        pack(h, self.sizes.columns(), panels, |i, j| {
            if j < d {
                (0..adapters.rank).fold(values[j * h + i], |sum, r| {
                    let (i, j) = (r * h + i, r * d + j);
                    sum + d_left[i] * right[j] + left[i] * d_right[j]
                })
            } else {
                values[h * d + h + i]
            }
        });
    }

    fn pass(&self, x: &Blocks, t: usize, work: &mut Work<'_>, with_gradient: bool) -> ResidualSums {
        let (h, columns) = (self.sizes.hidden, self.sizes.columns());
        let samples = &self.tasks[t];
        let width = samples.block_width();
        self.pack_task(x, t, work.first);
        let (hidden, rest) = work.samples.split_at_mut(h * width);
        let sums = with_gradient.then(|| {
            let sums = &mut work.sums[..h * (columns + 1)];
            sums.fill([0.0; 4]);
            let (first, second) = sums.split_at_mut(h * columns);
            GradientSums { first, second }
        });
        dispatch(Pass {
            samples,
            first: Panels { values: work.first, rows: h, cols: columns },
            second: Panels { values: work.second, rows: 1, cols: h },
            output_bias: output_bias(self.sizes, x),
            hidden,
            residuals: &mut rest[..width],
            sums,
        })
    }

    /// Adds `G` (h x columns, column-major) and its products with the factors to `out`.
    fn add_first_layer(
        &self,
        factors_at: &Blocks,
        g: &[f64],
        t: usize,
        with_base: bool,
        out: &mut Blocks,
    ) {
        let (h, d) = (self.sizes.hidden, self.sizes.inputs);
        let to = out.as_mut_slice();
        if with_base {
            add(&mut to[..h * d], &g[..h * d]);
            if self.sizes.biases {
                add(&mut to[h * d + h..][..h], &g[h * d..]);
            }
        }
        let Some(adapters) = self.adapters else { return };
        let [left, right] = self.factors(adapters, t);
        add_factor_gradients(h, d, &g[..h * d], (factors_at.as_slice(), to), (left, right));
    }

    /// `x` where `v` is the direction; Hessian or Gauss-Newton product.
    fn curvature_product(
        &self,
        curvature: Curvature,
        (x, v): (&Blocks, &Blocks),
        out: &mut Blocks,
        work: &mut [f64],
    ) {
        let (h, columns) = (self.sizes.hidden, self.sizes.columns());
        let work = self.split(work);
        out.fill(0.0);
        let c = self.second_layer(x);
        let d_c = self.second_layer(v);
        for (t, samples) in self.tasks.iter().enumerate() {
            self.pack_task(x, t, work.first);
            self.pack_direction(x, v, t, work.direction);
            work.sums.fill([0.0; 4]);
            let plain = dispatch(SecondOrder {
                samples,
                curvature,
                first: Panels { values: work.first, rows: h, cols: columns },
                direction: Panels { values: work.direction, rows: h, cols: columns },
                second: (c, d_c),
                output_bias: (output_bias(self.sizes, x), output_bias(self.sizes, v)),
                scratch: work.samples,
                sums: SecondOrderSums::new(work.sums, h, columns),
            });
            let scale = 2.0 / samples.count() as f64;
            let sums = SecondOrderSums::new(work.sums, h, columns);
            reduce(h, columns, sums.gradient, work.gradient, |_| scale);
            reduce(h, columns, sums.gradient_change, work.gradient_change, |_| scale);
            self.add_first_layer(x, work.gradient_change, t, true, out);
            if curvature == Curvature::Full {
                self.add_first_layer(v, work.gradient, t, false, out);
            }
            let to = out.as_mut_slice();
            for (i, sum) in sums.second_change.iter().enumerate() {
                to[h * self.sizes.inputs + i] += scale * add_lanes(sum);
            }
            if self.sizes.biases {
                to[h * (self.sizes.inputs + 2)] += scale * plain;
            }
        }
    }

    fn second_layer<'x>(&self, x: &'x Blocks) -> &'x [f64] {
        &x.as_slice()[self.sizes.hidden * self.sizes.inputs..][..self.sizes.hidden]
    }
}

impl Objective for RetrainingObjective<'_> {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn work_len(&self) -> usize {
        let (doubles, quads) = self.lengths();
        doubles.iter().sum::<usize>() + scratch_len(quads.iter().sum())
    }

    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64 {
        let mut work = self.split(work);
        work.second.copy_from_slice(self.second_layer(x));
        let mut value = 0.0;
        for (t, samples) in self.tasks.iter().enumerate() {
            value += self.pass(x, t, &mut work, false).squares / samples.count() as f64;
        }
        value
    }

    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        let (h, d, columns) = (self.sizes.hidden, self.sizes.inputs, self.sizes.columns());
        let mut work = self.split(work);
        work.second.copy_from_slice(self.second_layer(x));
        out.fill(0.0);
        let mut value = 0.0;
        for (t, samples) in self.tasks.iter().enumerate() {
            let sums = self.pass(x, t, &mut work, true);
            value += sums.squares / samples.count() as f64;
            let scale = 2.0 / samples.count() as f64;
            let c = &*work.second;
            reduce(h, columns, work.sums, work.gradient, |i| scale * c[i]);
            self.add_first_layer(x, work.gradient, t, true, out);
            let to = out.as_mut_slice();
            for i in 0..h {
                to[h * d + i] += scale * add_lanes(&work.sums[h * columns + i]);
            }
            if self.sizes.biases {
                to[h * (d + 2)] += scale * sums.plain;
            }
        }
        value
    }

    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.curvature_product(Curvature::Full, (x, v), out, work);
    }

    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.curvature_product(Curvature::GaussNewton, (x, v), out, work);
    }

    fn gauss_newton_matrix(&self, x: &Blocks, mut out: MatMut<'_, f64>, work: &mut [f64]) {
        let work = self.split(work);
        out.fill(0.0);
        let c = self.second_layer(x);
        let network = Derivative::of_network(self.sizes);
        for (t, samples) in self.tasks.iter().enumerate() {
            self.pack_task(x, t, work.first);
            let effective = gauss_newton::effective(samples, work.first, c, Trained::Both);
            let mut derivative = network.clone();
            if let Some(adapters) = self.adapters {
                let [left, right] = self.factors(adapters, t);
                derivative.add_factors(self.sizes, x.as_slice(), (left, right));
            }
            derivative.add_to(&effective, out.as_mut());
        }
    }

    fn gauge(&self) -> Gauge {
        self.adapters.map_or(Gauge::None, |adapters| adapters.gauge())
    }
}

/// `(x_0 + x_2) + (x_1 + x_3)`: the order of the vectors' sums.
#[inline]
pub(crate) fn add_lanes(x: &Quad) -> f64 {
    (x[0] + x[2]) + (x[1] + x[3])
}

/// `out_ij = scale(i) * sum of lanes`, from h x columns by rows to column-major.
#[inline]
pub(crate) fn reduce(
    h: usize,
    columns: usize,
    sums: &[Quad],
    out: &mut [f64],
    scale: impl Fn(usize) -> f64,
) {
    for (i, row) in sums[..h * columns].chunks_exact(columns).enumerate() {
        let scale = scale(i);
        for (j, sum) in row.iter().enumerate() {
            out[j * h + i] = scale * add_lanes(sum);
        }
    }
}

fn add(to: &mut [f64], from: &[f64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to += from;
    }
}

/// `out_left += G right`, `out_right += G^T left` for G h x d column-major; the factors of `point`
/// and of `out` are at the ranges `left` and `right`, which may be the same (symmetric adapters).
#[inline]
pub(crate) fn add_factor_gradients(
    h: usize,
    d: usize,
    g: &[f64],
    (point, out): (&[f64], &mut [f64]),
    (left, right): (std::ops::Range<usize>, std::ops::Range<usize>),
) {
    let rank = left.len() / h;
    for r in 0..rank {
        let left = left.start + r * h..left.start + (r + 1) * h;
        let right = right.start + r * d..right.start + (r + 1) * d;
        for (j, column) in g.chunks_exact(h).enumerate() {
            let factor = point[right.start + j];
            let mut product = 0.0;
            for (i, g) in column.iter().enumerate() {
                out[left.start + i] += factor * g;
                product += g * point[left.start + i];
            }
            out[right.start + j] += product;
        }
    }
}
