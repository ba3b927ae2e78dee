//! Whole solves from one start to the scaled gradient test, exact tasks and sampled ones; names carry the
//! sizes, allocations are counted beside (none of them in iterations).

use criterion::{Criterion, criterion_group, criterion_main};
use peftml_benches::counted::{Counting, bench};
use peftml_benches::problem;
use peftml_solvers::iterate::Silent;
use peftml_solvers::{Problem, Settings, entry};
use peftml_theory::linear::Kind;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Methods that end within a second.
const METHODS: [&str; 4] = ["lbfgs", "trust-region", "gauss-newton", "global"];

fn solves(criterion: &mut Criterion) {
    let kind = Kind::Symmetric;
    for (d, k, count) in [(20, 2, 5), (100, 4, 10)] {
        let (exact, start) = problem::exact(d, k, count, kind);
        let sampled = problem::statistics(d, k, count, 10 * d, kind);
        for (tasks, what) in [(&exact, "exact".to_owned()), (&sampled, format!("N{}", 10 * d))] {
            let problem = Problem { tasks, kind, rank: k };
            for name in METHODS {
                let method = entry(name).map(|entry| entry.build(&Settings::default()));
                let Some(Ok(method)) = method else { continue };
                bench(criterion, &format!("{name}/d{d}-k{k}-T{count}-{what}"), || {
                    method.solve(&problem, Some(&start), &mut Silent).map(|found| found.loss)
                });
            }
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = solves
}
criterion_main!(benches);
