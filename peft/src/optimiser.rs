//! Optimisers with PyTorch's semantics.
//!
//! Adam: `g += weight_decay x` (unless decoupled), `m <- beta1 m + (1 - beta1) g`,
//! `v <- beta2 v + (1 - beta2) g^2`, `x -= rate / (1 - beta1^n) m / (sqrt(v / (1 - beta2^n)) + epsilon)`;
//! decoupled (AdamW): `x <- (1 - rate weight_decay) x` first. SGD: `x -= rate (g + weight_decay x)`.
//! A parameter without a gradient is left alone and its own count `n` does not move.
//! Source: Kingma and Ba 2014 (arXiv:1412.6980); Loshchilov and Hutter 2017 (arXiv:1711.05101).

use crate::PeftError;
use crate::methods::in_range;
use crate::ops::{AdamConstants, adam};
use crate::parameters::{Gradients, Parameter, Parameters};
use std::collections::BTreeMap;

/// An optimiser's settings.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum OptimiserConfig {
    /// Plain gradient steps.
    Sgd {
        /// Step size.
        step_size: f64,
        /// Added to the gradient, times the parameter.
        #[serde(default)]
        weight_decay: f64,
    },
    /// Adam with L2 weight decay.
    Adam(AdamConfig),
    /// Adam with decoupled weight decay.
    AdamW(AdamConfig),
}

/// Settings of Adam.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdamConfig {
    /// Step size.
    pub step_size: f64,
    /// Weight decay.
    #[serde(default)]
    pub weight_decay: f64,
    /// Decay of the mean.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay of the mean square.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Added to the root of the mean square.
    #[serde(default = "default_epsilon")]
    pub epsilon: f64,
}

fn default_beta1() -> f64 {
    0.9
}

fn default_beta2() -> f64 {
    0.999
}

fn default_epsilon() -> f64 {
    1e-8
}

impl AdamConfig {
    /// Adam's defaults with `step_size` and `weight_decay`.
    pub fn new(step_size: f64, weight_decay: f64) -> Self {
        let (beta1, beta2) = (default_beta1(), default_beta2());
        Self { step_size, weight_decay, beta1, beta2, epsilon: default_epsilon() }
    }
}

/// What an optimiser remembers.
#[derive(Clone, Debug, Default)]
pub struct OptimiserState {
    /// Means of gradients.
    pub(crate) means: Parameters,
    /// Mean squares of gradients.
    pub(crate) squares: Parameters,
    /// Steps of each parameter.
    pub(crate) steps: BTreeMap<String, u64>,
}

impl OptimiserConfig {
    /// Plain gradient steps of `step_size`.
    pub fn sgd(step_size: f64) -> Self {
        OptimiserConfig::Sgd { step_size, weight_decay: 0.0 }
    }

    /// Checks the ranges of all numbers.
    ///
    /// # Errors
    /// [`PeftError::Range`].
    pub fn check(&self) -> Result<(), PeftError> {
        let (step_size, weight_decay) = match self {
            OptimiserConfig::Sgd { step_size, weight_decay } => (*step_size, *weight_decay),
            OptimiserConfig::Adam(c) | OptimiserConfig::AdamW(c) => {
                for (name, beta) in [("beta1", c.beta1), ("beta2", c.beta2)] {
                    in_range(name, beta, (0.0..1.0).contains(&beta), "from 0 to below 1")?;
                }
                in_range("epsilon", c.epsilon, c.epsilon > 0.0, "more than 0")?;
                (c.step_size, c.weight_decay)
            }
        };
        in_range("step_size", step_size, step_size > 0.0, "more than 0")?;
        in_range("weight_decay", weight_decay, weight_decay >= 0.0, "at least 0")
    }

