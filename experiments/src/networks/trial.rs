//! One trial: a base by one retraining method, fine-tuned by one method and tested.

use super::stages::{Base, Stages, TrialError, Tuned};
use crate::runs::Outcome;
use crate::runs::csv::Line;
use peftml_peft::train::Record;

/// Columns of trials.csv after the seed; the suite's own and `status` follow.
pub const TRIAL_COLUMNS: &str = "retraining,fine_tuning,accuracy,best_accuracy,test_loss,\
     validation_accuracy,best_validation_accuracy,retraining_validation,trainable_parameters,\
     retraining_parameters,fine_tuning_steps,fine_tuning_best_step,retraining_steps,\
     retraining_best_step,fine_tuning_step_size,retraining_step_size,";
/// Columns of curves.csv after the seed.
pub const CURVE_COLUMNS: &str = "retraining,fine_tuning,stage,step,quantity,value";
/// Columns of timings.csv after the seed; steps and seconds are those of the process that ended the
/// stage.
pub const TIMING_COLUMNS: &str = "retraining,fine_tuning,stage,steps,seconds";

/// The rows' common beginning and what is to be run.
pub struct TrialPlan<'p> {
    /// Cells up to and with the seed.
    pub prefix: &'p Line,
    /// Names of the retraining and of the fine-tuning method.
    pub names: [&'p str; 2],
    /// Their step sizes.
    pub step_sizes: [Option<f64>; 2],
    /// How many columns of its own the suite has.
    pub own: usize,
}

impl TrialPlan<'_> {
    /// Runs the trial on `base`. A training whose loss is no finite number leaves a row without numbers
    /// and its reason.
    ///
    /// # Errors
    /// [`TrialError`] that is no refusal.
    pub fn run(
        &self,
        scene: &dyn Stages,
        base: Result<&Base, &TrialError>,
    ) -> Result<Outcome, String> {
        let mut outcome = Outcome::default();
        let base = match base {
            Ok(base) => base,
            Err(error) => {
                self.refuse(None, error, &mut outcome)?;
                return Ok(outcome);
            }
        };
        self.curves("retraining", &base.history, &mut outcome);
        if base.spent.0 > 0 {
            self.timing("retraining", base.spent, &mut outcome);
        }
        match scene.fine_tune(base, self.names) {
            Ok(tuned) => {
                self.curves("fine_tuning", &tuned.history, &mut outcome);
                self.timing("fine_tuning", tuned.spent, &mut outcome);
                outcome.trials.push(self.row(Some(base), Some(&tuned), "ok"));
            }
            Err(error) => self.refuse(Some(base), &error, &mut outcome)?,
        }
        Ok(outcome)
    }

    fn refuse(
        &self,
        base: Option<&Base>,
        error: &TrialError,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let text = error.to_string();
        if !error.is_refusal() {
            return Err(text);
        }
        outcome.trials.push(self.row(base, None, "not finite"));
        outcome.refused = Some(format!("{}, {}: {text}", self.names[0], self.names[1]));
        Ok(())
    }

    fn named(&self) -> Line {
        let mut line = self.prefix.clone();
        line.text(self.names[0]).text(self.names[1]);
        line
    }

    fn row(&self, base: Option<&Base>, tuned: Option<&Tuned>, status: &str) -> String {
        let mut line = self.named();
        let validation = tuned.and_then(|t| t.history.last()).and_then(|r| r.mean.accuracy);
        line.number(tuned.and_then(|t| t.last.accuracy))
            .number(tuned.and_then(|t| t.best?.accuracy))
            .number(tuned.map(|t| t.last.loss))
            .number(validation)
            .number(tuned.and_then(|t| Some(t.best_validation?.1)))
            .number(base.and_then(|b| Some(b.best?.1)));
        let mut whole = |value: Option<u64>| {
            match value {
                Some(value) => line.integer(value),
                None => line.text(""),
            };
        };
        whole(tuned.map(|t| t.trained_parameters as u64));
        whole(base.map(|b| b.trained_parameters as u64));
        whole(tuned.map(|t| t.steps));
        whole(tuned.and_then(|t| Some(t.best_validation?.0)));
        whole(base.map(|b| b.steps));
        whole(base.and_then(|b| Some(b.best?.0)));
        let [first, second] = self.step_sizes;
        line.number(second).number(first);
        for at in 0..self.own {
            line.text(tuned.and_then(|t| t.own.get(at)).map_or("", String::as_str));
        }
        line.text(status).finish()
    }

    fn curves(&self, stage: &str, history: &[Record], outcome: &mut Outcome) {
        for record in history {
            for (quantity, value) in [
                ("training_loss", Some(record.training_loss)),
                ("validation_loss", Some(record.mean.loss)),
                ("validation_accuracy", record.mean.accuracy),
            ] {
                let mut line = self.named();
                line.text(stage).integer(record.step).text(quantity).number(value);
                outcome.curves.push(line.finish());
            }
        }
    }

    fn timing(&self, stage: &str, (steps, seconds): (u64, f64), outcome: &mut Outcome) {
        let mut line = self.named();
        outcome.timings.push(line.text(stage).integer(steps).number(seconds).finish());
    }
}
