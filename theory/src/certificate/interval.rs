//! Intervals of f64 with outward rounding.
//!
//! `[lo, hi]` encloses a real number. IEEE 754 rounds each operation to nearest, which is off by at
//! most half a unit in the last place: the neighbour below (above) the rounded result is a lower
//! (upper) bound of the exact one, overflow and underflow included. Nothing here needs a rounding
//! mode, a target feature or another library; an operation that IEEE leaves undefined gives the whole
//! line. Exact results are widened, too: simple before tight.

use nalgebra::DMatrix;
use num_traits::{One, Zero};
use std::ops::{Add, AddAssign, Mul, MulAssign, Neg, Sub, SubAssign};

/// A closed interval that contains a real number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    lo: f64,
    hi: f64,
}

/// A matrix of intervals.
pub type IntervalMatrix = DMatrix<Interval>;

impl Interval {
    /// The whole line: nothing is known.
    pub const ENTIRE: Interval = Interval { lo: f64::NEG_INFINITY, hi: f64::INFINITY };

    /// Exactly `x`; the whole line where it is NaN.
    pub fn point(x: f64) -> Self {
        Self::new(x, x)
    }

    /// `[lo, hi]`; the whole line where that is no interval.
    pub fn new(lo: f64, hi: f64) -> Self {
        if lo <= hi { Self { lo, hi } } else { Self::ENTIRE }
    }

    /// Lower bound.
    pub fn lo(self) -> f64 {
        self.lo
    }

    /// Upper bound.
    pub fn hi(self) -> f64 {
        self.hi
    }

    /// A number inside, near the middle.
    pub fn middle(self) -> f64 {
        0.5 * self.lo + 0.5 * self.hi
    }

    /// Upper bound of the modulus.
    pub fn magnitude(self) -> f64 {
        self.lo.abs().max(self.hi.abs())
    }

    /// `x^2`, which knows that both factors are the same.
    pub fn square(self) -> Self {
        let (a, b) = (self.lo.abs(), self.hi.abs());
        let least = if self.lo <= 0.0 && self.hi >= 0.0 { 0.0 } else { a.min(b) };
        let most = a.max(b);
        Self::outward((least * least, most * most)).at_least_zero()
    }

    /// `sqrt(max(x, 0))`.
    pub fn sqrt(self) -> Self {
        let (lo, hi) = (self.lo.max(0.0).sqrt(), self.hi.max(0.0).sqrt());
        Self::outward((lo, hi)).at_least_zero()
    }

    /// `1/x`; the whole line where `x` may be 0.
    pub fn reciprocal(self) -> Self {
        if self.lo > 0.0 || self.hi < 0.0 {
            Self::outward((1.0 / self.hi, 1.0 / self.lo))
        } else {
            Self::ENTIRE
        }
    }

    /// `x + [-radius, radius]`, radius an upper bound.
    pub fn widened(self, radius: f64) -> Self {
        self + Self::new(-radius.abs(), radius.abs())
    }

    fn at_least_zero(self) -> Self {
        Self { lo: self.lo.max(0.0), hi: self.hi }
    }

    /// The neighbours outside of bounds that were rounded to nearest.
    fn outward((lo, hi): (f64, f64)) -> Self {
        Self::new(lo.next_down(), hi.next_up())
    }
}

impl From<f64> for Interval {
    fn from(x: f64) -> Self {
        Self::point(x)
    }
}

impl Add for Interval {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::outward((self.lo + other.lo, self.hi + other.hi))
    }
}

impl Neg for Interval {
    type Output = Self;
    fn neg(self) -> Self {
        Self { lo: -self.hi, hi: -self.lo }
    }
}

impl Sub for Interval {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

impl Mul for Interval {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        let ends = [self.lo * other.lo, self.lo * other.hi, self.hi * other.lo, self.hi * other.hi];
        if ends.iter().any(|x| x.is_nan()) {
            return Self::ENTIRE;
        }
        let lo = ends.iter().copied().fold(f64::INFINITY, f64::min);
        let hi = ends.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self::outward((lo, hi))
    }
}

