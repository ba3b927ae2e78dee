//! What a point of the LoRA-ML objective is.
//!
//! A point is a base `A` with adapters; `A` and the adapters are judged jointly in
//! `1/(2T) sum_t tr((A + R_t - Ahat_t) S_t (A + R_t - Ahat_t)^T)`. Verdicts, the first that applies:
//! diverging, not stationary, strict saddle, global minimum, strict local minimum (modulo gauge),
//! degenerate minimum, inconclusive. Sources: theory.md C5, C6, C7, Derivatives.
//!
//! Sizes: `spread = max_t ||Ahat_t - mean Ahat||_F`, `size = max(spread, max_t ||R_t||_F)`,
//! `moment = max_t ||S_t||_F` (1 for exact tasks), `u = 2^-53`, `u_p` the roundoff of the type that the
//! point was stored in, `e = (8 + k + T)(u + u_p)(max_t ||Ahat_t||_F + size)` what rounding leaves of an
//! `E_t`. The thresholds:
//!
//! * *stationary*: in `A`: `||g|| <= moment (q size + e)`; in the adapters:
//!   `||g|| <= 2/sqrt(T) moment sqrt(size) (q size + e)`, `q = max(sqrt(u), 64 u_p)`. A coordinate that
//!   is off by `q` of its size changes `g` by that much and the value by `q^2 = u` of its scale: closer
//!   points are the same to the objective. Rounding of a stored point stays below it.
//! * *equal values*: `|F - F'| <= moment (8 u spread^2 + e sqrt(2F/moment) + e^2)`, with the roundoff of
//!   the stored tasks added to `e`'s.
//! * *curvature* is zero up to `4 n u ||H||_F + 2/T moment e` (eigenvalues of an n x n Hessian and its
//!   entries' rounding); it has a sign where it exceeds that by `sqrt(2 L ||g||)`, `L = 12/T moment
//!   max ||U_t||` bounding the third derivative: then by Kantorovich the stationary point near by has the
//!   same sign.
//! * a *strict saddle* needs, beside the curvature, a step along its direction that does decrease the
//!   value by more than rounding.
//! * *diverging*: adapters of more than 100 times the spread whose differences stay within 10 times
//!   it, a gradient below 1e-3 of its natural size, a value above the global one, and no isolated
//!   stationary point within 1e-3 of the point: runs to infinity look like that (F is not coercive).
//!
//! Limits: evidence in floating point; rigorous statements are `certificate`'s. Beyond 700
//! unknowns the smallest curvature is Lanczos'.

mod curvature;
mod error;
mod point;
mod polish;
mod reference;
mod rho;

pub use error::OptimalityError;
pub use point::Point;
pub use polish::polish;
pub use reference::two_task_value;

use crate::Objective;
use crate::linear::{Kind, ProfileObjective, Tasks};
use curvature::{GaugeSpace, LowEnd};
use faer::Mat;
use peftml_linalg::{Blocks, Seed, compare, kernel};

/// Unit roundoff of f64.
const UNIT: f64 = f64::EPSILON / 2.0;
/// Adapters this many times larger than the tasks' spread may be on their way to infinity.
const FAR: f64 = 100.0;
/// Most flat directions along which a degenerate minimum is probed.
const PROBED: usize = 20;

/// What a point is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PointVerdict {
    /// On the way to a critical value at infinity.
    Diverging,
    /// The gradient is not zero.
    NotStationary,
    /// Stationary, with a direction of negative curvature.
    StrictSaddle,
    /// The value is the least possible, to rounding.
    GlobalMinimum,
    /// Positive curvature in all directions but the gauge's.
    StrictLocalMinimum,
    /// No negative curvature, flat directions beyond the gauge's along which the value does not fall.
    DegenerateMinimum,
    /// None of these can be told in floating point.
    Inconclusive,
}

impl PointVerdict {
    /// The name in files: `"strict_saddle"`.
    pub fn name(self) -> &'static str {
        match self {
            PointVerdict::Diverging => "diverging",
            PointVerdict::NotStationary => "not_stationary",
            PointVerdict::StrictSaddle => "strict_saddle",
            PointVerdict::GlobalMinimum => "global_minimum",
            PointVerdict::StrictLocalMinimum => "strict_local_minimum",
            PointVerdict::DegenerateMinimum => "degenerate_minimum",
            PointVerdict::Inconclusive => "inconclusive",
        }
    }
}

/// Whether the value is the least possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Globality {
    /// It is.
    Yes,
    /// A lower value is attained.
    No,
    /// Nothing is known to compare with.
    Unknown,
}

impl Globality {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Globality::Yes => "yes",
            Globality::No => "no",
            Globality::Unknown => "unknown",
        }
    }
}

