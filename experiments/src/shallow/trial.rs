//! One trial: a base by one retraining method, fine-tuned by every method at every rank.

use super::config::ShallowConfig;
use super::methods::{FineTuningMethod, RetrainingMethod};
use super::scene::{Base, Errors, Scene, SceneError};
use crate::grid::log_grid;
use crate::runs::Outcome;
use crate::runs::csv::Line;
use peftml_theory::linear::Kind;
use std::time::Instant;

/// Curve points a decade.
const PER_DECADE: usize = 10;

/// The rows' common beginning and what is to be run.
pub struct TrialPlan<'p> {
    /// The point's configuration.
    pub config: &'p ShallowConfig,
    /// Cells up to and with the seed.
    pub prefix: &'p Line,
    /// First stage.
    pub retraining: &'p RetrainingMethod,
    /// Second stage.
    pub fine_tuning: &'p [FineTuningMethod],
}

/// Columns of trials.csv after the seed.
pub const TRIAL_COLUMNS: &str = "retraining,solver,fine_tuning,adapter_rank,reference_mse,test_mse,\
     retraining_loss,retraining_iterations,trainable_parameters,retraining_parameters,status";
/// Columns of curves.csv after the seed.
pub const CURVE_COLUMNS: &str =
    "retraining,solver,fine_tuning,adapter_rank,stage,iteration,quantity,value";
/// Columns of timings.csv after the seed.
pub const TIMING_COLUMNS: &str = "retraining,solver,fine_tuning,adapter_rank,stage,seconds";

/// A fine-tuning of the trial: method and rank.
type Tuning<'p> = (&'p FineTuningMethod, usize);

impl TrialPlan<'_> {
    /// Runs the trial. A method that refuses leaves rows without numbers and its reason.
    pub fn run(&self, scene: &Scene<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let grid = log_grid(self.config.retraining.epochs, PER_DECADE);
        let mut curve = Vec::new();
        let started = Instant::now();
        let base = scene.retrain(self.retraining, &mut |state| {
            if grid.binary_search(&state.iteration).is_ok() {
                curve.push((state.iteration, state.value));
            }
        });
        self.timing(&mut outcome, None, "retraining", started.elapsed().as_secs_f64());
        for (iteration, value) in curve {
            let line = self.curve(None, "retraining", iteration, "retraining_loss", value);
            outcome.curves.push(line);
        }
        let ranks = self.config.adapter_ranks();
        for method in self.fine_tuning {
            for rank in &ranks {
                match &base {
                    Ok(base) => self.fine_tune(scene, (method, *rank), base, &mut outcome),
                    Err(error) => self.refuse((method, *rank), None, error, &mut outcome),
                }
            }
        }
        outcome
    }

    fn fine_tune(&self, scene: &Scene<'_>, tuning: Tuning<'_>, base: &Base, outcome: &mut Outcome) {
        let grid = log_grid(self.config.fine_tuning.steps, PER_DECADE);
        let started = Instant::now();
        let curves = &mut outcome.curves;
        let (method, rank) = tuning;
        let tuned =
            scene.fine_tune(&base.network, method.0, rank, &grid, &mut |iteration, errors| {
                for (quantity, value) in
                    [("reference_mse", errors.reference_mse), ("test_mse", errors.test_mse)]
                {
                    let cells = (iteration, quantity, value);
                    curves.push(self.curve(Some(tuning), "fine_tuning", cells.0, cells.1, cells.2));
                }
            });
        let seconds = started.elapsed().as_secs_f64();
        self.timing(outcome, Some(tuning), "fine_tuning", seconds);
        match tuned {
            Ok(errors) => outcome.trials.push(self.row(tuning, Some(base), Some(errors), "ok")),
            Err(error) => self.refuse(tuning, Some(base), &error, outcome),
        }
    }

    fn refuse(
        &self,
        tuning: Tuning<'_>,
        base: Option<&Base>,
        error: &SceneError,
        outcome: &mut Outcome,
    ) {
        let text = error.to_string();
        let status = text.split([':', ';']).next().unwrap_or_default().trim();
        outcome.trials.push(self.row(tuning, base, None, status));
        outcome.refused = Some(format!("{}: {text}", self.retraining.name()));
    }

    /// The cells that name a method: retraining, solver, fine-tuning, adapter rank.
    fn named(&self, tuning: Option<Tuning<'_>>) -> Line {
        let mut line = self.prefix.clone();
        line.text(self.retraining.model.name).text(self.retraining.optimiser.name);
        match tuning {
            Some((method, rank)) => line.text(method.0.name).integer(rank as u64),
            None => line.text("").text(""),
        };
        line
    }

    fn row(
        &self,
        tuning: Tuning<'_>,
        base: Option<&Base>,
        errors: Option<Errors>,
        status: &str,
    ) -> String {
        let ShallowConfig { dimension: d, rank: k, tasks, biases, .. } = *self.config;
        let sides = match self.config.retraining.adapters.into() {
            Kind::Symmetric => 1,
            Kind::Asymmetric => 2,
        };
        let network = d * d + d + if biases { d + 1 } else { 0 };
        let adapters = if self.retraining.model.adapters { tasks * sides * d * k } else { 0 };
        let mut line = self.named(Some(tuning));
        line.number(errors.map(|e| e.reference_mse))
            .number(errors.map(|e| e.test_mse))
            .number(base.map(|b| b.loss));
        match base {
            Some(base) => line.integer(base.iterations as u64),
            None => line.text(""),
        };
        line.integer((2 * d * tuning.1) as u64)
            .integer((network + adapters) as u64)
            .text(status)
            .finish()
    }

    fn curve(
        &self,
        tuning: Option<Tuning<'_>>,
        stage: &str,
        iteration: usize,
        quantity: &str,
        value: f64,
    ) -> String {
        let mut line = self.named(tuning);
        line.text(stage).integer(iteration as u64).text(quantity).number(value).finish()
    }

    fn timing(&self, outcome: &mut Outcome, tuning: Option<Tuning<'_>>, stage: &str, seconds: f64) {
        outcome.timings.push(self.named(tuning).text(stage).number(seconds).finish());
    }
}
