//! Taylor-remainder checks of gradients and Hessian products.
//!
//! Along `x + h v`, `h = 1, 1/2, 1/4, ..`:
//!
//! | remainder | of the gradient `g` | of the Hessian product `H v` | slope |
//! |---|---|---|---|
//! | forward | `F(x+hv) - F(x) - h <g,v>` | `g(x+hv) - g(x) - h H v` | 2 |
//! | central | `(F(x+hv) - F(x-hv))/2 - h <g,v>` | `(g(x+hv) - g(x-hv))/2 - h H v` | 3 |
//!
//! A derivative that is wrong by `e` along `v` leaves `h |e|`: slope 1. The central remainder is zero
//! at every step for quadratics (gradient) and cubics (Hessian product): the exact case.
//!
//! What counts as zero is measured: fourth differences on a grid of step `2^-26 v` leave the
//! rounding noise of the evaluation (Moré and Wild, "Estimating computational noise", SIAM J. Sci.
//! Comput. 33, 2011), rounding of `x + h v` included; the derivative's own noise counts h times.
//! Slopes are fitted to the smallest steps whose remainder stands above that noise, where a wrong
//! derivative shows first.
//! Limits: an error of `v`-component below about `noise^(2/3) |F'''|^(1/3)` is not seen; directions
//! orthogonal to `v` are not seen: use several random ones.

use crate::Objective;
use peftml_linalg::Blocks;

/// Steps `2^-j`, j = 0..STEPS.
const STEPS: usize = 27;
/// Steps to fit a slope to: a factor 32 in h.
const FITTED: usize = 6;
/// Remainders must stand this many noise levels above zero: at 50 the noise changes
/// `log2(remainder)` by 0.03, the fitted slope over 5 octaves by less.
const ABOVE_NOISE: f64 = 50.0;
/// Points of the noise grid.
const NOISE_POINTS: usize = 9;
/// How far a fitted slope may lie below the order: over the five octaves the next Taylor term would
/// have to be half of the leading one at the largest step to bend it by more.
const SLOPE_SLACK: f64 = 0.25;

/// What a sequence of remainders says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Order {
    /// The remainder falls like `h^slope` down to the noise.
    Slope(f64),
    /// The remainder is at the noise for every step: the expansion is exact.
    Exact,
    /// Fewer steps than a fit needs stand above the noise, or an evaluation is not finite.
    Unresolved,
}

/// Remainders over the steps, largest step first.
#[derive(Clone, Debug, PartialEq)]
pub struct Remainders {
    /// Steps h.
    pub steps: Vec<f64>,
    /// Remainder (modulus or Euclidean norm) at each step.
    pub values: Vec<f64>,
    /// Rounding noise of the function.
    pub noise: f64,
    /// Rounding noise of its derivative along the direction.
    pub derivative_noise: f64,
    /// Fitted order.
    pub order: Order,
    /// Order of the remainder of a right derivative.
    pub expected: f64,
}

impl Remainders {
    /// Whether the order is the expected one, or better, or exact.
    pub fn passes(&self) -> bool {
        match self.order {
            Order::Slope(slope) => slope >= self.expected - SLOPE_SLACK,
            Order::Exact => true,
            Order::Unresolved => false,
        }
    }

    fn new(values: Vec<f64>, noise: f64, derivative_noise: f64, expected: f64) -> Self {
        let steps: Vec<f64> = (0..values.len()).map(|j| 0.5_f64.powi(j as i32)).collect();
        let order = fit(&steps, &values, |h| ABOVE_NOISE * (noise + h * derivative_noise));
        Self { steps, values, noise, derivative_noise, order, expected }
    }
}

/// Forward and central remainders of one derivative along one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct DerivativeCheck {
    /// One-sided remainders, order 2.
    pub forward: Remainders,
    /// Symmetric remainders, order 3, exact for a polynomial of one degree more than forward.
    pub central: Remainders,
}

impl DerivativeCheck {
    /// Whether both sequences pass.
    pub fn passes(&self) -> bool {
        self.forward.passes() && self.central.passes()
    }
}

/// Why a check cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DerivativeCheckError {
    /// Point or direction belong to another space.
    #[error("the {what} has another layout than the objective's points")]
    Layout {
        /// Point or direction.
        what: &'static str,
    },
    /// Every derivative along 0 is 0.
    #[error("the direction is zero or not finite: nothing can be seen along it")]
    Direction,
}

/// Checks [`Objective::gradient`] at `x` along `direction`, which should be of the size of the point.
///
/// # Errors
/// [`DerivativeCheckError`] for a direction that is zero or does not fit.
///
/// ```
/// use faer::Mat;
/// use peftml_linalg::{Blocks, Seed};
/// use peftml_theory::linear::{Kind, ProfileObjective, Tasks};
/// use peftml_theory::{Objective, derivative_check};
/// let mut stream = Seed::root(1).stream();
/// let tasks = Tasks::exact((0..3).map(|_| stream.normal_matrix(4, 4, 1.0))).unwrap();
/// let objective = ProfileObjective::new(&tasks, Kind::Symmetric, 2).unwrap();
/// let mut x = Blocks::zeros(objective.layout().clone());
/// let mut v = x.clone();
/// stream.fill_normal(1.0, x.as_mut_slice());
/// stream.fill_normal(1.0, v.as_mut_slice());
/// assert!(derivative_check::gradient(&objective, &x, &v).unwrap().passes());
/// ```
pub fn gradient(
    objective: &dyn Objective,
    x: &Blocks,
    direction: &Blocks,
) -> Result<DerivativeCheck, DerivativeCheckError> {
    check_input(objective, x, direction)?;
    let mut g = x.zeros_like();
    let mut work = vec![0.0; objective.work_len()];
    let mut more_work = work.clone();
    Ok(remainders(
        x,
        direction,
        1,
        |point, out| out[0] = objective.value(point, &mut work),
        |point, out| {
            objective.gradient(point, &mut g, &mut more_work);
            out[0] = g.dot(direction);
        },
    ))
}

