//! Gradient flow `dx/dt = -grad f(x)` by an adaptive Runge-Kutta method.
//!
//! The pair of order 5 with an estimate of order 4 of Dormand and Prince (1980): seven stages, the last
//! of which is the next step's first. A step h is taken where the estimate is at most `accuracy ||x||`;
//! the next one is `h min(5, max(1/5, 0.9 (accuracy ||x|| / error)^(1/5)))`; one that does not decrease
//! the value, as the flow does, is halved. An iteration is a step taken. Follows the flow closely rather than going to its end fast: for statements about flows
//! (theory.md C6: two tasks conserve `U_1^T U_2`), and as the limit of gradient descent with small steps.
//!
//! Limits: explicit, so that near a minimum the step stays at about 3.3 over the largest curvature,
//! whatever the accuracy. Time since the start is the scalar [`TIME`].

use super::stagnate;
use crate::registry::{Entry, Order, SettingInfo};
use crate::{Iterative, Limits, SolveError, Solver, State};
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// The registry's line.
pub const ENTRY: Entry = Entry {
    name: "gradient-flow",
    summary: "Gradient flow by an adaptive Runge-Kutta method of order 5 (Dormand and Prince).",
    order: Order::First,
    memory: "10 n",
    guarantees: "decreases the objective; bounded for two tasks, which conserve U_1^T U_2",
    needs_start: true,
    settings: &[SettingInfo {
        name: "accuracy",
        default: "1e-6",
        meaning: "error of a step over the iterate's norm, from 1e-13 to 0.1",
    }],
    build: |settings| {
        let default = GradientFlow::default();
        let accuracy = settings.number(
            "accuracy",
            default.accuracy,
            LEAST_ACCURACY..=0.1,
            "a number from 1e-13 to 0.1",
        )?;
        let limits = settings.limits(Limits { max_iterations: 20_000, ..Default::default() });
        Ok(Box::new(Iterative { name: "gradient-flow", solver: GradientFlow { accuracy }, limits }))
    },
};

/// The method; see the module's header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientFlow {
    /// Error of a step over the iterate's norm.
    pub accuracy: f64,
}

impl Default for GradientFlow {
    fn default() -> Self {
        Self { accuracy: 1e-6 }
    }
}

/// Position of the time in the state's scalars.
pub const TIME: usize = 1;

/// Below this, rounding is most of the estimate.
const LEAST_ACCURACY: f64 = 1e-13;
/// Trials of one step; each is at least five times shorter than the one before at worst.
const TRIALS: usize = 60;
const STEP: usize = 0;
const ORIGIN: usize = 0;
const GRADIENT: usize = 1;
const ERROR: usize = 2;
/// Stages 2 to 6; the first is the gradient at the origin, the seventh that at the end.
const STAGES: usize = 3;

/// `a_ij` of stages 2 to 6, and the weights of the solution of order 5.
const INNER: [&[f64]; 6] = [
    &[1.0 / 5.0],
    &[3.0 / 40.0, 9.0 / 40.0],
    &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
    &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
    &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
    &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0],
];
/// Weights of the difference of the solutions of orders 5 and 4.
const DIFFERENCE: [f64; 7] = [
    71.0 / 57600.0,
    0.0,
    -71.0 / 16695.0,
    71.0 / 1920.0,
    -17253.0 / 339200.0,
    22.0 / 525.0,
    -1.0 / 40.0,
];

impl Solver for GradientFlow {
    fn init(&self, f: &dyn Objective, x: Blocks) -> Result<State, SolveError> {
        if !(LEAST_ACCURACY..=0.1).contains(&self.accuracy) {
            let expected = "a number from 1e-13 to 0.1";
            return Err(SolveError::Setting { name: "accuracy", value: self.accuracy, expected });
        }
        let mut state = State::at(f, x, STAGES + 5, 2)?;
        // A hundredth of the iterate's own time scale.
        let scale = state.gradient_norm.max(f64::MIN_POSITIVE);
        state.scalars[STEP] = (0.01 * state.x.norm() / scale).max(f64::MIN_POSITIVE);
        Ok(state)
    }

    fn step(&self, f: &dyn Objective, state: &mut State) -> Result<(), SolveError> {
        let mut vectors = std::mem::take(&mut state.vectors);
        vectors[ORIGIN].copy_from(&state.x);
        vectors[GRADIENT].copy_from(&state.gradient);
        let (value, allowed) = (state.value, self.accuracy * state.x.norm());
        let mut taken = false;
        for _ in 0..TRIALS {
            let h = state.scalars[STEP];
            let error = attempt(f, state, &mut vectors, h);
            let ratio = if error.is_finite() { error / allowed } else { f64::INFINITY };
            // A ratio of 0 asks for the longest step, infinity and NaN for the shortest.
            let factor = (0.9 * ratio.powf(-0.2)).clamp(0.2, 5.0);
            // Near its end the flow moves by less than the accuracy; the value tells where it goes.
            let good = ratio <= 1.0 && state.value < value;
            state.scalars[STEP] = h * if good { factor } else { factor.min(0.5) };
            if good {
                state.scalars[TIME] += h;
                taken = true;
                break;
            }
        }
        if taken {
            state.gradient_norm = state.gradient.norm();
            state.iteration += 1;
        } else {
            stagnate(state, &vectors[ORIGIN], &vectors[GRADIENT], value);
        }
        state.vectors = vectors;
        Ok(())
    }
}

