//! C10: what fine-tuning from n samples reaches.

use super::claim::{Claim, ClaimError, Context, Sizes, sizes};
use super::faults::Fault;
use super::problems::{Drawn, draw, minus, spec, standard_base};
use super::statistics::Mean;
use super::verdict::{Check, Evidence, EvidenceKind};
use faer::{Mat, MatRef};
use peftml_data::synthetic::linear::{Family, sample};
use peftml_linalg::{decompose, kernel};
use peftml_solvers::iterate::Silent;
use peftml_solvers::low_rank::{Global, TwoTask, reduced_rank};
use peftml_solvers::{BaseSolver, Problem};
use peftml_theory::linear::{Kind, Task, predictions, standard};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] =
    &[&Risk, &LeastSquares, &Slope, &StandardFloor, &StandardFull, &Floor, &Challenger];

/// Small enough that the second order in noise over the residual's singular values, about
/// `noise_std^2 d / (n s_r^2)`, is below 1e-5 in all but rare draws; the risk scales with its square.
const NOISE: f64 = 0.001;

/// Which base is fine-tuned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// `A*`: the residual has rank k.
    Truth,
    /// The balanced T = 2 solution: rank 3k.
    TwoTask,
    /// SR: rank k(T+1).
    Standard,
}

impl Base {
    fn of(self, context: &Context, p: &Drawn) -> Result<(Mat<f64>, usize), ClaimError> {
        let s = p.sizes;
        match self {
            Base::Truth => Ok((p.truth.base.clone(), s.k)),
            Base::TwoTask => {
                let tasks = p.tasks()?.take(2)?;
                let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: s.k };
                Ok((TwoTask::default().solve(&problem, None, &mut Silent)?.base, 3 * s.k))
            }
            Base::Standard => Ok((standard_base(context, &p.tasks()?)?, s.k * (s.tasks + 1))),
        }
    }
}

/// Excess risk after rank-r regression from n samples.
fn risk(
    p: &Drawn,
    base: MatRef<'_, f64>,
    r: usize,
    n: usize,
    noise: f64,
) -> Result<f64, ClaimError> {
    let (x, y) = sample(&p.truth, p.sizes.tasks, n, noise, &p.seed.child("test"));
    let task = Task::from_samples(0, x.as_ref(), y.as_ref())?;
    let mut weights = base.to_owned();
    if r >= p.sizes.d {
        weights = task.least_squares().to_owned();
    } else {
        reduced_rank::fine_tune(base, &task, r)?.add_to(weights.as_mut(), 1.0);
    }
    Ok(p.truth.excess_risk(p.sizes.tasks, weights.as_ref()))
}

/// Mean over problems of the risk over its prediction.
fn ratios(
    context: &Context,
    base: Base,
    s: Sizes,
    n: usize,
    count: usize,
    predicted: impl Fn(usize) -> f64,
) -> Result<Mean, ClaimError> {
    let ratios = (0..count)
        .map(|index| {
            let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
            let (base, r) = base.of(context, &p)?;
            Ok(risk(&p, base.as_ref(), r, n, NOISE)? / predicted(r))
        })
        .collect::<Result<Vec<f64>, ClaimError>>()?;
    Ok(Mean::of(&ratios))
}

struct Risk;

impl Claim for Risk {
    fn id(&self) -> &'static str {
        "C10.risk"
    }
    fn statement(&self) -> &'static str {
        "a base whose residual has exact rank r: E risk = (noise_std^2/2) [r d/(n-d-1) + (d-r) r/(n-r-1)]; r = k for A*, 3k for T = 2, k(T+1) for SR"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["inputs N(0, I)", "to first order in noise_std over the residual's singular values"]
    }
    fn method(&self) -> &'static str {
        "reduced-rank regression on fresh problems, noise_std 0.001: mean risk over the formula, studentised"
    }
    fn refutation(&self) -> &'static str {
        "a mean ratio outside its interval around 1"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut evidence = Evidence::new(EvidenceKind::Statistical);
        let noise = NOISE;
        for (base, s, n) in [
            (Base::Truth, sizes(10, 1, 3), 60),
            (Base::Truth, sizes(10, 3, 3), 100),
            (Base::TwoTask, sizes(10, 1, 2), 60),
            (Base::Standard, sizes(10, 1, 3), 60),
        ] {
            let (d, first) = (s.d as f64, context.faults.has(Fault::RiskConstant));
            let half = |r: usize| 0.5 * noise * noise * r as f64 * d / (n as f64 - d - 1.0);
            let formula = |r: usize| match predictions::fine_tuning_risk(s.d, r, n, noise) {
                Some(full) if !first => full,
                _ => half(r),
            };
            let count = context.count(1500, 20_000);
            let mean = ratios(context, base, s, n, count, formula)?;
            evidence = evidence
                .check(
                    Check::equal(format!("mean risk over formula, {base:?} base, {}", s.label()), mean.mean, 1.0)
                        .within(mean.radius() + 1e-3, format!("{}; second order in noise 1e-3", mean.source())),
                )
                .instance(json!({"seed": context.root, "sizes": s.label(), "test_samples": n, "noise_std": noise}));
            if base == Base::Truth {
                let other = ratios(context, base, s, n, count, half)?;
                evidence = evidence.control(
                    Check::equal("the same without (d-r) r/(n-r-1)", other.mean, 1.0)
                        .within(other.radius() + 1e-3, other.source()),
                );
            }
        }
        Ok(evidence)
    }
}

