//! Line searches: a step length along a direction of descent.
//!
//! Both leave the accepted point, its value and gradient in the state, and evaluate value and gradient
//! together at every trial (a gradient costs little more than a value here). `phi(a) = f(x + a p)`.

use crate::State;
use peftml_linalg::Blocks;
use peftml_theory::Objective;

/// Roundings that may hide a decrease of the value: a few times the unit roundoff.
const ROUNDING: f64 = 8.0 * f64::EPSILON;

/// Where a search begins: the point, its gradient and a direction with `slope = <gradient, p> < 0`.
pub(crate) struct Line<'a> {
    /// The point `x`.
    pub origin: &'a Blocks,
    /// The direction `p`.
    pub direction: &'a Blocks,
    /// `phi(0)`.
    pub value: f64,
    /// `phi'(0)`.
    pub slope: f64,
}

impl Line<'_> {
    /// Moves the state to `x + step p`, evaluates there, and returns `phi'(step)`.
    fn evaluate(&self, f: &dyn Objective, state: &mut State, step: f64) -> f64 {
        state.x.set_sum(self.origin, step, self.direction);
        state.value = f.gradient(&state.x, &mut state.gradient, &mut state.work);
        state.evaluations.gradients += 1;
        state.gradient.dot(self.direction)
    }
}

/// Halves the step from `first` until `phi(a) <= phi(0) + 1e-4 a phi'(0)`. The accepted step, or `None`
/// where 60 halvings do not do.
pub(crate) fn backtrack(
    f: &dyn Objective,
    state: &mut State,
    line: &Line<'_>,
    first: f64,
) -> Option<f64> {
    const DECREASE: f64 = 1e-4;
    let mut step = first;
    for _ in 0..60 {
        line.evaluate(f, state, step);
        // Where the decrease is below rounding only the inequality without it can be tested.
        let noise = ROUNDING * line.value.abs();
        if state.value <= line.value + (DECREASE * step * line.slope).min(-noise) {
            return Some(step);
        }
        if -step * line.slope < noise {
            return None;
        }
        step *= 0.5;
    }
    None
}

/// Numbers of [`wolfe`].
pub(crate) struct Wolfe {
    /// `phi(a) <= phi(0) + decrease a phi'(0)`.
    pub decrease: f64,
    /// `|phi'(a)| <= curvature |phi'(0)|`.
    pub curvature: f64,
    /// Stops where the interval of uncertainty is this small, relatively.
    pub interval: f64,
    /// Most trials.
    pub trials: usize,
}

/// One end of the interval of uncertainty.
#[derive(Clone, Copy)]
struct End {
    step: f64,
    value: f64,
    slope: f64,
}

/// The line search of Moré and Thuente (ACM TOMS 20, 1994) for the strong Wolfe conditions, from the
/// step `first`. `None` where `trials` do not do; an interval shrunk to rounding ends at its best point.
pub(crate) fn wolfe(
    f: &dyn Objective,
    state: &mut State,
    line: &Line<'_>,
    first: f64,
    limits: &Wolfe,
) -> Option<f64> {
    let test_slope = limits.decrease * line.slope;
    let start = End { step: 0.0, value: line.value, slope: line.slope };
    let (mut best, mut other) = (start, start);
    let mut bracketed = false;
    let mut first_stage = true;
    let (mut width, mut last_width) = (f64::INFINITY, f64::INFINITY);
    let (mut least, mut most) = (0.0, 5.0 * first);
    let mut step = first;
    for _ in 0..limits.trials {
        let slope = line.evaluate(f, state, step);
        let trial = End { step, value: state.value, slope };
        if !trial.value.is_finite() || !trial.slope.is_finite() {
            // Out of the finite numbers: the interval ends before this step.
            most = step;
            step = best.step + 0.1 * (step - best.step);
            continue;
        }
        let enough = line.value + step * test_slope;
        first_stage &= !(trial.value <= enough && trial.slope >= 0.0);
        if trial.value <= enough && trial.slope.abs() <= -limits.curvature * line.slope {
            return Some(step);
        }
        let shrunk = most - least <= limits.interval * most;
        if bracketed && (step <= least || step >= most || shrunk) {
            return (trial.value <= enough).then_some(step);
        }
        if first_stage && trial.value <= best.value && trial.value > enough {
            // Until the function lies below the line of sufficient decrease, work on the difference.
            let lowered = |end: End| End {
                value: end.value - end.step * test_slope,
                slope: end.slope - test_slope,
                ..end
            };
            let raised = |end: End| End {
                value: end.value + end.step * test_slope,
                slope: end.slope + test_slope,
                ..end
            };
            let (mut low, mut high) = (lowered(best), lowered(other));
            step = next_step(&mut low, &mut high, lowered(trial), &mut bracketed, least, most);
            (best, other) = (raised(low), raised(high));
        } else {
            step = next_step(&mut best, &mut other, trial, &mut bracketed, least, most);
        }
        if bracketed {
            let now = (other.step - best.step).abs();
            if now >= 0.66 * last_width {
                step = best.step + 0.5 * (other.step - best.step);
            }
            (last_width, width) = (width, now);
            (least, most) = (best.step.min(other.step), best.step.max(other.step));
        } else {
            let past = step - best.step;
            (least, most) = (step + 1.1 * past, step + 4.0 * past);
        }
        if bracketed && (step <= least || step >= most || most - least <= limits.interval * most) {
            step = best.step;
        }
    }
    None
}

