//! What zero loss says of the base, on rational instances. Source: theory.md C3, C4.
//!
//! * C3: zero loss means `A - A* = R*_t - R_t` for every t, so rank(A - A*) <= 2k, and at most 3k is
//!   left for a test task. For T = 2 the boost `U_1 = c U*_1 + h U*_2`, `U_2 = h U*_1 + c U*_2` with
//!   `c^2 - h^2 = 1` has zero loss and attains both.
//! * C4: for three tasks a, b, c zero loss determines `A` where
//!   rank M_ab = 2k and dim(range M_ab ∩ range M_ac) = k for each task with the other two (so range
//!   U_a = range U*_a), and range U*_a ∩ range U*_b = 0; asymmetric: the same of the co-ranges.
//! * locally: `D -> (K_t^T D K'_t)_t`, `K_t` a basis of the complement of range `U*_t`, is injective
//!   exactly if rho > 0.
//! * for k = 1, d = 2, T = 3: the central conic `x^T C x = 1` through the `u*_t`; where it is a
//!   hyperbola, `A - A* = C^{-1}` has zero loss, too.

use super::{ExactError, RationalMatrix, beside, check_factors, inertia, kernel, rank};
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

/// A second zero-loss solution for T = 2.
#[derive(Clone, Debug, PartialEq)]
pub struct Boost {
    /// Factors of the solution, each d x k.
    pub factors: [RationalMatrix; 2],
    /// `A - A*`.
    pub base_error: RationalMatrix,
    /// rank(A - A*).
    pub base_error_rank: usize,
    /// rank(A*_3 - A), the test task being the third factor.
    pub residual_rank: usize,
}

/// The boost of two tasks with `c = (m^2 + 1)/(2m)`, `h = (m^2 - 1)/(2m)`; `factors` are `U*_1`, `U*_2`
/// and the test task's. `None` where it is no solution (m = 0).
///
/// # Errors
/// [`ExactError::Tasks`] for other than three factors, [`ExactError::Shape`].
pub fn boost(factors: &[RationalMatrix], m: &BigRational) -> Result<Option<Boost>, ExactError> {
    check_factors(factors, 3)?;
    if m.is_zero() {
        return Ok(None);
    }
    let (one, two) = (BigRational::one(), BigRational::from_integer(2.into()));
    let c = (m * m + &one) / (&two * m);
    let h = (m * m - &one) / (&two * m);
    let (u, v) = (&factors[0], &factors[1]);
    let first = u * c.clone() + v * h.clone();
    let second = u * h + v * c;
    let gram = |u: &RationalMatrix| u * u.transpose();
    let base_error = gram(u) - gram(&first);
    // Zero loss: both tasks give the same base.
    if base_error != gram(v) - gram(&second) {
        return Ok(None);
    }
    let residual = gram(&factors[2]) - &base_error;
    Ok(Some(Boost {
        base_error_rank: rank(&base_error),
        residual_rank: rank(&residual),
        factors: [first, second],
        base_error,
    }))
}

/// The exact dimensions on which uniqueness for one triple rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripleDimensions {
    /// Rank k.
    pub rank: usize,
    /// Ranks of M_ab, M_ac, M_bc.
    pub differences: [usize; 3],
    /// dim(range M_ts ∩ range M_tr) for t = a, b, c.
    pub intersections: [usize; 3],
    /// The same of the co-ranges (equal for symmetric tasks).
    pub co_intersections: [usize; 3],
    /// dim(range U*_a ∩ range U*_b).
    pub common: usize,
    /// Whether the three have 3k independent columns (on both sides).
    pub triple_generic: bool,
}

impl TripleDimensions {
    /// Whether zero loss determines the base: the proof of C4 goes through.
    pub fn identified(&self) -> bool {
        let k = self.rank;
        self.differences.iter().all(|r| *r == 2 * k)
            && self.intersections.iter().chain(&self.co_intersections).all(|n| *n == k)
            && self.common == 0
    }
}

/// The dimensions for three tasks with offsets `left_t right_t^T`; symmetric tasks have equal factors.
///
/// # Errors
/// [`ExactError::Tasks`] for fewer than three, [`ExactError::Shape`].
pub fn triple_dimensions(
    left: &[RationalMatrix],
    right: &[RationalMatrix],
) -> Result<TripleDimensions, ExactError> {
    let shape = check_factors(left, 3)?;
    check_factors(right, 3)?;
    if right[0].shape() != shape {
        let (rows, cols) = right[0].shape();
        let (expected_rows, expected_cols) = shape;
        return Err(ExactError::Shape { index: 0, rows, cols, expected_rows, expected_cols });
    }
    let offset = |t: usize| &left[t] * right[t].transpose();
    let difference = |s: usize, t: usize| offset(s) - offset(t);
    let meet = |a: &RationalMatrix, b: &RationalMatrix| rank(a) + rank(b) - rank(&beside(&[a, b]));
    let others = [(0, 1, 2), (1, 0, 2), (2, 0, 1)];
    let intersections = others.map(|(t, s, r)| meet(&difference(t, s), &difference(t, r)));
    let co_intersections =
        others.map(|(t, s, r)| meet(&difference(t, s).transpose(), &difference(t, r).transpose()));
    let generic = |m: &[RationalMatrix]| rank(&beside(&[&m[0], &m[1], &m[2]])) == 3 * shape.1;
    Ok(TripleDimensions {
        rank: shape.1,
        differences: [(0, 1), (0, 2), (1, 2)].map(|(s, t)| rank(&difference(s, t))),
        intersections,
        co_intersections,
        common: meet(&left[0], &left[1]),
        triple_generic: generic(left) && generic(right),
    })
}

