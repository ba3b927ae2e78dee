//! AdamW, as PyTorch computes it.
//!
//! With gradient `g_t` at `x_{t-1}`, t = 1, 2, ..:
//!
//! ```text
//! x <- (1 - step_size * weight_decay) x                 decay apart from the gradient
//! m <- m + (1 - beta_1)(g - m),  v <- beta_2 v + (1 - beta_2) g^2
//! x <- x - step_size / (1 - beta_1^t) * m / (sqrt(v) / sqrt(1 - beta_2^t) + epsilon)
//! ```
//!
//! Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019, with the
//! defaults of PyTorch's `torch.optim.AdamW`. Limits: a method for noisy gradients; with a fixed step
//! size it hovers about a minimiser at a distance of the order of the step size.

use crate::registry::{Entry, Order, SettingInfo};
use crate::{Iterative, Limits, SolveError, Solver, State};
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// The registry's line: the method on the profile objective of linear tasks.
pub const ENTRY: Entry = Entry {
    name: "adamw",
    summary: "AdamW on the factors, constant step.",
    order: Order::First,
    memory: "4 n",
    guarantees: "none; circles about a minimum at a distance of the order of its step",
    needs_start: true,
    settings: &[
        SettingInfo { name: "step_size", default: "0.01", meaning: "step, above 0" },
        SettingInfo {
            name: "first_decay",
            default: "0.9",
            meaning: "memory of the mean, in [0, 1)",
        },
        SettingInfo {
            name: "second_decay",
            default: "0.999",
            meaning: "memory of the mean square, in [0, 1)",
        },
        SettingInfo { name: "epsilon", default: "1e-8", meaning: "added to the root, from 0" },
        SettingInfo {
            name: "weight_decay",
            default: "0",
            meaning: "decoupled decay, from 0; above 0 the end is beside the minimum",
        },
    ],
    build: |settings| {
        let number = |name, default| {
            settings.number(name, default, 0.0..=f64::MAX, "a finite number, 0 or more")
        };
        let solver = AdamW {
            step_size: number("step_size", 0.01)?,
            first_decay: number("first_decay", 0.9)?,
            second_decay: number("second_decay", 0.999)?,
            epsilon: number("epsilon", 1e-8)?,
            weight_decay: number("weight_decay", 0.0)?,
        };
        solver.check()?;
        let limits = settings.limits(Limits::default());
        Ok(Box::new(Iterative { name: "adamw", solver, limits }))
    },
};

/// The method; see the module's header.
///
/// State: vectors m, v; scalars `beta_1^t`, `beta_2^t`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Step size. Default 1e-3; positive.
    pub step_size: f64,
    /// Decay of the mean of gradients. Default 0.9; in 0 <= beta < 1.
    pub first_decay: f64,
    /// Decay of the mean of squared gradients. Default 0.999; in 0 <= beta < 1.
    pub second_decay: f64,
    /// Added to the root of the mean square. Default 1e-8; at least 0.
    pub epsilon: f64,
    /// Decay of the weights, times the step size. Default 0.01; at least 0.
    pub weight_decay: f64,
}

impl Default for AdamW {
    fn default() -> Self {
        Self {
            step_size: 1e-3,
            first_decay: 0.9,
            second_decay: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
        }
    }
}

impl AdamW {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`SolveError::Setting`] with the one that is out of range.
    pub fn check(&self) -> Result<(), SolveError> {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let not_negative = |x: f64| x >= 0.0 && x.is_finite();
        let decay = |x: f64| (0.0..1.0).contains(&x);
        let checks = [
            ("step_size", self.step_size, positive(self.step_size), "positive"),
            ("first_decay", self.first_decay, decay(self.first_decay), "0 <= decay < 1"),
            ("second_decay", self.second_decay, decay(self.second_decay), "0 <= decay < 1"),
            ("epsilon", self.epsilon, not_negative(self.epsilon), "at least 0"),
            ("weight_decay", self.weight_decay, not_negative(self.weight_decay), "at least 0"),
        ];
        for (name, value, holds, expected) in checks {
            if !holds {
                return Err(SolveError::Setting { name, value, expected });
            }
        }
        Ok(())
    }
}