/// Minimiser of the cubic through two ends' values and slopes, seen from `a`.
fn cubic(a: End, b: End, clip: bool) -> (f64, f64, f64) {
    let theta = 3.0 * (a.value - b.value) / (b.step - a.step) + a.slope + b.slope;
    let size = theta.abs().max(a.slope.abs()).max(b.slope.abs());
    let inside = (theta / size).powi(2) - (a.slope / size) * (b.slope / size);
    (theta, size * if clip { inside.max(0.0) } else { inside.abs() }.sqrt(), size)
}

/// The next trial step and the shrunk interval: safeguarded cubic and quadratic interpolation, the
/// four cases of Moré and Thuente.
fn next_step(
    best: &mut End,
    other: &mut End,
    trial: End,
    bracketed: &mut bool,
    least: f64,
    most: f64,
) -> f64 {
    let opposite = trial.slope * best.slope.signum() < 0.0;
    let step;
    if trial.value > best.value {
        // Higher: the minimum is bracketed; the cubic step if closer to the best, else their mean.
        let (theta, mut gamma, _) = cubic(*best, trial, false);
        if trial.step < best.step {
            gamma = -gamma;
        }
        let ratio = ((gamma - best.slope) + theta) / (((gamma - best.slope) + gamma) + trial.slope);
        let by_cubic = best.step + ratio * (trial.step - best.step);
        let fall = (best.value - trial.value) / (trial.step - best.step) + best.slope;
        let by_quadratic = best.step + best.slope / fall / 2.0 * (trial.step - best.step);
        step = if (by_cubic - best.step).abs() < (by_quadratic - best.step).abs() {
            by_cubic
        } else {
            by_cubic + (by_quadratic - by_cubic) / 2.0
        };
        *bracketed = true;
    } else if opposite {
        // Lower, slopes of opposite sign: bracketed; the step farther from the trial.
        let (theta, mut gamma, _) = cubic(*best, trial, false);
        if trial.step > best.step {
            gamma = -gamma;
        }
        let ratio =
            ((gamma - trial.slope) + theta) / (((gamma - trial.slope) + gamma) + best.slope);
        let by_cubic = trial.step + ratio * (best.step - trial.step);
        let by_secant =
            trial.step + trial.slope / (trial.slope - best.slope) * (best.step - trial.step);
        step = if (by_cubic - trial.step).abs() > (by_secant - trial.step).abs() {
            by_cubic
        } else {
            by_secant
        };
        *bracketed = true;
    } else if trial.slope.abs() < best.slope.abs() {
        // Lower, same sign, slope fading: the cubic may have no minimum beyond the trial.
        let (theta, mut gamma, _) = cubic(*best, trial, true);
        if trial.step > best.step {
            gamma = -gamma;
        }
        let ratio =
            ((gamma - trial.slope) + theta) / ((gamma + (best.slope - trial.slope)) + gamma);
        let by_cubic = if ratio < 0.0 && gamma != 0.0 {
            trial.step + ratio * (best.step - trial.step)
        } else if trial.step > best.step {
            most
        } else {
            least
        };
        let by_secant =
            trial.step + trial.slope / (trial.slope - best.slope) * (best.step - trial.step);
        let cubic_is_closer = (by_cubic - trial.step).abs() < (by_secant - trial.step).abs();
        if *bracketed {
            let chosen = if cubic_is_closer { by_cubic } else { by_secant };
            let limit = trial.step + 0.66 * (other.step - trial.step);
            step = if trial.step > best.step { chosen.min(limit) } else { chosen.max(limit) };
        } else {
            let chosen = if cubic_is_closer { by_secant } else { by_cubic };
            step = chosen.clamp(least.min(most), most);
        }
    } else if *bracketed {
        // Lower, same sign, slope not fading: the cubic of the trial and the other end.
        let (theta, mut gamma, _) = cubic(*other, trial, false);
        if trial.step > other.step {
            gamma = -gamma;
        }
        let ratio =
            ((gamma - trial.slope) + theta) / (((gamma - trial.slope) + gamma) + other.slope);
        step = trial.step + ratio * (other.step - trial.step);
    } else {
        step = if trial.step > best.step { most } else { least };
    }
    if trial.value > best.value {
        *other = trial;
    } else {
        if opposite {
            *other = *best;
        }
        *best = trial;
    }
    step
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::Layout;
    use peftml_theory::Gauge;

    /// `f(x) = g(x)` on the line; value and derivative by closures.
    struct OnLine<F>(Layout, F);

    impl<F: Fn(f64) -> (f64, f64) + Sync> Objective for OnLine<F> {
        fn layout(&self) -> &Layout {
            &self.0
        }
        fn work_len(&self) -> usize {
            0
        }
        fn value(&self, x: &Blocks, _: &mut [f64]) -> f64 {
            self.1(x.as_slice()[0]).0
        }
        fn gradient(&self, x: &Blocks, out: &mut Blocks, _: &mut [f64]) -> f64 {
            let (value, slope) = self.1(x.as_slice()[0]);
            out.as_mut_slice()[0] = slope;
            value
        }
        fn hessian_product(&self, _: &Blocks, _: &Blocks, _: &mut Blocks, _: &mut [f64]) {}
        fn gauss_newton_product(&self, _: &Blocks, _: &Blocks, _: &mut Blocks, _: &mut [f64]) {}
        fn gauge(&self) -> Gauge {
            Gauge::None
        }
    }

    /// Value and derivative at a point.
    type Function = Box<dyn Fn(f64) -> (f64, f64) + Sync>;

    /// Functions of Moré and Thuente's paper: (5.1) with beta = 2, (5.2) with beta = 0.004 shifted, and
    /// a plain quartic.
    fn functions() -> Vec<Function> {
        vec![
            Box::new(|a: f64| {
                let q = a * a + 2.0;
                (-a / q, -1.0 / q + 2.0 * a * a / (q * q))
            }),
            Box::new(|a: f64| {
                let b = a + 0.004;
                (b.powi(5) - 2.0 * b.powi(4), 5.0 * b.powi(4) - 8.0 * b.powi(3))
            }),
            Box::new(|a: f64| ((a - 3.0).powi(4), 4.0 * (a - 3.0).powi(3))),
        ]
    }

    #[test]
    fn accepted_steps_satisfy_the_strong_wolfe_conditions_from_any_first_step() {
        for function in functions() {
            let f = OnLine(Layout::repeated("x", 1, 1, 1), function);
            for first in [1e-3, 1e-1, 1.0, 10.0, 1e3] {
                let mut state = State::at(&f, Blocks::zeros(f.layout().clone()), 0, 0).unwrap();
                let origin = state.x.clone();
                let mut direction = state.x.clone();
                direction.as_mut_slice()[0] = 1.0;
                let (value, slope) = (state.value, state.gradient.as_slice()[0]);
                let line = Line { origin: &origin, direction: &direction, value, slope };
                for (decrease, curvature) in [(1e-3, 0.9), (1e-3, 0.1)] {
                    let limits = Wolfe { decrease, curvature, interval: 1e-10, trials: 60 };
                    let step = wolfe(&f, &mut state, &line, first, &limits).unwrap();
                    assert_eq!(state.x.as_slice()[0], step);
                    assert!(state.value <= value + decrease * step * slope);
                    assert!(state.gradient.as_slice()[0].abs() <= -curvature * slope);
                }
            }
        }
    }

    #[test]
    fn backtracking_gives_up_uphill() {
        let f = OnLine(Layout::repeated("x", 1, 1, 1), |a: f64| (a, 1.0));
        let mut state = State::at(&f, Blocks::zeros(f.layout().clone()), 0, 0).unwrap();
        let origin = state.x.clone();
        let mut direction = origin.clone();
        direction.as_mut_slice()[0] = 1.0;
        // The slope is a lie: the function rises.
        let line = Line { origin: &origin, direction: &direction, value: 0.0, slope: -1.0 };
        assert_eq!(backtrack(&f, &mut state, &line, 1.0), None);
    }
}
