//! C7: three tasks or more have local minima that are not global.

use super::claim::{Claim, ClaimError, Context};
use super::faults::Fault;
use super::problems::{Seen, gram, random_point};
use super::verdict::{Check, Evidence, EvidenceKind};
use peftml_linalg::Blocks;
use peftml_theory::Objective;
use peftml_theory::certificate::{Certificate, Instance, number, verify};
use peftml_theory::linear::{Kind, Tasks};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[
    &Minimum {
        id: "C7.integer",
        statement: "d=4, T=3, k=1, fully generic integers: a strict local minimum with F = 3.19522100931253, lambda_min = 0.299735755852",
        instances: || vec![(Instance::integer(), 3.195_221_009_312_53, 0.299_735_755_852)],
        digits: 1e-11,
    },
    &Minimum {
        id: "C7.plane",
        statement: "d=2, T=4, k=1: a strict local minimum with F = 0.0469394605, lambda_min = 0.0558",
        instances: || vec![(Instance::plane(), 0.046_939_460_5, 0.0558)],
        digits: 1e-3,
    },
    &Minimum {
        id: "C7.space",
        statement: "d=3, T=3, k=1: a strict local minimum with F = 0.0037474902, lambda_min = 0.0097",
        instances: || vec![(Instance::space(), 0.003_747_490_2, 0.0097)],
        digits: 6e-3,
    },
    &Minimum {
        id: "C7.padded",
        statement: "padding with zero coordinates keeps it strict for every d >= 4; (d,T) = (8,3): lambda_min = 0.29974",
        instances: || {
            [5, 6, 8, 12]
                .map(|d| (Instance::integer().padded(d), 3.195_221_009_312_53, 0.29974))
                .to_vec()
        },
        digits: 2e-5,
    },
    &Minimum {
        id: "C7.copied",
        statement: "copying all tasks m times keeps it; m = 2: lambda_min = 0.14987",
        instances: || vec![(Instance::integer().copied(2), 3.195_221_009_312_53, 0.14987)],
        digits: 2e-5,
    },
    &Minimum {
        id: "C7.rank-two",
        statement: "k=2: U*_t = [(u*_t, 0), (0, 4 e_t)], d=7, T=3: strict modulo gauge with lambda_min = 0.29974",
        instances: || vec![(Instance::rank_two(), 3.195_221_009_312_53, 0.29974)],
        digits: 2e-5,
    },
    &GaugeZeros,
    &ThirdDerivative,
];

struct Minimum {
    id: &'static str,
    statement: &'static str,
    /// Instances with the quoted value and smallest curvature.
    instances: fn() -> Vec<(Instance, f64, f64)>,
    /// Relative rounding of the quoted curvature.
    digits: f64,
}

/// Nearest double of a certificate's number; only compared with quoted figures.
fn double(text: &str) -> f64 {
    number::parse(text).map_or(f64::NAN, |value| number::enclose(&value).middle())
}

