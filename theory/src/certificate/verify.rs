//! Proving a stored certificate.
//!
//! Nothing of the code that makes certificates is used, only the interval arithmetic and the reading
//! of numbers. The proof, with `c` the centre, `g` the gradient, `H` the Hessian, `B` the ball:
//!
//! 1. `H(x) >= lambda I` on all of `B` (on the slice's tangent space). The Hessian is evaluated with
//!    intervals over the box around `B`; `H + W S W^T - lambda I` is positive definite by interval
//!    elimination, `W` spanning the complement `{C_t W_t, W_t skew}` of the tangent space, `S >= 0`.
//!    Where the box is too wide: the same at `c` with `lambda + L r`, since
//!    `|D^3 F(x)[z,z,z]| <= (12/T) max ||U_t|| ||z||^3`.
//! 2. `||g(c)|| < lambda r`: then `<grad F(x), x - c> > 0` on the sphere of radius `r`, so the minimum
//!    over the closed ball is inside: a critical point, unique as F is strictly convex there.
//! 3. For k >= 2 that is a critical point of F on the slice; there the gradient is `C_t W_t`, `W_t` skew,
//!    and orthogonal to the orbit's direction `U_t W_t`: `tr(W_t^T C_t^T U_t W_t) = 0`, so `W_t = 0` where
//!    `C_t^T U_t` (symmetric on the slice) is positive definite.
//! 4. `F >= F(c) - ||g(c)|| r` on `B` by convexity.
//!
//! Gradient and value at the centre are computed exactly, in whole numbers over a common denominator,
//! where that has at most 4096 bits (and all residuals together 2^27), else with intervals. Hessian entries, for coordinates (task, row,
//! column): `(2/T)[(d_ts - 1/T)(d_ab <u_i, w_j> + u_i[b] w_j[a]) - d_ts d_ij G_t[a,b]]` with `u_i` a
//! column of `U_t`, `w_j` one of `U_s`.

use super::error::ProofError;
use super::file::{Certificate, Norm, Numbers};
use super::interval::Interval;
use super::number::enclose;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Zero};

/// Most bits of the common denominator for exact evaluation.
const EXACT_BITS: u64 = 4096;
/// Most bits of that size for all entries of the residuals.
const EXACT_TOTAL_BITS: u64 = 1 << 27;

/// What was proved, with the margins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Proof {
    /// Upper bound of the gradient's Euclidean norm at the centre.
    pub gradient: f64,
    /// Lower bound of the objective on the ball.
    pub objective: f64,
    /// Whether the curvature was shown over the box (else through the third derivative's bound).
    pub by_box: bool,
    /// Number of coordinates.
    pub unknowns: usize,
}

/// Numbers per coordinate (task, row, column), last fastest.
struct Shape {
    tasks: usize,
    d: usize,
    k: usize,
}

impl Shape {
    fn at(&self, t: usize, a: usize, i: usize) -> usize {
        (t * self.d + a) * self.k + i
    }
    fn split(&self, index: usize) -> (usize, usize, usize) {
        (index / (self.d * self.k), index / self.k % self.d, index % self.k)
    }
    fn len(&self) -> usize {
        self.tasks * self.d * self.k
    }
}

/// Proves `certificate` or says what is not proved.
///
/// # Errors
/// [`ProofError`].
pub fn verify(certificate: &Certificate) -> Result<Proof, ProofError> {
    let numbers = certificate.numbers()?;
    let [tasks, d, k] = certificate.instance.shape;
    let shape = Shape { tasks, d, k };
    let n = shape.len();
    let radius = enclose(&numbers.radius);
    // Radius of a Euclidean ball around the ball.
    let reach = match certificate.norm {
        Norm::Two => radius.hi(),
        Norm::Max => (radius * Interval::point(n as f64).sqrt()).hi(),
    };
    let centre: Vec<Interval> = numbers.centre.iter().map(enclose).collect();
    let instance: Vec<Interval> = numbers.instance.iter().map(enclose).collect();
    for task in 0..if k > 1 { tasks } else { 0 } {
        if !transversal(&shape, &centre, task, reach) {
            return Err(ProofError::Slice { task });
        }
    }
    let (gradient, value) = centre_values(&shape, &numbers, &instance, &centre);
    let sum = gradient.iter().fold(Interval::zero(), |sum, g| sum + g.square());
    let norm = sum.sqrt().hi();
    let lambda = enclose(&numbers.lambda_min_lower);
    let by_box = curvature(&shape, &instance, &centre, radius.hi(), lambda);
    if !by_box {
        let largest = (0..tasks).map(|t| task_norm(&shape, &centre, t)).fold(0.0, f64::max);
        let third = Interval::point(12.0)
            * (Interval::point(largest) + Interval::point(reach))
            * Interval::point(tasks as f64).reciprocal();
        let needed = lambda + third * Interval::point(reach);
        if !curvature(&shape, &instance, &centre, 0.0, needed) {
            return Err(ProofError::Curvature { claimed: lambda.hi() });
        }
    }
    let needed = (lambda * radius).lo();
    // Not below (NaN included) is not proved.
    if norm.partial_cmp(&needed) != Some(std::cmp::Ordering::Less) {
        return Err(ProofError::Existence { gradient: norm, needed });
    }
    let stated = match certificate.norm {
        Norm::Two => norm,
        Norm::Max => gradient.iter().map(|g| g.magnitude()).fold(0.0, f64::max),
    };
    let claimed = enclose(&numbers.gradient_upper).lo();
    if stated > claimed {
        return Err(ProofError::Gradient { found: stated, claimed });
    }
    let objective = (value - Interval::point(norm) * Interval::point(reach)).lo();
    let claimed = enclose(&numbers.objective_lower).hi();
    if objective < claimed {
        return Err(ProofError::Objective { found: objective, claimed });
    }
    Ok(Proof { gradient: norm, objective, by_box, unknowns: n })
}