/// Checks [`Objective::hessian_product`] at `x` along `direction` against the gradient.
///
/// # Errors
/// As [`gradient`].
pub fn hessian_product(
    objective: &dyn Objective,
    x: &Blocks,
    direction: &Blocks,
) -> Result<DerivativeCheck, DerivativeCheckError> {
    check_input(objective, x, direction)?;
    let (mut g, mut product) = (x.zeros_like(), x.zeros_like());
    let mut work = vec![0.0; objective.work_len()];
    let mut more_work = work.clone();
    Ok(remainders(
        x,
        direction,
        x.as_slice().len(),
        |point, out| {
            objective.gradient(point, &mut g, &mut work);
            out.copy_from_slice(g.as_slice());
        },
        |point, out| {
            objective.hessian_product(point, direction, &mut product, &mut more_work);
            out.copy_from_slice(product.as_slice());
        },
    ))
}

fn check_input(
    objective: &dyn Objective,
    x: &Blocks,
    direction: &Blocks,
) -> Result<(), DerivativeCheckError> {
    for (what, blocks) in [("point", x), ("direction", direction)] {
        if blocks.layout() != objective.layout() {
            return Err(DerivativeCheckError::Layout { what });
        }
    }
    let size = direction.norm();
    if size == 0.0 || !size.is_finite() || !x.is_finite() {
        return Err(DerivativeCheckError::Direction);
    }
    Ok(())
}

/// Remainders of `f`, which has `n` numbers, around `x`; `derivative` gives `f'(.) v`.
fn remainders(
    x: &Blocks,
    v: &Blocks,
    n: usize,
    mut f: impl FnMut(&Blocks, &mut [f64]),
    mut derivative: impl FnMut(&Blocks, &mut [f64]),
) -> DerivativeCheck {
    let shift = |h: f64| {
        let mut point = x.clone();
        point.add_scaled(h, v);
        point
    };
    let mut slope = vec![0.0; n];
    derivative(x, &mut slope);
    let derivative_noise = noise(n, |h, out| derivative(&shift(h), out));
    let mut at = |h: f64, out: &mut [f64]| f(&shift(h), out);
    let (mut centre, mut plus, mut minus) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    at(0.0, &mut centre);
    let (mut forward, mut central) = (Vec::with_capacity(STEPS), Vec::with_capacity(STEPS));
    for j in 0..STEPS {
        let h = 0.5_f64.powi(j as i32);
        at(h, &mut plus);
        at(-h, &mut minus);
        let norm =
            |part: &dyn Fn(usize) -> f64| (0..n).map(part).map(|r| r * r).sum::<f64>().sqrt();
        forward.push(norm(&|i| plus[i] - centre[i] - h * slope[i]));
        central.push(norm(&|i| 0.5 * (plus[i] - minus[i]) - h * slope[i]));
    }
    let noise = noise(n, at);
    DerivativeCheck {
        forward: Remainders::new(forward, noise, derivative_noise, 2.0),
        central: Remainders::new(central, noise, derivative_noise, 3.0),
    }
}

/// Standard deviation of an evaluation's rounding, from fourth differences; at least one rounding of
/// the value.
fn noise(n: usize, mut at: impl FnMut(f64, &mut [f64])) -> f64 {
    let mut table = vec![vec![0.0; n]; NOISE_POINTS];
    for (j, row) in table.iter_mut().enumerate() {
        at((j as f64 - 4.0) * 0.5_f64.powi(26), row);
    }
    let size = table[4].iter().map(|y| y * y).sum::<f64>().sqrt();
    for order in 1..=4 {
        for j in 0..NOISE_POINTS - order {
            let (left, right) = table.split_at_mut(j + 1);
            for (y, next) in left[j].iter_mut().zip(&right[0]) {
                *y = next - *y;
            }
        }
    }
    // The fourth difference of independent noise has variance (8)!/(4!)^2 = 70 times its variance.
    let kept = &table[..NOISE_POINTS - 4];
    let sum: f64 = kept.iter().flatten().map(|y| y * y).sum();
    (sum / (70.0 * kept.len() as f64)).sqrt().max(f64::EPSILON * size)
}

/// Least-squares slope of `log2 value` over `log2 step`, of the smallest steps above `floor`.
fn fit(steps: &[f64], values: &[f64], floor: impl Fn(f64) -> f64) -> Order {
    if values.iter().any(|v| !v.is_finite()) || !floor(1.0).is_finite() {
        return Order::Unresolved;
    }
    let above = steps.iter().zip(values).take_while(|(h, v)| **v > floor(**h)).count();
    if above == 0 {
        return Order::Exact;
    }
    if above < FITTED {
        return Order::Unresolved;
    }
    let range = above - FITTED..above;
    let points: Vec<(f64, f64)> = range.map(|i| (steps[i].log2(), values[i].log2())).collect();
    let mean = |part: fn(&(f64, f64)) -> f64| points.iter().map(part).sum::<f64>() / FITTED as f64;
    let (mean_x, mean_y) = (mean(|p| p.0), mean(|p| p.1));
    let covariance: f64 = points.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    let variance: f64 = points.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    Order::Slope(covariance / variance)
}

#[cfg(test)]
mod tests;
