//! C1: what standard retraining (SR) leaves to adapt, in rank.

use super::claim::{Claim, ClaimError, Context, SIZES, Setting, Sizes, sizes};
use super::problems::{
    Drawn, UNIT, beside, draw, minus, rational_rows, standard_base, tails, whole_matrix,
};
use super::verdict::{Check, Evidence, EvidenceKind};
use faer::Mat;
use peftml_data::synthetic::linear::{Family, sample};
use peftml_linalg::{compare, decompose, kernel};
use peftml_solvers::low_rank::reduced_rank;
use peftml_theory::exact::RationalMatrix;
use peftml_theory::exact::standard::standard_ranks;
use peftml_theory::linear::{Kind, Task, Tasks, standard};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[&Base, &Rank, &Inertia, &Tail];

const GRID: &[Sizes] = &[sizes(6, 1, 3), sizes(10, 2, 4), sizes(12, 3, 3), sizes(9, 1, 8)];
const FULL: &str = "full genericity: [U*_1 .. U*_{T+1}] has full column rank, so k(T+1) <= d";

/// Largest entry of the integer factors: small, so that certificates stay readable.
const REACH: i64 = 6;

fn full_genericity(context: &Context) -> Result<Vec<Sizes>, ClaimError> {
    let all = context.sizes(GRID)?;
    match all.iter().find(|s| s.k * (s.tasks + 1) > s.d) {
        Some(s) => Err(ClaimError::Sizes {
            what: "C1",
            dimension: s.d,
            rank: s.k,
            tasks: s.tasks,
            needed: "k (T+1) <= d is needed",
        }),
        None => Ok(all),
    }
}

/// Integer factors of T + 1 offsets with `[U*_1 .. U*_{T+1}]` of full column rank.
fn integer_offsets(
    context: &Context,
    s: Sizes,
    index: usize,
) -> Result<Vec<RationalMatrix>, ClaimError> {
    let label = format!("{} integer {index}", s.label());
    let mut stream = context.seed.child(label.as_str()).stream();
    for _ in 0..20 {
        let offsets: Vec<_> =
            (0..=s.tasks).map(|_| whole_matrix(s.d, s.k, REACH, &mut stream)).collect();
        if standard_ranks(&offsets)?.fully_generic {
            return Ok(offsets);
        }
    }
    Err(ClaimError::Draw { label })
}

struct Base;

impl Claim for Base {
    fn id(&self) -> &'static str {
        "C1.base"
    }
    fn statement(&self) -> &'static str {
        "A_SR = mean A*_t; from samples A_SR = [sum_t Ahat_t S_t][sum_t S_t]^-1 minimises the pooled loss"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["the inputs of all tasks together span the space"]
    }
    fn method(&self) -> &'static str {
        "mean of exact tasks; gradient of the pooled loss from the raw samples at A_SR"
    }
    fn refutation(&self) -> &'static str {
        "a base with a gradient above rounding"
    }
    fn settings(&self) -> &'static [Setting] {
        SIZES
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut exact, mut sampled, mut unweighted) = (0.0_f64, 0.0_f64, f64::INFINITY);
        let mut worst = json!(null);
        for s in context.sizes(GRID)? {
            let p = draw(context, s, Kind::Symmetric, Family::Iid, 0);
            let mut mean = p.truth.base.clone();
            for t in 0..s.tasks {
                p.truth.offsets[t].add_to(mean.as_mut(), 1.0 / s.tasks as f64);
            }
            let base = standard_base(context, &p.tasks()?)?;
            exact = exact.max(compare::relative_error(base.as_ref(), mean.as_ref()));
            let samples: Vec<_> =
                (0..s.tasks).map(|t| sample(&p.truth, t, 2 * s.d + 5 * t, 0.1, &p.seed)).collect();
            let statistics = samples
                .iter()
                .enumerate()
                .map(|(t, (x, y))| Task::from_samples(t, x.as_ref(), y.as_ref()))
                .collect::<Result<Vec<_>, _>>()?;
            let tasks = Tasks::new(statistics, UNIT)?;
            let found = pooled_gradient(&samples, &standard_base(context, &tasks)?);
            if found >= sampled {
                (sampled, worst) = (found, p.instance(context, 0));
            }
            let mut plain = Mat::zeros(s.d, s.d);
            for task in tasks.iter() {
                kernel::add_scaled(plain.as_mut(), 1.0 / s.tasks as f64, task.least_squares());
            }
            // For T = 1 the mean of least squares is the answer, and drops no weight.
            if s.tasks > 1 {
                unweighted = unweighted.min(pooled_gradient(&samples, &plain));
            }
        }
        // Pooled inputs of N >= 2d samples a task have condition below 1e4 in all but rare draws; the
        // normal equations' relative residual is a few d u.
        let tolerance = 1e4 * 64.0 * UNIT;
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("relative gradient of the pooled loss at A_SR", sampled, 0.0)
                    .within(tolerance, "condition of the pooled second moment (1e4) times 64 u"),
            )
            .check(
                Check::at_most("relative distance of A_SR from mean A*_t", exact, 0.0)
                    .within(64.0 * UNIT, "64 roundings"),
            )
            .control(
                Check::at_most("gradient at the unweighted mean of least squares", unweighted, 0.0)
                    .within(tolerance, "as for A_SR"),
            )
            .instance(worst))
    }
}

