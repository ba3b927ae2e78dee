//! C2: what standard retraining (SR) leaves to adapt, in norm.

use super::claim::{Claim, ClaimError, Context, SIZES, Setting, Sizes, sizes};
use super::faults::Fault;
use super::problems::{UNIT, draw, gram, minus, orthogonal, standard_base, tails};
use super::statistics::{Mean, QUANTILE};
use super::verdict::{Check, Evidence, EvidenceKind};
use faer::Mat;
use peftml_data::synthetic::linear::Family;
use peftml_linalg::{DecompositionError, Seed, decompose, kernel};
use peftml_theory::linear::{Kind, predictions};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] =
    &[&Smallest, &Sandwich, &TailZero, &Limit, &LargeDimension, &Examples, &Asymmetric];

const GRID: &[Sizes] = &[sizes(10, 1, 3), sizes(12, 2, 4), sizes(9, 3, 2), sizes(20, 2, 5)];
const NORMAL: &str = "U*_t with independent N(0,1) entries, t = 1..T+1";

/// Moduli of the eigenvalues of a symmetric matrix, descending: its singular values.
fn moduli(m: &Mat<f64>) -> Result<Vec<f64>, DecompositionError> {
    let mut values: Vec<f64> =
        decompose::symmetric_eigenvalues(m.as_ref())?.iter().map(|x| x.abs()).collect();
    values.sort_by(|a, b| b.total_cmp(a));
    Ok(values)
}

/// `S = mean R*_t` and `D = R*_{T+1} - S` of fresh N(0,1) factors.
fn fresh(s: Sizes, kind: Kind, seed: &Seed) -> (Mat<f64>, Mat<f64>) {
    let mut stream = seed.stream();
    let mut one = || {
        let u = stream.normal_matrix(s.d, s.k, 1.0);
        match kind {
            Kind::Symmetric => gram(u.as_ref()),
            Kind::Asymmetric => {
                let v = stream.normal_matrix(s.d, s.k, 1.0);
                super::problems::times(u.as_ref(), v.transpose())
            }
        }
    };
    let mut mean = Mat::zeros(s.d, s.d);
    for _ in 0..s.tasks {
        kernel::add_scaled(mean.as_mut(), 1.0 / s.tasks as f64, one().as_ref());
    }
    let difference = minus(one().as_ref(), mean.as_ref());
    (mean, difference)
}

/// `tail_r` of fresh problems, one number a draw.
fn tail_draws(
    context: &Context,
    s: Sizes,
    kind: Kind,
    r: usize,
    count: usize,
) -> Result<Vec<f64>, ClaimError> {
    let seed = context.seed.child(s.label().as_str()).child(kind.name());
    (0..count)
        .map(|i| {
            let (_, difference) = fresh(s, kind, &seed.child(i));
            if r == 0 {
                return Ok(tails(context, &[kernel::norm(difference.as_ref())])[0]);
            }
            let values = match kind {
                Kind::Symmetric => moduli(&difference)?,
                Kind::Asymmetric => decompose::singular_values(difference.as_ref())?,
            };
            Ok(tails(context, &values)[r.min(s.d)])
        })
        .collect()
}

struct Smallest;

