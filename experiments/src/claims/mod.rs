//! The theory's claims: statements that run.
//!
//! One file a family; a claim is a type that implements [`Claim`] and one entry in its file's `CLAIMS`,
//! a family one line in [`FAMILIES`]. `docs/adding-a-claim.md` shows a whole one.

mod claim;
mod derivatives;
mod faults;
mod problems;
mod run;
mod standard_norm;
mod standard_rank;
mod statistics;
mod verdict;

pub use claim::{
    Claim, ClaimError, Context, DIMENSION, RANK, SIZES, Scale, Setting, Sizes, TASKS, sizes,
};
pub use faults::{Fault, Faults};
pub use run::{Request, RunError, run, select};
pub use verdict::{Check, Evidence, EvidenceKind, Outcome, Relation, Verdict};

/// Every family, in the order of the theory.
const FAMILIES: &[&[&dyn Claim]] =
    &[standard_rank::CLAIMS, standard_norm::CLAIMS, derivatives::CLAIMS];

/// Every claim.
pub fn all() -> Vec<&'static dyn Claim> {
    FAMILIES.iter().flat_map(|family| family.iter().copied()).collect()
}