/// `||sum_t (W X_t - Y_t) X_t^T / N_t||` relative to `||sum_t Y_t X_t^T / N_t||`.
fn pooled_gradient(samples: &[(Mat<f64>, Mat<f64>)], w: &Mat<f64>) -> f64 {
    let d = w.nrows();
    let (mut gradient, mut size) = (Mat::zeros(d, d), Mat::zeros(d, d));
    for (x, y) in samples {
        let mut rest = y.clone();
        kernel::scale(rest.as_mut(), -1.0);
        kernel::mul_add(rest.as_mut(), w.as_ref(), x.as_ref(), 1.0);
        let weight = 1.0 / x.ncols() as f64;
        kernel::mul_add(gradient.as_mut(), rest.as_ref(), x.transpose(), weight);
        kernel::mul_add(size.as_mut(), y.as_ref(), x.transpose(), weight);
    }
    kernel::norm(gradient.as_ref()) / kernel::norm(size.as_ref())
}

struct Rank;

impl Claim for Rank {
    fn id(&self) -> &'static str {
        "C1.rank"
    }
    fn statement(&self) -> &'static str {
        "rank(A_SR - A*) = kT"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[FULL]
    }
    fn method(&self) -> &'static str {
        "rank of mean_t R*_t for integer U*, by fraction-free elimination"
    }
    fn refutation(&self) -> &'static str {
        "generic integer offsets with another rank"
    }
    fn settings(&self) -> &'static [Setting] {
        SIZES
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut wrong, mut dropped, mut problems) = (0, 0, 0);
        let mut evidence = Evidence::new(EvidenceKind::Exact);
        for s in full_genericity(context)? {
            for index in 0..context.count(5, 50) {
                let mut offsets = integer_offsets(context, s, index)?;
                problems += 1;
                wrong += usize::from(standard_ranks(&offsets)?.base_error != s.k * s.tasks);
                if index == 0 {
                    let rows: Vec<_> = offsets.iter().map(rational_rows).collect();
                    evidence = evidence.instance(json!({"sizes": s.label(), "offsets": rows}));
                }
                // Assumption dropped: the last retraining task repeats the first.
                offsets[s.tasks - 1] = offsets[0].clone();
                dropped += usize::from(standard_ranks(&offsets)?.base_error != s.k * s.tasks);
            }
        }
        Ok(evidence
            .check(Check::equal(
                format!("problems of {problems} with another rank than kT"),
                wrong as f64,
                0.0,
            ))
            .control(Check::equal(
                "the same with the last task equal to the first",
                dropped as f64,
                0.0,
            )))
    }
}

struct Inertia;

impl Claim for Inertia {
    fn id(&self) -> &'static str {
        "C1.inertia"
    }
    fn statement(&self) -> &'static str {
        "D = A*_{T+1} - A_SR = W diag(-I/T, .., -I/T, I) W^T has rank k(T+1) and inertia (k, kT)"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[FULL]
    }
    fn method(&self) -> &'static str {
        "inertia of D for integer U*, by congruences over the rationals"
    }
    fn refutation(&self) -> &'static str {
        "generic integer offsets with another inertia"
    }
    fn settings(&self) -> &'static [Setting] {
        SIZES
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut wrong, mut dropped, mut problems) = (0, 0, 0);
        for s in full_genericity(context)? {
            for index in 0..context.count(3, 30) {
                let mut offsets = integer_offsets(context, s, index)?;
                let expected = (s.k, s.k * s.tasks, s.k * (s.tasks + 1));
                problems += 1;
                wrong += usize::from(signs(&offsets)? != expected);
                // Assumption dropped: the test task repeats the first one.
                offsets[s.tasks] = offsets[0].clone();
                dropped += usize::from(signs(&offsets)? != expected);
            }
        }
        Ok(Evidence::new(EvidenceKind::Exact)
            .check(Check::equal(
                format!("problems of {problems} with another inertia than (k, kT)"),
                wrong as f64,
                0.0,
            ))
            .control(Check::equal(
                "the same with the test task equal to the first",
                dropped as f64,
                0.0,
            ))
            .instance(json!({"seed": context.root, "problems": problems})))
    }
}

/// Positive and negative eigenvalues of D, and its rank.
fn signs(offsets: &[RationalMatrix]) -> Result<(usize, usize, usize), ClaimError> {
    let found = standard_ranks(offsets)?;
    Ok((found.inertia.positive, found.inertia.negative, found.residual))
}

struct Tail;