impl Claim for Smallest {
    fn id(&self) -> &'static str {
        "C2.smallest"
    }
    fn statement(&self) -> &'static str {
        "s_{k(T+1)}(D) >= s_min(W)^2 / T, W = [U*_1 .. U*_{T+1}]"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["k(T+1) <= d; without full genericity the bound is 0"]
    }
    fn method(&self) -> &'static str {
        "singular values of random problems, and of orthonormal W, where equality holds"
    }
    fn refutation(&self) -> &'static str {
        "a problem with a smaller singular value"
    }
    fn settings(&self) -> &'static [Setting] {
        SIZES
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut least, mut without) = (f64::INFINITY, f64::INFINITY);
        let mut worst = json!(null);
        for s in context.sizes(GRID)? {
            let width = s.k * (s.tasks + 1);
            if width > s.d {
                return Err(ClaimError::Sizes {
                    what: "C2.smallest",
                    dimension: s.d,
                    rank: s.k,
                    tasks: s.tasks,
                    needed: "k (T+1) <= d is needed",
                });
            }
            for index in 0..context.count(20, 500) {
                let seed = context.seed.child(s.label().as_str()).child(index);
                // Every other W is orthonormal: there the bound is attained.
                let w = if index % 2 == 0 {
                    orthogonal(s.d, &seed).as_ref().subcols(0, width).to_owned()
                } else {
                    seed.stream().normal_matrix(s.d, width, 1.0)
                };
                let (last, first) =
                    (w.as_ref().subcols(s.k * s.tasks, s.k), w.as_ref().subcols(0, s.k * s.tasks));
                let mut difference = gram(last);
                kernel::mul_add(
                    difference.as_mut(),
                    first,
                    first.transpose(),
                    -1.0 / s.tasks as f64,
                );
                let smallest = moduli(&difference)?[width - 1];
                let width_values = decompose::singular_values(w.as_ref())?;
                let square = width_values[width - 1].powi(2);
                let bound =
                    square / context.faults.choose(Fault::SmallestConstant, s.tasks as f64, 1.0);
                if smallest / bound < least {
                    least = smallest / bound;
                    worst = json!({"seed": context.root, "sizes": s.label(), "index": index});
                }
                if s.tasks > 1 {
                    without = without.min(smallest / square);
                }
            }
        }
        let tolerance = 1e-6;
        let from = "rounding of s_{k(T+1)}: d u ||D|| over the bound, condition of W below 1e4";
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_least("s_{k(T+1)}(D) over its bound", least, 1.0).within(tolerance, from),
            )
            .control(
                Check::at_least("s_{k(T+1)}(D) over s_min(W)^2 without the T", without, 1.0)
                    .within(tolerance, from),
            )
            .instance(worst))
    }
}

struct Sandwich;

impl Claim for Sandwich {
    fn id(&self) -> &'static str {
        "C2.sandwich"
    }
    fn statement(&self) -> &'static str {
        "1/2 sum_{i>r+k} l_i^2 <= tail_r <= 1/2 sum_{i>r-k} l_i^2 (right side for r >= k), l_i the eigenvalues of A_SR - A*"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["the test offset has rank at most k; no genericity"]
    }
    fn method(&self) -> &'static str {
        "all r on random problems of three families"
    }
    fn refutation(&self) -> &'static str {
        "a tail outside its bounds"
    }
    fn settings(&self) -> &'static [Setting] {
        SIZES
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut excess, mut tight) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        let mut worst = json!(null);
        for s in context.sizes(GRID)? {
            for index in 0..context.count(6, 150) {
                let p = draw(context, s, Kind::Symmetric, Family::ALL[index % 3], index);
                let base = standard_base(context, &p.tasks()?)?;
                let bias = minus(base.as_ref(), p.truth.base.as_ref());
                let inside = tails(context, &moduli(&bias)?);
                let test = p.truth.task(s.tasks);
                let found = tails(context, &moduli(&minus(test.as_ref(), base.as_ref()))?);
                let shift = context.faults.choose(Fault::SandwichShift, s.k, s.k - 1);
                let over = |shift: usize| outside(&found, &inside, shift) / found[0];
                if over(shift) > excess {
                    excess = over(shift);
                    worst = p.instance(context, index);
                }
                tight = tight.max(over(s.k - 1));
            }
        }
        let (tolerance, from) = (
            1e-11,
            "2 sqrt(d) 64 d u <= 4e-12 for d <= 40: singular values to 64 d u s_1, squared and summed",
        );
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("distance outside the bounds / tail_0", excess, 0.0)
                    .within(tolerance, from),
            )
            .control(
                Check::at_most("the same with k - 1 in place of k", tight, 0.0)
                    .within(tolerance, from),
            )
            .instance(worst))
    }
}

