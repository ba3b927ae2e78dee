//! Statements about rational instances in exact arithmetic.
//!
//! Ranks by fraction-free elimination (Bareiss), inertia by congruence, kernels by elimination: no
//! rounding, no tolerance. On them rest the rational forms of theory.md C1 ([`standard`]), C3 and C4
//! ([`zero_loss`]).
//! Limits: dense, for d up to some tens; entries grow with the order of the minors.

pub mod standard;
pub mod zero_loss;

use nalgebra::DMatrix;
use num_bigint::BigInt;
use num_integer::Integer;
use num_rational::BigRational;
use num_traits::{One, Signed, Zero};

/// A matrix of rational numbers.
pub type RationalMatrix = DMatrix<BigRational>;

/// Signs of a symmetric matrix's eigenvalues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inertia {
    /// Positive eigenvalues.
    pub positive: usize,
    /// Negative eigenvalues.
    pub negative: usize,
    /// Zero eigenvalues.
    pub zero: usize,
}

/// Why an exact statement cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExactError {
    /// Not symmetric.
    #[error("the {rows} x {cols} matrix is not symmetric")]
    NotSymmetric {
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
    },
    /// Factors of different shapes.
    #[error("factor {index} is {rows} x {cols}, the first is {expected_rows} x {expected_cols}")]
    Shape {
        /// Which factor, from 0.
        index: usize,
        /// Rows.
        rows: usize,
        /// Columns.
        cols: usize,
        /// Rows of the first.
        expected_rows: usize,
        /// Columns of the first.
        expected_cols: usize,
    },
    /// Too few tasks.
    #[error("{found} tasks, at least {least} are needed")]
    Tasks {
        /// Found.
        found: usize,
        /// Needed.
        least: usize,
    },
}

/// The matrix with the whole entries `rows`.
///
/// ```
/// use peftml_theory::exact;
/// let m = exact::from_integers(&[&[1, 2], &[2, 4]]);
/// assert_eq!(exact::rank(&m), 1);
/// assert_eq!(exact::inertia(&m).unwrap().positive, 1);
/// ```
pub fn from_integers(rows: &[&[i64]]) -> RationalMatrix {
    let columns = rows.first().map_or(0, |row| row.len());
    RationalMatrix::from_fn(rows.len(), columns, |i, j| {
        BigRational::from_integer(rows[i].get(j).copied().unwrap_or(0).into())
    })
}

/// Rank by fraction-free elimination with row pivoting: every entry that it meets is a minor of the
/// matrix with cleared denominators, and every division is exact.
pub fn rank(m: &RationalMatrix) -> usize {
    let (rows, cols) = m.shape();
    let mut a = cleared(m);
    let mut last = BigInt::one();
    let mut rank = 0;
    for col in 0..cols {
        let Some(pivot) = (rank..rows).find(|row| !a[row * cols + col].is_zero()) else {
            continue;
        };
        for j in 0..cols {
            a.swap(rank * cols + j, pivot * cols + j);
        }
        let value = a[rank * cols + col].clone();
        for row in rank + 1..rows {
            let factor = a[row * cols + col].clone();
            for j in col..cols {
                let minor = &a[row * cols + j] * &value - &factor * &a[rank * cols + j];
                a[row * cols + j] = minor / &last;
            }
        }
        last = value;
        rank += 1;
    }
    rank
}

/// Every row times the common denominator of its entries, row by row.
fn cleared(m: &RationalMatrix) -> Vec<BigInt> {
    let mut whole = Vec::with_capacity(m.len());
    for row in m.row_iter() {
        let denominator = row.iter().fold(BigInt::one(), |all, x| all.lcm(x.denom()));
        whole.extend(row.iter().map(|x| x.numer() * (&denominator / x.denom())));
    }
    whole
}

/// Inertia of a symmetric matrix by congruence: a zero pivot with a nonzero entry in its row is made
/// nonzero by adding that row and column (Sylvester's law keeps the signs).
///
/// # Errors
/// [`ExactError::NotSymmetric`].
pub fn inertia(m: &RationalMatrix) -> Result<Inertia, ExactError> {
    let n = m.nrows();
    if m != &m.transpose() {
        return Err(ExactError::NotSymmetric { rows: n, cols: m.ncols() });
    }
    let mut a = m.clone();
    let mut inertia = Inertia { positive: 0, negative: 0, zero: 0 };
    for step in 0..n {
        if let Some(p) = (step..n).find(|p| !a[(*p, *p)].is_zero()) {
            a.swap_rows(step, p);
            a.swap_columns(step, p);
        } else if let Some((p, q)) =
            (step..n).flat_map(|p| (step..p).map(move |q| (p, q))).find(|at| !a[*at].is_zero())
        {
            // The diagonal is zero: row p + row q has the pivot 2 a_pq.
            for j in 0..n {
                let sum = &a[(p, j)] + &a[(q, j)];
                a[(p, j)] = sum;
            }
            for i in 0..n {
                let sum = &a[(i, p)] + &a[(i, q)];
                a[(i, p)] = sum;
            }
            a.swap_rows(step, p);
            a.swap_columns(step, p);
        } else {
            inertia.zero = n - step;
            break;
        }
        let pivot = a[(step, step)].clone();
        if pivot.is_positive() {
            inertia.positive += 1;
        } else {
            inertia.negative += 1;
        }
        for i in step + 1..n {
            let factor = &a[(i, step)] / &pivot;
            if factor.is_zero() {
                continue;
            }
            for j in step + 1..n {
                let entry = &a[(i, j)] - &factor * &a[(step, j)];
                a[(i, j)] = entry;
            }
        }
        for i in step + 1..n {
            a[(i, step)] = BigRational::zero();
            a[(step, i)] = BigRational::zero();
        }
    }
    Ok(inertia)
}

