//! Hot kernels of linear retraining. Set-up is outside the timer; names carry the sizes, allocations are
//! counted beside.

use criterion::{Criterion, criterion_group, criterion_main};
use faer::Mat;
use peftml_benches::counted::{Counting, bench};
use peftml_benches::problem;
use peftml_linalg::packed::{Accumulate, Packed};
use peftml_linalg::{Blocks, panel};
use peftml_solvers::Problem;
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_solvers::first_order::fine_tuning::GradientFineTuning;
use peftml_solvers::first_order::standard::StandardScheme;
use peftml_theory::Objective;
use peftml_theory::linear::{Kind, ProfileObjective, Tasks};
use std::hint::black_box;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn schemes(criterion: &mut Criterion) {
    for (d, k, count, n) in [(10, 1, 3, 5000), (10, 3, 3, 5000), (20, 1, 3, 5000)] {
        let sampled = problem::sampled(d, k, count, n);
        let id = problem::id(d, k, count, n);
        let zero = Mat::zeros(d, d);
        let linear = Problem { tasks: &sampled.tasks, kind: Kind::Symmetric, rank: k };
        bench(criterion, &format!("statistics/{id}"), || {
            Tasks::from_samples(sampled.samples.iter().map(|(x, y)| (x.as_ref(), y.as_ref())))
        });
        // 30 rounds: a hundredth of a retraining.
        let scheme = AuthorsScheme { rounds: 30, ..Default::default() };
        bench(criterion, &format!("authors-30-rounds/{id}"), || {
            scheme.retrain(&linear, zero.as_ref(), &sampled.start, &mut |_| {})
        });
        let standard = StandardScheme { steps: 30, ..Default::default() };
        bench(criterion, &format!("standard-30-steps/{id}"), || {
            standard.retrain(&sampled.tasks, zero.as_ref(), None, &mut |_, _| {})
        });
        let pair = [sampled.start.block(0), sampled.start.block(1)];
        let pair = Blocks::from_matrices("F", pair);
        let tuning = GradientFineTuning { steps: 100, ..Default::default() };
        let task = sampled.tasks.task(0);
        bench(criterion, &format!("fine-tuning-100-steps/{id}"), || {
            tuning.fine_tune(zero.as_ref(), task, &pair, &[], &mut |_, _, _| {})
        });
    }
}

fn derivatives(criterion: &mut Criterion) {
    for (d, k, count) in [(10, 1, 3), (20, 2, 5), (100, 4, 10)] {
        for kind in [Kind::Symmetric, Kind::Asymmetric] {
            let (exact, x) = problem::exact(d, k, count, kind);
            let sampled = problem::statistics(d, k, count, 10 * d, kind);
            for (tasks, what) in [(&exact, "exact".to_owned()), (&sampled, format!("N{}", 10 * d))]
            {
                let Ok(f) = ProfileObjective::new(tasks, kind, k) else { continue };
                let id = format!("d{d}-k{k}-T{count}-{what}-{}", kind.name());
                let mut work = vec![0.0; f.work_len()];
                let (mut out, v) = (x.zeros_like(), x.clone());
                bench(criterion, &format!("profile-new/{id}"), || {
                    ProfileObjective::new(tasks, kind, k).is_ok()
                });
                bench(criterion, &format!("profile-value/{id}"), || {
                    f.value(black_box(&x), &mut work)
                });
                bench(criterion, &format!("profile-gradient/{id}"), || {
                    f.gradient(black_box(&x), &mut out, &mut work)
                });
                f.prepare(&x, &mut work);
                bench(criterion, &format!("profile-prepared-hessian-product/{id}"), || {
                    f.prepared_hessian_product(black_box(&x), &v, &mut out, &mut work)
                });
                bench(criterion, &format!("profile-gauss-newton-product/{id}"), || {
                    f.gauss_newton_product(black_box(&x), &v, &mut out, &mut work)
                });
            }
        }
    }
}

fn products(criterion: &mut Criterion) {
    for (d, k) in [(10, 1), (10, 10), (20, 2), (100, 4)] {
        let ld = panel::padded(d);
        let (a, x) = (vec![0.5; ld * d], vec![0.25; ld * k]);
        let mut out = vec![0.0; ld * k];
        bench(criterion, &format!("panel-mul/d{d}-k{k}"), || {
            let (a, x, out) = (black_box(&a), black_box(&x), &mut out);
            panel::vectorised(|| panel::mul(out, a, ld, d, x, ld, k));
        });
        bench(criterion, &format!("packed-mul/d{d}-k{k}"), || {
            let (x, out) = (black_box(&x), &mut out);
            Packed::new(black_box(&a), ld).mul(out, ld, x, ld, k, Accumulate::Replace);
        });
        let mut gram = vec![0.0; k * k];
        bench(criterion, &format!("panel-gram/d{d}-k{k}"), || {
            let (x, gram) = (black_box(&x), &mut gram);
            panel::vectorised(|| panel::mul_transposed(gram, x, x, ld));
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = schemes, derivatives, products
}
criterion_main!(benches);