/// Largest distance of a tail outside its bounds.
fn outside(found: &[f64], inside: &[f64], shift: usize) -> f64 {
    let d = found.len() - 1;
    (0..=d)
        .map(|r| {
            let below = inside[(r + shift).min(d)] - found[r];
            let above = if r >= shift { found[r] - inside[r - shift] } else { f64::NEG_INFINITY };
            below.max(above)
        })
        .fold(f64::NEG_INFINITY, f64::max)
}

struct TailZero;

impl Claim for TailZero {
    fn id(&self) -> &'static str {
        "C2.tail-zero"
    }
    fn statement(&self) -> &'static str {
        "E tail_0 = 1/2 k d (d+1)(1 + 1/T)"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[NORMAL]
    }
    fn method(&self) -> &'static str {
        "mean over independent problems, studentised"
    }
    fn refutation(&self) -> &'static str {
        "a mean outside its interval"
    }
    fn settings(&self) -> &'static [Setting] {
        SIZES
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut evidence = Evidence::new(EvidenceKind::Statistical);
        for s in context.sizes(&[sizes(10, 1, 3), sizes(6, 2, 4)])? {
            let draws = tail_draws(context, s, Kind::Symmetric, 0, context.count(20_000, 400_000))?;
            let mean = Mean::of(&draws);
            let t = s.tasks as f64;
            let right = predictions::standard_tail_zero(s.d, s.k, s.tasks);
            let wrong = right * (1.0 - 1.0 / t) / (1.0 + 1.0 / t);
            let expected = context.faults.choose(Fault::TailZeroConstant, right, wrong);
            evidence = evidence
                .check(
                    Check::equal(format!("mean tail_0, {}", s.label()), mean.mean, expected)
                        .within(mean.radius(), mean.source()),
                )
                .control(
                    Check::equal("the same against 1 - 1/T", mean.mean, wrong)
                        .within(mean.radius(), mean.source()),
                )
                .instance(json!({"seed": context.root, "sizes": s.label(), "draws": draws.len()}));
        }
        Ok(evidence)
    }
}

struct Limit;

impl Claim for Limit {
    fn id(&self) -> &'static str {
        "C2.limit"
    }
    fn statement(&self) -> &'static str {
        "T to infinity: tail_k tends to that of R*_{T+1} - kI, at most 1/2 k^2 (d-k), with equality exactly when all eigenvalues of U_{T+1}^T U_{T+1} exceed 2k; it does not vanish"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[NORMAL, "an eigenvalue equal to 2k, or to 0, has probability 0"]
    }
    fn method(&self) -> &'static str {
        "draw by draw: tail of the limit; at finite T the root of 2 tail_k is 1-Lipschitz, so it is within ||mean R*_t - kI||_F of the limit's"
    }
    fn refutation(&self) -> &'static str {
        "a draw above the bound, or with equality on the wrong side of 2k, or further from the limit"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut wrong, mut least, mut smallest) = (0, f64::INFINITY, f64::INFINITY);
        let (mut farther, mut draws) = (f64::NEG_INFINITY, 0);
        for (d, k) in [(3, 1), (5, 2), (10, 2), (12, 3), (30, 1)] {
            for index in 0..context.count(40, 1000) {
                draws += 1;
                let seed = context.seed.child("limit").child(d).child(k).child(index);
                let u = seed.child("test").stream().normal_matrix(d, k, 1.0);
                let eigenvalues = decompose::singular_values(u.as_ref())?;
                let all_exceed = eigenvalues.iter().all(|s| s * s > 2.0 * k as f64);
                let mut limit = gram(u.as_ref());
                (0..d).for_each(|i| limit[(i, i)] -= k as f64);
                let tail = tails(context, &moduli(&limit)?)[k];
                let right = predictions::standard_tail_limit(d, k);
                let bound =
                    right * context.faults.choose(Fault::LimitConstant, 1.0, 1.0 / k as f64);
                let equal = (tail / bound - 1.0).abs() < 1e-11;
                wrong += usize::from(equal != all_exceed || tail > bound * (1.0 + 1e-11));
                least = least.min(tail / bound);
                // A finite number of tasks.
                let tasks = 50 + 10 * index;
                let (mean, _) = fresh(sizes(d, k, tasks), Kind::Symmetric, &seed.child("tasks"));
                let difference = minus(gram(u.as_ref()).as_ref(), mean.as_ref());
                let finite = tails(context, &moduli(&difference)?)[k];
                smallest = smallest.min(finite);
                let mut off = mean;
                (0..d).for_each(|i| off[(i, i)] -= k as f64);
                let distance = ((2.0 * finite).sqrt() - (2.0 * tail).sqrt()).abs();
                farther = farther.max(distance - kernel::norm(off.as_ref()));
            }
        }
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(Check::equal(
                format!("draws of {draws} above the bound, or equal to it (to 1e-11) on the wrong side of 2k"),
                wrong as f64,
                0.0,
            ))
            .check(
                Check::at_most("distance from the limit beyond ||mean R*_t - kI||_F", farther, 0.0)
                    .within(1e-10, "64 d u ||D||, with room for ||D|| up to 300"),
            )
            .check(Check::at_least("smallest tail_k at T >= 50", smallest, 1e-3))
            .control(
                Check::at_least("tail_k of the limit over the bound: equality for every draw", least, 1.0)
                    .within(1e-11, "64 d u over the tail's share, with room for a share of 1/30"),
            )
            .instance(json!({"seed": context.root, "draws": draws})))
    }
}

