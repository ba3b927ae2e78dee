//! Trainings of networks that survive being killed.
//!
//! A training is saved where the caller says so (at every validation, say) and at its end, into one file that is
//! replaced whole. One that is started again goes on from there and ends at the same bits. A loss that is no
//! finite number stops the training; the last checkpoint before it stays.

use peftml_peft::train::{Training, TrainingState};
use peftml_peft::{Parameters, PeftError};
use std::path::Path;
use std::time::Instant;

/// A training at its end.
pub struct Trained<'a> {
    /// The training, with what its method never trains.
    pub training: Training<'a>,
    /// Its last state.
    pub state: TrainingState,
    /// Steps made by this process, and the seconds that they took.
    pub spent: (u64, f64),
}

/// Says after a round whether its state is to be saved; told whether there was a validation.
pub type Due<'d> = &'d mut dyn FnMut(&TrainingState, bool) -> bool;

/// After every validation.
pub fn at_validations(_: &TrainingState, validated: bool) -> bool {
    validated
}

/// After every validation, and otherwise about every `steps` steps of this process.
pub fn every(steps: u64) -> impl FnMut(&TrainingState, bool) -> bool {
    let mut last = None;
    move |state, validated| {
        let since = state.step.saturating_sub(*last.get_or_insert(state.step));
        let due = validated || since >= steps;
        if due {
            last = Some(state.step);
        }
        due
    }
}

/// Trains from `base`, or from what `checkpoint` holds; `prepare` may change the start.
///
/// # Errors
/// As [`Training::advance`], [`Training::save`] and [`Training::resume`].
pub fn train<'a>(
    training: Training<'a>,
    base: &Parameters,
    checkpoint: Option<&Path>,
    due: Due<'_>,
    prepare: impl FnOnce(&mut TrainingState),
) -> Result<Trained<'a>, PeftError> {
    let started = Instant::now();
    let (training, mut state) = match checkpoint.filter(|path| path.is_file()) {
        Some(path) => training.resume(path)?,
        None => {
            let mut state = training.start(base)?;
            prepare(&mut state);
            (training, state)
        }
    };
    let (first, mut validations) = (state.step, state.history.len());
    while !training.is_finished(&state) {
        training.advance(&mut state)?;
        let validated = state.history.len() > validations;
        validations = state.history.len();
        let due = due(&state, validated) || training.is_finished(&state);
        if let Some(path) = checkpoint.filter(|_| due) {
            training.save(&state, path)?;
        }
    }
    let spent = (state.step - first, started.elapsed().as_secs_f64());
    Ok(Trained { training, state, spent })
}