    /// One step on `parameters` along `gradients`; the step size is multiplied by `factor`.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`] for a gradient of a parameter that is not there.
    pub fn step(
        &self,
        state: &mut OptimiserState,
        parameters: &mut Parameters,
        gradients: &Gradients,
        factor: f64,
    ) -> Result<(), PeftError> {
        for (name, gradient) in gradients.iter() {
            let value = parameters.tensor_flat(name)?;
            let new = match self {
                OptimiserConfig::Sgd { step_size, weight_decay } => {
                    let gradient = decayed(gradient, &value, *weight_decay);
                    value - gradient.mul_scalar(step_size * factor)
                }
                OptimiserConfig::Adam(config) => {
                    let gradient = decayed(gradient, &value, config.weight_decay);
                    adam_step(config, state, name, value, gradient, factor)
                }
                OptimiserConfig::AdamW(config) => {
                    let shrink = 1.0 - factor * config.step_size * config.weight_decay;
                    let value =
                        if config.weight_decay == 0.0 { value } else { value.mul_scalar(shrink) };
                    adam_step(config, state, name, value, gradient.clone(), factor)
                }
            };
            parameters.replace(name, new)?;
        }
        Ok(())
    }
}

type Flat = burn::tensor::Tensor<1>;

fn decayed(gradient: &Flat, value: &Flat, weight_decay: f64) -> Flat {
    if weight_decay == 0.0 {
        return gradient.clone();
    }
    gradient.clone() + value.clone().mul_scalar(weight_decay)
}

fn adam_step(
    config: &AdamConfig,
    state: &mut OptimiserState,
    name: &str,
    value: Flat,
    gradient: Flat,
    factor: f64,
) -> Flat {
    let steps = state.steps.entry(name.to_owned()).or_default();
    *steps += 1;
    // Exact for any count that a training reaches.
    let n = *steps as f64;
    let constants = AdamConstants {
        beta1: config.beta1,
        beta2: config.beta2,
        step: factor * config.step_size / (1.0 - config.beta1.powf(n)),
        root_correction: (1.0 - config.beta2.powf(n)).sqrt(),
        epsilon: config.epsilon,
    };
    let remembered = |moments: &Parameters| match moments.get(name) {
        Some(parameter) => parameter.value.clone(),
        None => gradient.zeros_like(),
    };
    let (mean, square) = (remembered(&state.means), remembered(&state.squares));
    let (value, mean, square) = adam(value, gradient, mean, square, constants);
    keep(&mut state.means, name, mean);
    keep(&mut state.squares, name, square);
    value
}

fn keep(moments: &mut Parameters, name: &str, value: Flat) {
    let shape = value.dims().to_vec();
    moments.insert(name, Parameter { value, shape, stored: crate::parameters::Stored::AsIs });
}

/// How the step size changes over a training.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum ScheduleConfig {
    /// Not at all.
    #[default]
    Constant,
    /// `(1 + cos(pi s / S)) / 2` at step s of S.
    Cosine,
    /// Up from 0 over the first `warmup` S steps, then down to 0 at step `end` S, both linearly.
    Linear {
        /// Share of the steps that the way up takes.
        #[serde(default)]
        warmup: f64,
        /// Where 0 is reached, as a multiple of all steps.
        #[serde(default = "whole_training")]
        end: f64,
    },
}

fn whole_training() -> f64 {
    1.0
}

impl ScheduleConfig {
    /// Checks the ranges of all numbers.
    ///
    /// # Errors
    /// [`PeftError::Range`].
    pub fn check(&self) -> Result<(), PeftError> {
        if let ScheduleConfig::Linear { warmup, end } = *self {
            in_range("warmup", warmup, (0.0..1.0).contains(&warmup), "from 0 to below 1")?;
            in_range("end", end, end >= 1.0, "at least 1")?;
        }
        Ok(())
    }