/// Quoted accuracy of the large-d formula: sizes, formula over mean, half width of the quotation.
const ACCURACY: [(Sizes, f64, f64); 6] = [
    (sizes(20, 1, 10), 1.0, 0.015),
    (sizes(20, 2, 10), 1.0, 0.015),
    (sizes(40, 2, 10), 1.0, 0.015),
    (sizes(20, 2, 5), 1.04, 0.005),
    (sizes(10, 1, 3), 1.13, 0.02),
    (sizes(20, 3, 4), 1.25, 0.005),
];

struct LargeDimension;

impl Claim for LargeDimension {
    fn id(&self) -> &'static str {
        "C2.large-dimension"
    }
    fn statement(&self) -> &'static str {
        "E tail_k ~ 1/2 [k d (d+1)(1+1/T) - k (d - kT/(T+1))^2 - k (k+1)(d - kT/(T+1)^2)]: within 1.5 % for d >= 20, T >= 10, k <= 2; 4 % high at (20,2,5), 13 % at (10,1,3), 25 % at (20,3,4) (d,k,T)"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[NORMAL]
    }
    fn method(&self) -> &'static str {
        "formula over mean of independent problems, studentised"
    }
    fn refutation(&self) -> &'static str {
        "a ratio outside the quoted figure, its rounding and the interval"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut evidence = Evidence::new(EvidenceKind::Statistical);
        let factor = context.faults.choose(Fault::LargeDimensionConstant, 1.0, 1.1);
        for (s, quoted, rounding) in ACCURACY {
            let count = context.count(if s.d > 20 { 1000 } else { 4000 }, 40_000);
            let mean = Mean::of(&tail_draws(context, s, Kind::Symmetric, s.k, count)?);
            let formula = predictions::standard_tail_large_dimension(s.d, s.k, s.tasks);
            let ratio = factor * formula / mean.mean;
            let tolerance = rounding + ratio * mean.radius() / mean.mean;
            evidence = evidence
                .check(
                    Check::equal(format!("formula over mean tail_k, {}", s.label()), ratio, quoted)
                        .within(tolerance, format!("quoted to {rounding}; {}", mean.source())),
                )
                .instance(json!({"seed": context.root, "sizes": s.label(), "draws": count}));
            if s == sizes(10, 1, 3) {
                evidence = evidence.control(
                    Check::equal("no error at d=10, k=1, T=3", ratio, 1.0)
                        .within(0.015 + tolerance - rounding, mean.source()),
                );
            }
        }
        Ok(evidence)
    }
}

struct Examples;

