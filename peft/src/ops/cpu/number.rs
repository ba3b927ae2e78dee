//! Single and double precision, and the functions that loops over them need in a form that the compiler
//! turns into vector instructions.

use burn::backend::flex::{FlexTensor, Layout};
use burn::tensor::{Bytes, DType, Shape};
use std::fmt::Debug;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub};

/// `f32` or `f64`.
pub(in crate::ops) trait Number:
    faer::traits::RealField
    + Copy
    + Debug
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + MulAssign
    + Send
    + Sync
    + 'static
{
    const DTYPE: DType;
    const ZERO: Self;
    const ONE: Self;

    fn of(x: f64) -> Self;
    fn root(self) -> Self;

    /// `self a + b`, rounded once.
    fn times_plus(self, a: Self, b: Self) -> Self;

    /// `erf(x)`: within 3 units in the last place of 1.
    fn error_function(self) -> Self;

    /// `e^x` for x up to 0, within 3 units in its last place; 0 where that is below the normal numbers.
    fn exp_negative(self) -> Self;

    /// The numbers of a tensor without gaps.
    fn numbers(x: &FlexTensor) -> &[Self];

    /// A tensor of these numbers.
    fn tensor(numbers: Vec<Self>, shape: Shape) -> FlexTensor;
}

impl Number for f32 {
    const DTYPE: DType = DType::F32;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    #[inline(always)]
    fn of(x: f64) -> Self {
        x as f32
    }

    #[inline(always)]
    fn root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn times_plus(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }

    /// `z P(z^2) / Q(z^2)`, least largest relative error on [0, 3.95], 2.1e-8; beyond 3.92 `erf` is 1 to
    /// half a unit in the last place.
    #[inline(always)]
    #[allow(clippy::excessive_precision)]
    fn error_function(self) -> Self {
        const END: f32 = 3.92;
        let z = self.clamp(-END, END);
        let u = z * z;
        let p = 2.025_941_961e-6f32;
        let p = p.mul_add(u, 2.846_883_146e-4);
        let p = p.mul_add(u, 3.808_109_825e-3);
        let p = p.mul_add(u, 5.287_529_118e-2);
        let p = p.mul_add(u, 1.915_488_726e-1);
        let p = p.mul_add(u, 1.128_379_144);
        let q = 3.783_218_326e-5f32;
        let q = q.mul_add(u, 1.170_716_501e-3);
        let q = q.mul_add(u, 1.505_498_420e-2);
        let q = q.mul_add(u, 1.145_590_610e-1);
        let q = q.mul_add(u, 5.030_884_442e-1);
        let q = q.mul_add(u, 1.0);
        z * p / q
    }

    /// `x = n ln 2 + r`, `|r| <= ln 2 / 2`: the series of `e^r` up to `r^7` (the rest is below 6e-9), times
    /// `2^n` by way of the exponent's bits.
    #[inline(always)]
    #[allow(clippy::excessive_precision)]
    fn exp_negative(self) -> Self {
        /// Adding it leaves the nearest whole number in the lowest bits.
        const ROUND: f32 = 12_582_912.0;
        const LN_2_HIGH: f32 = 0.693_359_375;
        const LN_2_LOW: f32 = -2.121_944_4e-4;
        let x = if self < -87.0 { -87.0 } else { self };
        let shifted = x.mul_add(std::f32::consts::LOG2_E, ROUND);
        let n = shifted - ROUND;
        let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
        let e = 1.0f32 / 5040.0;
        let e = e.mul_add(r, 1.0 / 720.0);
        let e = e.mul_add(r, 1.0 / 120.0);
        let e = e.mul_add(r, 1.0 / 24.0);
        let e = e.mul_add(r, 1.0 / 6.0);
        let e = e.mul_add(r, 0.5);
        let e = e.mul_add(r, 1.0);
        let e = e.mul_add(r, 1.0);
        let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
        if self < -87.0 { 0.0 } else { e * power }
    }

    fn numbers(x: &FlexTensor) -> &[Self] {
        x.as_slice().unwrap_or_default()
    }

    fn tensor(numbers: Vec<Self>, shape: Shape) -> FlexTensor {
        FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(shape), Self::DTYPE)
    }
}

impl Number for f64 {
    const DTYPE: DType = DType::F64;
    const ZERO: Self = 0.0;
    const ONE: Self = 1.0;

    fn of(x: f64) -> Self {
        x
    }

    fn root(self) -> Self {
        self.sqrt()
    }