impl Claim for Tail {
    fn id(&self) -> &'static str {
        "C1.tail"
    }
    fn statement(&self) -> &'static str {
        "the best rank-r fine-tuning error is tail_r = 1/2 sum_{i>r} s_i(D)^2, zero only from r = k(T+1)"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[FULL, "population loss"]
    }
    fn method(&self) -> &'static str {
        "reduced-rank regression attains tail_r; alternating least squares from random starts stays above; tail at k(T+1) - 1 and at k(T+1)"
    }
    fn refutation(&self) -> &'static str {
        "a rank-r adapter with an excess risk below tail_r, or tail_r = 0 before r = k(T+1)"
    }
    fn settings(&self) -> &'static [Setting] {
        SIZES
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut attained, mut below, mut last, mut at_end) =
            (0.0_f64, 0.0_f64, f64::INFINITY, 0.0_f64);
        let mut shifted = 0.0_f64;
        let mut worst = json!(null);
        for s in full_genericity(context)? {
            for index in 0..context.count(2, 20) {
                let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
                let base = standard_base(context, &p.tasks()?)?;
                let test = p.truth.task(s.tasks);
                let difference = minus(test.as_ref(), base.as_ref());
                let values = decompose::singular_values(difference.as_ref())?;
                let tails = tails(context, &values);
                let size = 0.5 * kernel::norm_squared(difference.as_ref());
                let task = Task::exact(test.clone());
                for r in 1..s.d {
                    let adapter = reduced_rank::fine_tune(base.as_ref(), &task, r)?.to_dense();
                    let error =
                        0.5 * compare::distance(adapter.as_ref(), difference.as_ref()).powi(2);
                    let gap = (error - tails[r]).abs() / size;
                    if gap > attained {
                        (attained, worst) = (gap, p.instance(context, index));
                    }
                    shifted = shifted.max((error - tails[r - 1]).abs() / size);
                    let other = alternating(&difference, r, &p, r);
                    below = below.max((tails[r] - other) / size);
                }
                let full = s.k * (s.tasks + 1);
                last = last.min(tails[full - 1] / size / smallest_share(&p));
                at_end = at_end.max(tails[full] / size);
            }
        }
        let rounding = 64.0 * 12.0 * UNIT;
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most(
                    "|error of reduced-rank regression - tail_r| / tail_0",
                    attained,
                    0.0,
                )
                .within(rounding, "64 d u for singular values and products"),
            )
            .check(
                Check::at_most(
                    "tail_r / tail_0 above the best of other rank-r adapters",
                    below,
                    0.0,
                )
                .within(rounding, "64 d u"),
            )
            // s_{k(T+1)} >= s_min(W)^2 / T (C2), so this ratio is at least 1.
            .check(
                Check::at_least("tail at r = k(T+1) - 1 over 1/2 (s_min(W)^2 / T)^2", last, 1.0)
                    .within(1e-6, "condition of W times u"),
            )
            .check(
                Check::at_most("tail at r = k(T+1) over tail_0", at_end, 0.0)
                    .within(rounding * rounding, "squares of (64 d u)"),
            )
            .control(
                Check::at_most("|error - tail_{r-1}| / tail_0", shifted, 0.0)
                    .within(rounding, "64 d u"),
            )
            .instance(worst))
    }
}

/// `1/2 (s_min(W)^2 / T)^2` over tail_0.
fn smallest_share(p: &Drawn) -> f64 {
    let columns: Vec<_> = (0..=p.sizes.tasks).map(|t| p.truth.left(t)).collect();
    let values = decompose::singular_values(beside(&columns).as_ref()).unwrap_or_default();
    let least = values.last().copied().unwrap_or(f64::NAN);
    let mut difference = p.truth.offsets[p.sizes.tasks].to_dense();
    for t in 0..p.sizes.tasks {
        p.truth.offsets[t].add_to(difference.as_mut(), -1.0 / p.sizes.tasks as f64);
    }
    let size = 0.5 * kernel::norm_squared(difference.as_ref());
    0.5 * (least * least / p.sizes.tasks as f64).powi(2) / size
}

/// The error of a rank-r adapter by ten rounds of alternating least squares from a random start: any
/// rank-r matrix serves to challenge the bound.
fn alternating(difference: &Mat<f64>, r: usize, p: &Drawn, start: usize) -> f64 {
    let d = difference.nrows();
    let seed = p.seed.child("challenger").child(start);
    let mut right = decompose::orthonormal_basis(seed.stream().normal_matrix(d, r, 1.0).as_ref());
    let mut left = Mat::zeros(d, r);
    for _ in 0..10 {
        kernel::mul(left.as_mut(), difference.as_ref(), right.as_ref(), 1.0);
        let basis = decompose::orthonormal_basis(left.as_ref());
        kernel::mul(right.as_mut(), difference.transpose(), basis.as_ref(), 1.0);
        right = decompose::orthonormal_basis(right.as_ref());
    }
    kernel::mul(left.as_mut(), difference.as_ref(), right.as_ref(), 1.0);
    let mut rest = difference.clone();
    kernel::mul_add(rest.as_mut(), left.as_ref(), right.transpose(), -1.0);
    standard::tails(&[kernel::norm(rest.as_ref())])[0]
}