impl Claim for Examples {
    fn id(&self) -> &'static str {
        "C2.examples"
    }
    fn statement(&self) -> &'static str {
        "E tail_k is 18.2 (s.e. 0.3) at d=10, k=1, T=3 and 226.2 (0.8) at d=40, k=2, T=10"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[NORMAL]
    }
    fn method(&self) -> &'static str {
        "mean of independent problems against the quoted figure, errors of both"
    }
    fn refutation(&self) -> &'static str {
        "a difference beyond both errors"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut evidence = Evidence::new(EvidenceKind::Statistical);
        for (s, quoted, error) in [(sizes(10, 1, 3), 18.2, 0.3), (sizes(40, 2, 10), 226.2, 0.8)] {
            let count = context.count(if s.d > 20 { 1000 } else { 6000 }, 40_000);
            let mean = Mean::of(&tail_draws(context, s, Kind::Symmetric, s.k, count)?);
            let both = (mean.radius().powi(2) + (QUANTILE * error).powi(2)).sqrt();
            let from = format!("{}; quoted standard error {error}", mean.source());
            evidence = evidence
                .check(
                    Check::equal(format!("mean tail_k, {}", s.label()), mean.mean, quoted)
                        .within(both, from.clone()),
                )
                .control(
                    Check::equal(
                        "the same against E tail_0",
                        mean.mean,
                        predictions::standard_tail_zero(s.d, s.k, s.tasks),
                    )
                    .within(both, from),
                )
                .instance(json!({"seed": context.root, "sizes": s.label(), "draws": count}));
        }
        Ok(evidence)
    }
}

struct Asymmetric;

impl Claim for Asymmetric {
    fn id(&self) -> &'static str {
        "C2.asymmetric"
    }
    fn statement(&self) -> &'static str {
        "independent zero-mean asymmetric offsets: E tail_k <= E 1/2 ||A_SR - A*||_F^2 = k d^2 / (2T): it vanishes"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["U*_t, V*_t with independent N(0,1) entries, t = 1..T+1"]
    }
    fn method(&self) -> &'static str {
        "draw by draw tail_k <= 1/2 ||A_SR - A*||^2; mean of the right side, studentised"
    }
    fn refutation(&self) -> &'static str {
        "a draw with a larger tail, or another mean"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut evidence = Evidence::new(EvidenceKind::Statistical);
        let mut above = f64::NEG_INFINITY;
        for s in [sizes(10, 1, 10), sizes(8, 2, 40)] {
            let seed = context.seed.child(s.label().as_str());
            let (mut bounds, mut symmetric) = (Vec::new(), Vec::new());
            for index in 0..context.count(1500, 20_000) {
                let (mean, difference) = fresh(s, Kind::Asymmetric, &seed.child(index));
                let bound = 0.5 * kernel::norm_squared(mean.as_ref());
                let values = decompose::singular_values(difference.as_ref())?;
                above = above.max(tails(context, &values)[s.k] / bound - 1.0);
                bounds.push(bound);
                let (_, difference) =
                    fresh(s, Kind::Symmetric, &seed.child("symmetric").child(index));
                symmetric.push(tails(context, &moduli(&difference)?)[s.k]);
            }
            let (mean, other) = (Mean::of(&bounds), Mean::of(&symmetric));
            let right = predictions::standard_tail_asymmetric_bound(s.d, s.k, s.tasks);
            let expected = right * context.faults.choose(Fault::AsymmetricConstant, 1.0, 0.5);
            evidence = evidence
                .check(
                    Check::equal(
                        format!("mean 1/2 ||A_SR - A*||^2, {}", s.label()),
                        mean.mean,
                        expected,
                    )
                    .within(mean.radius(), mean.source()),
                )
                .control(
                    Check::at_most("mean tail_k of symmetric offsets", other.mean, expected)
                        .within(other.radius(), other.source()),
                )
                .instance(json!({"seed": context.root, "sizes": s.label(), "draws": bounds.len()}));
        }
        Ok(evidence.check(
            Check::at_most("tail_k over 1/2 ||A_SR - A*||^2, minus 1", above, 0.0)
                .within(1e3 * UNIT, "64 d u"),
        ))
    }
}
