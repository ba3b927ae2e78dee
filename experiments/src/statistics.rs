//! Distribution-free statistics of a few dozen paired trials.
//!
//! * [`median_interval`]: the median with the narrowest symmetric interval of order statistics whose
//!   coverage, for any continuous distribution, is at least 95 %:
//!   `P(x_(k) <= median <= x_(n+1-k)) = 1 - 2 P(B < k)`, B binomial(n, 1/2)
//! * [`sign_test`]: `2 P(B <= min(wins, losses))`, B binomial(wins + losses, 1/2); ties are left out

/// Coverage of [`median_interval`].
pub const COVERAGE: f64 = 0.95;

/// A median with an interval of order statistics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MedianInterval {
    /// The median.
    pub median: f64,
    /// Lower order statistic.
    pub low: f64,
    /// Upper order statistic.
    pub high: f64,
    /// Whether the interval has the coverage; fewer than six values have none that does, and their
    /// range stands instead.
    pub covers: bool,
}

/// See the module's header; `None` without values. NaN counts as largest.
pub fn median_interval(values: &[f64]) -> Option<MedianInterval> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    let (low, high) = (sorted.get(n.checked_sub(1)? / 2)?, sorted.get(n / 2)?);
    let below = |k: usize| binomial_tail(n, k);
    // The largest k (from 1) with 1 - 2 P(B < k) >= coverage.
    let k = (1..=n.div_ceil(2)).take_while(|k| 1.0 - 2.0 * below(*k) >= COVERAGE).last();
    let rank = k.unwrap_or(1);
    Some(MedianInterval {
        median: if low == high { *low } else { 0.5 * (low + high) },
        low: sorted[rank - 1],
        high: sorted[n - rank],
        covers: k.is_some(),
    })
}

/// `P(B < k)`, B binomial(n, 1/2).
fn binomial_tail(n: usize, k: usize) -> f64 {
    // Products of quotients, from 2^-n by logarithm: exact to rounding for thousands of trials.
    let mut sum = 0.0;
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    for i in 0..k {
        sum += log_term.exp();
        log_term += ((n - i) as f64 / (i + 1) as f64).ln();
    }
    sum.min(1.0)
}

/// Outcome of paired comparisons.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignTest {
    /// Pairs whose first value is smaller.
    pub wins: usize,
    /// Pairs whose first value is larger.
    pub losses: usize,
    /// Pairs of equal values.
    pub ties: usize,
    /// Two-sided p-value.
    pub p_value: f64,
}

/// See the module's header. A pair with NaN is a loss of the side that has it, or a tie.
pub fn sign_test(pairs: impl IntoIterator<Item = (f64, f64)>) -> SignTest {
    let (mut wins, mut losses, mut ties) = (0, 0, 0);
    for (first, second) in pairs {
        match (first.is_nan(), second.is_nan()) {
            (false, true) => wins += 1,
            (true, false) => losses += 1,
            _ if first < second => wins += 1,
            _ if first > second => losses += 1,
            _ => ties += 1,
        }
    }
    let p_value = 2.0 * binomial_tail(wins + losses, wins.min(losses) + 1);
    SignTest { wins, losses, ties, p_value: p_value.min(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_the_tabled_order_statistics() {
        // Tables of the binomial: n = 10 takes ranks 2 and 9, n = 40 ranks 14 and 27, n = 6 the range.
        for (n, low, high) in [(6, 1, 6), (10, 2, 9), (20, 6, 15), (40, 14, 27)] {
            let values: Vec<f64> = (1..=n).rev().map(f64::from).collect();
            let found = median_interval(&values).unwrap();
            assert_eq!((found.low, found.high), (f64::from(low), f64::from(high)), "n = {n}");
            assert_eq!(found.median, 0.5 * f64::from(n + 1));
            assert!(found.covers);
        }
        let few = median_interval(&[3.0, 1.0, 2.0]).unwrap();
        assert_eq!((few.low, few.median, few.high, few.covers), (1.0, 2.0, 3.0, false));
        assert_eq!(median_interval(&[]), None);
    }

    #[test]
    fn the_sign_test_is_the_exact_binomial() {
        let pairs = |wins: usize, losses: usize| {
            let wins = std::iter::repeat_n((1.0, 2.0), wins);
            wins.chain(std::iter::repeat_n((2.0, 1.0), losses)).chain([(1.0, 1.0)])
        };
        // 2 (1 + 10) / 2^10, and 2 / 2^8.
        assert!((sign_test(pairs(9, 1)).p_value - 22.0 / 1024.0).abs() < 1e-14);
        assert!((sign_test(pairs(0, 8)).p_value - 2.0 / 256.0).abs() < 1e-14);
        assert_eq!(sign_test(pairs(5, 5)).p_value, 1.0);
        assert_eq!(sign_test(pairs(0, 0)), SignTest { wins: 0, losses: 0, ties: 1, p_value: 1.0 });
        assert_eq!(sign_test([(f64::NAN, 1.0)]).losses, 1);
    }
}
