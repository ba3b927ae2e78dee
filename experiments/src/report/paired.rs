//! The exact sign-flip test for paired differences.
//!
//! Under the hypothesis that both methods are alike, each difference is as likely with either
//! sign. `p` is the share of the `2^n` sign patterns whose sum is at least as large in size as the
//! one seen (two-sided). Up to [`EXACT`] differences it is counted, by halves: the sums of one half
//! are sorted, those of the other looked up. Beyond, the sum over its standard deviation under the
//! hypothesis is taken as normal.

/// Most differences for which all patterns are counted.
pub(super) const EXACT: usize = 26;

/// Two-sided p; `None` without a difference that is a number.
pub(crate) fn sign_flip(differences: &[f64]) -> Option<f64> {
    if differences.is_empty() || differences.iter().any(|d| !d.is_finite()) {
        return None;
    }
    // Scaled by the largest, so that no sum overflows.
    let largest = differences.iter().fold(0.0_f64, |m, d| m.max(d.abs()));
    if largest == 0.0 {
        return Some(1.0);
    }
    let scaled: Vec<f64> = differences.iter().map(|d| d / largest).collect();
    let seen = scaled.iter().sum::<f64>().abs();
    if scaled.len() > EXACT {
        let deviation = scaled.iter().map(|d| d * d).sum::<f64>().sqrt();
        return Some(erfc(seen / deviation / std::f64::consts::SQRT_2).min(1.0));
    }
    // Patterns that equal the one seen must count although their sums are rounded another way:
    // n roundings of partial sums that are at most n.
    let slack = (scaled.len() * scaled.len()) as f64 * f64::EPSILON;
    let (first, second) = scaled.split_at(scaled.len() / 2);
    let mut sums = sums(second);
    sums.sort_by(f64::total_cmp);
    let threshold = seen - slack;
    let mut count = 0_u64;
    for sum in self::sums(first) {
        count += (sums.len() - sums.partition_point(|&other| sum + other < threshold)) as u64;
        count += sums.partition_point(|&other| sum + other <= -threshold) as u64;
    }
    Some((count as f64 / 2f64.powi(scaled.len() as i32)).min(1.0))
}

/// As [`sign_flip`] for whole numbers, exact for any count of them: the distribution of the sum is built up one
/// number at a time. `None` for none.
#[cfg(any(test, feature = "networks"))]
pub(crate) fn sign_flip_whole(differences: &[i64]) -> Option<f64> {
    /// A sum above this is no count of examples.
    const MOST: u64 = 1 << 22;
    let all = differences.iter().try_fold(0_u64, |sum, d| sum.checked_add(d.unsigned_abs()));
    let all = all.filter(|all| !differences.is_empty() && *all <= MOST)? as usize;
    let seen = differences.iter().sum::<i64>().unsigned_abs() as usize;
    // Of sum s the probability stands at s + all.
    let mut shares = vec![0.0; 2 * all + 1];
    shares[all] = 1.0;
    let mut reach = 0;
    for step in differences.iter().map(|d| d.unsigned_abs() as usize).filter(|step| *step > 0) {
        let mut next = vec![0.0; 2 * all + 1];
        for at in all - reach..=all + reach {
            next[at - step] += 0.5 * shares[at];
            next[at + step] += 0.5 * shares[at];
        }
        (shares, reach) = (next, reach + step);
    }
    let tail = (0..=all.saturating_sub(seen)).map(|at| shares[at]).sum::<f64>();
    Some(if seen == 0 { 1.0 } else { (2.0 * tail).min(1.0) })
}

/// Sums of all sign patterns.
fn sums(values: &[f64]) -> Vec<f64> {
    let mut sums = vec![0.0];
    for value in values {
        sums = sums.iter().flat_map(|sum| [sum + value, sum - value]).collect();
    }
    sums
}

/// Holm's step-down adjustment of `p` for all comparisons together; `None` stays.
pub(crate) fn holm(p: &[Option<f64>]) -> Vec<Option<f64>> {
    let mut order: Vec<(usize, f64)> =
        p.iter().enumerate().filter_map(|(i, p)| p.map(|p| (i, p))).collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut adjusted = vec![None; p.len()];
    let mut largest = 0.0_f64;
    for (rank, &(i, p)) in order.iter().enumerate() {
        largest = largest.max(p * (order.len() - rank) as f64).min(1.0);
        adjusted[i] = Some(largest);
    }
    adjusted
}

