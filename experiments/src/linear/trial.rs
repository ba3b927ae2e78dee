//! One trial: a base by one retraining method, fine-tuned by every fine-tuning method.

use super::config::LinearConfig;
use super::methods::{BaseTheory, FineTuningMethod, RetrainingMethod, Risk, Start};
use super::scene::{Losses, Scene};
use crate::grid::log_grid;
use crate::runs::Outcome;
use crate::runs::csv::Line;
use faer::Mat;
use peftml_solvers::SolveError;
use std::time::Instant;

/// Curve points a decade.
const PER_DECADE: usize = 10;

/// The rows' common beginning and what is to be run.
pub struct TrialPlan<'p> {
    /// The point's configuration.
    pub config: &'p LinearConfig,
    /// Cells up to and with the seed.
    pub prefix: &'p Line,
    /// First stage.
    pub retraining: &'static RetrainingMethod,
    /// Second stage.
    pub fine_tuning: &'p [&'static FineTuningMethod],
}

/// Columns of trials.csv after the seed.
pub const TRIAL_COLUMNS: &str = "retraining,solver,fine_tuning,adapter_rank,reference_loss,\
     excess_risk,base_error_squared,predicted_excess_risk,predicted_floor,\
     predicted_base_error_squared,trainable_parameters,retraining_parameters,status";
/// Columns of curves.csv after the seed.
pub const CURVE_COLUMNS: &str =
    "retraining,solver,fine_tuning,adapter_rank,stage,iteration,quantity,value";
/// Columns of timings.csv after the seed.
pub const TIMING_COLUMNS: &str = "retraining,solver,fine_tuning,adapter_rank,stage,seconds";

impl TrialPlan<'_> {
    /// Runs the trial. A method that refuses leaves rows without numbers and its reason.
    pub fn run(&self, scene: &Scene<'_>) -> Outcome {
        let mut outcome = Outcome::default();
        let theory = (self.retraining.theory)(scene);
        let started = Instant::now();
        let mut curve = Vec::new();
        let grid = log_grid(self.config.retraining.rounds, PER_DECADE);
        let base = (self.retraining.retrain)(scene, &mut |iteration, base| {
            if grid.binary_search(&iteration).is_ok() {
                curve.push((iteration, scene.base_error_squared(base)));
            }
        });
        self.timing(&mut outcome, None, "retraining", started.elapsed().as_secs_f64());
        match base {
            Ok(base) => {
                let error_squared = scene.base_error_squared(base.as_ref());
                for (iteration, value) in curve {
                    let line =
                        self.curve(None, "retraining", iteration, "base_error_squared", value);
                    outcome.curves.push(line);
                }
                for method in self.fine_tuning {
                    self.fine_tune(scene, method, &base, error_squared, &theory, &mut outcome);
                }
            }
            Err(error) => {
                for method in self.fine_tuning {
                    let row = self.row(scene, method, &theory, None, None, &first_words(&error));
                    outcome.trials.push(row);
                }
                outcome.refused = Some(error.to_string());
            }
        }
        outcome
    }

    fn fine_tune(
        &self,
        scene: &Scene<'_>,
        method: &'static FineTuningMethod,
        base: &Mat<f64>,
        error_squared: f64,
        theory: &BaseTheory,
        outcome: &mut Outcome,
    ) {
        let grid = log_grid(self.config.fine_tuning.steps, PER_DECADE);
        let unpaired =
            self.config.quirks.unpaired_fine_tuning_starts && self.retraining.is_standard;
        let start = Start { unpaired: unpaired.then_some("standard"), grid: &grid };
        let started = Instant::now();
        let curves = &mut outcome.curves;
        let weights = (method.fine_tune)(scene, base.as_ref(), &start, &mut |step, weights| {
            let losses = scene.losses(weights);
            for (quantity, value) in
                [("reference_loss", losses.reference_loss), ("excess_risk", losses.excess_risk)]
            {
                curves.push(self.curve(Some(method), "fine_tuning", step, quantity, value));
            }
        });
        let seconds = started.elapsed().as_secs_f64();
        self.timing(outcome, Some(method), "fine_tuning", seconds);
        let (tuned, status) = match weights {
            Ok(weights) => (Some(scene.losses(weights.as_ref())), "ok".to_owned()),
            Err(error) => {
                outcome.refused = Some(format!("{}: {error}", method.name));
                (None, first_words(&error))
            }
        };
        let row = self.row(scene, method, theory, tuned, Some(error_squared), &status);
        outcome.trials.push(row);
    }

    /// The cells that name a method: retraining, solver, fine-tuning, adapter rank.
    fn named(&self, method: Option<&FineTuningMethod>) -> Line {
        let mut line = self.prefix.clone();
        line.text(self.retraining.retraining).text((self.retraining.solver)(self.config.tasks));
        match method {
            Some(method) => {
                line.text(method.name).integer((method.rank)(self.config) as u64);
            }
            None => {
                line.text("").text("");
            }
        }
        line
    }

    fn row(
        &self,
        scene: &Scene<'_>,
        method: &FineTuningMethod,
        theory: &BaseTheory,
        tuned: Option<Losses>,
        error_squared: Option<f64>,
        status: &str,
    ) -> String {
        let Risk { total, floor } = (method.risk)(scene, theory);
        let LinearConfig { dimension: d, rank: k, tasks, .. } = *self.config;
        let adapters = if self.retraining.is_standard { 0 } else { tasks * d * k };
        let sides = if scene.spec.kind == peftml_theory::linear::Kind::Symmetric { 1 } else { 2 };
        self.named(Some(method))
            .number(tuned.map(|tuned| tuned.reference_loss))
            .number(tuned.map(|tuned| tuned.excess_risk))
            .number(error_squared)
            .number(total)
            .number(floor)
            .number(theory.error_squared)
            .integer((method.parameters)(d, (method.rank)(self.config)) as u64)
            .integer((d * d + sides * adapters) as u64)
            .text(status)
            .finish()
    }

    fn curve(
        &self,
        method: Option<&FineTuningMethod>,
        stage: &str,
        iteration: usize,
        quantity: &str,
        value: f64,
    ) -> String {
        let mut line = self.named(method);
        line.text(stage).integer(iteration as u64).text(quantity).number(value).finish()
    }

    fn timing(
        &self,
        outcome: &mut Outcome,
        method: Option<&FineTuningMethod>,
        stage: &str,
        seconds: f64,
    ) {
        outcome.timings.push(self.named(method).text(stage).number(seconds).finish());
    }
}

/// The error up to its figures: enough to tell refusals apart in a table.
fn first_words(error: &SolveError) -> String {
    let text = error.to_string();
    text.split([':', ';']).next().unwrap_or_default().trim().to_owned()
}