struct LeastSquares;

impl Claim for LeastSquares {
    fn id(&self) -> &'static str {
        "C10.least-squares"
    }
    fn statement(&self) -> &'static str {
        "full least squares: E risk = noise_std^2 d^2 / (2 (n-d-1))"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["inputs N(0, I), n > d + 1"]
    }
    fn method(&self) -> &'static str {
        "mean risk over the formula, studentised"
    }
    fn refutation(&self) -> &'static str {
        "a mean ratio outside its interval around 1"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (s, n) = (sizes(8, 1, 3), 40);
        let right = predictions::least_squares_risk(s.d, n, NOISE).unwrap_or(f64::NAN);
        let wrong = right / s.d as f64;
        let mut draws = Vec::new();
        for index in 0..context.count(2000, 40_000) {
            let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
            draws.push(risk(&p, p.truth.base.as_ref(), s.d, n, NOISE)? / right);
        }
        let mean = Mean::of(&draws);
        let expected = context.faults.choose(Fault::LeastSquaresConstant, right, wrong) / right;
        Ok(Evidence::new(EvidenceKind::Statistical)
            .check(
                Check::equal("mean risk over the formula", mean.mean, expected)
                    .within(mean.radius(), mean.source()),
            )
            .control(
                Check::equal("the same with d for d^2", mean.mean, wrong / right)
                    .within(mean.radius(), mean.source()),
            )
            .instance(json!({"seed": context.root, "sizes": s.label(), "test_samples": n})))
    }
}

struct Slope;

impl Claim for Slope {
    fn id(&self) -> &'static str {
        "C10.slope"
    }
    fn statement(&self) -> &'static str {
        "with the exact A* the log-log slope of the risk in n is -1"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["inputs N(0, I), n >> d"]
    }
    fn method(&self) -> &'static str {
        "mean risks at n = 400 and n = 6400"
    }
    fn refutation(&self) -> &'static str {
        "a slope outside its interval around -1"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let s = sizes(10, 1, 3);
        let count = context.count(200, 4000);
        let mut means = Vec::new();
        for n in [400, 6400] {
            means.push(ratios(context, Base::Truth, s, n, count, |_| 1.0)?);
        }
        let slope = (means[1].mean / means[0].mean).ln() / 16.0_f64.ln();
        let chance: f64 = means.iter().map(|m| m.radius() / m.mean).sum::<f64>() / 16.0_f64.ln();
        // n - d - 1 for n at the lower end.
        let shift = (1.0 / (1.0 - 11.0 / 400.0_f64)).ln() / 16.0_f64.ln();
        let from = format!("{}; n - d - 1 for n", means[0].source());
        Ok(Evidence::new(EvidenceKind::Statistical)
            .check(Check::equal("log-log slope", slope, -1.0).within(chance + shift, from.clone()))
            .control(Check::equal("the same against 0", slope, 0.0).within(chance + shift, from))
            .instance(json!({"seed": context.root, "sizes": s.label(), "problems": count})))
    }
}

struct StandardFloor;

