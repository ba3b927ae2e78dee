//! A weight with an optional low-rank addition, `W + A B`, and the ways to their gradients.
//!
//! An operation multiplies by the sum, which costs `inputs outputs rank` once instead of `rows (inputs +
//! outputs) rank` a pass; memory of the weight's size is held during the operation only. Backward there are
//! two ways. Where the weight's own gradient G is wanted, it is there, and `dA = G B^T`, `dB = A^T G`. Where the
//! weight is frozen and the rank is low no G is formed: with inputs X and output gradients D,
//! `dA = X^T (D B^T)` and `dB = (X A)^T D`.

use super::number::Number;
use super::parts::{add_product, matrix, product, total};
use faer::MatRef;
use std::borrow::Cow;

/// Sizes of a weight: inputs x outputs, and the addition's rank (0: none).
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) struct Sizes {
    pub(in crate::ops) inputs: usize,
    pub(in crate::ops) outputs: usize,
    pub(in crate::ops) rank: usize,
}

/// A weight W with factors A, B of its addition, and which of their gradients are wanted.
#[derive(Clone, Copy)]
pub(in crate::ops) struct Weight<'a, T> {
    pub(in crate::ops) sizes: Sizes,
    pub(in crate::ops) w: &'a [T],
    pub(in crate::ops) a: &'a [T],
    pub(in crate::ops) b: &'a [T],
    /// Of W, A, B.
    pub(in crate::ops) wanted: [bool; 3],
}

impl<'a, T: Number> Weight<'a, T> {
    /// `W + A B`.
    pub(in crate::ops) fn sum(&self) -> Cow<'a, [T]> {
        if self.sizes.rank == 0 {
            return Cow::Borrowed(self.w);
        }
        let mut sum = self.w.to_vec();
        add_product(&mut sum, self.a(), self.b());
        Cow::Owned(sum)
    }

    fn a(&self) -> MatRef<'a, T> {
        matrix(self.a, self.sizes.inputs, self.sizes.rank)
    }

    fn b(&self) -> MatRef<'a, T> {
        matrix(self.b, self.sizes.rank, self.sizes.outputs)
    }

    /// The gradients of W, A and B from the sums of all parts, in their order.
    pub(in crate::ops) fn gradients(&self, parts: Vec<WeightSums<T>>) -> [Option<Vec<T>>; 3] {
        let Sizes { inputs, outputs, rank } = self.sizes;
        let (mut whole, mut in_a, mut in_b) = (Vec::new(), Vec::new(), Vec::new());
        for part in parts {
            match part {
                WeightSums::Nothing => {}
                WeightSums::Whole(sum) => whole.push(sum),
                WeightSums::Factors { a, b, .. } => {
                    in_a.push(a);
                    in_b.push(b);
                }
            }
        }
        let [w_wanted, a_wanted, b_wanted] = self.wanted;
        if whole.is_empty() {
            let in_a = a_wanted.then(|| filled(total(in_a), inputs * rank));
            let in_b = b_wanted.then(|| filled(total(in_b), rank * outputs));
            return [w_wanted.then(|| vec![T::ZERO; inputs * outputs]), in_a, in_b];
        }
        let sum = total(whole);
        let g = matrix(&sum, inputs, outputs);
        let made = |a: MatRef<'_, T>, b: MatRef<'_, T>| {
            let mut out = vec![T::ZERO; a.nrows() * b.ncols()];
            product(&mut out, a, b);
            out
        };
        let in_a = a_wanted.then(|| made(g, self.b().transpose()));
        let in_b = b_wanted.then(|| made(self.a().transpose(), g));
        [w_wanted.then_some(sum), in_a, in_b]
    }
}

/// Zeros where there was no part.
fn filled<T: Number>(mut sum: Vec<T>, count: usize) -> Vec<T> {
    sum.resize(count, T::ZERO);
    sum
}

/// Sums over rows from which the gradients of W, A and B come.
pub(in crate::ops) enum WeightSums<T> {
    /// The weight's own.
    Whole(Vec<T>),
    /// Those of the factors; scratch for `X A` and `D B^T`.
    Factors { a: Vec<T>, b: Vec<T>, scratch: Vec<T> },
    /// Nothing is wanted.
    Nothing,
}

impl<T: Number> WeightSums<T> {
    pub(in crate::ops) fn new(weight: &Weight<'_, T>) -> Self {
        let Sizes { inputs, outputs, rank } = weight.sizes;
        let zeros = |count: usize| vec![T::ZERO; count];
        match weight.wanted {
            [false, false, false] => WeightSums::Nothing,
            [true, ..] => WeightSums::Whole(zeros(inputs * outputs)),
            // Four thin products instead of one whole one.
            _ if 2 * rank * (inputs + outputs) >= inputs * outputs => {
                WeightSums::Whole(zeros(inputs * outputs))
            }
            _ => {
                let (a, b) = (zeros(inputs * rank), zeros(rank * outputs));
                WeightSums::Factors { a, b, scratch: Vec::new() }
            }
        }
    }

    /// Adds what rows contribute: `x` inputs x rows, `d` outputs x rows, however they lie in memory.
    pub(in crate::ops) fn add(
        &mut self,
        weight: &Weight<'_, T>,
        x: MatRef<'_, T>,
        d: MatRef<'_, T>,
    ) {
        match self {
            WeightSums::Nothing => {}
            WeightSums::Whole(sum) => add_product(sum, x, d.transpose()),
            WeightSums::Factors { a, b, scratch } => {
                let (rank, rows) = (weight.sizes.rank, x.ncols());
                scratch.resize(rank * rows, T::ZERO);
                // A^T X, then dB += (A^T X) D^T.
                product(scratch, weight.a().transpose(), x);
                add_product(b, matrix(scratch, rank, rows), d.transpose());
                // B D, then dA += X (B D)^T.
                product(scratch, weight.b(), d);
                add_product(a, x, matrix(scratch, rank, rows).transpose());
            }
        }
    }
}
