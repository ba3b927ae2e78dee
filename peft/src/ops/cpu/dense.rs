//! `x (W + A B) + b`; operands x, W, b, A, B.

use super::activation::{Shift, column_sums, finish_row};
use super::bridge::{Fused, Made};
use super::low_rank::{Sizes, Weight, WeightSums};
use super::number::Number;
use super::parts::{PARTS, by_rows, each, matrix, product, ranges};

/// A linear map of rows.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Dense {
    pub(in crate::ops) rows: usize,
    pub(in crate::ops) sizes: Sizes,
}

impl Dense {
    fn steps(&self) -> usize {
        self.rows * self.sizes.inputs * self.sizes.outputs
    }

    /// The weight's gradient `x^T d`: every part makes its own rows of it from all of x and d, so that no
    /// part needs a sum of the weight's size.
    fn whole_gradient<T: Number>(&self, x: &[T], d: &[T]) -> Vec<T> {
        let Sizes { inputs, outputs, .. } = self.sizes;
        let mut out = vec![T::ZERO; inputs * outputs];
        let (x, d) = (matrix(x, self.rows, inputs), matrix(d, self.rows, outputs));
        by_rows(&mut out, outputs, &ranges(inputs), self.steps(), |range, own| {
            product(own, x.subcols(range.start, range.len()).transpose(), d);
        });
        out
    }
}

impl Fused<5> for Dense {
    fn shape(&self) -> Vec<usize> {
        vec![self.rows, self.sizes.outputs]
    }

    fn forward<T: Number>(&self, [x, w, bias, a, b]: [&[T]; 5], _: bool) -> Made<T> {
        let Sizes { inputs, outputs, .. } = self.sizes;
        let weight = Weight { sizes: self.sizes, w, a, b, wanted: [false; 3] }.sum();
        let mut out = vec![T::ZERO; self.rows * outputs];
        by_rows(&mut out, outputs, &ranges(self.rows), self.steps(), |range, own| {
            let x = &x[range.start * inputs..range.end * inputs];
            product(own, matrix(x, range.len(), inputs), matrix(&weight, inputs, outputs));
            if !bias.is_empty() {
                own.chunks_mut(outputs).for_each(|y| finish_row(None, Shift::Each(bias), None, y));
            }
        });
        Made::alone(out)
    }

    fn backward<T: Number>(
        &self,
        [x, w, _, a, b]: [&[T]; 5],
        _: &[&[T]],
        gradient: &[T],
        [x_wanted, w_wanted, bias_wanted, a_wanted, b_wanted]: [bool; 5],
    ) -> [Option<Vec<T>>; 5] {
        let (s, wanted) = (self.sizes, [w_wanted, a_wanted, b_wanted]);
        let weight = Weight { sizes: s, w, a, b, wanted };
        let in_x = x_wanted.then(|| {
            let sum = weight.sum();
            let mut out = vec![T::ZERO; self.rows * s.inputs];
            by_rows(&mut out, s.inputs, &ranges(self.rows), self.steps(), |range, own| {
                let d = &gradient[range.start * s.outputs..range.end * s.outputs];
                let turned = matrix(&sum, s.inputs, s.outputs).transpose();
                product(own, matrix(d, range.len(), s.outputs), turned);
            });
            out
        });
        let parts = if w_wanted {
            vec![WeightSums::Whole(self.whole_gradient(x, gradient))]
        } else {
            let steps = self.rows * s.rank * (s.inputs + s.outputs);
            each(&ranges(self.rows), steps * PARTS, |range| {
                let mut sums = WeightSums::new(&weight);
                let part = |width: usize| range.start * width..range.end * width;
                let (of_x, of_d) = (&x[part(s.inputs)], &gradient[part(s.outputs)]);
                let x = matrix(of_x, range.len(), s.inputs).transpose();
                let d = matrix(of_d, range.len(), s.outputs).transpose();
                sums.add(&weight, x, d);
                sums
            })
        };
        let [in_w, in_a, in_b] = weight.gradients(parts);
        let in_bias = bias_wanted.then(|| column_sums(gradient, self.rows, s.outputs));
        [in_x, in_w, in_bias, in_a, in_b]
    }
}
