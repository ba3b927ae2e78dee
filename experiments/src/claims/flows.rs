//! C6 along flows, and where methods of first and second order end for two tasks.
//!
//! Flows are followed by the adaptive Runge-Kutta method of `solvers` (`gradient-flow`); what it may
//! add to a conserved quantity follows from its accuracy, step by step.

use super::claim::{Claim, ClaimError, Context, Sizes, sizes};
use super::problems::{Seen, UNIT, draw, gram, minus, random_point, times};
use super::verdict::{Check, Evidence, EvidenceKind};
use peftml_data::synthetic::linear::Family;
use peftml_linalg::{Blocks, Seed, compare, kernel};
use peftml_solvers::first_order::gradient_flow::GradientFlow;
use peftml_solvers::iterate::Silent;
use peftml_solvers::{Entry, Problem, Settings, SolveError, Solver, registry};
use peftml_theory::Objective;
use peftml_theory::certificate::Instance;
use peftml_theory::linear::{Kind, ProfileObjective, Tasks};
use peftml_theory::optimality::{self, Known, Point, PointVerdict};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[&Flow, &Methods];

struct Flow;

/// What a path did.
struct Path {
    /// Largest change of `U_1^T U_2` over what the steps' errors allow.
    drift: f64,
    /// Largest `sqrt(||R_1||^2 + ||R_2||^2)` over its bound.
    size: f64,
}

impl Claim for Flow {
    fn id(&self) -> &'static str {
        "C6.flow"
    }
    fn statement(&self) -> &'static str {
        "for T = 2 gradient flow of F conserves U_1^T U_2 all along, hence ||R_1||^2 + ||R_2||^2 <= (||M|| + 2 sqrt(2 F(0)))^2 + 2 ||U_1^T U_2||^2"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[
            "T = 2, exact tasks, symmetric adapters",
            "the flow itself: finite steps do not conserve it",
        ]
    }
    fn method(&self) -> &'static str {
        "flows from random starts by an adaptive integrator with 1e-9 accuracy a step: drift against the sum of the steps' errors, adapters against the bound, at every step"
    }
    fn refutation(&self) -> &'static str {
        "a drift beyond the integrator's errors, or adapters beyond the bound"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut drift, mut size) = (0.0_f64, 0.0_f64);
        let (mut three, mut long) = (f64::INFINITY, f64::INFINITY);
        let mut worst = json!(null);
        let steps = context.count(300, 3000);
        for (d, k) in [(4, 1), (5, 2), (7, 2)] {
            for index in 0..context.count(3, 30) {
                let scale = [0.3, 1.0, 3.0][index % 3];
                for tasks in [2, 3] {
                    let p = draw(context, sizes(d, k, tasks), Kind::Symmetric, Family::Iid, index);
                    let exact = p.tasks()?;
                    let f = Seen::new(context, &exact, Kind::Symmetric, k)?;
                    let start = random_point(f.layout(), scale, &p.seed.child("flow"));
                    let path = follow(&f, &exact, start.clone(), steps)?;
                    if tasks == 3 {
                        three = three.min(path.drift);
                        continue;
                    }
                    if path.drift > drift || path.drift.is_nan() {
                        (drift, worst) = (path.drift, p.instance(context, index));
                    }
                    size = size.max(path.size);
                    long = long.min(euler(&f, start, steps));
                }
            }
        }
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(Check::at_most(
                "drift of U_1^T U_2 over the sum of accuracy ||x|| (||U_1|| + ||U_2||)",
                drift,
                1.0,
            ))
            .check(
                Check::at_most("sqrt(||R_1||^2 + ||R_2||^2) over its bound", size, 1.0)
                    .within(1e-5, "3000 steps of 1e-9 change the conserved quantity by less"),
            )
            .control(Check::at_most("the same drift for T = 3, least over flows", three, 1.0))
            .control(Check::at_most(
                "the same drift for gradient descent with steps of 1/20 of the time scale",
                long,
                1.0,
            ))
            .instance(worst))
    }
}

const ACCURACY: f64 = 1e-9;