    /// What the step size is multiplied by at step `step` of `steps`, counted from 0.
    pub fn factor(&self, step: u64, steps: u64) -> f64 {
        let (s, total) = (step as f64, steps.max(1) as f64);
        match *self {
            ScheduleConfig::Constant => 1.0,
            ScheduleConfig::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * s / total).cos()),
            ScheduleConfig::Linear { warmup, end } => {
                let (up, zero) = (warmup * total, end * total);
                if s < up { s / up } else { ((zero - s) / (zero - up)).max(0.0) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Place, Precision, parameters::Stored};

    fn one(numbers: &[f64]) -> Parameters {
        let value = Place::cpu(Precision::F64).tensor(numbers.to_vec(), [numbers.len()]).unwrap();
        let parameter = Parameter { value, shape: vec![numbers.len()], stored: Stored::AsIs };
        [("x".to_owned(), parameter)].into_iter().collect()
    }

    /// Three steps on f(x) = sum x^4 / 4 + x from (1, -2), rates 1, 1/2 and 1/4 of 0.1.
    fn three_steps(config: &OptimiserConfig) -> Vec<f64> {
        let (mut x, mut state) = (one(&[1.0, -2.0]), OptimiserState::default());
        for factor in [1.0, 0.5, 0.25] {
            let tracked = x.tracked();
            let value = tracked.tensor::<1>("x").unwrap();
            let loss = value.clone().powi_scalar(4).mul_scalar(0.25) + value;
            let gradients = tracked.gradients(&mut loss.sum().backward());
            config.step(&mut state, &mut x, &gradients, factor).unwrap();
        }
        x.values("x").unwrap()
    }

    #[test]
    fn steps_are_those_of_pytorch() {
        // What torch.optim 2.x arrives at in float64, same start, rates and gradients.
        let cases = [
            (OptimiserConfig::Sgd { step_size: 0.1, weight_decay: 0.2 }, SGD),
            (OptimiserConfig::Adam(AdamConfig::new(0.1, 0.2)), ADAM),
            (OptimiserConfig::AdamW(AdamConfig::new(0.1, 0.2)), ADAMW),
        ];
        for (config, expected) in cases {
            for (x, y) in three_steps(&config).iter().zip(expected) {
                // Some ten roundings a step of numbers of order 1, three steps.
                assert!((x - y).abs() < 100.0 * f64::EPSILON, "{config:?}: {x} {y}");
            }
        }
        assert!((ADAM[0] - ADAMW[0]).abs() > 1e-3, "the two weight decays differ");
    }

    const SGD: [f64; 2] = [0.6614610548771263, -1.173476507618791];
    const ADAM: [f64; 2] = [0.825587943574292, -1.825775553622027];
    const ADAMW: [f64; 2] = [0.792864129584898, -1.758819165595382];

    #[test]
    fn a_parameter_without_a_gradient_stays_and_is_not_counted() {
        let (mut x, mut state) = (one(&[1.0]), OptimiserState::default());
        let config = OptimiserConfig::AdamW(AdamConfig::new(0.1, 0.5));
        config.step(&mut state, &mut x, &Gradients::default(), 1.0).unwrap();
        assert_eq!(x.values("x").unwrap(), [1.0]);
        assert!(state.steps.is_empty());
    }

    #[test]
    fn schedules_end_where_they_should() {
        let linear = ScheduleConfig::Linear { warmup: 0.1, end: 1.0 };
        assert_eq!([0, 5, 10, 55, 100].map(|s| linear.factor(s, 100)), [0.0, 0.5, 1.0, 0.5, 0.0]);
        let cosine = [0, 50, 100].map(|s| ScheduleConfig::Cosine.factor(s, 100));
        assert!((cosine[0] - 1.0).abs() + (cosine[1] - 0.5).abs() + cosine[2].abs() < 1e-15);
    }

    #[test]
    fn numbers_outside_their_ranges_are_refused() {
        let bad = [
            OptimiserConfig::sgd(-1.0),
            OptimiserConfig::sgd(f64::NAN),
            OptimiserConfig::Adam(AdamConfig { beta1: 1.0, ..AdamConfig::new(0.1, 0.0) }),
            OptimiserConfig::AdamW(AdamConfig::new(0.1, -0.1)),
        ];
        for config in bad {
            assert!(matches!(config.check(), Err(PeftError::Range { .. })), "{config:?}");
        }
        assert!(ScheduleConfig::Linear { warmup: 1.5, end: 1.0 }.check().is_err());
        let unknown = "name = 'sgd'\nstep_size = 0.1\nmomentum = 0.9";
        assert!(toml::from_str::<OptimiserConfig>(unknown).is_err());
    }
}