/// Enclosures of the gradient and the value at the centre.
fn centre_values(
    shape: &Shape,
    numbers: &Numbers,
    instance: &[Interval],
    centre: &[Interval],
) -> (Vec<Interval>, Interval) {
    match exact_centre_values(shape, numbers) {
        Some((gradient, value)) => (gradient.iter().map(enclose).collect(), enclose(&value)),
        None => {
            let g = residuals(shape, instance, centre);
            let factor = Interval::point(-2.0) * Interval::point(shape.tasks as f64).reciprocal();
            let gradient = (0..shape.len()).map(|index| {
                let (t, a, i) = shape.split(index);
                let row = (0..shape.d).fold(Interval::zero(), |sum, b| {
                    sum + g[t][a * shape.d + b] * centre[shape.at(t, b, i)]
                });
                factor * row
            });
            let squares = g.iter().flatten().fold(Interval::zero(), |sum, g| sum + g.square());
            let half = Interval::point(2.0 * shape.tasks as f64).reciprocal();
            (gradient.collect(), half * squares)
        }
    }
}

/// `G_t = E_t - mean E`, row by row.
fn residuals(shape: &Shape, instance: &[Interval], x: &[Interval]) -> Vec<Vec<Interval>> {
    let (d, k) = (shape.d, shape.k);
    let mut g: Vec<Vec<Interval>> = (0..shape.tasks)
        .map(|t| {
            (0..d * d)
                .map(|index| {
                    let (a, b) = (index / d, index % d);
                    (0..k).fold(Interval::zero(), |sum, i| {
                        let (p, q) = (shape.at(t, a, i), shape.at(t, b, i));
                        if p == q {
                            return sum + instance[p].square() - x[p].square();
                        }
                        sum + instance[p] * instance[q] - x[p] * x[q]
                    })
                })
                .collect()
        })
        .collect();
    let share = Interval::point(shape.tasks as f64).reciprocal();
    for index in 0..d * d {
        let sum = g.iter().fold(Interval::zero(), |sum, e| sum + e[index]);
        for task in &mut g {
            task[index] -= share * sum;
        }
    }
    g
}

/// Gradient and value at the centre in whole numbers; `None` where the common denominator is large.
fn exact_centre_values(
    shape: &Shape,
    numbers: &Numbers,
) -> Option<(Vec<BigRational>, BigRational)> {
    let mut denominator = BigInt::one();
    for number in numbers.instance.iter().chain(&numbers.centre) {
        denominator = denominator.lcm(number.denom());
        let all = (shape.tasks * shape.d * shape.d) as u64 * denominator.bits();
        if denominator.bits() > EXACT_BITS || all > EXACT_TOTAL_BITS {
            return None;
        }
    }
    let whole = |numbers: &[BigRational]| -> Vec<BigInt> {
        numbers.iter().map(|x| x.numer() * (&denominator / x.denom())).collect()
    };
    let (truth, x) = (whole(&numbers.instance), whole(&numbers.centre));
    let (d, k) = (shape.d, shape.k);
    let tasks = BigInt::from(shape.tasks);
    // Everything below is `T D^2` times what its name says.
    let mut g: Vec<Vec<BigInt>> = Vec::with_capacity(shape.tasks);
    for t in 0..shape.tasks {
        g.push(Vec::with_capacity(d * d));
        for index in 0..d * d {
            let mut sum = BigInt::zero();
            for i in 0..k {
                let (p, q) = (shape.at(t, index / d, i), shape.at(t, index % d, i));
                sum += &truth[p] * &truth[q] - &x[p] * &x[q];
            }
            g[t].push(sum);
        }
    }
    for index in 0..d * d {
        let sum: BigInt = g.iter().map(|e| &e[index]).sum();
        for task in &mut g {
            task[index] = &task[index] * &tasks - &sum;
        }
    }
    let cube = &tasks * &tasks * &denominator * &denominator * &denominator;
    let gradient = (0..shape.len()).map(|index| {
        let (t, a, i) = shape.split(index);
        let row: BigInt = (0..d).map(|b| &g[t][a * d + b] * &x[shape.at(t, b, i)]).sum();
        BigRational::new(row * -2, cube.clone())
    });
    let squares: BigInt = g.iter().flatten().map(|g| g * g).sum();
    let scale = &cube * &denominator * &tasks * 2;
    Some((gradient.collect(), BigRational::new(squares, scale)))
}

