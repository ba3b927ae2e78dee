//! The shallow network: one retraining epoch, one fine-tuning step, and the limit that evaluating the
//! logistic function sets to both. The peer is `peers/shallow_torch.py`, same shapes.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use peftml_benches::counted::{Counting, allocations};
use peftml_linalg::{Blocks, Seed};
use peftml_solvers::{AdamW, Solver};
use peftml_theory::Objective;
use peftml_theory::linear::Kind;
use peftml_theory::shallow::{
    Adapters, FineTuningObjective, Network, RetrainingObjective, Samples, Sizes, sigmoid_in_place,
};
use std::hint::black_box;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn samples(d: usize, count: usize, seed: &Seed) -> Samples {
    let mut stream = seed.stream();
    let x = stream.normal_matrix(d, count, 1.0);
    let y = stream.normal_matrix(count, 1, 1.0);
    Samples::new(Sizes::square(d), x.as_ref(), y.col(0)).expect("well-formed samples")
}

fn start(f: &dyn Objective, seed: &Seed) -> Blocks {
    let mut x = Blocks::zeros(f.layout().clone());
    seed.stream().fill_normal(0.3, x.as_mut_slice());
    x
}

/// AdamW steps on `f`, which the closure repeats: gradient, moments, update.
fn steps(bench: &mut criterion::Bencher<'_>, f: &dyn Objective, seed: &Seed, id: &str) {
    let solver = AdamW::default();
    let mut state = solver.init(f, start(f, seed)).expect("a finite start");
    solver.step(f, &mut state).expect("a finite step");
    println!("allocations {id} {}", allocations(|| solver.step(f, &mut state)));
    bench.iter(|| solver.step(f, black_box(&mut state)));
}

fn retraining(c: &mut Criterion) {
    let seed = Seed::root(1).child("bench");
    let mut group = c.benchmark_group("retraining-epoch");
    for (d, tasks, count) in [(5, 3, 1000), (10, 3, 1000), (20, 3, 1000), (10, 10, 1000)] {
        let data: Vec<_> = (0..tasks).map(|t| samples(d, count, &seed.child(t))).collect();
        let adapters = Some(Adapters { kind: Kind::Asymmetric, rank: 1 });
        let f = RetrainingObjective::new(Sizes::square(d), adapters, &data).expect("an objective");
        group.throughput(Throughput::Elements((tasks * count * d) as u64));
        let id = format!("d{d}-T{tasks}-N{count}-k1");
        let full = format!("retraining-epoch/{id}");
        let id = BenchmarkId::from_parameter(id);
        group.bench_function(id, |bench| steps(bench, &f, &seed, &full));
    }
    group.finish();
}

fn fine_tuning(c: &mut Criterion) {
    let seed = Seed::root(2).child("bench");
    let mut group = c.benchmark_group("fine-tuning-step");
    for (d, count, rank) in [(10, 100, 1), (10, 100, 3), (20, 100, 1), (10, 1000, 1)] {
        let data = samples(d, count, &seed.child("data"));
        let mut network = Network::zeros(Sizes::square(d)).expect("a network");
        seed.stream().fill_normal(0.5, network.weights_mut().as_mut_slice());
        let adapters = Adapters { kind: Kind::Asymmetric, rank };
        let f = FineTuningObjective::new(&network, adapters, &data).expect("an objective");
        group.throughput(Throughput::Elements((count * d) as u64));
        let id = format!("d{d}-n{count}-r{rank}");
        let full = format!("fine-tuning-step/{id}");
        let id = BenchmarkId::from_parameter(id);
        group.bench_function(id, |bench| steps(bench, &f, &seed, &full));
    }
    group.finish();
}

/// As many logistic functions as an epoch (30,000) and a step (1,000) evaluate at d = 10, in pieces
/// that stay in the first-level cache.
fn limit(c: &mut Criterion) {
    let mut group = c.benchmark_group("sigmoid-limit");
    for (name, pieces, len) in [("epoch-30000", 30, 1000), ("step-1000", 1, 1000)] {
        let mut values = vec![0.0; len];
        Seed::root(3).stream().fill_normal(2.0, &mut values);
        group.throughput(Throughput::Elements((pieces * len) as u64));
        group.bench_function(name, |bench| {
            bench.iter(|| (0..pieces).for_each(|_| sigmoid_in_place(black_box(&mut values))));
        });
    }
    group.finish();
}

criterion_group!(benches, retraining, fine_tuning, limit);
criterion_main!(benches);