/// Rank of the local identification map and its number of unknowns: equal exactly if rho > 0.
/// Symmetric where `right` is `None` (unknowns d(d+1)/2), else d^2.
///
/// # Errors
/// [`ExactError::Shape`].
pub fn local_identification(
    left: &[RationalMatrix],
    right: Option<&[RationalMatrix]>,
) -> Result<(usize, usize), ExactError> {
    let (d, _) = check_factors(left, 1)?;
    if let Some(right) = right {
        check_factors(right, left.len())?;
    }
    // Unknowns: entries (a, b) of D, b <= a in the symmetric case.
    let unknowns: Vec<(usize, usize)> = match right {
        None => (0..d).flat_map(|a| (0..=a).map(move |b| (a, b))).collect(),
        Some(_) => (0..d).flat_map(|a| (0..d).map(move |b| (a, b))).collect(),
    };
    let mut rows: Vec<Vec<BigRational>> = Vec::new();
    for t in 0..left.len() {
        let p = kernel(&left[t].transpose());
        let q = right.map_or_else(|| p.clone(), |right| kernel(&right[t].transpose()));
        for i in 0..p.ncols() {
            let most = if right.is_none() { i + 1 } else { q.ncols() };
            for j in 0..most {
                let entry = |(a, b): &(usize, usize)| {
                    let direct = &p[(*a, i)] * &q[(*b, j)];
                    if right.is_none() && a != b {
                        direct + &p[(*b, i)] * &q[(*a, j)]
                    } else {
                        direct
                    }
                };
                rows.push(unknowns.iter().map(entry).collect());
            }
        }
    }
    let map = RationalMatrix::from_fn(rows.len(), unknowns.len(), |i, j| rows[i][j].clone());
    Ok((rank(&map), unknowns.len()))
}

/// The central conic through three points of the plane, `x^T C x = 1`, and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Conic {
    /// `C`, 2 x 2.
    pub matrix: RationalMatrix,
    /// `C^{-1}`: the second solution's `A - A*`, where the conic is a hyperbola.
    pub inverse: RationalMatrix,
    /// det C < 0.
    pub hyperbola: bool,
    /// Whether `R*_t - C^{-1}` is of rank 1 and positive semidefinite for all three tasks.
    pub second_solution: bool,
}

/// The conic of `u_1, u_2, u_3` (2 x 1 each); `None` where it is not unique (parallel vectors) or
/// degenerate (det C = 0).
///
/// # Errors
/// [`ExactError::Tasks`], [`ExactError::Shape`] for other than three 2 x 1 factors.
pub fn conic(factors: &[RationalMatrix]) -> Result<Option<Conic>, ExactError> {
    let (rows, cols) = check_factors(factors, 3)?;
    if (rows, cols) != (2, 1) {
        return Err(ExactError::Shape { index: 0, rows, cols, expected_rows: 2, expected_cols: 1 });
    }
    // Rows (x^2, 2xy, y^2, -1): the conic is the kernel.
    let equations = RationalMatrix::from_fn(3, 4, |t, j| {
        let (x, y) = (&factors[t][(0, 0)], &factors[t][(1, 0)]);
        match j {
            0 => x * x,
            1 => x * y * BigRational::from_integer(2.into()),
            2 => y * y,
            _ => -BigRational::one(),
        }
    });
    let solution = kernel(&equations);
    if solution.ncols() != 1 || solution[(3, 0)].is_zero() {
        return Ok(None);
    }
    let scale = solution[(3, 0)].recip();
    let [p, q, r] = [0, 1, 2].map(|j| &solution[(j, 0)] * &scale);
    let determinant = &p * &r - &q * &q;
    if determinant.is_zero() {
        return Ok(None);
    }
    let matrix =
        RationalMatrix::from_row_slice(2, 2, &[p.clone(), q.clone(), q.clone(), r.clone()]);
    let entries = [r, -q.clone(), -q, p].map(|x| x / &determinant);
    let inverse = RationalMatrix::from_row_slice(2, 2, &entries);
    let mut second_solution = true;
    for u in factors.iter().take(3) {
        let signs = inertia(&(u * u.transpose() - &inverse))?;
        second_solution &= (signs.positive, signs.negative, signs.zero) == (1, 0, 1);
    }
    Ok(Some(Conic { matrix, inverse, hyperbola: determinant.is_negative(), second_solution }))
}