/// The value that was compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// Zero (for symmetric adapters: the share of the tasks' skew parts).
    Zero,
    /// The closed form for T = 2 exact tasks.
    ClosedForm,
    /// The value that the caller's global solver reached.
    GlobalSolver,
}

impl Reference {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Reference::Zero => "zero",
            Reference::ClosedForm => "closed form",
            Reference::GlobalSolver => "global solver",
        }
    }
}

/// What the caller knows of the least value.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Known {
    /// Zero is attained: the tasks are exact and their offsets have at most the point's rank.
    pub zero_is_attained: bool,
    /// A value that is attained: a solver's loss, without the least-squares residual.
    pub solver_value: Option<f64>,
}

/// A direction in the base and the adapters.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// Change of `A`, d x d.
    pub base: Mat<f64>,
    /// Change of the adapters, blocks as the point's, unit norm.
    pub factors: Blocks,
}

/// A point's verdict with the figures behind it.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// What the point is.
    pub verdict: PointVerdict,
    /// Whether its value is the least.
    pub global: Globality,
    /// What proves or refutes globality.
    pub compared_with: Option<Reference>,
    /// That value.
    pub reference_value: Option<f64>,
    /// The value, without the least-squares residual, at the given `A`.
    pub loss: f64,
    /// Norm of the gradient in `A`.
    pub gradient_base: f64,
    /// Largest norm that counts as stationary.
    pub gradient_base_tolerance: f64,
    /// Norm of the gradient in the adapters.
    pub gradient: f64,
    /// Largest norm that counts as stationary.
    pub gradient_tolerance: f64,
    /// The larger ratio of gradient to its natural size: at most about 1e-8 where stationary.
    pub gradient_scaled: f64,
    /// Smallest curvature of the profile objective off the gauge directions.
    pub curvature: f64,
    /// Curvature that rounding and the remaining gradient explain.
    pub curvature_resolution: f64,
    /// Residual of the eigenpair; 0 where the Hessian was decomposed whole.
    pub curvature_residual: f64,
    /// Number of gauge directions taken out.
    pub gauge_dimension: usize,
    /// Largest adapter in units of the tasks' spread.
    pub relative_size: f64,
    /// Direction of negative curvature, of a strict saddle.
    pub direction: Option<Direction>,
    /// `lambda_min(D -> (1/T) sum_t N_t D N'_t)` at the point's ranges; `None` where not resolved.
    pub rho: Option<f64>,
}

/// Sizes that thresholds are made of.
struct Sizes {
    spread: f64,
    size: f64,
    moment: f64,
    rounding: f64,
    value_rounding: f64,
    count: f64,
    largest_factor: f64,
    /// Largest `||R_t - mean R||_F`.
    difference: f64,
}

/// Judges `point`. `seed` names the streams of Lanczos' starts and of probes.
///
/// # Errors
/// [`OptimalityError`] where tasks and point do not fit or the tasks determine no base.
pub fn assess(
    tasks: &Tasks,
    point: &Point,
    known: Known,
    seed: &Seed,
) -> Result<Assessment, OptimalityError> {
    if let Some(value) = known.solver_value.filter(|v| !v.is_finite()) {
        return Err(OptimalityError::Reference { value });
    }
    let objective = ProfileObjective::new(tasks, point.kind(), point.rank())?;
    let mut balanced = point.clone();
    let factors = balanced.balance();
    let sizes = Sizes::new(tasks, &balanced);
    let joint = point::joint_gradient(tasks, &balanced);
    let q = UNIT.sqrt().max(64.0 * point.storage_roundoff());
    let base_size = sizes.moment * sizes.size;
    let factor_size = 2.0 / sizes.count.sqrt() * sizes.moment * sizes.size.powf(1.5);
    let base_tolerance = sizes.moment * (q * sizes.size + sizes.rounding);
    let tolerance = 2.0 / sizes.count.sqrt()
        * sizes.moment
        * sizes.size.sqrt()
        * (q * sizes.size + sizes.rounding);
    let ratio = |g: f64, size: f64| if g == 0.0 { 0.0 } else { g / size };
    let gauge = GaugeSpace::new(balanced.factors(), point.kind(), point.count())?;
    let low = curvature::low_end(&objective, balanced.factors(), &gauge, 1e-6, seed)?;
    let n = balanced.factors().as_slice().len() as f64;
    let rounding = 4.0 * n * UNIT * low.norm + 2.0 / sizes.count * sizes.moment * sizes.rounding;
    let third = 12.0 / sizes.count * sizes.moment * sizes.largest_factor;
    let resolution = rounding + (2.0 * third * joint.factors).sqrt();

    let (global, compared_with, reference_value) = globality(tasks, point, &sizes, &joint, known)?;
    let mut assessment = Assessment {
        verdict: PointVerdict::Inconclusive,
        global,
        compared_with,
        reference_value,
        loss: joint.value,
        gradient_base: joint.base,
        gradient_base_tolerance: base_tolerance,
        gradient: joint.factors,
        gradient_tolerance: tolerance,
        gradient_scaled: ratio(joint.base, base_size).max(ratio(joint.factors, factor_size)),
        curvature: low.value,
        curvature_resolution: resolution,
        curvature_residual: low.residual,
        gauge_dimension: gauge.dimension(),
        relative_size: if sizes.size == 0.0 { 0.0 } else { sizes.size / sizes.spread },
        direction: None,
        rho: rho::rho(&balanced, seed)?,
    };
    let stationary = joint.base <= base_tolerance && joint.factors <= tolerance;
    let probe = Probe { objective: &objective, x: balanced.factors(), sizes: &sizes };
    assessment.verdict = if diverges(&sizes, &joint, &low, resolution, global, &assessment) {
        PointVerdict::Diverging
    } else if !stationary {
        PointVerdict::NotStationary
    } else if low.value < -resolution
        && low.residual < 0.5 * low.value.abs()
        && probe.falls_along(&low.vector, low.value.abs() / third)
    {
        assessment.direction = Some(probe.direction(&low.vector, &factors));
        PointVerdict::StrictSaddle
    } else if global == Globality::Yes {
        PointVerdict::GlobalMinimum
    } else if low.value - low.residual > resolution && low.residual <= 0.01 * low.value {
        PointVerdict::StrictLocalMinimum
    } else if low.dense
        && low.value.abs() <= rounding
        && !probe.falls_along_any(&low, rounding, seed)
    {
        PointVerdict::DegenerateMinimum
    } else {
        PointVerdict::Inconclusive
    };
    Ok(assessment)
}

