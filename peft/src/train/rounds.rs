//! One round of each algorithm.
//!
//! Base gradients are those of the mean over the tasks, `1/T sum_t L_t`; an adapter's gradient is its own
//! task's, `L_t`. All tasks' updates of a step are simultaneous.

use super::config::{Algorithm, InnerState, Rounds};
use super::order::Order;
use super::training::{Training, TrainingState};
use crate::batch::{Batch, Examples, Task};
use crate::optimiser::{OptimiserConfig, OptimiserState, ScheduleConfig};
use crate::parameters::{Gradients, Parameters};
use crate::{Pass, PeftError, device};

/// Which parameters a step differentiates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trained {
    Base,
    Adapter,
    Both,
}

/// Loss and gradients of one task.
struct Slope {
    loss: f64,
    base: Gradients,
    adapter: Gradients,
}

impl Training<'_> {
    pub(super) fn round(&self, state: &mut TrainingState) -> Result<(), PeftError> {
        match &self.config.algorithm {
            Algorithm::Standard => self.standard(state),
            Algorithm::PeftMl { rounds, adapter_optimiser, .. } => {
                let adapters = adapter_optimiser.as_ref().unwrap_or(&self.config.optimiser);
                match *rounds {
                    Rounds::Joint => self.all_tasks(state, Trained::Both, adapters),
                    Rounds::Cycle => {
                        let t = (state.step % self.tasks.len() as u64) as usize;
                        self.some_tasks(state, Trained::Both, adapters, t..t + 1)
                    }
                    Rounds::Alternating { inner, outer } => {
                        for _ in 0..inner {
                            self.all_tasks(state, Trained::Adapter, adapters)?;
                        }
                        for _ in 0..outer {
                            self.all_tasks(state, Trained::Base, adapters)?;
                        }
                        Ok(())
                    }
                }
            }
            Algorithm::FineTuning { .. } => {
                self.all_tasks(state, Trained::Adapter, &self.config.optimiser)
            }
            Algorithm::Reptile { .. } => self.reptile(state),
            Algorithm::Fomaml { inner_steps, inner } => self.fomaml(state, *inner_steps, inner),
        }
    }

    /// The weights that task `t` is met with: the base and the task's own, after the inner steps where there
    /// are any.
    pub(super) fn adapted_to(
        &self,
        t: usize,
        state: &TrainingState,
    ) -> Result<(Parameters, Option<Parameters>), PeftError> {
        let mut own = state.adapters.get(t).cloned();
        let (steps, optimiser) = match &self.config.algorithm {
            Algorithm::Reptile { inner_steps, .. } => (*inner_steps, &self.config.optimiser),
            Algorithm::Fomaml { inner_steps, inner } => (*inner_steps, inner),
            _ => return Ok((state.base.clone(), own)),
        };
        let (mut theta, mut memory) = (state.base.clone(), OptimiserState::default());
        let mut own_memory = OptimiserState::default();
        for j in 0..steps {
            // The first batches, the same at every validation.
            let slope = self.weights_slope(t, j, state.step, &theta, own.as_ref())?;
            optimiser.step(&mut memory, &mut theta, &slope.base, 1.0)?;
            if let Some(own) = &mut own {
                optimiser.step(&mut own_memory, own, &slope.adapter, 1.0)?;
            }
        }
        Ok((theta, own))
    }

    fn standard(&self, state: &mut TrainingState) -> Result<(), PeftError> {
        let counts: Vec<usize> = self.tasks.iter().map(|task| task.training.len()).collect();
        let seed = self.seed.child("order").child("union");
        let order = Order::new(seed, counts.iter().sum(), self.config.batch);
        let (epoch, numbers) = order.batch(state.step);
        let mut parts = Vec::new();
        let mut first = 0;
        for (t, &count) in counts.iter().enumerate() {
            let own = numbers.iter().filter(|&&n| (first..first + count).contains(&n));
            let own: Vec<usize> = own.map(|n| n - first).collect();
            if !own.is_empty() {
                parts.push(self.examples(t, epoch, &own)?);
            }
            first += count;
        }
        let batch = Batch::joined(parts)?;
        let slope = self.slope(state.step, 0, &batch, &state.base, None, Trained::Base)?;
        check_finite(slope.loss, state.step, None)?;
        state.loss = slope.loss;
        self.step_base(state, slope.base)?;
        state.step += 1;
        Ok(())
    }

    fn all_tasks(
        &self,
        state: &mut TrainingState,
        trained: Trained,
        adapters: &OptimiserConfig,
    ) -> Result<(), PeftError> {
        self.some_tasks(state, trained, adapters, 0..self.tasks.len())
    }

    /// One step on one batch of each of the tasks `tasks`.
    fn some_tasks(
        &self,
        state: &mut TrainingState,
        trained: Trained,
        adapters: &OptimiserConfig,
        tasks: std::ops::Range<usize>,
    ) -> Result<(), PeftError> {
        let (step, share) = (state.step, 1.0 / tasks.len() as f64);
        // With all tasks in every step a task's batch has the step's number; in turns, its own.
        let number =
            if tasks.len() == self.tasks.len() { step } else { step / self.tasks.len() as u64 };
        let factor = self.factor(step);
        let (mut base, mut loss) = (Gradients::default(), 0.0);
        for t in tasks {
            let batch = self.task_batch(t, number)?;
            let theta = Some(&state.adapters[t]);
            let slope = self.slope(step, t, &batch, &state.base, theta, trained)?;
            check_finite(slope.loss, step, Some(&self.tasks[t]))?;
            loss += slope.loss * share;
            base.add(slope.base);
            let memory = &mut state.adapter_optimisers[t];
            adapters.step(memory, &mut state.adapters[t], &slope.adapter, factor)?;
        }
        state.loss = loss;
        self.step_base(state, base.scaled(share))?;
        state.step += 1;
        Ok(())
    }

    fn reptile(&self, state: &mut TrainingState) -> Result<(), PeftError> {
        let Algorithm::Reptile {
            inner_steps, outer_step_size, inner_state, outer, reversed, ..
        } = &self.config.algorithm
        else {
            return Ok(());
        };
        let first = state.step;
        let mut theta = state.base.clone();
        let mut memory = match inner_state {
            InnerState::Kept => std::mem::take(&mut state.base_optimiser),
            InnerState::Fresh => {
                state.adapter_optimisers.fill(OptimiserState::default());
                OptimiserState::default()
            }
        };
        let inner = &self.config.optimiser;
        self.inner_steps(state, *inner_steps, inner, &mut theta, &mut memory)?;
        let sign = if *reversed { -self.outer_sign } else { self.outer_sign };
        match outer {
            None => {
                let falling = ScheduleConfig::Linear { warmup: 0.0, end: 1.0 };
                let eps = outer_step_size * falling.factor(first, self.config.steps);
                state.base = state.base.moved_towards(&theta, sign * eps);
            }
            Some(optimiser) => {
                let away = away_from(&state.base, &theta, sign)?;
                let memory = &mut state.base_optimiser;
                optimiser.step(memory, &mut state.base, &away, self.factor(first))?;
            }
        }
        if *inner_state == InnerState::Kept && outer.is_none() {
            state.base_optimiser = memory;
        }
        Ok(())
    }

    fn fomaml(
        &self,
        state: &mut TrainingState,
        steps: u64,
        inner: &OptimiserConfig,
    ) -> Result<(), PeftError> {
        let (t, number) = self.visit(state.step);
        let mut theta = state.base.clone();
        let mut memory = OptimiserState::default();
        self.inner_steps(state, steps - 1, inner, &mut theta, &mut memory)?;
        let slope = self.weights_slope(t, number + steps - 1, state.step, &theta, None)?;
        check_finite(slope.loss, state.step, Some(&self.tasks[t]))?;
        state.loss = slope.loss;
        self.step_base(state, slope.base)?;
        state.step += 1;
        Ok(())
    }

    /// `steps` steps of `theta` on the task whose turn it is.
    fn inner_steps(
        &self,
        state: &mut TrainingState,
        steps: u64,
        optimiser: &OptimiserConfig,
        theta: &mut Parameters,
        memory: &mut OptimiserState,
    ) -> Result<(), PeftError> {
        let (t, number) = self.visit(state.step);
        for j in 0..steps {
            let own = state.adapters.get(t);
            let slope = self.weights_slope(t, number + j, state.step, theta, own)?;
            check_finite(slope.loss, state.step, Some(&self.tasks[t]))?;
            state.loss = slope.loss;
            optimiser.step(memory, theta, &slope.base, 1.0)?;
            if let Some(own) = state.adapters.get_mut(t) {
                optimiser.step(&mut state.adapter_optimisers[t], own, &slope.adapter, 1.0)?;
            }
            state.step += 1;
        }
        Ok(())
    }

    /// The task of the round that begins at `step`, in turn, and the number of its next batch.
    fn visit(&self, step: u64) -> (usize, u64) {
        let (steps, tasks) = (self.config.round_steps(), self.tasks.len() as u64);
        let round = step / steps;
        ((round % tasks) as usize, round / tasks * steps)
    }

    /// Loss and gradient of all weights, the task's own included, on batch `number` of task `t`.
    fn weights_slope(
        &self,
        t: usize,
        number: u64,
        step: u64,
        weights: &Parameters,
        own: Option<&Parameters>,
    ) -> Result<Slope, PeftError> {
        let batch = self.task_batch(t, number)?;
        self.slope(step, t, &batch, weights, own, Trained::Both)
    }

    fn slope(
        &self,
        step: u64,
        t: usize,
        batch: &Batch,
        base: &Parameters,
        theta: Option<&Parameters>,
        trained: Trained,
    ) -> Result<Slope, PeftError> {
        // What is not trained stays outside the graph: no product is computed for it.
        let tracked = |parameters: &Parameters, frozen: Trained| {
            if trained == frozen { parameters.clone() } else { parameters.tracked() }
        };
        let base = tracked(base, Trained::Adapter);
        let theta = theta.map(|theta| tracked(theta, Trained::Base));
        let masks = self.seed.child("masks").child(step).child(t);
        let mut pass = Pass::new(&base).training(&masks);
        if let (Some(adapter), Some(theta)) = (&self.adapter, &theta) {
            pass = pass.with_adapter(adapter, theta);
        }
        let loss = batch.loss(self.network.forward(&pass, &batch.input)?)?;
        let value = device::scalar(&loss)?;
        if !value.is_finite() {
            // Nothing that could be learnt from its gradient.
            let (base, adapter) = Default::default();
            return Ok(Slope { loss: value, base, adapter });
        }
        if !loss.is_tracked() {
            // Nothing that is trained is in use.
            let (base, adapter) = Default::default();
            return Ok(Slope { loss: value, base, adapter });
        }
        let mut backward = loss.backward();
        let gradients = |parameters: &Parameters, frozen: Trained, backward: &mut _| {
            if trained == frozen { Gradients::default() } else { parameters.gradients(backward) }
        };
        let adapter = theta.as_ref().map(|t| gradients(t, Trained::Base, &mut backward));
        let base = gradients(&base, Trained::Adapter, &mut backward);
        Ok(Slope { loss: value, base, adapter: adapter.unwrap_or_default() })
    }

    /// The outer update by gradient.
    fn step_base(&self, state: &mut TrainingState, gradients: Gradients) -> Result<(), PeftError> {
        let (gradients, factor) = (gradients.scaled(self.outer_sign), self.factor(state.step));
        self.config.optimiser.step(&mut state.base_optimiser, &mut state.base, &gradients, factor)
    }

    fn factor(&self, step: u64) -> f64 {
        self.config.schedule.factor(step, self.config.steps)
    }

    fn task_batch(&self, t: usize, number: u64) -> Result<Batch, PeftError> {
        let count = self.tasks[t].training.len();
        let size = self.config.task_batch(self.tasks.len());
        let order = Order::new(self.seed.child("order").child(t), count, size);
        let (epoch, numbers) = order.batch(number);
        self.examples(t, epoch, &numbers)
    }

    fn examples(&self, t: usize, epoch: u64, numbers: &[usize]) -> Result<Batch, PeftError> {
        let changes = self.seed.child("augmentation").child(t).child(epoch);
        let examples: &dyn Examples = self.tasks[t].training.as_ref();
        examples.batch(numbers, Some(&changes), &self.place)
    }
}

/// `sign (base - theta)`, parameter by parameter: Reptile's stand-in for a gradient.
fn away_from(base: &Parameters, theta: &Parameters, sign: f64) -> Result<Gradients, PeftError> {
    let mut away = Vec::new();
    for (name, parameter) in base.iter() {
        let difference = parameter.value.clone() - theta.tensor_flat(name)?;
        away.push((name.to_owned(), difference.mul_scalar(sign)));
    }
    Ok(away.into_iter().collect())
}

fn check_finite(loss: f64, step: u64, task: Option<&Task>) -> Result<(), PeftError> {
    if loss.is_finite() {
        return Ok(());
    }
    Err(PeftError::NotFinite { step, task: task.map(|task| task.name.clone()), loss })
}