#[cfg(test)]
mod tests {
    use super::super::from_integers;
    use super::super::tests::draw;
    use super::*;
    use peftml_linalg::Seed;

    #[test]
    fn the_rank_bounds_are_attained_by_boosts() {
        let mut stream = Seed::root(4).child("exact").stream();
        for (d, k) in [(3, 1), (7, 2), (10, 3)] {
            let factors: Vec<_> = (0..3).map(|_| draw(&mut stream, d, k)).collect();
            let m = BigRational::new(3.into(), 2.into());
            let found = boost(&factors, &m).unwrap().unwrap();
            assert_eq!((found.base_error_rank, found.residual_rank), (2 * k, 3 * k));
            // Control: no boost, no error.
            let found = boost(&factors, &BigRational::one()).unwrap().unwrap();
            assert_eq!((found.base_error_rank, found.residual_rank), (0, k));
        }
    }

    #[test]
    fn triples_are_identified_where_their_columns_are_independent() {
        let mut stream = Seed::root(5).child("exact").stream();
        for (d, k) in [(3, 1), (6, 2), (9, 3), (8, 2)] {
            let left: Vec<_> = (0..3).map(|_| draw(&mut stream, d, k)).collect();
            let right: Vec<_> = (0..3).map(|_| draw(&mut stream, d, k)).collect();
            for right in [&left, &right] {
                let found = triple_dimensions(&left, right).unwrap();
                assert!(found.triple_generic && found.identified(), "{found:?}");
            }
            // Control: a third task in the span of the others is not covered.
            let mut dependent = left.clone();
            dependent[2] = &left[0] + &left[1];
            let found = triple_dimensions(&dependent, &dependent).unwrap();
            assert!(!found.triple_generic && !found.identified(), "{found:?}");
        }
    }

    #[test]
    fn local_identifiability_is_that_of_the_grid() {
        let mut stream = Seed::root(6).child("exact").stream();
        let mut identified = |d: usize, k: usize, tasks: usize, symmetric: bool| {
            let left: Vec<_> = (0..tasks).map(|_| draw(&mut stream, d, k)).collect();
            let right: Vec<_> = (0..tasks).map(|_| draw(&mut stream, d, k)).collect();
            let right = (!symmetric).then_some(right.as_slice());
            let (rank, unknowns) = local_identification(&left, right).unwrap();
            rank == unknowns
        };
        for k in 1..=3 {
            for d in 2 * k..=3 * k + 1 {
                assert_eq!(identified(d, k, 3, true), d + 1 >= 3 * k, "symmetric, d={d} k={k}");
                assert_eq!(identified(d, k, 3, false), d >= 3 * k, "asymmetric, d={d} k={k}");
                assert!(identified(d, k, 4, true), "T=4, d={d} k={k}");
                // Two hundred equations in a hundred unknowns take seconds: not for k = 3.
                assert!(k == 3 || identified(d, k, 4, false), "asymmetric, T=4, d={d} k={k}");
                assert!(!identified(d, k, 2, true));
            }
        }
        assert!(!identified(10, 4, 3, true));
        assert!(identified(11, 4, 3, true));
    }

    #[test]
    fn a_hyperbola_through_the_tasks_is_a_second_solution() {
        let vectors =
            |rows: [[i64; 2]; 3]| rows.map(|[x, y]| from_integers(&[&[x], &[y]])).to_vec();
        // x^2 - y^2 = 9; an ellipse.
        let hyperbola = vectors([[5, 4], [5, -4], [3, 0]]);
        let found = conic(&hyperbola).unwrap().unwrap();
        assert!(found.hyperbola && found.second_solution, "{found:?}");
        let ellipse = vectors([[2, 0], [0, 3], [1, 2]]);
        let found = conic(&ellipse).unwrap().unwrap();
        assert!(!found.hyperbola && !found.second_solution, "{found:?}");
        assert_eq!(conic(&vectors([[1, 0], [2, 0], [1, 1]])).unwrap(), None);
        let mut stream = Seed::root(7).child("exact").stream();
        let mut kinds = [0; 2];
        for _ in 0..60 {
            let factors: Vec<_> = (0..3).map(|_| draw(&mut stream, 2, 1)).collect();
            if let Some(found) = conic(&factors).unwrap() {
                assert_eq!(found.hyperbola, found.second_solution);
                kinds[usize::from(found.hyperbola)] += 1;
            }
        }
        assert!(kinds.iter().all(|n| *n > 5), "{kinds:?}");
    }
}