impl Sizes {
    fn new(tasks: &Tasks, point: &Point) -> Self {
        let d = tasks.dimension();
        let count = tasks.count() as f64;
        let offsets: Vec<Mat<f64>> = (0..tasks.count()).map(|t| point.offset(t)).collect();
        let mean = |matrix: &dyn Fn(usize, usize, usize) -> f64| {
            Mat::from_fn(d, d, |i, j| (0..tasks.count()).map(|t| matrix(t, i, j) / count).sum())
        };
        let mean_task: Mat<f64> = mean(&|t, i, j| tasks.task(t).least_squares()[(i, j)]);
        let mean_offset: Mat<f64> = mean(&|t, i, j| offsets[t][(i, j)]);
        let largest =
            |part: &dyn Fn(usize) -> f64| (0..tasks.count()).map(part).fold(0.0, f64::max);
        let spread =
            largest(&|t| compare::distance(tasks.task(t).least_squares(), mean_task.as_ref()));
        let size = spread.max(largest(&|t| kernel::norm(offsets[t].as_ref())));
        let matrices = largest(&|t| kernel::norm(tasks.task(t).least_squares())) + size;
        let moment = largest(&|t| tasks.task(t).second_moment().map_or(1.0, kernel::norm));
        let steps = 8.0 + point.rank() as f64 + count;
        let rounding = steps * (UNIT + point.storage_roundoff()) * matrices;
        Self {
            spread,
            size,
            moment,
            rounding,
            value_rounding: rounding + steps * tasks.storage_roundoff() * matrices,
            count,
            largest_factor: (0..point.factors().count())
                .map(|i| kernel::norm(point.factors().block(i)))
                .fold(0.0, f64::max),
            difference: largest(&|t| compare::distance(offsets[t].as_ref(), mean_offset.as_ref())),
        }
    }

    /// Difference up to which values near `value` are equal.
    fn value_tolerance(&self, value: f64) -> f64 {
        let error = self.value_rounding;
        let root = (2.0 * value.max(0.0) / self.moment.max(f64::MIN_POSITIVE)).sqrt();
        self.moment * (8.0 * UNIT * self.spread * self.spread + error * root + error * error)
    }
}

type Comparison = (Globality, Option<Reference>, Option<f64>);

