//! Parallelism as an argument.
//!
//! A library hands numbered jobs to the [`Workers`] that its caller gave it; whether they run one after
//! the other or on threads is the caller's choice. Every job writes what is its own alone, and what
//! several jobs contribute to is summed in the order of their numbers: results do not depend on who ran
//! what.

use std::sync::{Mutex, PoisonError};

/// Runs numbered jobs.
pub trait Workers: Sync {
    /// Calls `job(0)`, .., `job(count - 1)`, each once and in any order, and returns when all are done.
    fn run(&self, count: usize, job: &(dyn Fn(usize) + Sync));
}

/// One job after the other, on the thread that asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequential;

impl Workers for Sequential {
    fn run(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        (0..count).for_each(job);
    }
}

/// Calls `job(i, &mut items[i])` for every item.
pub fn for_each<T: Send>(
    workers: &dyn Workers,
    items: &mut [T],
    job: impl Fn(usize, &mut T) + Sync,
) {
    // No lock is ever waited for: every job has its own.
    let cells: Vec<Mutex<&mut T>> = items.iter_mut().map(Mutex::new).collect();
    workers.run(cells.len(), &|i| {
        let mut item = cells[i].lock().unwrap_or_else(PoisonError::into_inner);
        job(i, *item);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worst order that is allowed.
    struct Backwards;

    impl Workers for Backwards {
        fn run(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
            (0..count).rev().for_each(job);
        }
    }

    #[test]
    fn every_item_is_met_once_whatever_the_order() {
        for workers in [&Sequential as &dyn Workers, &Backwards] {
            let mut items = vec![1; 9];
            for_each(workers, &mut items, |i, item| *item += i);
            assert_eq!(items, (1..10).collect::<Vec<_>>());
        }
    }
}
