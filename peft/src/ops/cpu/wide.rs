//! Loops compiled twice: for the machine that everything is compiled for, and for its wide vectors.

/// Declares functions of slices; each is compiled once more with AVX2 and FMA and that form taken where the
/// machine has them. Multiply-adds are fused where they are written so and nowhere else, in software on other
/// machines, so both give the same bits.
macro_rules! wide {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident<T: Number>(
        $($argument:ident: $type:ty),* $(,)?
    ) $(-> $result:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name<T: Number>($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain<T: Number>($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn avx2<T: Number>($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }
                if std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
                {
                    // SAFETY: the function asks for nothing but AVX2 and FMA, which the machine was just
                    // found to have.
                    return unsafe { avx2($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    )*};
}

pub(super) use wide;
