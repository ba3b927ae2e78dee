//! The theory's claims: statements that run.
//!
//! One file a family; a claim is a type that implements [`Claim`] and one entry in its file's `CLAIMS`,
//! a family one line in `FAMILIES`. `docs/adding-a-claim.md` shows a whole one.

mod claim;
mod derivatives;
mod factored;
mod faults;
mod fine_tuning;
mod flows;
mod global_solver;
mod prevalence;
mod problems;
mod recovery;
mod run;
mod spurious;
pub(crate) mod stability;
mod standard_norm;
mod standard_rank;
mod statistics;
mod two_k;
mod two_tasks;
mod verdict;
mod wrong_rank;

pub use claim::{
    Claim, ClaimError, Context, DIMENSION, RANK, SIZES, Scale, Setting, Sizes, TASKS, sizes,
};
pub use faults::{Fault, Faults};
pub use run::{Request, RunError, run, select};
pub use statistics::TESTS as STATISTICAL_TESTS;
pub(crate) use statistics::clopper_pearson;
pub use verdict::{Check, Evidence, EvidenceKind, Outcome, Relation, Verdict};

/// Every family, in the order of the theory.
const FAMILIES: &[&[&dyn Claim]] = &[
    standard_rank::CLAIMS,
    standard_norm::CLAIMS,
    two_k::CLAIMS,
    recovery::CLAIMS,
    stability::CLAIMS,
    two_tasks::CLAIMS,
    flows::CLAIMS,
    spurious::CLAIMS,
    prevalence::CLAIMS,
    global_solver::CLAIMS,
    factored::CLAIMS,
    fine_tuning::CLAIMS,
    wrong_rank::CLAIMS,
    derivatives::CLAIMS,
];

/// Every claim.
pub fn all() -> Vec<&'static dyn Claim> {
    FAMILIES.iter().flat_map(|family| family.iter().copied()).collect()
}

/// The example of `docs/adding-a-claim.md`, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/adding-a-claim.md")]
struct AddingAClaim;