fn globality(
    tasks: &Tasks,
    point: &Point,
    sizes: &Sizes,
    joint: &point::JointGradient,
    known: Known,
) -> Result<Comparison, OptimalityError> {
    let value = joint.value;
    let tolerance = sizes.value_tolerance(value);
    let mut zero = 0.0;
    if point.kind() == Kind::Symmetric && tasks.is_exact() {
        zero = reference::skew_value(tasks);
    }
    if value <= zero + tolerance {
        return Ok((Globality::Yes, Some(Reference::Zero), Some(zero)));
    }
    if let Some(least) = reference::two_task_value(tasks, point.kind(), point.rank())? {
        let global = if value <= least + tolerance { Globality::Yes } else { Globality::No };
        return Ok((global, Some(Reference::ClosedForm), Some(least)));
    }
    if known.zero_is_attained || tasks.count() == 1 {
        return Ok((Globality::No, Some(Reference::Zero), Some(zero)));
    }
    if let Some(least) = known.solver_value {
        let global = if value > least + tolerance { Globality::No } else { Globality::Unknown };
        return Ok((global, Some(Reference::GlobalSolver), Some(least)));
    }
    Ok((Globality::Unknown, None, None))
}

/// See the module's header.
fn diverges(
    sizes: &Sizes,
    joint: &point::JointGradient,
    low: &LowEnd,
    resolution: f64,
    global: Globality,
    assessment: &Assessment,
) -> bool {
    let far = sizes.size > FAR * sizes.spread && sizes.difference <= 10.0 * sizes.spread;
    let natural = 2.0 / sizes.count.sqrt() * sizes.moment * sizes.spread.powf(1.5);
    let fading = joint.factors <= 1e-3 * natural + assessment.gradient_tolerance
        && joint.base <= assessment.gradient_base_tolerance + 1e-3 * sizes.moment * sizes.spread;
    let isolated = low.value > resolution && joint.factors <= 1e-3 * low.value * sizes.size.sqrt();
    far && fading && global != Globality::Yes && !isolated
}

/// Values along directions from a point.
struct Probe<'a> {
    objective: &'a ProfileObjective<'a>,
    x: &'a Blocks,
    sizes: &'a Sizes,
}

impl Probe<'_> {
    /// Whether the value falls by more than rounding along `v` or `-v`, at some step up to `longest`
    /// or a tenth of the point's size.
    fn falls_along(&self, v: &[f64], longest: f64) -> bool {
        let mut work = vec![0.0; self.objective.work_len()];
        let value = self.objective.value(self.x, &mut work);
        let allowed = self.sizes.value_tolerance(value);
        let mut moved = self.x.clone();
        // No step beyond the size of the problem: at U = 0 the third derivative vanishes.
        let size = self.sizes.size.sqrt();
        let start = longest.clamp(0.1 * size, size);
        (0..12).any(|halving| {
            let step = start * 0.5_f64.powi(halving);
            [step, -step].iter().any(|step| {
                moved.copy_from(self.x);
                kernel::axpy(*step, v, moved.as_mut_slice());
                self.objective.value(&moved, &mut work) < value - allowed
            })
        })
    }

    /// Whether the value falls along a direction (or a combination) of no curvature.
    fn falls_along_any(&self, low: &LowEnd, rounding: f64, seed: &Seed) -> bool {
        let flat: Vec<&Vec<f64>> =
            low.low.iter().filter(|(value, _)| *value <= rounding).map(|(_, v)| v).collect();
        if flat.iter().take(PROBED).any(|v| self.falls_along(v, 0.0)) {
            return true;
        }
        let mut stream = seed.child("flat-directions").stream();
        (0..PROBED).any(|_| {
            let mut v = vec![0.0; self.x.as_slice().len()];
            for direction in &flat {
                kernel::axpy(stream.normal(), direction, &mut v);
            }
            let size = kernel::dot(&v, &v).sqrt();
            v.iter_mut().for_each(|x| *x /= size.max(f64::MIN_POSITIVE));
            self.falls_along(&v, 0.0)
        })
    }

    /// The direction `v` of balanced adapters in the given point's coordinates, with the base's change.
    fn direction(&self, v: &[f64], balance: &[f64]) -> Direction {
        let (mut plus, mut minus) = (self.x.clone(), self.x.clone());
        kernel::axpy(1.0, v, plus.as_mut_slice());
        kernel::axpy(-1.0, v, minus.as_mut_slice());
        // R is quadratic and A linear in R: the odd part is the derivative exactly.
        let (plus, minus) = (self.objective.base(&plus), self.objective.base(&minus));
        let d = plus.nrows();
        let mut base = Mat::from_fn(d, d, |i, j| 0.5 * (plus[(i, j)] - minus[(i, j)]));
        let mut factors = self.x.zeros_like();
        factors.as_mut_slice().copy_from_slice(v);
        for (t, factor) in balance.iter().enumerate() {
            kernel::scale(factors.block_mut(t), 1.0 / factor);
            if self.objective.kind() == Kind::Asymmetric {
                kernel::scale(factors.block_mut(balance.len() + t), *factor);
            }
        }
        let size = factors.norm();
        factors.scale(1.0 / size);
        kernel::scale(base.as_mut(), 1.0 / size);
        Direction { base, factors }
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
