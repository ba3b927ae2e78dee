//! Four doubles at a time: the arithmetic that the shallow network's kernels are written in.
//!
//! Kernels are generic over [`Lanes`]. There are two of them, AVX2 with FMA (through `pulp`, chosen
//! at run time) and plain Rust. Both have four lanes, fuse every `fma` and add lanes in one order,
//! and the operations are exactly rounded (IEEE 754): they give the same bits, and so does every
//! machine. Limits: AVX-512 machines use half of their width; x86 without FMA is slow (its `mul_add`
//! is a library call).

/// Doubles in a vector.
pub(crate) const WIDTH: usize = 4;

/// A vector in memory; as an element of a slice, samples `4v .. 4v + 4`.
pub(crate) type Quad = [f64; WIDTH];

/// `1.5 * 2^52`: added to a double below 2^51 it leaves the nearest whole number in the low bits.
pub(crate) const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Vector arithmetic; every operation is lane by lane and exactly rounded.
pub(crate) trait Lanes: Copy {
    /// Four doubles in a register.
    type V: Copy;
    /// Four copies of `x`.
    fn splat(self, x: f64) -> Self::V;
    /// From memory.
    fn load(self, x: &Quad) -> Self::V;
    /// To memory.
    fn store(self, out: &mut Quad, x: Self::V);
    /// `a + b`.
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`.
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`.
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`.
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `c - a * b`, rounded once.
    fn negated_fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `x` kept in `low ..= high`; NaN stays NaN.
    fn clamp(self, x: Self::V, low: f64, high: f64) -> Self::V;
    /// `x * 2^n`, where `n` is in the low bits of `rounded` (see [`ROUNDER`]); both `x` and the
    /// result must be normal.
    fn scale_exponent(self, x: Self::V, rounded: Self::V) -> Self::V;
    /// `(x_0 + x_2) + (x_1 + x_3)`.
    fn sum(self, x: Self::V) -> f64;
    /// Runs `kernel` as a function of its own: one copy of it in the binary, however many callers.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;
}

/// Work that wants vectors.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// Does it; must be `#[inline(always)]`, so that it is compiled for the lanes' instructions.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// Runs `kernel` with the best lanes of this machine.
#[inline]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = pulp::x86::V3::try_new() {
        return simd.call(kernel);
    }
    Portable.call(kernel)
}

/// Plain Rust; the compiler finds its vectors.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

macro_rules! lane_by_lane {
    ($($name:ident($($x:ident),+) = $value:expr;)+) => {
        $(#[inline(always)]
        fn $name(self, $($x: Quad),+) -> Quad {
            let mut out = [0.0; WIDTH];
            for i in 0..WIDTH {
                $(let $x = $x[i];)+
                out[i] = $value;
            }
            out
        })+
    };
}

impl Lanes for Portable {
    type V = Quad;

    lane_by_lane! {
        add(a, b) = a + b;
        sub(a, b) = a - b;
        mul(a, b) = a * b;
        div(a, b) = a / b;
        fma(a, b, c) = a.mul_add(b, c);
        negated_fma(a, b, c) = (-a).mul_add(b, c);
        scale_exponent(x, rounded) =
            f64::from_bits(x.to_bits().wrapping_add(rounded.to_bits() << 52));
    }

    #[inline(always)]
    fn splat(self, x: f64) -> Quad {
        [x; WIDTH]
    }

    #[inline(always)]
    fn load(self, x: &Quad) -> Quad {
        *x
    }

    #[inline(always)]
    fn store(self, out: &mut Quad, x: Quad) {
        *out = x;
    }

    #[inline(always)]
    fn clamp(self, x: Quad, low: f64, high: f64) -> Quad {
        // The comparisons are false for NaN, which passes; `f64::clamp` would do, but panics.
        x.map(|x| if low > x { low } else { x }).map(|x| if high < x { high } else { x })
    }

    #[inline(always)]
    fn sum(self, x: Quad) -> f64 {
        (x[0] + x[2]) + (x[1] + x[3])
    }

    #[inline(never)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Kernel, Lanes, Quad};
    use core::arch::x86_64::{__m256d, __m256i};
    use pulp::x86::V3;

    /// A kernel with its lanes, as `pulp` wants it.
    pub(super) struct Call<K> {
        pub(super) simd: V3,
        pub(super) kernel: K,
    }

    impl<K: Kernel> pulp::NullaryFnOnce for Call<K> {
        type Output = K::Output;

        #[inline(always)]
        fn call(self) -> K::Output {
            self.kernel.run(self.simd)
        }
    }

    impl Lanes for V3 {
        type V = __m256d;

        #[inline(always)]
        fn splat(self, x: f64) -> __m256d {
            self.avx._mm256_set1_pd(x)
        }

        #[inline(always)]
        fn load(self, x: &Quad) -> __m256d {
            pulp::cast(*x)
        }

        #[inline(always)]
        fn store(self, out: &mut Quad, x: __m256d) {
            *out = pulp::cast(x);
        }

        #[inline(always)]
        fn add(self, a: __m256d, b: __m256d) -> __m256d {
            self.avx._mm256_add_pd(a, b)
        }

        #[inline(always)]
        fn sub(self, a: __m256d, b: __m256d) -> __m256d {
            self.avx._mm256_sub_pd(a, b)
        }

        #[inline(always)]
        fn mul(self, a: __m256d, b: __m256d) -> __m256d {
            self.avx._mm256_mul_pd(a, b)
        }

        #[inline(always)]
        fn div(self, a: __m256d, b: __m256d) -> __m256d {
            self.avx._mm256_div_pd(a, b)
        }

        #[inline(always)]
        fn fma(self, a: __m256d, b: __m256d, c: __m256d) -> __m256d {
            self.fma._mm256_fmadd_pd(a, b, c)
        }

        #[inline(always)]
        fn negated_fma(self, a: __m256d, b: __m256d, c: __m256d) -> __m256d {
            self.fma._mm256_fnmadd_pd(a, b, c)
        }

        #[inline(always)]
        fn clamp(self, x: __m256d, low: f64, high: f64) -> __m256d {
            // These two return their second argument where one is NaN.
            let x = self.avx._mm256_max_pd(self.splat(low), x);
            self.avx._mm256_min_pd(self.splat(high), x)
        }

        #[inline(always)]
        fn scale_exponent(self, x: __m256d, rounded: __m256d) -> __m256d {
            let x: __m256i = pulp::cast(x);
            let shifted = self.avx2._mm256_slli_epi64::<52>(pulp::cast(rounded));
            pulp::cast(self.avx2._mm256_add_epi64(x, shifted))
        }

        #[inline(always)]
        fn sum(self, x: __m256d) -> f64 {
            let x: Quad = pulp::cast(x);
            (x[0] + x[2]) + (x[1] + x[3])
        }

        #[inline(always)]
        fn call<K: Kernel>(self, kernel: K) -> K::Output {
            self.vectorize(Call { simd: self, kernel })
        }
    }
}
