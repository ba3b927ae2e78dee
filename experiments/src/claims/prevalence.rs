//! C8: how often runs from random starts end at minima that are not global.
//!
//! The grid of the study stands in `configs/theory/prevalence.toml`; here the statement's cells are
//! tested at small scale. Every end is classified as `peftml check` does.

use super::claim::{Claim, ClaimError, Context, Sizes, sizes};
use super::problems::{Seen, draw, gram, random_point};
use super::statistics::{SHARE, clopper_pearson};
use super::verdict::{Check, Evidence, EvidenceKind};
use crate::descent::descend;
use peftml_data::synthetic::linear::Family;
use peftml_linalg::{Blocks, Seed};
use peftml_solvers::first_order::lbfgs::Lbfgs;
use peftml_solvers::iterate::{self, Any, MaxIterations, ScaledGradient, Silent, Target};
use peftml_theory::Objective;
use peftml_theory::certificate::Instance;
use peftml_theory::linear::{Kind, ProfileObjective, Tasks};
use peftml_theory::optimality::{self, Known, Point, PointVerdict};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[
    &Cells {
        id: "C8.small",
        statement: "iid family, d=4, k=1, T=3: 0.3 to 2.3 % of runs end at a strict non-global minimum, depending on the starting scale",
        cells: &[(sizes(4, 1, 3), Family::Iid, 1.0), (sizes(4, 1, 3), Family::Iid, 0.1)],
        range: (0.003, 0.023),
        runs: (1200, 10_000),
        excluded: (0.3, 1.0),
        refuted: false,
    },
    &Cells {
        id: "C8.close",
        statement: "iid family: up to 3 % when 3k is close to d",
        cells: &[(sizes(6, 2, 3), Family::Iid, 1.0), (sizes(8, 3, 3), Family::Iid, 1.0)],
        range: (0.0, 0.03),
        runs: (200, 2000),
        excluded: (0.5, 1.0),
        refuted: false,
    },
    &Cells {
        id: "C8.tight",
        statement: "iid family: about 10 % at d=4, k=3, T=10, where 3k > d",
        cells: &[(sizes(4, 3, 10), Family::Iid, 1.0)],
        range: (0.05, 0.15),
        runs: (300, 3000),
        excluded: (0.5, 1.0),
        refuted: false,
    },
    &Cells {
        id: "C8.large",
        statement: "iid family: 0 of 300 in every cell with d >= 16, or d >= 8 and k = 1",
        cells: &[
            (sizes(8, 1, 3), Family::Iid, 1.0),
            (sizes(16, 1, 3), Family::Iid, 0.1),
            (sizes(16, 2, 5), Family::Iid, 1.0),
        ],
        range: (0.0, 0.01),
        runs: (100, 300),
        excluded: (0.5, 1.0),
        refuted: false,
    },
    &Cells {
        id: "C8.families",
        statement: "at d=4, k=1, T=3 correlated and badly scaled tasks raise it to 3 %",
        cells: &[
            (sizes(4, 1, 3), Family::Correlated, 1.0),
            (sizes(4, 1, 3), Family::BadlyScaled, 1.0),
        ],
        range: (0.003, 0.06),
        runs: (600, 5000),
        excluded: (0.3, 1.0),
        refuted: false,
    },
    &Cells {
        id: "C8.families-everywhere",
        statement: "correlated and badly scaled tasks raise it to 3 %, in every cell",
        cells: &[(sizes(6, 2, 3), Family::BadlyScaled, 1.0)],
        range: (0.0, 0.03),
        runs: (2000, 2000),
        excluded: (0.5, 1.0),
        refuted: true,
    },
    &Cells {
        id: "C8.families-worst",
        statement: "badly scaled tasks raise it further where 3k is close to d: 5 to 15 % at d=6, k=2, T=3 (corrects C8.families-everywhere)",
        cells: &[(sizes(6, 2, 3), Family::BadlyScaled, 1.0)],
        range: (0.05, 0.15),
        runs: (300, 3000),
        excluded: (0.5, 1.0),
        refuted: false,
    },
    &Integer,
    &Descent,
    &LongSteps,
];

/// What a run ended at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Global,
    Spurious,
    Saddle,
    Diverging,
    Other,
}

/// One L-BFGS run: at most 5000 iterations, gradient at most 1e-9 rms(U*)^3, and what it ended at.
fn run(
    context: &Context,
    tasks: &Tasks,
    k: usize,
    rms: f64,
    scale: f64,
    seed: &Seed,
) -> Result<End, ClaimError> {
    let seen = Seen::new(context, tasks, Kind::Symmetric, k)?;
    let start = random_point(seen.layout(), scale * rms, &seed.child("start"));
    let first = seen.value_at(&start);
    let rule = Any(vec![
        Box::new(Target(1e-9 * first)),
        Box::new(ScaledGradient { tolerance: 1e-9, scale: rms.powi(3) }),
        Box::new(MaxIterations(5000)),
    ]);
    let end = iterate::run(&Lbfgs { memory: 10 }, &seen, start, &rule, &mut Silent)?;
    let objective = ProfileObjective::new(tasks, Kind::Symmetric, k)?;
    classify(tasks, &objective, end.x, first, seed)
}

