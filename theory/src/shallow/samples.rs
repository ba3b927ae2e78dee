//! Samples of one task, laid out for vectors.
//!
//! Four consecutive samples are one [`Quad`]; `block` quads are a block, small enough that a block of
//! inputs and one of hidden units stay in the first-level cache. In a block of width w, input j of
//! quad v is at `j w + v`. Missing samples of the last quad are zeros and carry no weight.

use super::lanes::{Quad, WIDTH};
use super::{ShallowError, Sizes};
use faer::{ColRef, MatRef};

/// Inputs with their labels.
#[derive(Clone, Debug)]
pub struct Samples {
    sizes: Sizes,
    count: usize,
    block: usize,
    inputs: Quads,
    labels: Quads,
}

/// One block of [`Samples`].
pub(crate) struct Block<'a> {
    /// Position of its first quad.
    pub(crate) start: usize,
    /// Quads.
    pub(crate) width: usize,
    /// Columns x width.
    pub(crate) inputs: &'a [Quad],
    /// Width.
    pub(crate) labels: &'a [Quad],
}

impl Samples {
    /// Samples `x` (d x N, columns are samples) with labels `y` (N) for networks of `sizes`.
    ///
    /// # Errors
    /// [`ShallowError`]: no samples, shapes that do not fit, numbers that are not finite.
    pub fn new(sizes: Sizes, x: MatRef<'_, f64>, y: ColRef<'_, f64>) -> Result<Self, ShallowError> {
        sizes.check()?;
        let count = x.ncols();
        check_shape("the inputs", x, sizes.inputs, count)?;
        check_shape("the labels", y.as_mat(), count, 1)?;
        if count == 0 {
            return Err(ShallowError::Zero { name: "the number of samples" });
        }
        check_finite("the inputs", x)?;
        check_finite("the labels", y.as_mat())?;
        let quads = count.div_ceil(WIDTH);
        // 24 kB of a 32 kB cache.
        let block = (768 / (sizes.columns() + sizes.hidden)).clamp(8, 64);
        let mut samples = Self {
            sizes,
            count,
            block,
            inputs: Quads::zeros(sizes.columns() * quads),
            labels: Quads::zeros(quads),
        };
        for (s, label) in y.iter().enumerate() {
            samples.labels.as_mut_slice()[s / WIDTH][s % WIDTH] = *label;
        }
        for s in 0..count {
            for j in 0..sizes.columns() {
                let place = samples.place(s / WIDTH, j);
                let value = if j < sizes.inputs { x[(j, s)] } else { 1.0 };
                samples.inputs.as_mut_slice()[place][s % WIDTH] = value;
            }
        }
        Ok(samples)
    }

    /// Where row `row` of quad `quad` of the inputs is.
    fn place(&self, quad: usize, row: usize) -> usize {
        let start = quad - quad % self.block;
        let width = self.block.min(self.quads() - start);
        self.sizes.columns() * start + row * width + (quad - start)
    }

    /// Sizes of the networks that they are for.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// Number of samples N.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The same inputs with the labels `y`.
    ///
    /// # Errors
    /// As [`Samples::new`].
    pub fn with_labels(&self, y: ColRef<'_, f64>) -> Result<Self, ShallowError> {
        check_shape("the labels", y.as_mat(), self.count, 1)?;
        check_finite("the labels", y.as_mat())?;
        let mut samples = self.clone();
        for (s, label) in y.iter().enumerate() {
            samples.labels.as_mut_slice()[s / WIDTH][s % WIDTH] = *label;
        }
        Ok(samples)
    }

    pub(crate) fn quads(&self) -> usize {
        self.count.div_ceil(WIDTH)
    }

    /// Quads of the widest block.
    pub(crate) fn block_width(&self) -> usize {
        self.block.min(self.quads())
    }

    /// Blocks in order.
    #[inline(always)]
    pub(crate) fn blocks(&self) -> impl Iterator<Item = Block<'_>> {
        let (quads, columns) = (self.quads(), self.sizes.columns());
        let (inputs, labels) = (self.inputs.as_slice(), self.labels.as_slice());
        (0..quads).step_by(self.block).map(move |start| {
            let width = self.block.min(quads - start);
            Block {
                start,
                width,
                inputs: &inputs[columns * start..][..columns * width],
                labels: &labels[start..][..width],
            }
        })
    }

    /// Zeroes what lies in `quads` (one per sample quad of `block`) beyond the last sample.
    #[inline(always)]
    pub(crate) fn mask(&self, block: &Block<'_>, quads: &mut [Quad]) {
        let used = self.count - (block.start + block.width - 1) * WIDTH;
        if used < WIDTH
            && let Some(last) = quads.last_mut()
        {
            last[used..].fill(0.0);
        }
    }
}

