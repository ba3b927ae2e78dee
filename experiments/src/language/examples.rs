//! Turns with their candidates as examples.
//!
//! Where an example has fewer candidates than its turn, the others are drawn anew in every epoch in training and
//! are the turn's first in validation; the true reply comes last.

use super::talk::Turn;
use peftml_linalg::Seed;
use peftml_peft::{Batch, Examples, Input, PeftError, Place, Sequences, Target};
use std::sync::Arc;

/// A vector for every candidate of every turn, in their order.
pub struct Features {
    /// Length of a vector.
    pub width: usize,
    /// Of each turn, all candidates' numbers.
    pub turns: Vec<Vec<f32>>,
}

/// Some turns of a stage, as examples.
#[derive(Clone)]
pub struct CandidateExamples {
    turns: Arc<Vec<Turn>>,
    /// Vectors in the place of the sequences.
    features: Option<Arc<Features>>,
    numbers: Vec<usize>,
    each: usize,
    padding: usize,
}

impl CandidateExamples {
    /// The turns with these numbers, `each` candidates of each (no turn has less); `padding` is the number of the
    /// padding token.
    pub fn new(turns: &Arc<Vec<Turn>>, numbers: Vec<usize>, each: usize, padding: usize) -> Self {
        Self { turns: Arc::clone(turns), features: None, numbers, each, padding }
    }

    /// The same with vectors in the place of the sequences.
    pub fn with_features(self, features: &Arc<Features>) -> Self {
        Self { features: Some(Arc::clone(features)), ..self }
    }

    /// Which candidates of example `number`, the true one last.
    pub(super) fn chosen(&self, number: usize, augmentation: Option<&Seed>) -> Vec<usize> {
        let turn = &self.turns[self.numbers[number]];
        let mut others: Vec<usize> = (0..turn.rows.len()).filter(|i| *i != turn.answer).collect();
        if let Some(epoch) = augmentation.filter(|_| self.each < turn.rows.len()) {
            epoch.child(number).stream().shuffle(&mut others);
        }
        others.truncate(self.each.saturating_sub(1));
        others.push(turn.answer);
        others
    }
}

impl Examples for CandidateExamples {
    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn rows(&self) -> usize {
        self.each
    }

    fn batch(
        &self,
        numbers: &[usize],
        augmentation: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError> {
        let (mut rows, mut vectors, mut truth) = (Vec::new(), Vec::new(), Vec::new());
        for &number in numbers {
            let (at, chosen) = (self.numbers[number], self.chosen(number, augmentation));
            for &candidate in &chosen {
                match self.features.as_deref() {
                    Some(Features { width, turns }) => {
                        vectors.extend(&turns[at][candidate * width..(candidate + 1) * width])
                    }
                    None => rows.push(self.turns[at].rows[candidate].clone()),
                }
                truth.push(i64::from(candidate == self.turns[at].answer));
            }
        }
        let count = truth.len();
        let input = match self.features.as_deref() {
            Some(Features { width, .. }) => {
                Input::Vectors(place.tensor_f32(vectors, [count, *width])?)
            }
            None => Input::Sequences(Sequences {
                rows,
                padding: self.padding as i64,
                place: place.clone(),
            }),
        };
        let truth = place.integers(truth, [count])?;
        Ok(Batch { input, target: Target::Candidates { truth, each: self.each } })
    }
}