impl AddAssign for Interval {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Interval {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl MulAssign for Interval {
    fn mul_assign(&mut self, other: Self) {
        *self = *self * other;
    }
}

impl Zero for Interval {
    fn zero() -> Self {
        Self { lo: 0.0, hi: 0.0 }
    }
    fn is_zero(&self) -> bool {
        self.lo == 0.0 && self.hi == 0.0
    }
}

impl One for Interval {
    fn one() -> Self {
        Self { lo: 1.0, hi: 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_rational::BigRational;
    use peftml_linalg::{Seed, Stream};

    fn exact(x: f64) -> BigRational {
        BigRational::from_float(x).unwrap()
    }

    fn contains(x: Interval, value: &BigRational) -> bool {
        exact(x.lo()) <= *value && *value <= exact(x.hi())
    }

    /// Numbers of all magnitudes, whole numbers and subnormal ones among them.
    fn draw(stream: &mut Stream) -> f64 {
        match stream.below(4) {
            0 => stream.below(100) as f64 - 50.0,
            1 => stream.normal(),
            2 => stream.normal() * (100.0 * stream.normal()).exp2(),
            _ => stream.normal() * 1e-160,
        }
    }

    #[test]
    fn every_operation_encloses_the_exact_result() {
        let mut stream = Seed::root(1).child("interval").stream();
        for _ in 0..3000 {
            let (a, b) = (draw(&mut stream), draw(&mut stream));
            let (x, y) = (Interval::point(a), Interval::point(b));
            let (p, q) = (exact(a), exact(b));
            assert!(contains(x + y, &(&p + &q)));
            assert!(contains(x - y, &(&p - &q)));
            assert!(contains(x * y, &(&p * &q)));
            assert!(contains(x.square(), &(&p * &p)));
            if !q.is_zero() && y.reciprocal().hi().is_finite() {
                assert!(contains(y.reciprocal(), &q.recip()));
            }
            let root = Interval::point(a.abs()).sqrt();
            let size = exact(a.abs());
            assert!(exact(root.lo()) * exact(root.lo()) <= size);
            assert!(exact(root.hi()) * exact(root.hi()) >= size);
            // Control: rounding to nearest alone does not enclose (not even of thirds).
            assert!(!contains(Interval::point(1.0 / 3.0), &exact(3.0).recip()));
        }
    }

    #[test]
    fn products_of_wide_intervals_enclose_the_products_of_members() {
        let mut stream = Seed::root(2).child("interval").stream();
        for _ in 0..2000 {
            let mut pair = || {
                let (a, b) = (draw(&mut stream), draw(&mut stream));
                let share = stream.uniform();
                let (lo, hi) = (a.min(b), a.max(b));
                (Interval::new(lo, hi), (lo + share * (hi - lo)).clamp(lo, hi))
            };
            let ((x, a), (y, b)) = (pair(), pair());
            assert!(contains(x * y, &(exact(a) * exact(b))));
            assert!(contains(x + y, &(exact(a) + exact(b))));
            assert!(contains(x.square(), &(exact(a) * exact(a))));
        }
    }

    #[test]
    fn what_is_undefined_is_the_whole_line() {
        let huge = Interval::point(f64::MAX);
        assert_eq!((huge * huge).hi(), f64::INFINITY);
        assert!((huge * huge).lo() >= f64::MAX);
        assert_eq!((huge * huge - huge * huge), Interval::ENTIRE);
        assert_eq!(Interval::ENTIRE * Interval::zero(), Interval::ENTIRE);
        assert_eq!(Interval::point(f64::NAN), Interval::ENTIRE);
        assert_eq!(Interval::new(-1.0, 1.0).reciprocal(), Interval::ENTIRE);
        assert!(Interval::point(5e-324).square().hi() > 0.0);
    }

    #[test]
    fn matrices_of_intervals_multiply() {
        let a = IntervalMatrix::from_fn(2, 3, |i, j| Interval::point((i + 2 * j) as f64 / 3.0));
        let product = &a * a.transpose();
        let exact: f64 = (0..3).map(|j| (2.0 * j as f64 / 3.0) * ((1 + 2 * j) as f64 / 3.0)).sum();
        let entry = product[(0, 1)];
        assert!(entry.lo() < exact && exact < entry.hi());
        assert!(entry.hi() - entry.lo() < 32.0 * f64::EPSILON * exact);
    }
}