impl Claim for StandardFloor {
    fn id(&self) -> &'static str {
        "C10.standard-floor"
    }
    fn statement(&self) -> &'static str {
        "SR base, rank k: the risk has the floor tail_k, slope 0 in n"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["full genericity"]
    }
    fn method(&self) -> &'static str {
        "risk over tail_k at n = 1000 and n = 8000, never below 1; log-log slope problem by problem"
    }
    fn refutation(&self) -> &'static str {
        "a risk below tail_k, or a slope"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let s = sizes(10, 1, 3);
        let (mut least, mut slope, mut excess, mut truth) =
            (f64::INFINITY, 0.0_f64, 0.0_f64, 0.0_f64);
        let mut worst = json!(null);
        for index in 0..context.count(20, 300) {
            let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
            let base = standard_base(context, &p.tasks()?)?;
            let values = decompose::singular_values(
                minus(p.truth.task(s.tasks).as_ref(), base.as_ref()).as_ref(),
            )?;
            let tail = super::problems::tails(context, &values)[s.k];
            let few = risk(&p, base.as_ref(), s.k, 1000, 0.1)?;
            let many = risk(&p, base.as_ref(), s.k, 8000, 0.1)?;
            least = least.min(few.min(many) / tail);
            excess = excess.max(many / tail - 1.0);
            let found = ((many / few).ln() / 8.0_f64.ln()).abs();
            if found > slope {
                (slope, worst) = (found, p.instance(context, index));
            }
            let exact = |n: usize| risk(&p, p.truth.base.as_ref(), s.k, n, 0.1);
            truth = truth.max(((exact(8000)? / exact(1000)?).ln() / 8.0_f64.ln()).abs());
        }
        // The inputs' second moment is off the identity by about sqrt(d/n): the truncation weighs
        // singular triples by it, an error of that order squared over the gap, which can be small.
        let from = "second moment of 1000 inputs: sqrt(d/n) = 0.1, over the singular gap";
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_least("smallest risk over tail_k", least, 1.0)
                    .within(1e-10, "64 d u of tail_0, with room for tail_k of tail_0 / 1000"),
            )
            .check(Check::at_most("largest |log-log slope| in n", slope, 0.0).within(0.1, from))
            .check(
                Check::at_most("risk over tail_k at n = 8000, minus 1", excess, 0.0)
                    .within(0.1, from),
            )
            .control(
                Check::at_most("the same slope with the base A*", truth, 0.0).within(0.1, from),
            )
            .instance(worst))
    }
}

struct StandardFull;

impl Claim for StandardFull {
    fn id(&self) -> &'static str {
        "C10.standard-full"
    }
    fn statement(&self) -> &'static str {
        "SR base, rank k(T+1): no floor, and no gain over full least squares once k(T+1) ~ d"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["inputs N(0, I)"]
    }
    fn method(&self) -> &'static str {
        "k(T+1) = d: the adapter is full least squares draw by draw; formula at r over formula at d"
    }
    fn refutation(&self) -> &'static str {
        "another risk, or a gain"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut difference, mut smaller) = (0.0_f64, 0.0_f64);
        let mut floor = 0.0_f64;
        for index in 0..context.count(20, 300) {
            let s = sizes(8, 2, 3);
            let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
            let base = standard_base(context, &p.tasks()?)?;
            let (x, y) = sample(&p.truth, s.tasks, 60, 0.1, &p.seed.child("test"));
            let task = Task::from_samples(0, x.as_ref(), y.as_ref())?;
            let full = p.truth.excess_risk(s.tasks, task.least_squares());
            let at = |r: usize| -> Result<f64, ClaimError> {
                let mut weights = base.clone();
                reduced_rank::fine_tune(base.as_ref(), &task, r)?.add_to(weights.as_mut(), 1.0);
                Ok(p.truth.excess_risk(s.tasks, weights.as_ref()))
            };
            difference = difference.max((at(s.d)? / full - 1.0).abs());
            smaller = smaller.max((at(s.k)? / full - 1.0).abs());
            let values = decompose::singular_values(
                minus(p.truth.task(s.tasks).as_ref(), base.as_ref()).as_ref(),
            )?;
            floor = floor.max(super::problems::tails(context, &values)[s.k * (s.tasks + 1)]);
        }
        // One rank below d: r (2d - r) = d^2 - 1.
        let formula =
            |r: usize| predictions::fine_tuning_risk(20, r, 4000, 0.1).unwrap_or(f64::NAN);
        let gain = 1.0 - formula(19) / formula(20);
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most(
                    "|risk at r = k(T+1) = d over that of least squares - 1|",
                    difference,
                    0.0,
                )
                .within(1e-9, "64 d u, condition of 60 inputs"),
            )
            .check(Check::equal("tail at r = k(T+1)", floor, 0.0))
            .check(
                Check::at_most("gain at r = d - 1, d = 20", gain, 1.0 / 400.0)
                    .within(1e-3, "1/d^2 and (d+1)/n of it"),
            )
            .control(
                Check::at_most("|risk at r = k over that of least squares - 1|", smaller, 0.0)
                    .within(1e-9, "as above"),
            )
            .instance(json!({"seed": context.root})))
    }
}