pub(crate) fn check_shape(
    what: &'static str,
    m: MatRef<'_, f64>,
    expected_rows: usize,
    expected_cols: usize,
) -> Result<(), ShallowError> {
    let (rows, cols) = (m.nrows(), m.ncols());
    if (rows, cols) == (expected_rows, expected_cols) {
        Ok(())
    } else {
        Err(ShallowError::Shape { what, rows, cols, expected_rows, expected_cols })
    }
}

pub(crate) fn check_finite(what: &'static str, m: MatRef<'_, f64>) -> Result<(), ShallowError> {
    for col in 0..m.ncols() {
        for row in 0..m.nrows() {
            if !m[(row, col)].is_finite() {
                return Err(ShallowError::NotFinite { what, row, col, value: m[(row, col)] });
            }
        }
    }
    Ok(())
}

/// Quads that start on a cache line; alignment is speed only, never a result.
#[derive(Debug)]
pub(crate) struct Quads {
    values: Vec<f64>,
    start: usize,
    count: usize,
}

/// Doubles in a cache line.
const LINE: usize = 8;

/// Doubles that hold `count` quads wherever they start in a cache line.
pub(crate) fn scratch_len(count: usize) -> usize {
    count * WIDTH + LINE
}

/// The part of `scratch` that starts on a cache line, as quads.
#[inline(always)]
pub(crate) fn aligned(scratch: &mut [f64]) -> &mut [Quad] {
    let start = scratch.as_ptr().align_offset(8 * LINE).min(LINE);
    scratch[start..].as_chunks_mut().0
}

impl Quads {
    pub(crate) fn zeros(count: usize) -> Self {
        let values = vec![0.0; scratch_len(count)];
        let start = values.as_ptr().align_offset(8 * LINE).min(LINE);
        Self { values, start, count }
    }

    #[inline(always)]
    pub(crate) fn as_slice(&self) -> &[Quad] {
        &self.values[self.start..].as_chunks().0[..self.count]
    }

    #[inline(always)]
    pub(crate) fn as_mut_slice(&mut self) -> &mut [Quad] {
        &mut self.values[self.start..].as_chunks_mut().0[..self.count]
    }
}

impl Clone for Quads {
    fn clone(&self) -> Self {
        let mut copy = Self::zeros(self.count);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use faer::{Col, Mat};

    #[test]
    fn every_sample_is_where_its_block_says() {
        let sizes = Sizes { inputs: 30, hidden: 40, biases: true };
        let count = 4 * 25 + 3;
        let x = Mat::from_fn(30, count, |j, s| (100 * s + j) as f64);
        let y = Col::from_fn(count, |s| s as f64);
        let samples = Samples::new(sizes, x.as_ref(), y.as_ref()).unwrap();
        let mut seen = 0;
        for block in samples.blocks() {
            for v in 0..block.width {
                for lane in 0..WIDTH {
                    let s = (block.start + v) * WIDTH + lane;
                    let input = |j: usize| block.inputs[j * block.width + v][lane];
                    if s < count {
                        seen += 1;
                        assert_eq!(block.labels[v][lane], y[s]);
                        assert!((0..30).all(|j| input(j) == x[(j, s)]) && input(30) == 1.0);
                    } else {
                        assert!((0..31).all(|j| input(j) == 0.0));
                    }
                }
            }
        }
        assert_eq!(seen, count);
        assert!(samples.blocks().count() > 1);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let sizes = Sizes::square(3);
        let x = Mat::zeros(3, 4);
        let refused = |x: MatRef<'_, f64>, n| Samples::new(sizes, x, Col::zeros(n).as_ref());
        assert!(matches!(refused(x.as_ref(), 5), Err(ShallowError::Shape { rows: 5, .. })));
        assert!(matches!(refused(x.subrows(0, 2), 4), Err(ShallowError::Shape { rows: 2, .. })));
        assert!(matches!(refused(x.subcols(0, 0), 0), Err(ShallowError::Zero { .. })));
        let nan = Mat::from_fn(3, 4, |_, _| f64::NAN);
        assert!(matches!(refused(nan.as_ref(), 4), Err(ShallowError::NotFinite { .. })));
    }
}
