//! The network's weights, and what it computes.

use super::kernel::{Panels, Pass, pack};
use super::lanes::dispatch;
use super::samples::{Samples, aligned, check_finite, check_shape, scratch_len};
use super::{ShallowError, Sizes, sigmoid_in_place};
use faer::{Col, MatRef};
use peftml_linalg::{Blocks, kernel};

/// A two-layer network `y = c^T sigmoid(W x + b) + b_out`; blocks as in [`Sizes::layout`].
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    sizes: Sizes,
    weights: Blocks,
}

impl Network {
    /// The network with all weights zero.
    ///
    /// # Errors
    /// [`ShallowError::Zero`].
    pub fn zeros(sizes: Sizes) -> Result<Self, ShallowError> {
        sizes.check()?;
        Ok(Self { sizes, weights: Blocks::zeros(sizes.layout()) })
    }

    /// The network with the first blocks of `point`, which may have more (adapters).
    ///
    /// # Errors
    /// [`ShallowError`]: shapes that do not fit, numbers that are not finite.
    pub fn from_blocks(sizes: Sizes, point: &Blocks) -> Result<Self, ShallowError> {
        let mut network = Self::zeros(sizes)?;
        for index in 0..sizes.blocks() {
            if index >= point.count() {
                let spec = &network.weights.layout().specs()[index];
                return Err(ShallowError::Shape {
                    what: "a block of the network",
                    rows: 0,
                    cols: 0,
                    expected_rows: spec.rows,
                    expected_cols: spec.cols,
                });
            }
            let (from, mut to) = (point.block(index), network.weights.block_mut(index));
            check_shape("a block of the network", from, to.nrows(), to.ncols())?;
            check_finite("a block of the network", from)?;
            to.copy_from(from);
        }
        Ok(network)
    }

    /// Sizes.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Weights: `W`, `c` and, where there are biases, `b`, `b_out`.
    pub fn weights(&self) -> &Blocks {
        &self.weights
    }

    /// Weights, mutable.
    pub fn weights_mut(&mut self) -> &mut Blocks {
        &mut self.weights
    }

    /// First layer W, h x d.
    pub fn first(&self) -> MatRef<'_, f64> {
        self.weights.block(0)
    }

    /// Second layer c, h x 1.
    pub fn second(&self) -> MatRef<'_, f64> {
        self.weights.block(1)
    }

    /// The network with `W + U V^T`: `u` h x r, `v` d x r.
    ///
    /// # Errors
    /// [`ShallowError::Shape`].
    pub fn adapted(&self, u: MatRef<'_, f64>, v: MatRef<'_, f64>) -> Result<Network, ShallowError> {
        check_shape("the adapter's U", u, self.sizes.hidden, v.ncols())?;
        check_shape("the adapter's V", v, self.sizes.inputs, u.ncols())?;
        let mut network = self.clone();
        kernel::mul_add(network.weights.block_mut(0), u, v.transpose(), 1.0);
        Ok(network)
    }

    /// Outputs on inputs `x` (d x N), a length-N column.
    ///
    /// # Errors
    /// [`ShallowError::Shape`].
    pub fn outputs(&self, x: MatRef<'_, f64>) -> Result<Col<f64>, ShallowError> {
        check_shape("the inputs", x, self.sizes.inputs, x.ncols())?;
        let (h, d) = (self.sizes.hidden, self.sizes.inputs);
        let mut hidden = vec![0.0; h];
        Ok(Col::from_fn(x.ncols(), |s| {
            for (i, unit) in hidden.iter_mut().enumerate() {
                let bias = self.weights.named("b").map_or(0.0, |b| b[(i, 0)]);
                *unit = (0..d).fold(bias, |sum, j| sum + self.first()[(i, j)] * x[(j, s)]);
            }
            sigmoid_in_place(&mut hidden);
            let bias = self.weights.named("b_out").map_or(0.0, |b| b[(0, 0)]);
            hidden.iter().enumerate().fold(bias, |y, (i, s)| y + self.second()[(i, 0)] * s)
        }))
    }

    /// `1/N sum (output - label)^2`.
    ///
    /// # Errors
    /// [`ShallowError::Sizes`] for samples of another network.
    pub fn mean_squared_error(&self, samples: &Samples) -> Result<f64, ShallowError> {
        check_sizes(0, samples, self.sizes)?;
        let (h, columns) = (self.sizes.hidden, self.sizes.columns());
        let width = samples.block_width();
        let (mut panels, mut second) = (vec![0.0; h * columns], vec![0.0; h]);
        pack_first(self.sizes, &self.weights, &mut panels);
        pack(1, h, &mut second, |_, i| self.second()[(i, 0)]);
        let mut scratch = vec![0.0; scratch_len((h + 1) * width)];
        let (hidden, residuals) = aligned(&mut scratch).split_at_mut(h * width);
        let sums = dispatch(Pass {
            samples,
            first: Panels { values: &panels, rows: h, cols: columns },
            second: Panels { values: &second, rows: 1, cols: h },
            output_bias: output_bias(self.sizes, &self.weights),
            hidden,
            residuals,
            sums: None,
        });
        Ok(sums.squares / samples.count() as f64)
    }
}

/// `[W, b]` of the network in `point` as panels.
#[inline]
pub(crate) fn pack_first(sizes: Sizes, point: &Blocks, panels: &mut [f64]) {
    let (h, d) = (sizes.hidden, sizes.inputs);
    let weights = point.as_slice();
    // W is h x d column-major at 0, c follows, then b.
    let bias = h * d + h;
    pack(
        h,
        sizes.columns(),
        panels,
        |i, j| {
            if j < d { weights[j * h + i] } else { weights[bias + i] }
        },
    );
}

/// `b_out` of the network in `point`; 0 without biases.
#[inline]
pub(crate) fn output_bias(sizes: Sizes, point: &Blocks) -> f64 {
    if sizes.biases { point.as_slice()[sizes.hidden * (sizes.inputs + 2)] } else { 0.0 }
}

pub(crate) fn check_sizes(
    task: usize,
    samples: &Samples,
    expected: Sizes,
) -> Result<(), ShallowError> {
    let found = samples.sizes();
    if found == expected { Ok(()) } else { Err(ShallowError::Sizes { task, found, expected }) }
}
