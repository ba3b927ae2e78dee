//! C3: zero loss bounds the rank of the base's error.

use super::claim::{Claim, ClaimError, Context, SIZES, Setting, Sizes, sizes};
use super::faults::Fault;
use super::problems::{draw, rational_rows, whole_matrix};
use super::verdict::{Check, Evidence, EvidenceKind};
use num_rational::BigRational;
use peftml_data::synthetic::linear::Family;
use peftml_linalg::compare;
use peftml_solvers::low_rank::TwoTask;
use peftml_solvers::{BaseSolver, Problem, iterate::Silent};
use peftml_theory::exact::zero_loss::boost;
use peftml_theory::exact::{RationalMatrix, rank};
use peftml_theory::linear::{Kind, standard};
use serde_json::json;

/// The claims of this file.
pub const CLAIMS: &[&dyn Claim] = &[&Bound, &Attained, &Balanced];

const GRID: &[Sizes] = &[sizes(6, 1, 2), sizes(10, 2, 2), sizes(10, 3, 2)];
/// So large that a draw is not generic about once in a million.
const REACH: i64 = 1_000_000;

fn gram(u: &RationalMatrix) -> RationalMatrix {
    u * u.transpose()
}

struct Bound;

impl Claim for Bound {
    fn id(&self) -> &'static str {
        "C3.bound"
    }
    fn statement(&self) -> &'static str {
        "zero loss implies rank(A - A*) <= 2k (k + k' with rank-k' adapters), so rank 3k suffices at test time; any T >= 1"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["exact tasks; no genericity"]
    }
    fn method(&self) -> &'static str {
        "exact ranks of zero-loss solutions: any adapter for T = 1, boosts for T = 2, C C^T added for every T"
    }
    fn refutation(&self) -> &'static str {
        "a zero-loss solution with a base error of higher rank"
    }
    fn settings(&self) -> &'static [Setting] {
        &SIZES[..2]
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut stream = context.seed.stream();
        // Largest rank minus its bound: base error against 2k, residual against 3k, base error with
        // rank-k' adapters against k + k'.
        let (mut base, mut residual, mut wide, mut tight) =
            (i64::MIN, i64::MIN, i64::MIN, i64::MIN);
        for s in context.sizes(GRID)? {
            let k = s.k as i64;
            let two = context.faults.choose(Fault::TwoRanksConstant, 2 * k, k);
            for m in 2..context.count(5, 20) as i64 {
                let u: Vec<_> =
                    (0..3).map(|_| whole_matrix(s.d, s.k, REACH, &mut stream)).collect();
                // T = 1: every adapter R of rank k fits with A = A* + R*_1 - R.
                let single = gram(&u[0]) - gram(&u[1]);
                let mut errors = vec![single];
                let parameter = BigRational::new(m.into(), 1.into());
                if let Some(found) = boost(&u, &parameter)? {
                    errors.push(found.base_error);
                }
                for error in &errors {
                    base = base.max(rank(error) as i64 - two);
                    tight = tight.max(rank(error) as i64 - k);
                    residual = residual.max(rank(&(gram(&u[2]) - error)) as i64 - 3 * k);
                }
                // Adapters of rank k' = k + 1: R_t = R*_t + c c^T for every T, and any R for T = 1.
                let c = whole_matrix(s.d, s.k + 1, REACH, &mut stream);
                let error = gram(&u[0]) - gram(&c);
                wide = wide.max(rank(&error) as i64 - (2 * k + 1));
            }
        }
        Ok(Evidence::new(EvidenceKind::Exact)
            .check(Check::at_most("largest rank(A - A*) - 2k", base as f64, 0.0))
            .check(Check::at_most("largest rank(A*_{T+1} - A) - 3k", residual as f64, 0.0))
            .check(Check::at_most("largest rank(A - A*) - (k + k'), k' = k + 1", wide as f64, 0.0))
            .control(Check::at_most("largest rank(A - A*) - k", tight as f64, 0.0))
            .instance(json!({"seed": context.root})))
    }
}

struct Attained;

