//! Derivatives of the LoRA-ML objectives, and their gauge.

use super::claim::{Claim, ClaimError, Context, Sizes, sizes};
use super::faults::Fault;
use super::problems::{Seen, UNIT, draw, random_point, spec};
use super::verdict::{Check, Evidence, EvidenceKind};
use peftml_data::synthetic::linear::{Family, exact_tasks};
use peftml_linalg::{Blocks, decompose};
use peftml_theory::Objective;
use peftml_theory::derivative_check::{self, DerivativeCheck, Order};
use peftml_theory::linear::{Kind, Tasks};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[
    &Derivatives { id: "D.population-symmetric", kind: Kind::Symmetric, samples: false },
    &Derivatives { id: "D.population-asymmetric", kind: Kind::Asymmetric, samples: false },
    &Derivatives { id: "D.samples-symmetric", kind: Kind::Symmetric, samples: true },
    &Derivatives { id: "D.samples-asymmetric", kind: Kind::Asymmetric, samples: true },
    &Value,
    &GaugeModes,
];

const GRID: [Sizes; 3] = [sizes(5, 1, 3), sizes(6, 2, 2), sizes(7, 3, 4)];

fn tasks(context: &Context, s: Sizes, kind: Kind, samples: bool) -> Result<Tasks, ClaimError> {
    let p = draw(context, s, kind, Family::Iid, 0);
    if !samples {
        return Ok(exact_tasks(&p.truth)?);
    }
    let mut spec = spec(s, kind, Family::Iid);
    spec.samples_per_task = 3 * s.d;
    Ok(spec.retraining_tasks(&p.truth, &p.seed)?)
}

struct Derivatives {
    id: &'static str,
    kind: Kind,
    samples: bool,
}

impl Claim for Derivatives {
    fn id(&self) -> &'static str {
        self.id
    }
    fn statement(&self) -> &'static str {
        match (self.kind, self.samples) {
            (Kind::Symmetric, false) => {
                "grad_t = -(1/T)(G_t + G_t^T) U_t; h_t(Z) = -(1/T)[(dG_t + dG_t^T) U_t + (G_t + G_t^T) Z_t]"
            }
            (Kind::Asymmetric, false) => {
                "g_U = -(1/T) G_t V_t, g_V = -(1/T) G_t^T U_t; h_U = -(1/T)(dG_t V_t + G_t Z_v), h_V = -(1/T)(dG_t^T U_t + G_t^T Z_u)"
            }
            (Kind::Symmetric, true) => {
                "with E_t = A + R_t - Ahat_t, G_t = E_t S_t: gradient (1/T)(G + G^T) U, Hessian product (1/T)[(dG + dG^T) U + (G + G^T) Z]"
            }
            (Kind::Asymmetric, true) => {
                "with E_t = A + R_t - Ahat_t, G_t = E_t S_t: (1/T) G V, (1/T) G^T U; h_U = (1/T)(dG V + G Z_v), h_V = (1/T)(dG^T U + G^T Z_u)"
            }
        }
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[]
    }
    fn method(&self) -> &'static str {
        "Taylor remainders along random directions: fitted slopes 2 and 3 above measured rounding noise"
    }
    fn refutation(&self) -> &'static str {
        "a remainder that falls with slope 1"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut first, mut second, mut planted) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
        for s in GRID {
            let tasks = tasks(context, s, self.kind, self.samples)?;
            let seen = Seen::new(context, &tasks, self.kind, s.k)?;
            let wrong = WithoutSecondTask { inner: &seen };
            for index in 0..context.count(2, 20) {
                let seed = context.seed.child(s.label().as_str()).child(index);
                let x = random_point(seen.layout(), 1.0, &seed.child("point"));
                let v = random_point(seen.layout(), 1.0, &seed.child("direction"));
                first = first.min(margin(&derivative_check::gradient(&seen, &x, &v)?));
                second = second.min(margin(&derivative_check::hessian_product(&seen, &x, &v)?));
                planted = planted.min(margin(&derivative_check::gradient(&wrong, &x, &v)?));
            }
        }
        let from = "next Taylor term over five octaves";
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_least("slope of the gradient's remainders minus order", first, 0.0)
                    .within(0.25, from),
            )
            .check(
                Check::at_least(
                    "slope of the Hessian product's remainders minus order",
                    second,
                    0.0,
                )
                .within(0.25, from),
            )
            .control(
                Check::at_least(
                    "the same for a gradient with the second task's sign turned",
                    planted,
                    0.0,
                )
                .within(0.25, from),
            )
            .instance(json!({"seed": context.root})))
    }
}

