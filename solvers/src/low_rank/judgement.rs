//! Whether an answer of the global solver is given: its own figures decide.
//!
//! * exact tasks: the relative residual `r = (sum ||A_t - A - R_t||^2 / sum ||A_t||^2)^(1/2)` must be
//!   rounding, three adapters must have full rank (theory.md C11), `rho` must be above 1e-8
//! * estimates: the error that C9 predicts for the noise, estimated from the residuals, must be below a tenth of
//!   the offsets
//!
//! Predicted error of exact tasks: `20 u ||A|| / rho` for the rounding of what was stored, and
//! `(sum ||A_t - A - R_t||^2 / (T rho))^(1/2)` for what is left: adapters fitted, the loss at `A* + D` is
//! `1/2 <D, H D> / T >= rho ||D||^2 / 2` to leading order (C5).

use crate::problem::SolveError;
use faer::Mat;
use peftml_linalg::{LowRank, decompose, kernel};
use peftml_theory::linear::{Kind, Spectrum};

/// Smallest `rho` that counts as identified. Below it, an error of u in the data is one of 1e-8 in A.
const SMALLEST_RHO: f64 = 1e-8;
/// Largest predicted error, relative to the offsets' size, of an answer that is given.
const LARGEST_ERROR: f64 = 0.1;

/// An answer with its figures.
pub struct Evidence<'a> {
    /// Symmetric or asymmetric adapters.
    pub kind: Kind,
    /// Rank asked for.
    pub rank: usize,
    /// Dimension d.
    pub dimension: usize,
    /// The adapters.
    pub adapters: &'a [LowRank],
    /// `sum_t ||Ahat_t - A - R_t||_F^2`.
    pub residual_squares: f64,
    /// `sum_t ||Ahat_t||_F^2`.
    pub squares: f64,
    /// Unit roundoff of the stored type.
    pub storage_roundoff: f64,
    /// Eigenvalue gap of the intersection.
    pub gap: f64,
}

/// The figures of an answer that is given.
pub struct Judgement {
    /// Smallest eigenvalue of the identification operator.
    pub rho: f64,
    /// Predicted `||A - A*||_F`.
    pub predicted_error: f64,
}

impl Evidence<'_> {
    fn count(&self) -> f64 {
        self.adapters.len() as f64
    }

    /// The relative residual, and the largest that rounding explains.
    pub fn residual(&self) -> (f64, f64) {
        let residual = self.residual_squares.sqrt() / self.squares.sqrt().max(f64::MIN_POSITIVE);
        (residual, (32.0 * self.storage_roundoff).max(1e-12))
    }

    /// `20 u ||A|| / rho` with the tasks' root mean square size.
    fn rounding(&self, rho: f64) -> f64 {
        20.0 * self.storage_roundoff * (self.squares / self.count()).sqrt() / rho
    }

    /// Judges exact tasks; `rho` is only asked for where the residual is rounding.
    pub fn exact(
        &self,
        rho: impl FnOnce() -> Result<f64, SolveError>,
    ) -> Result<Judgement, SolveError> {
        let (residual, allowed) = self.residual();
        // A NaN figure refuses too.
        if residual.is_nan() || residual > allowed {
            return Err(SolveError::RankMismatch { rank: self.rank, residual, allowed });
        }
        let rho = rho()?;
        // A zero-loss answer whose adapters have lower rank is not the only one (theory.md C11).
        if full_rank_adapters(self.adapters, self.rounding(rho))? < 3 {
            return Err(SolveError::RankTooLarge { rank: self.rank });
        }
        let left = (self.residual_squares / (self.count() * rho)).sqrt();
        self.accept(rho, self.rounding(rho) + left)
    }

    /// Judges estimates. `variance`: that of an entry of `Ahat_t` as the samples tell it, where they do.
    pub fn estimates(
        &self,
        spectrum: Spectrum,
        variance: Option<f64>,
    ) -> Result<Judgement, SolveError> {
        let d = self.dimension as f64;
        let skew = match self.kind {
            Kind::Symmetric => d * (d - 1.0) / (2.0 * self.count()),
            Kind::Asymmetric => 0.0,
        };
        let variance = self.noise_variance(variance);
        let noise = (variance * (skew + spectrum.inverse_trace)).sqrt();
        self.accept(spectrum.rho, noise + self.rounding(spectrum.rho))
    }

    fn accept(&self, rho: f64, predicted_error: f64) -> Result<Judgement, SolveError> {
        let offsets = self.adapters.iter().map(norm_squared).sum::<f64>();
        let size = (offsets / self.count()).sqrt();
        let predicted = predicted_error / size.max(f64::MIN_POSITIVE);
        if rho > SMALLEST_RHO && predicted <= LARGEST_ERROR {
            Ok(Judgement { rho, predicted_error })
        } else {
            let (residual, _) = self.residual();
            Err(SolveError::NotIdentifiable { rho, gap: self.gap, residual, predicted })
        }
    }

    /// Variance of an entry of `Ahat_t`. Two estimates: from the least-squares residuals of the samples, and
    /// from the fit's own residual per degree of freedom. The first counts where there is one, unless the
    /// second is above it by six of its standard deviations `sqrt(2 / freedom)`: then the rank is too small
    /// for the tasks, and the misfit counts.
    fn noise_variance(&self, from_samples: Option<f64>) -> f64 {
        let (d, count, k) = (self.dimension as f64, self.count(), self.rank as f64);
        let entries = d * d * (count - 1.0);
        let adapters = match self.kind {
            Kind::Symmetric => count * (k * d - k * (k - 1.0) / 2.0),
            Kind::Asymmetric => count * k * (2.0 * d - k),
        };
        let freedom = entries - adapters;
        let from_fit = if freedom > 0.0 { self.residual_squares / freedom } else { 0.0 };
        let Some(from_samples) = from_samples else { return from_fit };
        let explained = from_samples * (1.0 + 6.0 * (2.0 / freedom.max(1.0)).sqrt());
        if from_fit <= explained { from_samples } else { from_fit.max(from_samples) }
    }
}

/// `||U V^T||_F^2` from the factors' Gram matrices.
fn norm_squared(adapter: &LowRank) -> f64 {
    let k = adapter.width();
    let gram = |m: faer::MatRef<'_, f64>| {
        let mut out = Mat::zeros(k, k);
        kernel::mul(out.as_mut(), m.transpose(), m, 1.0);
        out
    };
    kernel::inner(gram(adapter.left()).as_ref(), gram(adapter.right()).as_ref())
}

/// How many adapters have all their singular values above `floor`.
fn full_rank_adapters(adapters: &[LowRank], floor: f64) -> Result<usize, SolveError> {
    let mut count = 0;
    for adapter in adapters {
        // Balanced factors: the k-th singular value of the left one is the root of the product's.
        let values = decompose::singular_values(adapter.left())?;
        let least = values.last().copied().unwrap_or(0.0);
        count += usize::from(least * least > floor);
    }
    Ok(count)
}
