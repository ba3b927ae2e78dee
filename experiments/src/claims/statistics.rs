//! Tests of statistical claims, and the error budget they share.
//!
//! The suite's probability of a false alarm is at most 1e-6: each of at most [`TESTS`] comparisons
//! takes an equal share. Means: studentised, with the quantile shifted for skewness by the Edgeworth
//! expansion (Hall, The Bootstrap and Edgeworth Expansion, 1992, section 2.3). Proportions: Clopper and
//! Pearson's interval, which is exact.

/// Probability that a run of the suite raises a false alarm.
pub const SUITE_ERROR: f64 = 1e-6;
/// Most statistical comparisons in the suite; a test counts them.
pub const TESTS: usize = 60;
/// Each comparison's share, both sides together.
pub const SHARE: f64 = SUITE_ERROR / TESTS as f64;
/// Two-sided normal quantile of [`SHARE`]: `P(|Z| > 5.65) = 1.6e-8 < 1.66e-8`.
pub const QUANTILE: f64 = 5.65;

/// Mean and error of independent draws.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mean {
    /// Number of draws.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// Standard error of the mean.
    pub standard_error: f64,
    /// Sample skewness.
    pub skewness: f64,
}

impl Mean {
    /// Of at least two draws.
    pub fn of(draws: &[f64]) -> Self {
        let n = draws.len() as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let moment = |p: i32| draws.iter().map(|x| (x - mean).powi(p)).sum::<f64>() / n;
        let variance = moment(2);
        let skewness = if variance > 0.0 { moment(3) / variance.powf(1.5) } else { 0.0 };
        let standard_error = (variance / (n - 1.0)).sqrt();
        Self { count: draws.len(), mean, standard_error, skewness }
    }

    /// Half the width of the interval that holds the expectation but for [`SHARE`]: Student's quantile
    /// (first term of its expansion) and the shift for skewness, both on the safe side.
    pub fn radius(&self) -> f64 {
        let (n, z) = (self.count as f64, QUANTILE);
        let student = (z.powi(3) + z) / (4.0 * n);
        let skew = self.skewness.abs() * (2.0 * z * z + 1.0) / (6.0 * n.sqrt());
        self.standard_error * (z + student + skew)
    }

    /// Where the tolerance comes from.
    pub fn source(&self) -> String {
        format!(
            "studentised mean of {} draws, two-sided error {SHARE:.1e} (suite {SUITE_ERROR:.0e})",
            self.count
        )
    }
}

/// Clopper-Pearson bounds of a proportion, each side with error `one_sided`.
pub fn clopper_pearson(successes: usize, trials: usize, one_sided: f64) -> (f64, f64) {
    // P(X >= s) grows, P(X <= s) falls with p.
    let low = match successes {
        0 => 0.0,
        s => bisect(|p| upper_tail(s, trials, p) < one_sided),
    };
    let high = match successes {
        s if s == trials => 1.0,
        s => bisect(|p| 1.0 - upper_tail(s + 1, trials, p) > one_sided),
    };
    (low, high)
}

/// The point of (0, 1) where `below` turns from true to false.
fn bisect(below: impl Fn(f64) -> bool) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if below(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// `P(X >= s)`, X binomial.
fn upper_tail(s: usize, n: usize, p: f64) -> f64 {
    let mut sum = 0.0;
    let mut log_choose = 0.0;
    for i in 0..=n {
        if i > 0 {
            log_choose += (((n - i + 1) as f64) / i as f64).ln();
        }
        let log = log_choose + i as f64 * p.ln() + (n - i) as f64 * (-p).ln_1p();
        if i >= s {
            sum += log.exp();
        }
    }
    sum.min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::Seed;

    #[test]
    fn intervals_are_those_of_the_tables() {
        // Rule of three: 0 of n at 95 % one-sided is 1 - 0.05^(1/n).
        let (low, high) = clopper_pearson(0, 300, 0.05);
        assert!(low == 0.0 && (high - (1.0 - 0.05_f64.powf(1.0 / 300.0))).abs() < 1e-12);
        // 5 of 10 at 95 % two-sided: 0.1871 to 0.8129.
        let (low, high) = clopper_pearson(5, 10, 0.025);
        assert!((low - 0.1871).abs() < 1e-4 && (high - 0.8129).abs() < 1e-4, "{low} {high}");
    }

    #[test]
    fn the_radius_of_normal_draws_is_the_quantile_of_the_mean() {
        let mut stream = Seed::root(3).child("mean").stream();
        let draws: Vec<f64> = (0..20_000).map(|_| stream.normal()).collect();
        let mean = Mean::of(&draws);
        let plain = QUANTILE / (20_000_f64).sqrt();
        assert!(mean.radius() > plain && mean.radius() < 1.1 * plain);
        assert!(mean.mean.abs() < mean.radius());
    }
}