/// Whether `H(x) >= lambda` for all `x` whose coordinates are within `radius` of the centre, on the
/// tangent space of the slice.
fn curvature(
    shape: &Shape,
    instance: &[Interval],
    centre: &[Interval],
    radius: f64,
    lambda: Interval,
) -> bool {
    let n = shape.len();
    let x: Vec<Interval> = if radius == 0.0 {
        centre.to_vec()
    } else {
        centre.iter().map(|c| c.widened(radius)).collect()
    };
    let g = residuals(shape, instance, &x);
    let share = Interval::point(shape.tasks as f64).reciprocal();
    let twice = Interval::point(2.0) * share;
    let mut h = vec![Interval::zero(); n * n];
    for p in 0..n {
        let (t, a, i) = shape.split(p);
        for q in 0..=p {
            let (s, b, j) = shape.split(q);
            let weight = if t == s { Interval::one() - share } else { -share };
            let mut inner = x[shape.at(t, b, i)] * x[shape.at(s, a, j)];
            if a == b {
                for row in 0..shape.d {
                    inner += x[shape.at(t, row, i)] * x[shape.at(s, row, j)];
                }
            }
            let mut entry = weight * inner;
            if t == s && i == j {
                entry -= g[t][a * shape.d + b];
            }
            h[p * n + q] = twice * entry;
        }
    }
    let largest = (0..n).map(|p| h[p * n + p].magnitude()).fold(0.0, f64::max);
    lift_normals(shape, centre, largest, &mut h);
    for p in 0..n {
        h[p * n + p] -= lambda;
    }
    positive_definite(n, &mut h)
}

/// Adds `s w w^T` for every normal `w = C_t (e_i e_j^T - e_j e_i^T)` of the slice, `s > 0`.
fn lift_normals(shape: &Shape, centre: &[Interval], largest: f64, h: &mut [Interval]) {
    let n = shape.len();
    for t in 0..shape.tasks {
        for j in 0..shape.k {
            for i in 0..j {
                let mut w = vec![Interval::zero(); n];
                for a in 0..shape.d {
                    w[shape.at(t, a, j)] = centre[shape.at(t, a, i)];
                    w[shape.at(t, a, i)] = -centre[shape.at(t, a, j)];
                }
                let size: f64 = w.iter().map(|w| w.middle() * w.middle()).sum();
                // Any positive number will do; this one lifts the normals above the spectrum.
                let scale = Interval::point(10.0 * largest / size);
                if !(scale.lo() > 0.0 && scale.hi().is_finite()) {
                    continue;
                }
                for p in (0..n).filter(|p| !w[*p].is_zero()) {
                    for q in (0..=p).filter(|q| !w[*q].is_zero()) {
                        h[p * n + q] += scale * w[p] * w[q];
                    }
                }
            }
        }
    }
}

/// Whether every symmetric matrix with its lower triangle in `h` is positive definite, shown by
/// elimination without pivoting: `false` is no disproof. `h` is used up.
fn positive_definite(n: usize, h: &mut [Interval]) -> bool {
    let mut factors = vec![Interval::zero(); n];
    for j in 0..n {
        let pivot = h[j * n + j];
        if !(pivot.lo() > 0.0 && pivot.hi().is_finite()) {
            return false;
        }
        let inverse = pivot.reciprocal();
        for i in j + 1..n {
            factors[i] = h[i * n + j] * inverse;
        }
        for i in j + 1..n {
            if factors[i].is_zero() {
                continue;
            }
            // Schur complement: the diagonal entry's product is a square over the pivot.
            h[i * n + i] -= h[i * n + j].square() * inverse;
            for m in j + 1..i {
                let product = factors[i] * h[m * n + j];
                h[i * n + m] -= product;
            }
        }
    }
    true
}

/// Upper bound of `||C_t||_F`.
fn task_norm(shape: &Shape, centre: &[Interval], t: usize) -> f64 {
    let size = shape.d * shape.k;
    let task = &centre[t * size..(t + 1) * size];
    task.iter().fold(Interval::zero(), |sum, c| sum + c.square()).sqrt().hi()
}

/// Whether `C_t^T U_t` has a positive definite symmetric part for all `U` within `reach`:
/// `C_t^T C_t - ||C_t|| reach` is positive definite.
fn transversal(shape: &Shape, centre: &[Interval], t: usize, reach: f64) -> bool {
    let k = shape.k;
    let mut gram = vec![Interval::zero(); k * k];
    for i in 0..k {
        for j in 0..=i {
            for a in 0..shape.d {
                gram[i * k + j] += centre[shape.at(t, a, i)] * centre[shape.at(t, a, j)];
            }
        }
        gram[i * k + i] -= Interval::point(task_norm(shape, centre, t)) * Interval::point(reach);
    }
    positive_definite(k, &mut gram)
}