impl Solver for AdamW {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        self.check()?;
        let mut state = State::at(f, x, 2, 2)?;
        state.scalars.fill(1.0);
        Ok(state)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        state.scalars[0] *= self.first_decay;
        state.scalars[1] *= self.second_decay;
        let step = self.step_size / (1.0 - state.scalars[0]);
        let root = 1.0 / (1.0 - state.scalars[1]).sqrt();
        let keep = 1.0 - self.step_size * self.weight_decay;
        let (first, second) = (1.0 - self.first_decay, 1.0 - self.second_decay);
        let [mean, square] = &mut state.vectors[..] else {
            // Only a state of another solver has other vectors.
            return Err(SolveError::NotDefined { method: "AdamW", what: "this state" });
        };
        let moments = mean.as_mut_slice().iter_mut().zip(square.as_mut_slice());
        let point = state.x.as_mut_slice().iter_mut().zip(state.gradient.as_slice());
        for ((x, g), (m, v)) in point.zip(moments) {
            *m += first * (g - *m);
            *v = self.second_decay * *v + second * g * g;
            *x = keep * *x - step * *m / (v.sqrt() * root + self.epsilon);
        }
        state.iteration += 1;
        state.value = f.gradient(&state.x, &mut state.gradient, &mut state.work);
        state.evaluations.gradients += 1;
        state.gradient_norm = state.gradient.norm();
        if state.value.is_finite() && state.gradient_norm.is_finite() {
            Ok(())
        } else {
            Err(SolveError::NotFinite { iteration: state.iteration })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iterate::{MaxIterations, Silent, run};
    use faer::{Col, Mat};
    use peftml_linalg::{Blocks, Seed};
    use peftml_theory::linear::Kind;
    use peftml_theory::shallow::{Adapters, FineTuningObjective, Network, RetrainingObjective};
    use peftml_theory::shallow::{Samples, Sizes};

    const D: usize = 6;
    const TASKS: usize = 3;
    const COUNT: usize = 45;

    /// One weight matrix with its gradient and moments, as plain as can be.
    struct Plain {
        value: Vec<Vec<f64>>,
        gradient: Vec<Vec<f64>>,
        mean: Vec<Vec<f64>>,
        square: Vec<Vec<f64>>,
    }

    impl Plain {
        fn new(m: faer::MatRef<'_, f64>) -> Self {
            let value: Vec<Vec<f64>> =
                (0..m.nrows()).map(|i| (0..m.ncols()).map(|j| m[(i, j)]).collect()).collect();
            let zero = vec![vec![0.0; m.ncols()]; m.nrows()];
            Self { value, gradient: zero.clone(), mean: zero.clone(), square: zero }
        }

        /// PyTorch's order of operations: powers of beta by `powi`, decay first, then moments.
        fn step(&mut self, options: &AdamW, t: i32) {
            for i in 0..self.value.len() {
                for j in 0..self.value[i].len() {
                    let g = self.gradient[i][j];
                    self.value[i][j] *= 1.0 - options.step_size * options.weight_decay;
                    self.mean[i][j] =
                        options.first_decay * self.mean[i][j] + (1.0 - options.first_decay) * g;
                    self.square[i][j] = options.second_decay * self.square[i][j]
                        + (1.0 - options.second_decay) * g * g;
                    let correction = 1.0 - options.second_decay.powi(t);
                    let denominator =
                        self.square[i][j].sqrt() / correction.sqrt() + options.epsilon;
                    self.value[i][j] -= options.step_size / (1.0 - options.first_decay.powi(t))
                        * self.mean[i][j]
                        / denominator;
                    self.gradient[i][j] = 0.0;
                }
            }
        }
    }

    /// Gradients of one task's mean squared error, sample by sample, by the chain rule.
    #[expect(clippy::needless_range_loop, reason = "formulas with indices, on purpose")]
    fn accumulate(
        x: &Mat<f64>,
        y: &Col<f64>,
        (w, c): (&mut Plain, &mut Plain),
        (u, v): (&mut Plain, &mut Plain),
    ) {
        let (n, rank) = (x.ncols(), v.value[0].len());
        for s in 0..n {
            let reduced: Vec<f64> =
                (0..rank).map(|r| (0..D).map(|j| v.value[j][r] * x[(j, s)]).sum()).collect();
            let mut hidden = [0.0; D];
            let mut output = 0.0;
            for i in 0..D {
                let mut z = 0.0;
                for j in 0..D {
                    z += w.value[i][j] * x[(j, s)];
                }
                for r in 0..rank {
                    z += u.value[i][r] * reduced[r];
                }
                hidden[i] = 1.0 / (1.0 + (-z).exp());
                output += c.value[i][0] * hidden[i];
            }
            let back = 2.0 / n as f64 * (output - y[s]);
            for i in 0..D {
                c.gradient[i][0] += back * hidden[i];
                let delta = back * c.value[i][0] * hidden[i] * (1.0 - hidden[i]);
                for j in 0..D {
                    w.gradient[i][j] += delta * x[(j, s)];
                }
                for r in 0..rank {
                    u.gradient[i][r] += delta * reduced[r];
                    for j in 0..D {
                        v.gradient[j][r] += delta * u.value[i][r] * x[(j, s)];
                    }
                }
            }
        }
    }

    fn tasks(seed: u64) -> (Vec<Mat<f64>>, Vec<Col<f64>>, Vec<Samples>) {
        let mut stream = Seed::root(seed).child("adamw").stream();
        let x: Vec<_> = (0..TASKS).map(|_| stream.normal_matrix(D, COUNT, 1.0)).collect();
        let y: Vec<_> =
            (0..TASKS).map(|_| Col::from_fn(COUNT, |_| 2.0 * stream.normal())).collect();
        let samples = x
            .iter()
            .zip(&y)
            .map(|(x, y)| Samples::new(Sizes::square(D), x.as_ref(), y.as_ref()).unwrap())
            .collect();
        (x, y, samples)
    }

    fn difference(plain: &Plain, m: faer::MatRef<'_, f64>) -> (f64, f64) {
        let mut most = (0.0_f64, 0.0_f64);
        for i in 0..m.nrows() {
            for j in 0..m.ncols() {
                most.0 = most.0.max((plain.value[i][j] - m[(i, j)]).abs());
                most.1 = most.1.max(m[(i, j)].abs());
            }
        }
        most
    }

    /// The steps divide by the root of squared gradients: where a gradient passes through zero,
    /// rounding of size 1e-16 grows. 1e-10 is what a hundred steps are asked to keep.
    #[test]
    fn a_hundred_retraining_steps_agree_with_plain_loops() {
        let (x, y, samples) = tasks(1);
        let adapters = Adapters { kind: Kind::Asymmetric, rank: 2 };
        let f = RetrainingObjective::new(Sizes::square(D), Some(adapters), &samples).unwrap();
        let mut start = Blocks::zeros(f.layout().clone());
        Seed::root(2).stream().fill_normal(0.5, start.as_mut_slice());
        // The reference's adapters start at B = 0.
        (2..2 + TASKS).for_each(|i| start.block_mut(i).fill(0.0));
        let options = AdamW { step_size: 0.01, weight_decay: 0.1, ..AdamW::default() };
        let mut plain: Vec<Plain> =
            (0..start.count()).map(|i| Plain::new(start.block(i))).collect();
        let state = run(&options, &f, start.clone(), &MaxIterations(100), &mut Silent).unwrap();
        for step in 1..=100 {
            for t in 0..TASKS {
                let [w, c, rest @ ..] = &mut plain[..] else { unreachable!() };
                let (left, right) = rest.split_at_mut(TASKS);
                accumulate(&x[t], &y[t], (w, c), (&mut left[t], &mut right[t]));
            }
            plain.iter_mut().for_each(|p| p.step(&options, step));
        }
        for (i, plain) in plain.iter().enumerate() {
            let (error, size) = difference(plain, state.x.block(i));
            assert!(error < 1e-10 * size, "block {i}: {error} of {size}");
        }
        assert!(state.value < 0.9 * f.value(&start, &mut vec![0.0; f.work_len()]));

        // Teeth: decay inside the gradient (Adam with L2) is another method.
        let other = AdamW { weight_decay: 0.0, ..options };
        let state = run(&other, &f, start, &MaxIterations(100), &mut Silent).unwrap();
        let (error, size) = difference(&plain[0], state.x.block(0));
        assert!(error > 1e-3 * size);
    }

    #[test]
    fn a_hundred_fine_tuning_steps_agree_with_plain_loops() {
        let (x, y, samples) = tasks(3);
        let mut network = Network::zeros(Sizes::square(D)).unwrap();
        Seed::root(4).stream().fill_normal(0.7, network.weights_mut().as_mut_slice());
        let adapters = Adapters { kind: Kind::Asymmetric, rank: 3 };
        let f = FineTuningObjective::new(&network, adapters, &samples[0]).unwrap();
        let mut start = Blocks::zeros(f.layout().clone());
        Seed::root(5).stream().fill_normal(0.5, start.as_mut_slice());
        let options = AdamW { step_size: 0.01, ..AdamW::default() };
        let mut plain = [Plain::new(start.block(0)), Plain::new(start.block(1))];
        let (mut w, mut c) = (Plain::new(network.first()), Plain::new(network.second()));
        let state = run(&options, &f, start, &MaxIterations(100), &mut Silent).unwrap();
        for step in 1..=100 {
            let [u, v] = &mut plain;
            accumulate(&x[0], &y[0], (&mut w, &mut c), (u, v));
            plain.iter_mut().for_each(|p| p.step(&options, step));
        }
        for (i, plain) in plain.iter().enumerate() {
            let (error, size) = difference(plain, state.x.block(i));
            assert!(error < 1e-10 * size, "block {i}: {error} of {size}");
        }
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        for (options, expected) in [
            (AdamW { step_size: 0.0, ..AdamW::default() }, "step_size"),
            (AdamW { first_decay: 1.0, ..AdamW::default() }, "first_decay"),
            (AdamW { second_decay: -0.1, ..AdamW::default() }, "second_decay"),
            (AdamW { epsilon: f64::NAN, ..AdamW::default() }, "epsilon"),
            (AdamW { weight_decay: f64::INFINITY, ..AdamW::default() }, "weight_decay"),
        ] {
            let refused = options.check();
            assert!(matches!(refused, Err(SolveError::Setting { name, .. }) if name == expected));
        }
        assert!(AdamW::default().check().is_ok());
    }
}