/// Fitted slope minus order, the worse of both remainders; 0 where exact, NaN where unresolved.
fn margin(check: &DerivativeCheck) -> f64 {
    let one = |r: &derivative_check::Remainders| match r.order {
        Order::Slope(slope) => slope - r.expected,
        Order::Exact => 0.0,
        Order::Unresolved => f64::NAN,
    };
    let (a, b) = (one(&check.forward), one(&check.central));
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.min(b) }
}

/// The planted error of the control.
struct WithoutSecondTask<'a> {
    inner: &'a Seen<'a>,
}

impl Objective for WithoutSecondTask<'_> {
    fn layout(&self) -> &peftml_linalg::Layout {
        self.inner.layout()
    }
    fn work_len(&self) -> usize {
        self.inner.work_len()
    }
    fn value(&self, x: &Blocks, work: &mut [f64]) -> f64 {
        self.inner.value(x, work)
    }
    fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
        let value = self.inner.gradient(x, out, work);
        peftml_linalg::kernel::scale(out.block_mut(1), -1.0);
        value
    }
    fn hessian_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.inner.hessian_product(x, v, out, work);
    }
    fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, out: &mut Blocks, work: &mut [f64]) {
        self.inner.gauss_newton_product(x, v, out, work);
    }
    fn gauge(&self) -> peftml_theory::Gauge {
        self.inner.gauge()
    }
}

struct Value;

impl Claim for Value {
    fn id(&self) -> &'static str {
        "D.value"
    }
    fn statement(&self) -> &'static str {
        "F(U) = min_A (1/T) sum_t 1/(2N) ||Y_t - (A + R_t) X_t||_F^2 less the least-squares residual; population F = 1/(2T) sum_t ||G_t||_F^2"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["the pooled inputs span the space"]
    }
    fn method(&self) -> &'static str {
        "from the raw samples at A(R), and at A(R) moved, where it must be larger"
    }
    fn refutation(&self) -> &'static str {
        "another value, or a better base"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut error, mut least, mut off) = (0.0_f64, f64::INFINITY, 0.0_f64);
        for s in GRID {
            for kind in [Kind::Symmetric, Kind::Asymmetric] {
                let p = draw(context, s, kind, Family::Iid, 1);
                let samples: Vec<_> = (0..s.tasks)
                    .map(|t| {
                        peftml_data::synthetic::linear::sample(&p.truth, t, 3 * s.d, 0.1, &p.seed)
                    })
                    .collect();
                let tasks =
                    Tasks::from_samples(samples.iter().map(|(x, y)| (x.as_ref(), y.as_ref())))?;
                let seen = Seen::new(context, &tasks, kind, s.k)?;
                let x = random_point(seen.layout(), 1.0, &p.seed.child("value"));
                let base = seen.base(&x);
                let raw = |a: &faer::Mat<f64>| raw_loss(&samples, a, &x, kind);
                let value = seen.value_at(&x) + tasks.residual_loss();
                error = error.max((value / raw(&base) - 1.0).abs());
                let mut moved = base.clone();
                let step = p.seed.child("step").stream().normal_matrix(s.d, s.d, 1e-3);
                peftml_linalg::kernel::add_scaled(moved.as_mut(), 1.0, step.as_ref());
                least = least.min(raw(&moved) / raw(&base) - 1.0);
                off = off.max((value / raw(&moved) - 1.0).abs());
            }
        }
        let (tolerance, from) = (1e4 * UNIT, "64 d u, condition of the pooled inputs");
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("relative error of F against raw samples", error, 0.0)
                    .within(tolerance, from),
            )
            .check(Check::at_least(
                "relative rise of the loss when the base moves by 1e-3",
                least,
                tolerance,
            ))
            .control(
                Check::at_most(
                    "relative error of F against raw samples at a base moved by 1e-3",
                    off,
                    0.0,
                )
                .within(tolerance, from),
            )
            .instance(json!({"seed": context.root})))
    }
}