struct Floor;

impl Claim for Floor {
    fn id(&self) -> &'static str {
        "C10.floor"
    }
    fn statement(&self) -> &'static str {
        "a base learned from N samples a task adds the floor 1/2 E||N_L (A - A*) N_R||^2, about 1/2 (1 - k/d)^2 E||A - A*||^2; 3.4e-5 at d=10, k=1, T=3, N=5000, noise_std 0.1, where the curve bends at n of about 3000"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T >= 3, the global solver's base", "rank-k fine-tuning on unlimited samples"]
    }
    fn method(&self) -> &'static str {
        "risk of the best rank-k adapter on the exact test task: mean over problems, against the quoted floor and against the formula, studentised"
    }
    fn refutation(&self) -> &'static str {
        "a mean outside its interval"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let s = sizes(10, 1, 3);
        let (mut floors, mut ratios, mut full, mut projected) =
            (Vec::new(), Vec::new(), Vec::new(), 0.0_f64);
        for index in 0..context.count(150, 2000) {
            let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
            let tasks =
                spec(s, Kind::Symmetric, Family::Iid).retraining_tasks(&p.truth, &p.seed)?;
            let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: s.k };
            let base = Global::default().solve(&problem, None, &mut Silent)?.base;
            let test = p.truth.task(s.tasks);
            let values = decompose::singular_values(minus(test.as_ref(), base.as_ref()).as_ref())?;
            let floor = standard::tails(&values)[s.k];
            let error = minus(base.as_ref(), p.truth.base.as_ref());
            let q = decompose::orthonormal_basis(p.truth.left(s.tasks));
            projected = projected.max((off_range(&error, &q) / floor - 1.0).abs());
            let squared = kernel::norm_squared(error.as_ref());
            let predicted = predictions::fine_tuning_floor(s.d, s.k, squared);
            let all = 0.5 * squared;
            ratios.push(floor / context.faults.choose(Fault::FloorConstant, predicted, all));
            full.push(floor / all);
            floors.push(floor);
        }
        let (mean, ratio, whole) = (Mean::of(&floors), Mean::of(&ratios), Mean::of(&full));
        let bend = 0.5 * 0.01 * (s.k * (2 * s.d - s.k)) as f64 / 3.4e-5;
        Ok(Evidence::new(EvidenceKind::Statistical)
            .check(
                Check::equal("mean floor", mean.mean, 3.4e-5).within(
                    mean.radius() + 0.05e-5,
                    format!("{}; two digits quoted", mean.source()),
                ),
            )
            .check(
                Check::equal("mean of floor over 1/2 (1 - k/d)^2 ||A - A*||^2", ratio.mean, 1.0)
                    .within(
                        ratio.radius() + 0.02,
                        format!("{}; `about`: 2 % for the error's direction", ratio.source()),
                    ),
            )
            .check(
                Check::at_most("|floor over 1/2 ||N_L (A - A*) N_R||^2 - 1|", projected, 0.0)
                    .within(0.02, "next order in the error over the offset's eigenvalue"),
            )
            .check(
                Check::equal("n where formula and floor meet", bend, 3000.0)
                    .within(500.0, "`about 3000`, one digit"),
            )
            .control(
                Check::equal("mean of floor over 1/2 ||A - A*||^2", whole.mean, 1.0)
                    .within(whole.radius() + 0.02, whole.source()),
            )
            .instance(json!({"seed": context.root, "sizes": s.label()})))
    }
}

/// `1/2 ||N m N||^2` off the range of `q`.
fn off_range(m: &Mat<f64>, q: &Mat<f64>) -> f64 {
    let off = |m: &Mat<f64>| {
        let inner = super::problems::times(q.transpose(), m.as_ref());
        let mut rest = m.clone();
        kernel::mul_add(rest.as_mut(), q.as_ref(), inner.as_ref(), -1.0);
        rest
    };
    let left = off(m).transpose().to_owned();
    0.5 * kernel::norm_squared(off(&left).as_ref())
}

