//! The threads of one command, as the workers that the libraries ask for.

use super::study::threads;
use super::{Common, Failure};
use peftml_linalg::Workers;
use peftml_solvers::BaseSolver;
use rayon::prelude::*;

/// A pool of its own: nothing of the process is shared.
pub struct Pool {
    pool: Option<rayon::ThreadPool>,
}

impl Pool {
    /// As many threads as `--threads` says (default: one a processor) for a method that has use for them; one
    /// for any other, with a word on standard error where more were asked for.
    pub fn new(common: &Common, solver: &dyn BaseSolver, name: &str) -> Result<Self, Failure> {
        let asked = threads(common);
        if !solver.uses_workers() {
            if common.threads.is_some() && asked > 1 {
                eprintln!("peftml: {name} runs on one thread; --threads {asked} has no effect");
            }
            return Ok(Self { pool: None });
        }
        let pool = rayon::ThreadPoolBuilder::new().num_threads(asked).build();
        let pool = pool.map_err(|error| Failure::refused(format_args!("no threads: {error}")))?;
        Ok(Self { pool: Some(pool) })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, rayon::ThreadPool::current_num_threads)
    }
}

impl Workers for Pool {
    fn run(&self, count: usize, job: &(dyn Fn(usize) + Sync)) {
        match &self.pool {
            Some(pool) if pool.current_num_threads() > 1 => {
                pool.install(|| (0..count).into_par_iter().with_max_len(1).for_each(job));
            }
            _ => (0..count).for_each(job),
        }
    }
}