/// `(1/T) sum_t 1/(2N) ||Y_t - (A + R_t) X_t||_F^2`.
fn raw_loss(
    samples: &[(faer::Mat<f64>, faer::Mat<f64>)],
    a: &faer::Mat<f64>,
    point: &Blocks,
    kind: Kind,
) -> f64 {
    let count = samples.len();
    let mut sum = 0.0;
    for (t, (x, y)) in samples.iter().enumerate() {
        let right = if kind == Kind::Symmetric { t } else { count + t };
        let mut weights = a.clone();
        peftml_linalg::kernel::mul_add(
            weights.as_mut(),
            point.block(t),
            point.block(right).transpose(),
            1.0,
        );
        let mut rest = y.clone();
        peftml_linalg::kernel::mul_add(rest.as_mut(), weights.as_ref(), x.as_ref(), -1.0);
        sum += peftml_linalg::kernel::norm_squared(rest.as_ref()) / (2.0 * x.ncols() as f64);
    }
    sum / count as f64
}

struct GaugeModes;

impl Claim for GaugeModes {
    fn id(&self) -> &'static str {
        "D.gauge"
    }
    fn statement(&self) -> &'static str {
        "at an identified solution the Hessian's null space is the gauge's: T k(k-1)/2 zero modes, asymmetric T k^2"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["U_t of full rank", "the base is identified (rho > 0)"]
    }
    fn method(&self) -> &'static str {
        "eigenvalues of the Hessian at the true adapters that are below 1e-10 of the largest"
    }
    fn refutation(&self) -> &'static str {
        "another number of zero modes"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut wrong, mut two_tasks) = (0.0_f64, 0.0_f64);
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            for s in [sizes(6, 1, 3), sizes(7, 2, 3), sizes(9, 3, 4), sizes(6, 2, 2)] {
                let p = draw(context, s, kind, Family::Iid, 2);
                let tasks = p.tasks()?;
                let seen = Seen::new(context, &tasks, kind, s.k)?;
                let mut hessian = seen.hessian_at(&p.solution());
                peftml_linalg::kernel::symmetrise(hessian.as_mut());
                let values = decompose::symmetric_eigenvalues(hessian.as_ref())?;
                let largest = values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
                let zero = values.iter().filter(|v| v.abs() < 1e-10 * largest).count();
                let modes = match kind {
                    Kind::Symmetric => s.tasks * s.k * (s.k - 1) / 2,
                    Kind::Asymmetric => s.tasks * s.k * s.k,
                };
                let modes = modes - context.faults.choose(Fault::GaugeDimension, 0, modes.min(1));
                let off = zero.abs_diff(modes) as f64;
                if s.tasks > 2 {
                    wrong = wrong.max(off);
                } else {
                    two_tasks = two_tasks.max(off);
                }
            }
        }
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::equal("largest difference in the number of zero modes", wrong, 0.0).within(
                    0.0,
                    "a mode counts as zero below 1e-10 of the largest; rounding leaves 1e-13",
                ),
            )
            .control(Check::equal(
                "the same for T = 2, which does not identify the base",
                two_tasks,
                0.0,
            ))
            .instance(json!({"seed": context.root})))
    }
}