struct Challenger;

impl Claim for Challenger {
    fn id(&self) -> &'static str {
        "C10.optimal"
    }
    fn statement(&self) -> &'static str {
        "reduced-rank regression is never worse than another rank-r adapter on its samples, n < d included"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[]
    }
    fn method(&self) -> &'static str {
        "sample loss against alternating least squares from random starts, and against the truncated update without the inputs' weight"
    }
    fn refutation(&self) -> &'static str {
        "a rank-r adapter with a smaller sample loss"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut above, mut truncated) = (f64::NEG_INFINITY, f64::NEG_INFINITY);
        let mut worst = json!(null);
        for (s, n) in [(sizes(8, 2, 3), 40), (sizes(8, 2, 3), 12), (sizes(9, 2, 3), 6)] {
            for index in 0..context.count(8, 100) {
                let p = draw(context, s, Kind::Asymmetric, Family::Iid, index);
                let (x, y) = sample(&p.truth, s.tasks, n, 1.0, &p.seed.child("test"));
                let task = Task::from_samples(0, x.as_ref(), y.as_ref())?;
                let base = standard_base(context, &p.tasks()?)?;
                let loss = |update: &Mat<f64>| {
                    let mut rest = y.clone();
                    kernel::mul_add(rest.as_mut(), base.as_ref(), x.as_ref(), -1.0);
                    kernel::mul_add(rest.as_mut(), update.as_ref(), x.as_ref(), -1.0);
                    0.5 * kernel::norm_squared(rest.as_ref()) / n as f64
                };
                let size = loss(&Mat::zeros(s.d, s.d));
                let best = loss(&reduced_rank::fine_tune(base.as_ref(), &task, s.k)?.to_dense());
                let other = loss(&alternating(&x, &y, &base, s.k, &p)?);
                if (best - other) / size > above {
                    (above, worst) = ((best - other) / size, p.instance(context, index));
                }
                if n > s.d {
                    let full = reduced_rank::full_update(base.as_ref(), &task)?;
                    let plain =
                        decompose::thin_svd(full.as_ref())?.balanced_factors(s.k).to_dense();
                    truncated = truncated.max((loss(&plain) - other) / size);
                }
            }
        }
        let (tolerance, from) = (1e-10, "64 d u of the loss, condition of the inputs");
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("loss above the challenger's, relative", above, 0.0)
                    .within(tolerance, from),
            )
            .control(
                Check::at_most(
                    "the same for the plain truncation of least squares",
                    truncated,
                    0.0,
                )
                .within(tolerance, from),
            )
            .instance(worst))
    }
}

/// Fifty rounds of alternating least squares for `D = L R^T` on samples.
fn alternating(
    x: &Mat<f64>,
    y: &Mat<f64>,
    base: &Mat<f64>,
    r: usize,
    p: &Drawn,
) -> Result<Mat<f64>, ClaimError> {
    let d = x.nrows();
    let mut target = y.clone();
    kernel::mul_add(target.as_mut(), base.as_ref(), x.as_ref(), -1.0);
    let inputs = decompose::thin_svd(x.as_ref())?;
    let width = inputs.values.iter().filter(|v| **v > 1e-12 * inputs.values[0]).count();
    // In the inputs' singular basis the problem is || Z - L W ||, W any r x width matrix.
    let z = super::problems::times(target.as_ref(), inputs.right.as_ref().subcols(0, width));
    let mut w = p.seed.child("challenger").stream().normal_matrix(width, r, 1.0);
    let mut left = Mat::zeros(d, r);
    for _ in 0..50 {
        w = decompose::orthonormal_basis(w.as_ref());
        kernel::mul(left.as_mut(), z.as_ref(), w.as_ref(), 1.0);
        let basis = decompose::orthonormal_basis(left.as_ref());
        w = super::problems::times(z.transpose(), basis.as_ref());
    }
    w = decompose::orthonormal_basis(w.as_ref());
    kernel::mul(left.as_mut(), z.as_ref(), w.as_ref(), 1.0);
    // D = L W^T s^-1 U^T.
    let scaled = Mat::from_fn(d, width, |i, j| inputs.left[(i, j)] / inputs.values[j]);
    let right = super::problems::times(scaled.as_ref(), w.as_ref());
    Ok(super::problems::times(left.as_ref(), right.transpose()))
}