/// Tries a step h from the origin: `x`, value and gradient there; the norm of the error's estimate.
fn attempt(f: &dyn Objective, state: &mut State, vectors: &mut [Blocks], h: f64) -> f64 {
    let (head, stages) = vectors.split_at_mut(STAGES);
    for (stage, weights) in INNER.iter().enumerate() {
        state.x.copy_from(&head[ORIGIN]);
        state.x.add_scaled(-h * weights[0], &head[GRADIENT]);
        for (weight, slope) in weights[1..].iter().zip(stages.iter()) {
            state.x.add_scaled(-h * weight, slope);
        }
        let out = stages.get_mut(stage).unwrap_or(&mut state.gradient);
        state.value = f.gradient(&state.x, out, &mut state.work);
        state.evaluations.gradients += 1;
    }
    let error = &mut head[ERROR..];
    error[0].copy_from(&state.gradient);
    error[0].scale(DIFFERENCE[6]);
    for (weight, slope) in DIFFERENCE[1..6].iter().zip(stages.iter()) {
        error[0].add_scaled(*weight, slope);
    }
    let (before, error) = head.split_at_mut(ERROR);
    error[0].add_scaled(DIFFERENCE[0], &before[GRADIENT]);
    h * error[0].norm()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iterate::{self, MaxIterations, Silent};
    use peftml_linalg::{Layout, Seed};
    use peftml_theory::Gauge;

    #[test]
    fn the_tableau_is_of_orders_five_and_four() {
        let nodes: Vec<f64> = INNER.iter().map(|row| row.iter().sum()).collect();
        let expected = [0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];
        for (node, expected) in nodes.iter().zip(expected) {
            assert!((node - expected).abs() < 1e-14);
        }
        // Quadrature conditions: sum b_i c_i^q = 1 / (q + 1); the difference has none up to order 4.
        let c: [f64; 7] = [0.0, 0.2, 0.3, 0.8, 8.0 / 9.0, 1.0, 1.0];
        for q in 0..5 {
            let sum: f64 = INNER[5].iter().zip(c).map(|(b, c)| b * c.powi(q)).sum();
            assert!((sum - 1.0 / f64::from(q + 1)).abs() < 1e-14, "order {}", q + 1);
            let rest: f64 = DIFFERENCE.iter().zip(c).map(|(e, c)| e * c.powi(q)).sum();
            assert_eq!(rest.abs() < 1e-14, q < 4, "difference, order {}", q + 1);
        }
    }

    /// `f = 1/2 sum c_i x_i^2`: the flow is `x_i exp(-c_i t)`.
    struct Quadratic {
        layout: Layout,
        curvatures: Vec<f64>,
    }

    impl Objective for Quadratic {
        fn layout(&self) -> &Layout {
            &self.layout
        }
        fn work_len(&self) -> usize {
            0
        }
        fn value(&self, x: &Blocks, _: &mut [f64]) -> f64 {
            x.as_slice().iter().zip(&self.curvatures).map(|(x, c)| 0.5 * c * x * x).sum()
        }
        fn gradient(&self, x: &Blocks, out: &mut Blocks, work: &mut [f64]) -> f64 {
            self.hessian_product(x, x, out, work);
            self.value(x, work)
        }
        fn hessian_product(&self, _: &Blocks, v: &Blocks, out: &mut Blocks, _: &mut [f64]) {
            let pairs = v.as_slice().iter().zip(&self.curvatures);
            out.as_mut_slice().iter_mut().zip(pairs).for_each(|(o, (v, c))| *o = c * v);
        }
        fn gauss_newton_product(&self, x: &Blocks, v: &Blocks, o: &mut Blocks, w: &mut [f64]) {
            self.hessian_product(x, v, o, w);
        }
        fn gauge(&self) -> Gauge {
            Gauge::Orthogonal
        }
    }

    #[test]
    fn it_follows_the_flow_as_closely_as_it_is_told() {
        let f = Quadratic {
            layout: Layout::repeated("U", 2, 2, 1),
            curvatures: vec![0.1, 1.0, 3.0, 10.0],
        };
        let mut x = Blocks::zeros(f.layout().clone());
        Seed::root(2).child("flow").stream().fill_normal(1.0, x.as_mut_slice());
        let mut last = f64::INFINITY;
        for accuracy in [1e-4, 1e-7, 1e-10] {
            let flow = GradientFlow { accuracy };
            let rule = MaxIterations(40);
            let end = iterate::run(&flow, &f, x.clone(), &rule, &mut Silent).unwrap();
            let time = end.scalars[TIME];
            assert!(time > 0.0);
            let error = x
                .as_slice()
                .iter()
                .zip(&f.curvatures)
                .zip(end.x.as_slice())
                .map(|((x, c), found)| (x * (-c * time).exp() - found).abs())
                .fold(0.0, f64::max);
            // At most 40 steps, each off by at most the accuracy times the norm; the flow contracts.
            assert!(error <= 40.0 * accuracy * x.norm(), "{accuracy}: {error}");
            assert!(error < 0.1 * last, "closer with more accuracy: {error} after {last}");
            last = error;
        }
    }

    #[test]
    fn an_accuracy_that_rounding_does_not_allow_is_refused() {
        let f = Quadratic { layout: Layout::repeated("U", 1, 1, 1), curvatures: vec![1.0] };
        for accuracy in [0.0, 1e-14, 0.2, f64::NAN] {
            let x = Blocks::zeros(f.layout().clone());
            let refusal = GradientFlow { accuracy }.init(&f, x).err();
            assert!(matches!(refusal, Some(SolveError::Setting { .. })), "{accuracy}");
        }
    }
}