/// What the end `x` of a run from the value `first` is.
fn classify(
    tasks: &Tasks,
    objective: &ProfileObjective<'_>,
    x: Blocks,
    first: f64,
    seed: &Seed,
) -> Result<End, ClaimError> {
    if objective.value(&x, &mut vec![0.0; objective.work_len()]) <= 1e-8 * first {
        return Ok(End::Global);
    }
    // Newton steps to the stationary point near by: weak curvature is told from zero only there.
    let x = optimality::polish(objective, &x, 10)?.unwrap_or(x);
    let point = Point::from_blocks(tasks, objective.base(&x), &x, Kind::Symmetric)?;
    let known = Known { zero_is_attained: true, solver_value: None };
    Ok(match optimality::assess(tasks, &point, known, seed)?.verdict {
        PointVerdict::GlobalMinimum => End::Global,
        PointVerdict::StrictLocalMinimum => End::Spurious,
        PointVerdict::StrictSaddle => End::Saddle,
        PointVerdict::Diverging => End::Diverging,
        _ => End::Other,
    })
}

/// Root mean square of the entries of `U*`.
fn rms(x: &Blocks) -> f64 {
    x.norm() / (x.as_slice().len() as f64).sqrt()
}

struct Cells {
    id: &'static str,
    statement: &'static str,
    cells: &'static [(Sizes, Family, f64)],
    /// The claimed proportion.
    range: (f64, f64),
    /// Runs a cell, quick and full.
    runs: (usize, usize),
    /// A range that the data must exclude: the control.
    excluded: (f64, f64),
    /// Known to be false: the runs are those of the stored counterexample, whatever the seed.
    refuted: bool,
}

/// The checks that the interval of a proportion meets a range.
fn meets(what: &str, count: usize, runs: usize, range: (f64, f64)) -> [Check; 2] {
    let (low, high) = clopper_pearson(count, runs, SHARE / 2.0);
    let from = format!("Clopper-Pearson, {count} of {runs} runs, two-sided error {SHARE:.1e}");
    let found = count as f64 / runs as f64;
    [
        Check::at_most(format!("{what}: proportion"), found, range.1)
            .within(found - low, from.clone()),
        Check::at_least(format!("{what}: proportion"), found, range.0).within(high - found, from),
    ]
}

impl Claim for Cells {
    fn id(&self) -> &'static str {
        self.id
    }
    fn statement(&self) -> &'static str {
        self.statement
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[
            "L-BFGS, Gaussian starts at 1 or 0.1 times the root mean square of U*, a fresh problem a run",
        ]
    }
    fn method(&self) -> &'static str {
        "runs classified by the point checker; exact interval of the proportion against the claimed range"
    }
    fn refutation(&self) -> &'static str {
        "an interval that misses the range"
    }
    fn is_refuted(&self) -> bool {
        self.refuted
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut evidence = Evidence::new(EvidenceKind::Statistical);
        let mut context = context.clone();
        if self.refuted {
            context.root = 0;
            context.seed = Seed::root(0).child("counterexample").child(self.id);
        }
        let context = &context;
        for (s, family, scale) in self.cells {
            let runs = context.count(self.runs.0, self.runs.1);
            let mut counts = [0; 5];
            let mut first = None;
            for index in 0..runs {
                let p = draw(context, *s, Kind::Symmetric, *family, index);
                let seed = p.seed.child(if *scale < 1.0 { "small" } else { "large" });
                let end = run(context, &p.tasks()?, s.k, rms(&p.solution()), *scale, &seed)?;
                counts[end as usize] += 1;
                if end == End::Spurious && first.is_none() {
                    first = Some(index);
                }
            }
            let spurious = counts[End::Spurious as usize];
            let label = format!("{}, {}, scale {scale}", s.label(), family.name());
            let [most, least] = meets(&label, spurious, runs, self.range);
            let [_, control] = meets(&label, spurious, runs, self.excluded);
            evidence = evidence.check(most).check(least).control(control).instance(json!({
                "seed": context.root, "sizes": s.label(), "family": family.name(), "scale": scale,
                "runs": runs, "global": counts[0], "spurious": spurious, "saddle": counts[2],
                "diverging": counts[3], "unconverged": counts[4], "first_spurious": first,
            }));
        }
        Ok(evidence)
    }
}

struct Integer;

