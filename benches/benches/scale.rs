//! Hot kernels of the global solver for large d. Set-up is outside the timer; names carry the sizes, throughput
//! counts the matrices' numbers, allocations are counted beside.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use faer::Mat;
use peftml_benches::counted::{Counting, bench_in};
use peftml_benches::problem;
use peftml_linalg::{Sequential, kernel};
use peftml_solvers::low_rank::Global;
use peftml_theory::linear::Kind;
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn solver(criterion: &mut Criterion) {
    for (d, k, count) in [(100, 4, 10), (250, 8, 16), (500, 4, 8), (50, 2, 1000)] {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            let (tasks, _) = problem::exact(d, k, count, kind);
            let mut group = criterion.benchmark_group("global-passes");
            group.throughput(Throughput::Elements((count * d * d) as u64));
            let id = format!("d{d}-k{k}-T{count}-{}", kind.name());
            bench_in(&mut group, "global-passes", &id, || {
                Global::default().solve_matrices(&tasks, kind, k, &Sequential).is_ok()
            });
        }
    }
}

fn strips(criterion: &mut Criterion) {
    for (d, width, columns) in [(500, 64, 16), (2000, 32, 24)] {
        let (a, b) = (Mat::<f64>::identity(d, width), Mat::<f64>::zeros(d, width));
        let tall = Mat::<f64>::identity(d, columns);
        let mut e = Mat::zeros(d, width);
        let mut out = Mat::zeros(columns, width);
        let mut group = criterion.benchmark_group("strip");
        group.throughput(Throughput::Elements((d * width) as u64));
        bench_in(&mut group, "strip", &format!("difference/d{d}-w{width}"), || {
            kernel::subtract(e.as_mut(), black_box(a.as_ref()), b.as_ref())
        });
        bench_in(&mut group, "strip", &format!("product/d{d}-w{width}-c{columns}"), || {
            kernel::mul(out.as_mut(), tall.transpose(), black_box(a.as_ref()), 1.0)
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = solver, strips
}
criterion_main!(benches);
