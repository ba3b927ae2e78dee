//! The logistic function `1 / (1 + e^-z)`, branch-free, four at a time.
//!
//! With `z = n ln 2 + r`, n whole, `|r| <= ln 2 / 2`, and `tanh(r/2) = p/q`:
//!
//! ```text
//! e^z = 2^n (q + p)/(q - p),   sigmoid(z) = 2^n (q + p) / ((q - p) + 2^n (q + p))
//! ```
//! so that the exponential's quotient and the logistic's are one division. `p/r` and `q` are
//! quadratics in `r^2`, the minimax fit to `e^r` with `p/r = 1/2` at 0, within 1.5e-18 of it: the
//! error is rounding's alone.
//!
//! Error: below 3 units in the last place wherever `|z| <= 708`, by test against double-double
//! arithmetic on 60,000 arguments (2.3 seen). Both sides are sums of positive terms, nothing cancels:
//! counting roundings of size `u = 2^-53` gives 3u for each of `q + p` and `q - p`, u each for sum
//! and quotient, together at most 7.5 units. Beyond, `z` is clamped: the value is that at 708 or
//! -708 (3e-308). NaN gives NaN.

use super::lanes::{Kernel, Lanes, Quad, ROUNDER, WIDTH, dispatch};

const LOG2_E: f64 = std::f64::consts::LOG2_E;
const LN_2: f64 = std::f64::consts::LN_2;
/// `ln 2 - LN_2`.
const LN_2_REST: f64 = 2.319_046_813_846_299_6e-17;
/// Beyond, `2^n` or the result would leave the normal numbers.
const LARGEST: f64 = 708.0;
/// `p/r = 1/2 + P1 r^2 + P2 r^4`, `q = 1 + Q1 r^2 + Q2 r^4`.
const P1: f64 = 0.013_887_330_517_723_173;
const P2: f64 = 3.304_283_051_230_655e-5;
const Q1: f64 = 0.111_107_994_368_777_44;
const Q2: f64 = 0.000_991_751_858_573_771_5;

/// The logistic function of four numbers.
#[inline(always)]
pub(crate) fn sigmoid_lanes<L: Lanes>(l: L, z: L::V) -> L::V {
    let z = l.clamp(z, -LARGEST, LARGEST);
    let rounded = l.fma(z, l.splat(LOG2_E), l.splat(ROUNDER));
    let n = l.sub(rounded, l.splat(ROUNDER));
    let r = l.negated_fma(n, l.splat(LN_2), z);
    let r = l.negated_fma(n, l.splat(LN_2_REST), r);
    let u = l.mul(r, r);
    let p = l.fma(l.fma(l.splat(P2), u, l.splat(P1)), u, l.splat(0.5));
    let p = l.mul(p, r);
    let q = l.fma(l.fma(l.splat(Q2), u, l.splat(Q1)), u, l.splat(1.0));
    let above = l.scale_exponent(l.add(q, p), rounded);
    l.div(above, l.add(l.sub(q, p), above))
}

/// Replaces every `z` by `1 / (1 + e^-z)`; see the module's header for the error.
pub fn sigmoid_in_place(values: &mut [f64]) {
    dispatch(InPlace(values));
}

struct InPlace<'a>(&'a mut [f64]);