/// A basis of `{x : m x = 0}`, one column each.
pub fn kernel(m: &RationalMatrix) -> RationalMatrix {
    let (rows, cols) = m.shape();
    let mut a = m.clone();
    let mut pivots = Vec::new();
    for col in 0..cols {
        let top = pivots.len();
        let Some(pivot) = (top..rows).find(|row| !a[(*row, col)].is_zero()) else { continue };
        a.swap_rows(top, pivot);
        let inverse = a[(top, col)].recip();
        for j in 0..cols {
            a[(top, j)] *= &inverse;
        }
        for row in (0..rows).filter(|row| *row != top) {
            let factor = a[(row, col)].clone();
            if factor.is_zero() {
                continue;
            }
            for j in 0..cols {
                let entry = &a[(row, j)] - &factor * &a[(top, j)];
                a[(row, j)] = entry;
            }
        }
        pivots.push(col);
    }
    let free: Vec<usize> = (0..cols).filter(|col| !pivots.contains(col)).collect();
    let mut basis = RationalMatrix::zeros(cols, free.len());
    for (k, col) in free.iter().enumerate() {
        basis[(*col, k)] = BigRational::one();
        for (row, pivot) in pivots.iter().enumerate() {
            basis[(*pivot, k)] = -a[(row, *col)].clone();
        }
    }
    basis
}

/// Matrices beside each other: `[m_1 m_2 ..]`.
fn beside(matrices: &[&RationalMatrix]) -> RationalMatrix {
    let rows = matrices.first().map_or(0, |m| m.nrows());
    let cols = matrices.iter().map(|m| m.ncols()).sum();
    let mut all = RationalMatrix::zeros(rows, cols);
    let mut start = 0;
    for m in matrices {
        all.columns_mut(start, m.ncols()).copy_from(m);
        start += m.ncols();
    }
    all
}

/// All factors d x k, and at least `least` of them.
fn check_factors(factors: &[RationalMatrix], least: usize) -> Result<(usize, usize), ExactError> {
    if factors.len() < least {
        return Err(ExactError::Tasks { found: factors.len(), least });
    }
    let (expected_rows, expected_cols) = factors.first().map_or((0, 0), |m| m.shape());
    for (index, m) in factors.iter().enumerate() {
        let (rows, cols) = m.shape();
        if (rows, cols) != (expected_rows, expected_cols) {
            return Err(ExactError::Shape { index, rows, cols, expected_rows, expected_cols });
        }
    }
    Ok((expected_rows, expected_cols))
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::{Seed, Stream};

    pub(super) fn draw(stream: &mut Stream, rows: usize, cols: usize) -> RationalMatrix {
        RationalMatrix::from_fn(rows, cols, |_, _| {
            let numerator = stream.below(19) as i64 - 9;
            BigRational::new(numerator.into(), (1 + stream.below(3) as i64).into())
        })
    }

    #[test]
    fn ranks_of_products_are_their_inner_widths() {
        let mut stream = Seed::root(1).child("exact").stream();
        for (rows, cols, inner) in [(1, 1, 1), (4, 6, 3), (7, 5, 2), (8, 8, 8), (9, 9, 5)] {
            let (a, b) = (draw(&mut stream, rows, inner), draw(&mut stream, inner, cols));
            let m = &a * &b;
            assert_eq!(rank(&m), inner);
            assert_eq!(kernel(&m).ncols(), cols - inner);
            assert!((&m * kernel(&m)).iter().all(Zero::is_zero));
            // Control: one entry more by 10^-40 of itself raises the rank of a deficient matrix; in
            // floating point it would not.
            if inner < rows.min(cols) {
                let mut close = m.clone();
                close[(0, 0)] += BigRational::new(1.into(), BigInt::from(10).pow(40));
                assert_eq!(rank(&close), inner + 1);
            }
        }
        assert_eq!(rank(&RationalMatrix::zeros(3, 2)), 0);
    }

    #[test]
    fn inertia_is_that_of_the_congruent_diagonal() {
        let mut stream = Seed::root(2).child("exact").stream();
        for (positive, negative, zero) in [(2, 1, 2), (0, 3, 0), (3, 3, 1), (0, 0, 4), (1, 1, 0)] {
            let n = positive + negative + zero;
            let mut signs = RationalMatrix::zeros(n, n);
            for i in 0..positive + negative {
                let sign = if i < positive { 1 } else { -1 };
                signs[(i, i)] = BigRational::from_integer(sign.into());
            }
            let w = loop {
                let w = draw(&mut stream, n, n);
                if rank(&w) == n {
                    break w;
                }
            };
            let m = &w * signs * w.transpose();
            assert_eq!(inertia(&m).unwrap(), Inertia { positive, negative, zero });
        }
        // Nothing on the diagonal.
        let hollow = from_integers(&[&[0, 1, 0], &[1, 0, 0], &[0, 0, 0]]);
        let expected = Inertia { positive: 1, negative: 1, zero: 1 };
        assert_eq!(inertia(&hollow).unwrap(), expected);
        assert!(inertia(&from_integers(&[&[0, 1], &[2, 0]])).is_err());
    }
}