impl Claim for Minimum {
    fn id(&self) -> &'static str {
        self.id
    }
    fn statement(&self) -> &'static str {
        self.statement
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["population loss, symmetric adapters; global minimum 0"]
    }
    fn method(&self) -> &'static str {
        "certificate in interval arithmetic: an exact critical point in an explicit ball, curvature and value above zero on the whole ball; made, then proved anew"
    }
    fn refutation(&self) -> &'static str {
        "a certificate that cannot be proved, or other figures"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut curvature, mut value, mut highest) = (f64::INFINITY, 0.0_f64, 0.0_f64);
        let (mut proved, mut shifted, mut raised) = (0, 0, 0);
        let mut evidence = Evidence::new(EvidenceKind::Interval);
        let instances = (self.instances)();
        let count = instances.len();
        for (instance, objective, lambda) in instances {
            let failed =
                |reason: String| ClaimError::Certificate { name: instance.name.clone(), reason };
            let certificate = instance.certify().map_err(|e| failed(e.to_string()))?;
            proved += usize::from(verify(&certificate).is_ok());
            let claimed = lambda * context.faults.choose(Fault::CurvatureConstant, 1.0, 1.01);
            let found = double(&certificate.lambda_min_lower);
            curvature = curvature.min(found / claimed);
            highest = highest.max(found / lambda);
            value = value.max((double(&certificate.objective_lower) / objective - 1.0).abs());
            shifted += usize::from(verify(&moved(&certificate)).is_ok());
            let mut over = certificate.clone();
            over.lambda_min_lower = number::shortest_decimal(found * 1.01);
            raised += usize::from(verify(&over).is_ok());
            evidence.instances.push(json!({"name": instance.name, "certificate": self.id}));
            let name = format!("{}-{}", self.id, instance.name);
            evidence.certificates.push((name, certificate.to_json()));
        }
        let all = count as f64;
        Ok(evidence
            .check(Check::at_least("certificates proved", proved as f64, all))
            .check(
                Check::at_least("certified lambda_min over the quoted one", curvature, 1.0)
                    .within(self.digits + 2e-5, "digits quoted, and the certificate's margin"),
            )
            .check(
                Check::at_most("the same, largest", highest, 1.0)
                    .within(self.digits, "a lower bound; digits quoted"),
            )
            .check(
                Check::at_most("|certified F / quoted F - 1|", value, 0.0)
                    .within(1e-7, "digits quoted (8 or more), and the ball's width"),
            )
            .control(Check::at_least(
                "certificates proved with the centre 20 radii off",
                shifted as f64,
                all,
            ))
            .control(Check::at_least(
                "certificates proved with lambda_min 1 % higher",
                raised as f64,
                all,
            )))
    }
}

/// The certificate with its centre moved by 20 radii in the first coordinate.
fn moved(certificate: &Certificate) -> Certificate {
    let mut moved = certificate.clone();
    let shift = 20.0 * double(&certificate.radius);
    moved.centre.values[0] = number::shortest_decimal(double(&moved.centre.values[0]) + shift);
    moved
}

/// The population problem of an instance.
fn tasks(instance: &Instance) -> Result<Tasks, ClaimError> {
    Ok(Tasks::exact(instance.offsets.iter().map(|u| gram(u.as_ref())))?)
}

struct GaugeZeros;

impl Claim for GaugeZeros {
    fn id(&self) -> &'static str {
        "C7.gauge"
    }
    fn statement(&self) -> &'static str {
        "k=2: the Hessian at the minimum has exactly three zero eigenvalues, those of the gauge"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["the instance of C7.rank-two"]
    }
    fn method(&self) -> &'static str {
        "eigenvalues at the polished centre below 1e-9 of the largest"
    }
    fn refutation(&self) -> &'static str {
        "another number"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let zeros = |instance: &Instance, k: usize| -> Result<usize, ClaimError> {
            let tasks = tasks(instance)?;
            let seen = Seen::new(context, &tasks, Kind::Symmetric, k)?;
            let near = Blocks::from_matrices("U", instance.near.iter().map(|u| u.as_ref()));
            let objective =
                peftml_theory::linear::ProfileObjective::new(&tasks, Kind::Symmetric, k)?;
            let x = peftml_theory::optimality::polish(&objective, &near, 20)?.unwrap_or(near);
            let mut hessian = seen.hessian_at(&x);
            peftml_linalg::kernel::symmetrise(hessian.as_mut());
            let values = peftml_linalg::decompose::symmetric_eigenvalues(hessian.as_ref())?;
            let largest = values.iter().fold(0.0_f64, |m, v| m.max(v.abs()));
            Ok(values.iter().filter(|v| v.abs() < 1e-9 * largest).count())
        };
        let expected = 3 - context.faults.choose(Fault::GaugeDimension, 0, 1);
        let found = zeros(&Instance::rank_two(), 2)?;
        let single = zeros(&Instance::integer(), 1)?;
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::equal("zero eigenvalues", found as f64, expected as f64)
                    .within(0.0, "below 1e-9 of the largest; the next is 0.29974"),
            )
            .control(Check::equal("the same for k = 1", single as f64, 3.0))
            .instance(json!({"name": "rank-two"})))
    }
}

