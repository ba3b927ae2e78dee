//! Work in a fixed number of parts, and products of matrices inside a part.
//!
//! Rows are cut into [`PARTS`] ranges whatever the number of threads; sums over rows are kept for each part
//! and added in the parts' order. So no result depends on the number of threads.

use super::number::Number;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use std::ops::Range;

/// How many ranges rows are cut into.
pub(in crate::ops) const PARTS: usize = 8;

/// Fewer elementary steps than this are not worth waking a thread for.
const SMALL: usize = 1 << 15;

/// Up to [`PARTS`] ranges of nearly equal length that cover `0..count`; none is empty.
pub(in crate::ops) fn ranges(count: usize) -> Vec<Range<usize>> {
    let parts = PARTS.min(count);
    (0..parts).map(|p| count * p / parts..count * (p + 1) / parts).collect()
}

/// `job` on every range of rows with its part of `out`, `width` numbers a row; what the jobs return, in
/// order. `steps` is how many elementary steps all of it takes.
pub(in crate::ops) fn by_rows<T: Number, R: Send>(
    out: &mut [T],
    width: usize,
    ranges: &[Range<usize>],
    steps: usize,
    job: impl Fn(Range<usize>, &mut [T]) -> R + Sync,
) -> Vec<R> {
    let mut rest = out;
    let mut jobs = Vec::with_capacity(ranges.len());
    for range in ranges {
        let (own, after) = rest.split_at_mut(range.len() * width);
        jobs.push((range.clone(), own));
        rest = after;
    }
    if steps < SMALL {
        return jobs.into_iter().map(|(range, own)| job(range, own)).collect();
    }
    jobs.into_par_iter().with_max_len(1).map(|(range, own)| job(range, own)).collect()
}

/// `job` on every range; what the jobs return, in order.
pub(in crate::ops) fn each<R: Send>(
    ranges: &[Range<usize>],
    steps: usize,
    job: impl Fn(Range<usize>) -> R + Send + Sync,
) -> Vec<R> {
    if steps < SMALL {
        return ranges.iter().cloned().map(job).collect();
    }
    ranges.to_vec().into_par_iter().with_max_len(1).map(&job).collect()
}

/// The sum of vectors of one length, in their order; empty for none.
pub(in crate::ops) fn total<T: Number>(parts: impl IntoIterator<Item = Vec<T>>) -> Vec<T> {
    let mut parts = parts.into_iter();
    let mut sum = parts.next().unwrap_or_default();
    for part in parts {
        for (x, y) in sum.iter_mut().zip(part) {
            *x += y;
        }
    }
    sum
}

/// A row-major matrix.
pub(in crate::ops) fn matrix<T: Number>(numbers: &[T], rows: usize, cols: usize) -> MatRef<'_, T> {
    MatRef::from_row_major_slice(numbers, rows, cols)
}

/// `out = a b`, `out` row-major.
pub(in crate::ops) fn product<T: Number>(out: &mut [T], a: MatRef<'_, T>, b: MatRef<'_, T>) {
    accumulate(out, a, b, Accum::Replace);
}

/// `out += a b`, `out` row-major.
pub(in crate::ops) fn add_product<T: Number>(out: &mut [T], a: MatRef<'_, T>, b: MatRef<'_, T>) {
    accumulate(out, a, b, Accum::Add);
}

fn accumulate<T: Number>(out: &mut [T], a: MatRef<'_, T>, b: MatRef<'_, T>, accum: Accum) {
    /// Wider results are made in blocks of columns: the right factor's then stay in a core's cache.
    const COLUMNS: usize = 512;
    let columns = b.ncols();
    let mut out = MatMut::from_row_major_slice_mut(out, a.nrows(), columns);
    let blocks = columns.div_ceil(COLUMNS);
    for block in 0..blocks {
        let (first, end) = (columns * block / blocks, columns * (block + 1) / blocks);
        let out = out.as_mut().subcols_mut(first, end - first);
        matmul(out, accum, a, b.subcols(first, end - first), T::ONE, Par::Seq);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_all_rows_once() {
        for count in [0usize, 1, 7, 8, 9, 1000] {
            let all: Vec<usize> = ranges(count).into_iter().flatten().collect();
            assert_eq!(all, (0..count).collect::<Vec<_>>());
            assert!(ranges(count).iter().all(|range| !range.is_empty()));
        }
    }

    #[test]
    fn every_part_gets_its_own_rows() {
        for steps in [0, SMALL] {
            let mut out = vec![0.0f32; 30];
            let starts = by_rows(&mut out, 3, &ranges(10), steps, |range, own| {
                for (row, numbers) in range.clone().zip(own.chunks_mut(3)) {
                    numbers.fill(row as f32);
                }
                range.start
            });
            assert!(starts.is_sorted());
            assert!(out.chunks(3).enumerate().all(|(row, x)| x == [row as f32; 3]));
        }
    }
}