impl Claim for Integer {
    fn id(&self) -> &'static str {
        "C8.integer"
    }
    fn statement(&self) -> &'static str {
        "on the integer instance of C7, 9 to 15 % of L-BFGS runs end non-global"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["Gaussian starts at 1 and at 0.1 times the root mean square of U*"]
    }
    fn method(&self) -> &'static str {
        "runs classified by the point checker; exact interval of the proportion against the range"
    }
    fn refutation(&self) -> &'static str {
        "an interval that misses the range"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let instance = Instance::integer();
        let tasks = Tasks::exact(instance.offsets.iter().map(|u| gram(u.as_ref())))?;
        let truth = Blocks::from_matrices("U", instance.offsets.iter().map(|u| u.as_ref()));
        let runs = context.count(600, 10_000);
        let mut evidence = Evidence::new(EvidenceKind::Statistical);
        for scale in [1.0, 0.1] {
            let mut spurious = 0;
            for index in 0..runs {
                let seed =
                    context.seed.child(if scale < 1.0 { "small" } else { "large" }).child(index);
                let end = run(context, &tasks, 1, rms(&truth), scale, &seed)?;
                spurious += usize::from(end == End::Spurious);
            }
            let label = format!("integer instance, scale {scale}");
            let [most, least] = meets(&label, spurious, runs, (0.09, 0.15));
            let [_, control] = meets(&label, spurious, runs, (0.5, 1.0));
            evidence = evidence.check(most).check(least).control(control).instance(json!({
                "seed": context.root, "scale": scale, "runs": runs, "spurious": spurious,
            }));
        }
        Ok(evidence)
    }
}

struct Descent;

impl Claim for Descent {
    fn id(&self) -> &'static str {
        "C8.descent"
    }
    fn statement(&self) -> &'static str {
        "spurious minima are no matter of L-BFGS's long steps: on the integer instance of C7, 5 to 20 % of gradient descents with step 1/L end non-global"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["Gaussian starts at the root mean square of U*, at most 20,000 steps"]
    }
    fn method(&self) -> &'static str {
        "runs classified by the point checker; exact interval of the proportion against the range"
    }
    fn refutation(&self) -> &'static str {
        "an interval that misses the range"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let instance = Instance::integer();
        let tasks = Tasks::exact(instance.offsets.iter().map(|u| gram(u.as_ref())))?;
        let truth = Blocks::from_matrices("U", instance.offsets.iter().map(|u| u.as_ref()));
        let rms = rms(&truth);
        let f = ProfileObjective::new(&tasks, Kind::Symmetric, 1)?;
        let runs = context.count(150, 3000);
        let mut counts = [0; 5];
        for index in 0..runs {
            let seed = context.seed.child(index);
            let start = random_point(f.layout(), rms, &seed.child("start"));
            let first = f.value(&start, &mut vec![0.0; f.work_len()]);
            let (tolerance, target) = (1e-9 * rms.powi(3), 1e-9 * first);
            let x = descend(&f, &tasks, start, 20_000, tolerance, target)?;
            counts[classify(&tasks, &f, x, first, &seed)? as usize] += 1;
        }
        let label = "gradient descent, integer instance";
        let spurious = counts[End::Spurious as usize];
        let [most, least] = meets(label, spurious, runs, (0.05, 0.2));
        let [_, control] = meets(label, spurious, runs, (0.5, 1.0));
        Ok(Evidence::new(EvidenceKind::Statistical)
            .check(most)
            .check(least)
            .control(control)
            .instance(json!({
                "seed": context.root, "runs": runs, "global": counts[0], "spurious": spurious,
                "saddle": counts[2], "diverging": counts[3], "unconverged": counts[4],
            })))
    }
}

struct LongSteps;

impl Claim for LongSteps {
    fn id(&self) -> &'static str {
        "C6.long-steps"
    }
    fn statement(&self) -> &'static str {
        "for T = 2, where every minimum is global, about 0.5 % of L-BFGS runs go to infinity (0.1 to 2 % over iid and correlated tasks): the checker calls their ends diverging, never a minimum"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &[
            "Gaussian starts at the root mean square of U*, a fresh problem a run, half of them correlated",
        ]
    }
    fn method(&self) -> &'static str {
        "runs classified by the point checker; exact interval of the diverging share against the range"
    }
    fn refutation(&self) -> &'static str {
        "an interval that misses the range, or an end called a non-global minimum"
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut counts = [0; 5];
        let each = context.count(200, 2000);
        for s in [sizes(4, 1, 2), sizes(6, 2, 2), sizes(10, 3, 2)] {
            for family in [Family::Iid, Family::Correlated] {
                for index in 0..each {
                    let p = draw(context, s, Kind::Symmetric, family, index);
                    let seed = p.seed.child(family.name());
                    let end = run(context, &p.tasks()?, s.k, rms(&p.solution()), 1.0, &seed)?;
                    counts[end as usize] += 1;
                }
            }
        }
        let (runs, diverging) = (6 * each, counts[End::Diverging as usize]);
        let [most, least] = meets("diverging L-BFGS runs", diverging, runs, (0.001, 0.02));
        let [_, control] = meets("diverging L-BFGS runs", diverging, runs, (0.1, 1.0));
        let minima = counts[End::Spurious as usize] as f64;
        Ok(Evidence::new(EvidenceKind::Statistical)
            .check(most)
            .check(least)
            .check(Check::equal("ends called strict minima above the global one", minima, 0.0))
            .control(control)
            .instance(json!({
                "seed": context.root, "runs": runs, "global": counts[0], "spurious": counts[1],
                "saddle": counts[2], "diverging": diverging, "unconverged": counts[4],
            })))
    }
}