impl Claim for Attained {
    fn id(&self) -> &'static str {
        "C3.attained"
    }
    fn statement(&self) -> &'static str {
        "generic T = 2 solutions attain rank(A - A*) = 2k and rank(A*_3 - A) = 3k"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T = 2", "U*_1, U*_2, U*_3 with 3k independent columns"]
    }
    fn method(&self) -> &'static str {
        "exact ranks of boosted solutions of integer tasks"
    }
    fn refutation(&self) -> &'static str {
        "a boosted generic solution of smaller rank"
    }
    fn settings(&self) -> &'static [Setting] {
        &SIZES[..2]
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let mut stream = context.seed.stream();
        let (mut wrong, mut trivial, mut problems) = (0, 0, 0);
        let mut evidence = Evidence::new(EvidenceKind::Exact);
        for s in context.sizes(GRID)? {
            if 3 * s.k > s.d {
                evidence.violated.push(format!("3k <= d ({})", s.label()));
            }
            for m in 2..context.count(4, 12) as i64 {
                let u: Vec<_> =
                    (0..3).map(|_| whole_matrix(s.d, s.k, REACH, &mut stream)).collect();
                let expected = (2 * s.k, 3 * s.k);
                let differs = |m: i64| -> Result<usize, ClaimError> {
                    let found = boost(&u, &BigRational::new(m.into(), 1.into()))?;
                    let ranks = found.map(|b| (b.base_error_rank, b.residual_rank));
                    Ok(usize::from(ranks != Some(expected)))
                };
                problems += 1;
                wrong += differs(m)?;
                // No boost: A = A*.
                trivial += differs(1)?;
                if m == 2 {
                    let offsets: Vec<_> = u.iter().map(rational_rows).collect();
                    evidence = evidence.instance(json!({"boost": m, "offsets": offsets}));
                }
            }
        }
        Ok(evidence
            .check(Check::equal(
                format!("solutions of {problems} with other ranks than (2k, 3k)"),
                wrong as f64,
                0.0,
            ))
            .control(Check::equal("the same for the true solution", trivial as f64, 0.0)))
    }
}

struct Balanced;

impl Claim for Balanced {
    fn id(&self) -> &'static str {
        "C3.balanced"
    }
    fn statement(&self) -> &'static str {
        "the balanced T = 2 solution has zero loss, U_1^T U_2 = 0, and leaves rank 3k to adapt on a generic test task"
    }
    fn assumptions(&self) -> &'static [&'static str] {
        &["T = 2", "U*_1, U*_2, U*_3 with 3k independent columns"]
    }
    fn method(&self) -> &'static str {
        "the closed-form solver on exact tasks: loss, U_1^T U_2, numerical rank of A*_3 - A"
    }
    fn refutation(&self) -> &'static str {
        "a loss above rounding or another rank"
    }
    fn settings(&self) -> &'static [Setting] {
        &SIZES[..2]
    }
    fn verify(&self, context: &Context) -> Result<Evidence, ClaimError> {
        let (mut loss, mut overlap, mut wrong, mut identified) = (0.0_f64, 0.0_f64, 0, 0);
        let mut worst = json!(null);
        for s in context.sizes(GRID)? {
            let s = Sizes { tasks: 2, ..s };
            for index in 0..context.count(5, 100) {
                let p = draw(context, s, Kind::Symmetric, Family::Iid, index);
                let tasks = p.tasks()?;
                let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: s.k };
                let found = TwoTask::default().solve(&problem, None, &mut Silent)?;
                let size = tasks.norm().powi(2);
                if found.loss / size >= loss {
                    (loss, worst) = (found.loss / size, p.instance(context, index));
                }
                let inner = super::problems::times(
                    found.adapters[0].left().transpose(),
                    found.adapters[1].left(),
                );
                let sizes = peftml_linalg::kernel::norm(found.adapters[0].left())
                    * peftml_linalg::kernel::norm(found.adapters[1].left());
                overlap = overlap.max(peftml_linalg::kernel::norm(inner.as_ref()) / sizes);
                let residual = standard::residual(
                    p.truth.task(2).as_ref(),
                    found.base.as_ref(),
                    8.0 * super::problems::UNIT,
                )?;
                wrong += usize::from(residual.rank != 3 * s.k);
                identified += usize::from(
                    compare::relative_error(found.base.as_ref(), p.truth.base.as_ref()) > 1e-6,
                );
            }
        }
        let tolerance = 64.0 * 12.0 * super::problems::UNIT;
        Ok(Evidence::new(EvidenceKind::Deterministic)
            .check(
                Check::at_most("loss over sum ||A*_t||^2", loss, 0.0)
                    .within(tolerance * tolerance, "squares of 64 d u"),
            )
            .check(
                Check::at_most("||U_1^T U_2|| relative", overlap, 0.0).within(tolerance, "64 d u"),
            )
            .check(Check::equal("problems with another rank than 3k", wrong as f64, 0.0))
            .control(Check::equal("problems where A is not A*", identified as f64, 0.0))
            .instance(worst))
    }
}
