//! Losses and full sums, in an order that no thread count changes.

use burn::tensor::{Int, Tensor, activation};

/// The sum of all elements.
///
/// The back end cuts a long full sum by threads; sums along an axis it never cuts. So the elements are
/// laid out as rows of fixed length, summed along the rows, and again.
pub fn sum_all(x: Tensor<1>) -> Tensor<1> {
    const ROW: usize = 1024;
    let mut x = x;
    while x.dims()[0] > 1 {
        let count = x.dims()[0];
        let whole = count / ROW * ROW;
        if whole == 0 {
            return x.sum_dim(0);
        }
        let rows = x.clone().narrow(0, 0, whole).reshape([count / ROW, ROW]);
        let sums = rows.sum_dim(1).reshape([count / ROW]);
        x = if whole == count {
            sums
        } else {
            Tensor::cat(vec![sums, x.narrow(0, whole, count - whole).sum_dim(0)], 0)
        };
    }
    x
}

/// `-1/n sum_i log softmax(logits_i)[class_i]`; `logits` n x classes.
pub fn cross_entropy(logits: Tensor<2>, classes: Tensor<1, Int>) -> Tensor<1> {
    let [n, _] = logits.dims();
    let logarithms = activation::log_softmax(logits, 1);
    let chosen = logarithms.gather(1, classes.reshape([n, 1])).reshape([n]);
    sum_all(chosen).mul_scalar(-1.0 / n as f64)
}

/// `1/(2n) || output - target ||_F^2`; both n x width. With it a step on a linear map is the step of
/// the linear study, whose gradient is averaged over samples.
pub fn half_mean_squares(output: Tensor<2>, target: Tensor<2>) -> Tensor<1> {
    let [n, width] = output.dims();
    let difference = output - target;
    let squares = (difference.clone() * difference).reshape([n * width]);
    sum_all(squares).mul_scalar(0.5 / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Place, Precision, scalar, values};

    #[test]
    fn a_sum_is_the_sum_for_every_length() {
        let place = Place::cpu(Precision::F64);
        for n in [1usize, 2, 1023, 1024, 1025, 2048, 5000, 1024 * 1024 + 3] {
            let numbers: Vec<f64> = (0..n).map(|i| (i % 17) as f64).collect();
            // Whole numbers below 2^53: exact in any order.
            let expected: f64 = numbers.iter().sum();
            assert_eq!(scalar(&sum_all(place.tensor(numbers, [n]).unwrap())).unwrap(), expected);
        }
    }

    #[test]
    fn a_long_sum_has_the_same_bits_for_any_number_of_threads() {
        let mut stream = peftml_linalg::Seed::root(5).child("sum").stream();
        let n = 5_000_000;
        let numbers: Vec<f32> = (0..n).map(|_| stream.uniform() as f32).collect();
        let x = Place::cpu(Precision::F32).tensor_f32(numbers, [n]).unwrap();
        let mut sums = [1, 2, 3, 7].map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| scalar(&sum_all(x.clone())).unwrap())
        });
        sums.sort_by(f64::total_cmp);
        assert_eq!(sums[0].to_bits(), sums[3].to_bits());
    }

    #[test]
    fn losses_are_what_they_are_called() {
        let place = Place::cpu(Precision::F64);
        let logits = place.tensor(vec![0.0, 0.0, 3.0f64.ln(), 0.0], [2, 2]).unwrap();
        let classes = place.integers(vec![1, 0], [2]).unwrap();
        // Chances 1/2 and 3/4.
        let expected = (2.0f64.ln() + (4.0f64 / 3.0).ln()) / 2.0;
        let found = scalar(&cross_entropy(logits.clone(), classes)).unwrap();
        assert!((found - expected).abs() < 4.0 * f64::EPSILON);
        let zero = place.zeros([2, 2]);
        let squares = scalar(&half_mean_squares(logits.clone(), zero)).unwrap();
        assert!((squares - 3.0f64.ln().powi(2) / 4.0).abs() < 4.0 * f64::EPSILON);
        assert!(values(&logits).is_ok());
    }
}