/// `(||U_1|| + ||U_2||) ||x||` times `accuracy`: what an error of `accuracy ||x||` changes in `U_1^T U_2`.
fn allowance(x: &Blocks, accuracy: f64) -> f64 {
    accuracy * x.norm() * (kernel::norm(x.block(0)) + kernel::norm(x.block(1)))
}

/// Follows the flow of F for so many steps.
fn follow(f: &Seen<'_>, tasks: &Tasks, x: Blocks, steps: usize) -> Result<Path, SolveError> {
    let flow = GradientFlow { accuracy: ACCURACY };
    let overlap = |x: &Blocks| times(x.block(0).transpose(), x.block(1));
    let first = overlap(&x);
    let difference = minus(tasks.task(0).least_squares(), tasks.task(1).least_squares());
    let mut state = flow.init(f, x)?;
    // F is half of 1/4 ||M - R_1 + R_2||^2.
    let reach = kernel::norm(difference.as_ref()) + 2.0 * (2.0 * state.value).sqrt();
    let bound = reach.hypot(std::f64::consts::SQRT_2 * kernel::norm(first.as_ref()));
    let rounding = 64.0 * UNIT * kernel::norm(first.as_ref()).max(state.x.norm().powi(2));
    let mut path = Path { drift: 0.0, size: 0.0 };
    let mut allowed = rounding;
    for _ in 0..steps {
        flow.step(f, &mut state)?;
        if state.stop.is_some() {
            break;
        }
        allowed += allowance(&state.x, ACCURACY) + rounding;
        let change = compare::distance(overlap(&state.x).as_ref(), first.as_ref());
        path.drift = path.drift.max(change / allowed);
        let norm = |t: usize| kernel::norm(gram(state.x.block(t)).as_ref());
        path.size = path.size.max(norm(0).hypot(norm(1)) / bound);
    }
    Ok(path)
}

/// The drift of gradient descent with steps of 1/20 of `1 / (2 sqrt F + 3 ||x||^2)`, which it needs to
/// decrease, over what the flow is allowed.
fn euler(f: &Seen<'_>, mut x: Blocks, steps: usize) -> f64 {
    let first = times(x.block(0).transpose(), x.block(1));
    let (mut g, mut work) = (x.zeros_like(), vec![0.0; f.work_len()]);
    let (mut allowed, mut drift) = (0.0, 0.0_f64);
    for _ in 0..steps {
        let value = f.gradient(&x, &mut g, &mut work);
        x.add_scaled(-0.05 / (2.0 * value.max(0.0).sqrt() + 3.0 * x.norm().powi(2)), &g);
        allowed += allowance(&x, ACCURACY);
        let now = times(x.block(0).transpose(), x.block(1));
        drift = drift.max(compare::distance(now.as_ref(), first.as_ref()) / allowed);
    }
    drift
}

struct Methods;

/// Methods of the registry: the authors' scheme, first and second order, the flow.
const METHODS: [&str; 5] =
    ["authors", "gradient-descent", "gradient-flow", "lbfgs", "trust-region"];

fn methods() -> impl Iterator<Item = &'static Entry> {
    registry().iter().filter(|entry| METHODS.contains(&entry.name))
}

