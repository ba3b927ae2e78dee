//! The book fits together, and its verdicts are those of the claims.

use super::Problem;
use super::tree::Tree;
use crate::book::{Files, assemble, claims};

/// Chapters, their links, formulas and tables.
pub fn chapters(tree: &Tree) -> Vec<Problem> {
    let (_, troubles) = assemble::assemble(&files(tree));
    troubles.iter().map(|t| Problem::new(&t.file, t.line, &t.message)).collect()
}

/// Every claim has its last verdict, and no other has one.
pub fn verdicts(tree: &Tree) -> Vec<Problem> {
    let problems = claims::problems(&files(tree));
    problems.into_iter().map(|(file, line, message)| Problem::new(file, line, message)).collect()
}

fn files(tree: &Tree) -> Files<'_> {
    tree.files.iter().map(|file| (file.path.as_str(), &file.bytes[..])).collect()
}
