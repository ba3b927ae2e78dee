//! Iterations at which curves are recorded.

/// 0, then about `per_decade` whole numbers a decade, evenly on a logarithmic scale, and `last`.
pub fn log_grid(last: usize, per_decade: usize) -> Vec<usize> {
    let mut grid = vec![0];
    let mut step = 0;
    loop {
        let next = 10_f64.powf(f64::from(step) / per_decade as f64).round() as usize;
        if next >= last {
            break;
        }
        if grid.last() != Some(&next) {
            grid.push(next);
        }
        step += 1;
    }
    if last > 0 {
        grid.push(last);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_is_strictly_ascending_from_the_start_to_the_end() {
        for last in [0, 1, 2, 10, 11, 999, 10_000] {
            let grid = log_grid(last, 8);
            assert!(grid.windows(2).all(|pair| pair[0] < pair[1]), "{grid:?}");
            assert_eq!((grid[0], *grid.last().unwrap()), (0, last));
        }
        assert_eq!(
            log_grid(10_000, 8).len(),
            32,
            "0, then 8 a decade but for repeated whole numbers"
        );
    }
}