impl Claim for Methods {
    fn id(&self) -> &'static str {
        "C6.methods"
    }
    fn statement(&self) -> &'static str {
        "for T = 2 no run of the authors' scheme, gradient descent, gradient flow, L-BFGS or trust-region Newton from a random start ends at a stationary point that is not global"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T = 2, exact tasks", "runs that diverge or do not converge end at no stationary point"]
    }
    fn method(&self) -> &'static str {
        "runs from random starts, ends polished by Newton's method and judged by the point checker"
    }
    fn refutation(&self) -> &'static str {
        "an end that the checker calls a saddle, a strict or a degenerate minimum and not global"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut ends = [0_usize; 4];
        let mut first = json!(null);
        for s in [sizes(4, 1, 2), sizes(6, 2, 2)] {
            for index in 0..context.count(6, 100) {
                let p = draw(context, s, Kind::Symmetric, Family::ALL[index % 3], index);
                let tasks = p.tasks()?;
                let scale = p.solution().norm() / ((s.d * s.k * s.tasks) as f64).sqrt();
                for method in methods() {
                    let seed = p.seed.child(method.name);
                    let f = ProfileObjective::new(&tasks, Kind::Symmetric, s.k)?;
                    let start = random_point(f.layout(), scale, &seed);
                    let end = end(context, &tasks, s, method, &start, &seed)?;
                    ends[end as usize] += 1;
                    if end == End::OtherStationary {
                        first = p.instance(context, index);
                    }
                }
            }
        }
        let runs: usize = ends.iter().sum();
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(Check::equal(
                format!("ends of {runs} runs at other stationary points"),
                ends[End::OtherStationary as usize] as f64,
                0.0,
            ))
            .check(Check::at_least(
                "runs that end at the global minimum, so that there is something to say",
                ends[End::Global as usize] as f64,
                0.5 * runs as f64,
            ))
            .control(Check::equal(
                "the same for T = 3, the integer instance of C7, from near its spurious minimum",
                three(context)? as f64,
                0.0,
            ))
            .instance(json!({
                "seed": context.root, "runs": runs, "global": ends[0], "other_stationary": ends[1],
                "diverging": ends[2], "unconverged": ends[3], "first": first,
            })))
    }
}

/// What a run ended at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Global,
    OtherStationary,
    Diverging,
    Unconverged,
}

/// Runs a method of the registry and judges its end.
fn end(
    context: &Context,
    tasks: &Tasks,
    s: Sizes,
    method: &Entry,
    start: &Blocks,
    seed: &Seed,
) -> Result<End, ClaimError> {
    let settings = Settings {
        max_iterations: Some(context.count(1500, 5000)),
        tolerance: Some(1e-9),
        ..Default::default()
    };
    let problem = Problem { tasks, kind: Kind::Symmetric, rank: s.k };
    let found = match method.build(&settings)?.solve(&problem, Some(start), &mut Silent) {
        Ok(found) => found,
        // Constant steps may diverge, and say so.
        Err(SolveError::NotFinite { .. }) => return Ok(End::Diverging),
        Err(error) => return Err(error.into()),
    };
    let x = Blocks::from_matrices("U", found.adapters.iter().map(|a| a.left()));
    let f = ProfileObjective::new(tasks, Kind::Symmetric, s.k)?;
    let first = f.value(start, &mut vec![0.0; f.work_len()]);
    if found.loss <= 1e-8 * first {
        return Ok(End::Global);
    }
    let x = optimality::polish(&f, &x, 10)?.unwrap_or(x);
    let point = Point::from_blocks(tasks, f.base(&x), &x, Kind::Symmetric)?;
    let known = Known { zero_is_attained: true, solver_value: None };
    Ok(match optimality::assess(tasks, &point, known, seed)?.verdict {
        PointVerdict::GlobalMinimum => End::Global,
        PointVerdict::StrictSaddle
        | PointVerdict::StrictLocalMinimum
        | PointVerdict::DegenerateMinimum => End::OtherStationary,
        PointVerdict::Diverging => End::Diverging,
        PointVerdict::NotStationary | PointVerdict::Inconclusive => End::Unconverged,
    })
}

/// Ends at other stationary points on the integer instance, of runs from near one.
fn three(context: &Context) -> Result<usize, ClaimError> {
    let instance = Instance::integer();
    let tasks = Tasks::exact(instance.offsets.iter().map(|u| gram(u.as_ref())))?;
    let near = Blocks::from_matrices("U", instance.near.iter().map(|u| u.as_ref()));
    let mut count = 0;
    for method in methods() {
        let seed = context.seed.child("three").child(method.name);
        let mut start = random_point(near.layout(), 0.01, &seed);
        start.add_scaled(1.0, &near);
        let end = end(context, &tasks, sizes(4, 1, 3), method, &start, &seed)?;
        count += usize::from(end == End::OtherStationary);
    }
    Ok(count)
}
