//! A point in a product of matrix spaces.
//!
//! `Blocks` holds matrices `X_0, X_1, ..` of given shapes, column-major, one behind the other in
//! one buffer. Solvers, checkpoints and observers need this one type: vector arithmetic acts on
//! the buffer, problem code on the blocks.

use faer::{Mat, MatMut, MatRef};
use std::sync::Arc;

/// Name and shape of one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSpec {
    /// Name, unique in its layout (`"U0"`).
    pub name: String,
    /// Rows of the block.
    pub rows: usize,
    /// Columns of the block.
    pub cols: usize,
}

/// The shapes of the blocks of a point; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    specs: Arc<[BlockSpec]>,
    offsets: Arc<[usize]>,
}

impl Layout {
    /// Layout of the given blocks, in order.
    pub fn new(specs: impl IntoIterator<Item = BlockSpec>) -> Self {
        let specs: Vec<BlockSpec> = specs.into_iter().collect();
        let mut offsets = Vec::with_capacity(specs.len() + 1);
        let mut end = 0;
        offsets.push(end);
        for spec in &specs {
            end += spec.rows * spec.cols;
            offsets.push(end);
        }
        Self { specs: specs.into(), offsets: offsets.into() }
    }

    /// `count` blocks of one shape named `prefix0, prefix1, ..`.
    pub fn repeated(prefix: &str, count: usize, rows: usize, cols: usize) -> Self {
        Self::new((0..count).map(|i| BlockSpec { name: format!("{prefix}{i}"), rows, cols }))
    }

    /// This layout followed by `other`'s blocks.
    pub fn followed_by(&self, other: &Layout) -> Self {
        Self::new(self.specs.iter().chain(other.specs.iter()).cloned())
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.specs.len()
    }

    /// Number of scalars in all blocks.
    pub fn len(&self) -> usize {
        self.offsets[self.specs.len()]
    }

    /// Whether there are no scalars.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The blocks' names and shapes.
    pub fn specs(&self) -> &[BlockSpec] {
        &self.specs
    }

    /// Position of the block called `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.specs.iter().position(|spec| spec.name == name)
    }

    fn range(&self, index: usize) -> std::ops::Range<usize> {
        self.offsets[index]..self.offsets[index + 1]
    }
}

/// A point in a product of matrix spaces; see the module's header.
///
/// ```
/// use peftml_linalg::{Blocks, Layout};
/// let mut x = Blocks::zeros(Layout::repeated("U", 3, 4, 2));
/// x.block_mut(1)[(0, 0)] = 2.0;
/// assert_eq!(x.norm(), 2.0);
/// assert_eq!(x.named("U1").unwrap()[(0, 0)], 2.0);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    layout: Layout,
    values: Vec<f64>,
}

impl Blocks {
    /// The origin.
    pub fn zeros(layout: Layout) -> Self {
        let values = vec![0.0; layout.len()];
        Self { layout, values }
    }

    /// The point whose blocks are `matrices`, named `prefix0, prefix1, ..`.
    pub fn from_matrices<'a>(
        prefix: &str,
        matrices: impl IntoIterator<Item = MatRef<'a, f64>>,
    ) -> Self {
        let matrices: Vec<_> = matrices.into_iter().collect();
        let layout = Layout::new(matrices.iter().enumerate().map(|(i, m)| BlockSpec {
            name: format!("{prefix}{i}"),
            rows: m.nrows(),
            cols: m.ncols(),
        }));
        let mut blocks = Self::zeros(layout);
        for (i, m) in matrices.into_iter().enumerate() {
            blocks.block_mut(i).copy_from(m);
        }
        blocks
    }

    /// The origin of the same space.
    pub fn zeros_like(&self) -> Self {
        Self::zeros(self.layout.clone())
    }

    /// Shapes and names.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.layout.count()
    }

    /// Block `index`. Panics if there is none.
    pub fn block(&self, index: usize) -> MatRef<'_, f64> {
        let spec = &self.layout.specs[index];
        MatRef::from_column_major_slice(
            &self.values[self.layout.range(index)],
            spec.rows,
            spec.cols,
        )
    }

    /// Block `index`, mutable. Panics if there is none.
    pub fn block_mut(&mut self, index: usize) -> MatMut<'_, f64> {
        let range = self.layout.range(index);
        let spec = &self.layout.specs[index];
        MatMut::from_column_major_slice_mut(&mut self.values[range], spec.rows, spec.cols)
    }

    /// The block called `name`.
    pub fn named(&self, name: &str) -> Option<MatRef<'_, f64>> {
        self.layout.position(name).map(|index| self.block(index))
    }

    /// Copies of the blocks `range` as matrices.
    pub fn to_matrices(&self, range: std::ops::Range<usize>) -> Vec<Mat<f64>> {
        range.map(|i| self.block(i).to_owned()).collect()
    }

    /// All scalars, block behind block, column-major.
    pub fn as_slice(&self) -> &[f64] {
        &self.values
    }

    /// All scalars, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Sets every scalar.
    pub fn fill(&mut self, value: f64) {
        self.values.fill(value);
    }

    /// Copies `other`, which must have the same layout.
    pub fn copy_from(&mut self, other: &Blocks) {
        self.values.copy_from_slice(&other.values);
    }

    /// `self += factor * other`.
    pub fn add_scaled(&mut self, factor: f64, other: &Blocks) {
        crate::kernel::axpy(factor, &other.values, &mut self.values);
    }

    /// `self = origin + factor * direction`.
    pub fn set_sum(&mut self, origin: &Blocks, factor: f64, direction: &Blocks) {
        let (origin, direction) = (&origin.values, &direction.values);
        crate::kernel::combine(&mut self.values, origin, factor, direction);
    }

    /// `self *= factor`.
    pub fn scale(&mut self, factor: f64) {
        self.values.iter_mut().for_each(|x| *x *= factor);
    }

    /// Euclidean inner product, summed in fixed order.
    pub fn dot(&self, other: &Blocks) -> f64 {
        crate::kernel::dot(&self.values, &other.values)
    }

    /// Euclidean (Frobenius) norm.
    pub fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// Largest modulus of a scalar; NaN if one is NaN.
    pub fn max_abs(&self) -> f64 {
        self.values.iter().fold(0.0, |m: f64, x| if x.is_nan() { f64::NAN } else { m.max(x.abs()) })
    }

    /// Whether every scalar is finite.
    pub fn is_finite(&self) -> bool {
        self.values.iter().all(|x| x.is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_behind_each_other_in_column_major_order() {
        let layout = Layout::repeated("U", 2, 2, 1).followed_by(&Layout::repeated("V", 1, 1, 3));
        let mut x = Blocks::zeros(layout);
        x.as_mut_slice().copy_from_slice(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]);
        assert_eq!(x.block(1)[(1, 0)], 4.0);
        assert_eq!(x.named("V0").unwrap()[(0, 2)], 7.0);
        assert!(x.named("W").is_none());
        assert_eq!(x.max_abs(), 7.0);
        let y = x.clone();
        x.add_scaled(-1.0, &y);
        assert_eq!(x.norm(), 0.0);
    }
}