impl Kernel for InPlace<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let (quads, rest) = self.0.as_chunks_mut::<WIDTH>();
        for quad in quads {
            let value = sigmoid_lanes(l, l.load(quad));
            l.store(quad, value);
        }
        let mut last: Quad = [0.0; WIDTH];
        last[..rest.len()].copy_from_slice(rest);
        let value = sigmoid_lanes(l, l.load(&last));
        l.store(&mut last, value);
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::lanes::Portable;
    use super::*;
    use peftml_linalg::Seed;

    /// An unevaluated sum of two doubles, relative error about 1e-31 an operation.
    #[derive(Clone, Copy)]
    struct Double(f64, f64);

    impl Double {
        fn renormalised(high: f64, low: f64) -> Self {
            let sum = high + low;
            Self(sum, low - (sum - high))
        }

        fn plus(self, other: Self) -> Self {
            let sum = self.0 + other.0;
            let part = sum - self.0;
            let error = (self.0 - (sum - part)) + (other.0 - part);
            Self::renormalised(sum, error + self.1 + other.1)
        }

        fn times(self, other: Self) -> Self {
            let product = self.0 * other.0;
            let error = self.0.mul_add(other.0, -product);
            Self::renormalised(product, error + self.0 * other.1 + self.1 * other.0)
        }

        fn inverse(self) -> Self {
            let first = Self(1.0 / self.0, 0.0);
            let residual = Self(1.0, 0.0).plus(self.times(Self(-first.0, 0.0)));
            first.plus(residual.times(first))
        }

        /// Taylor's series of `e^(x/1024)`, squared ten times: the squarings double the relative
        /// error each, so it stays below 1e-27.
        fn exp(x: f64) -> Self {
            let x = Self(x / 1024.0, 0.0);
            let (mut sum, mut term) = (Self(1.0, 0.0), Self(1.0, 0.0));
            for n in 1..40 {
                term = term.times(x).times(Self(n as f64, 0.0).inverse());
                sum = sum.plus(term);
            }
            (0..10).fold(sum, |power, _| power.times(power))
        }

        fn sigmoid(z: f64) -> Self {
            if z > 0.0 {
                Self(1.0, 0.0).plus(Self::exp(-z)).inverse()
            } else {
                let e = Self::exp(z);
                e.times(Self(1.0, 0.0).plus(e).inverse())
            }
        }
    }

    fn error_in_ulps(value: f64, exact: Double) -> f64 {
        let ulp = exact.0.abs().next_up() - exact.0.abs();
        ((value - exact.0) - exact.1).abs() / ulp
    }

    /// Where sums, products and roundings change character: around multiples of (ln 2)/2, near 0,
    /// over the whole range and at its ends.
    fn arguments() -> Vec<f64> {
        let mut stream = Seed::root(3).child("sigmoid").stream();
        let mut z: Vec<f64> = (0..20_000).map(|_| 8.0 * stream.normal()).collect();
        z.extend((0..10_000).map(|_| 1400.0 * (stream.uniform() - 0.5)));
        z.extend((0..4_000).map(|_| stream.normal() * 10f64.powf(-20.0 * stream.uniform())));
        for k in -2000..2000 {
            let seam = 0.5 * LN_2 * f64::from(k);
            z.extend([seam.next_down(), seam, seam.next_up()]);
        }
        z.extend([0.0, -0.0, 700.0, -700.0]);
        z
    }

    #[test]
    fn error_stays_below_three_units_in_the_last_place() {
        let z = arguments();
        let mut values = z.clone();
        sigmoid_in_place(&mut values);
        let worst = z
            .iter()
            .zip(&values)
            .map(|(z, value)| error_in_ulps(*value, Double::sigmoid(*z)))
            .fold(0.0, f64::max);
        assert!(worst < 3.0, "{worst} ulp");
        // Teeth: the formula with a coefficient off by 1e-12 of itself must fail.
        let wrong = |z: f64| {
            let n = (z * LOG2_E).round();
            let r = z - n * LN_2;
            let u = r * r;
            let p = r * (0.5 + u * (P1 * (1.0 + 1e-12) + u * P2));
            let q = 1.0 + u * (Q1 + u * Q2);
            (q + p) / ((q + p) + 2f64.powf(-n) * (q - p))
        };
        let caught = z.iter().any(|z| error_in_ulps(wrong(*z), Double::sigmoid(*z)) > 3.0);
        assert!(caught);
    }

    #[test]
    fn both_lanes_give_the_same_bits() {
        let z = arguments();
        let (mut fast, mut plain) = (z.clone(), z);
        sigmoid_in_place(&mut fast);
        InPlace(&mut plain).run(Portable);
        assert!(fast.iter().zip(&plain).all(|(a, b)| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn outside_the_range_it_is_clamped_and_nan_passes() {
        let mut values = [f64::INFINITY, f64::NEG_INFINITY, 1e4, -1e4, f64::NAN, 0.0];
        sigmoid_in_place(&mut values);
        assert_eq!((values[0], values[2], values[5]), (1.0, 1.0, 0.5));
        assert!(values[1] == values[3] && values[1] > 0.0 && values[1] < 1e-307);
        assert!(values[4].is_nan());
    }
}