/// Complementary error function for `x >= 0`: its power series below 2, its continued fraction
/// above (Abramowitz and Stegun 7.1.5, 7.1.14).
fn erfc(x: f64) -> f64 {
    let root = std::f64::consts::PI.sqrt();
    if x < 2.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..60 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return 1.0 - 2.0 / root * sum;
    }
    let fraction = (1..=60).rev().fold(x, |tail, n| x + 0.5 * f64::from(n) / tail);
    (-x * x).exp() / root / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All patterns, one by one.
    fn by_hand(differences: &[f64]) -> f64 {
        let seen = differences.iter().sum::<f64>().abs();
        let count = (0..1_u32 << differences.len())
            .filter(|pattern| {
                let signed = differences
                    .iter()
                    .enumerate()
                    .map(|(i, d)| if pattern >> i & 1 == 1 { -d } else { *d });
                signed.sum::<f64>().abs() >= seen - 1e-12
            })
            .count();
        count as f64 / f64::from(1_u32 << differences.len())
    }

    #[test]
    fn halves_count_what_all_patterns_count() {
        for differences in [
            &[1.0][..],
            &[1.0, 2.0],
            &[0.3, -0.1, 0.25, 0.7, 0.05],
            &[1.0, 1.0, 1.0, -1.0, 0.0, 2.0],
            &[0.1; 10],
            &[3.0, -3.0, 1e-9, 5.0, 2.0, 2.0, -1.0],
        ] {
            assert_eq!(sign_flip(differences), Some(by_hand(differences)), "{differences:?}");
        }
        // Six seeds are the fewest that reach below 5 %: 2/64.
        assert_eq!(sign_flip(&[0.5, 0.4, 0.1, 0.9, 0.2, 0.3]), Some(2.0 / 64.0));
        assert_eq!(sign_flip(&[0.0, 0.0]), Some(1.0));
        assert_eq!(sign_flip(&[]), None);
        assert_eq!(sign_flip(&[f64::NAN]), None);
    }

    #[test]
    fn whole_numbers_are_counted_beyond_the_exact_range() {
        for differences in [&[1_i64][..], &[1, 2], &[3, -1, 2, 0, 7, -5], &[2; 12], &[0, 0]] {
            let floats: Vec<f64> = differences.iter().map(|d| *d as f64).collect();
            // Both count the same patterns; shares are sums of powers of 1/2, exact.
            assert_eq!(sign_flip_whole(differences), sign_flip(&floats), "{differences:?}");
        }
        // All of 40 ones the same way: 2 of 2^40 patterns.
        assert_eq!(sign_flip_whole(&[1; 40]), Some(2.0 / 2f64.powi(40)));
        assert_eq!(sign_flip_whole(&[]), None);
    }

    #[test]
    fn the_normal_tail_is_right_to_rounding() {
        // Values of erfc to 12 digits (Abramowitz and Stegun, table 7.1, and mpmath).
        for (x, value) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_187),
            (1.0, 0.157_299_207_050),
            (2.0, 4.677_734_981_05e-3),
            (3.0, 2.209_049_699_86e-5),
            (5.0, 1.537_459_794_43e-12),
        ] {
            assert!((erfc(x) / value - 1.0).abs() < 1e-10, "erfc({x}) = {}", erfc(x));
        }
        // Beyond the exact range both agree about a moderate p: 30 differences of mixed sign.
        let many: Vec<f64> = (0..30).map(|i| 0.35 + f64::from(i % 7) - 3.0).collect();
        let exact = sign_flip(&many[..26]).unwrap();
        let normal = erfc(
            many[..26].iter().sum::<f64>().abs()
                / many[..26].iter().map(|d| 2.0 * d * d).sum::<f64>().sqrt(),
        );
        assert!((exact - normal).abs() < 0.03, "{exact} and {normal}");
        assert!(sign_flip(&many).unwrap() > 0.05);
    }

    #[test]
    fn holm_multiplies_the_smallest_most_and_keeps_the_order() {
        let adjusted = holm(&[Some(0.04), None, Some(0.01), Some(0.03)]);
        assert_eq!(adjusted, [Some(0.06), None, Some(0.03), Some(0.06)]);
        assert_eq!(holm(&[Some(0.9), Some(0.8)]), [Some(1.0), Some(1.0)]);
    }
}