struct ThirdDerivative;

impl Claim for ThirdDerivative {
    fn id(&self) -> &'static str {
        "C7.third-derivative"
    }
    fn statement(&self) -> &'static str {
        "|D^3 F| <= 12 (max |u_t| + 1) / T on the unit ball"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["population loss, symmetric adapters"]
    }
    fn method(&self) -> &'static str {
        "D^3 F [v,v,v] maximised over unit v by power iteration at points of the ball, and with one task's u_t alone and v along it"
    }
    fn refutation(&self) -> &'static str {
        "a point and direction above the bound"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut ratio, mut worst) = (0.0_f64, json!(null));
        let mut evidence = Evidence::new(EvidenceKind::Deterministic);
        for instance in [Instance::integer(), Instance::plane(), Instance::space()] {
            let tasks = tasks(&instance)?;
            let seen = Seen::new(context, &tasks, Kind::Symmetric, 1)?;
            let near = Blocks::from_matrices("U", instance.near.iter().map(|u| u.as_ref()));
            for index in 0..context.count(6, 60) {
                let seed = context.seed.child(instance.name.as_str()).child(index);
                let mut x = near.clone();
                // The longest adapter made longer by 1, or a random point of the ball.
                let (long, size) = longest(&near);
                let mut v = random_point(seen.layout(), 1.0, &seed.child("v"));
                if index == 0 {
                    let factor = 1.0 + 1.0 / size;
                    peftml_linalg::kernel::scale(x.block_mut(long), factor);
                    v.fill(0.0);
                    v.block_mut(long).copy_from(near.block(long));
                } else {
                    let step = random_point(seen.layout(), 1.0, &seed.child("x"));
                    x.add_scaled(1.0 / step.norm(), &step);
                }
                let found = largest_third(&seen, &x, v);
                let bound = 12.0 * (size + 1.0) / tasks.count() as f64;
                let bound =
                    bound * context.faults.choose(Fault::ThirdDerivativeConstant, 1.0, 1.0 / 6.0);
                if found / bound > ratio {
                    ratio = found / bound;
                    worst = json!({"seed": context.root, "name": instance.name, "index": index});
                }
            }
        }
        let tight = 6.0 * ratio;
        evidence.instances.push(worst);
        Ok(evidence
            .check(Check::at_most("|D^3 F| over its bound", ratio, 1.0))
            .control(Check::at_most("the same over a sixth of the bound", tight, 1.0)))
    }
}

/// Index and norm of the longest block.
fn longest(x: &Blocks) -> (usize, f64) {
    let norm = |t: usize| peftml_linalg::kernel::norm(x.block(t));
    (0..x.count()).map(|t| (t, norm(t))).fold((0, 0.0), |a, b| if b.1 > a.1 { b } else { a })
}

/// `max |D^3 F [v,v,v]|` by iterating `v -> D^3 F [v,v,.]`, which is a central difference of Hessian
/// products: exact, as the Hessian is quadratic.
fn largest_third(seen: &Seen<'_>, x: &Blocks, mut v: Blocks) -> f64 {
    let mut work = vec![0.0; seen.work_len()];
    let (mut plus, mut minus) = (v.zeros_like(), v.zeros_like());
    let mut best = 0.0_f64;
    for _ in 0..60 {
        v.scale(1.0 / v.norm());
        let mut at = x.clone();
        at.add_scaled(1.0, &v);
        seen.hessian_product(&at, &v, &mut plus, &mut work);
        at.add_scaled(-2.0, &v);
        seen.hessian_product(&at, &v, &mut minus, &mut work);
        plus.add_scaled(-1.0, &minus);
        plus.scale(0.5);
        best = best.max(plus.dot(&v).abs());
        // Damped: keeps the iteration from cycling between signs.
        v.add_scaled(1.0 / plus.norm(), &plus);
    }
    best
}