    #[inline(always)]
    fn times_plus(self, a: Self, b: Self) -> Self {
        self.mul_add(a, b)
    }

    fn error_function(self) -> Self {
        libm::erf(self)
    }

    fn exp_negative(self) -> Self {
        self.exp()
    }

    fn numbers(x: &FlexTensor) -> &[Self] {
        x.as_slice().unwrap_or_default()
    }

    fn tensor(numbers: Vec<Self>, shape: Shape) -> FlexTensor {
        FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(shape), Self::DTYPE)
    }
}

/// `x Phi(x)`, Phi the normal distribution's.
#[inline(always)]
pub(in crate::ops) fn gelu<T: Number>(x: T) -> T {
    let half = T::of(0.5);
    x * half * ((x * T::of(std::f64::consts::FRAC_1_SQRT_2)).error_function() + T::ONE)
}

/// `x Phi(x)` and its derivative `Phi(x) + x phi(x)`.
#[inline(always)]
pub(in crate::ops) fn gelu_and_slope<T: Number>(x: T) -> (T, T) {
    const INVERSE_ROOT_2_PI: f64 = 0.398_942_280_401_432_7;
    let half = T::of(0.5);
    let share = half * ((x * T::of(std::f64::consts::FRAC_1_SQRT_2)).error_function() + T::ONE);
    let density = (-(x * x) * half).exp_negative() * T::of(INVERSE_ROOT_2_PI);
    (x * share, x.times_plus(density, share))
}

/// The sum of `f` over the places of a row, in an order that lets eight places go at once.
#[inline(always)]
pub(in crate::ops) fn sum<T: Number>(count: usize, f: impl Fn(usize) -> T) -> T {
    const LANES: usize = 16;
    let mut sums = [T::ZERO; LANES];
    let whole = count / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
        i += LANES;
    }
    let mut total = T::ZERO;
    for sum in sums {
        total += sum;
    }
    for i in whole..count {
        total += f(i);
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places over the range where the functions are neither 0 nor 1.
    fn places() -> impl Iterator<Item = f32> {
        (-100_000..=100_000).map(|i| i as f32 * 1e-4)
    }

    #[test]
    fn single_precision_functions_are_as_near_as_they_say() {
        let ulp = f64::from(f32::EPSILON);
        let mut worst = [0.0f64; 4];
        for x in places() {
            let exact = f64::from(x);
            let erf = (f64::from(x.error_function()) - libm::erf(exact)).abs() / ulp;
            let y = -x.abs();
            let exp = (f64::from(y.exp_negative()) / f64::from(y).exp() - 1.0).abs() / ulp;
            // Of x's size, and of order 1: what a sum of rounded terms can do.
            let (value, slope) = gelu_and_slope(x);
            let (value64, slope64) = gelu_and_slope(exact);
            let value = (f64::from(value) - value64).abs() / ulp / exact.abs().max(1.0);
            let slope = (f64::from(slope) - slope64).abs() / ulp;
            for (worst, found) in worst.iter_mut().zip([erf, exp, value, slope]) {
                *worst = worst.max(found);
            }
        }
        assert!(worst[0] < 3.0 && worst[1] < 3.0, "{worst:?}");
        // Three and six further roundings of numbers of at most order 1.
        assert!(worst[2] < 4.0 && worst[3] < 8.0, "{worst:?}");
        // Control: the approximation by tanh is off by many.
        let tanh = |x: f64| 0.5 * x * (1.0 + (0.797_884_56 * (x + 0.044_715 * x.powi(3))).tanh());
        assert!((tanh(2.0) - gelu(2.0f64)).abs() / ulp > 100.0);
    }

    #[test]
    fn what_is_no_number_stays_none_and_far_exponents_vanish() {
        assert!(gelu(f32::NAN).is_nan() && gelu_and_slope(f32::NAN).1.is_nan());
        assert_eq!((-1e9f32).exp_negative(), 0.0);
        assert_eq!(f32::NEG_INFINITY.exp_negative(), 0.0);
        assert_eq!(0.0f32.exp_negative(), 1.0);
        assert_eq!(gelu(f32::INFINITY), f32::INFINITY);
    }

    #[test]
    fn a_sum_is_the_sum_for_every_length() {
        for n in [0usize, 1, 15, 16, 17, 100] {
            // Whole numbers: exact in any order.
            assert_eq!(sum(n, |i| i as f64), (n * n.saturating_sub(1) / 2) as f64);
        }
    }
}
