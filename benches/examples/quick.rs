use peftml_linalg::{Blocks, Seed};
use peftml_solvers::{AdamW, Solver};
use peftml_theory::Objective;
use peftml_theory::linear::Kind;
use peftml_theory::shallow::*;
use std::time::Instant;
fn samples(d: usize, count: usize, seed: &Seed) -> Samples {
    let mut stream = seed.stream();
    let x = stream.normal_matrix(d, count, 1.0);
    let y = stream.normal_matrix(count, 1, 1.0);
    Samples::new(Sizes::square(d), x.as_ref(), y.col(0)).unwrap()
}
fn best(mut f: impl FnMut(), inner: usize) -> f64 {
    let mut b = f64::INFINITY;
    for _ in 0..300 {
        let t = Instant::now();
        for _ in 0..inner {
            f();
        }
        b = b.min(t.elapsed().as_secs_f64() / inner as f64);
    }
    b * 1e6
}
fn steps(f: &dyn Objective, inner: usize) -> (f64, f64) {
    let mut x = Blocks::zeros(f.layout().clone());
    Seed::root(2).stream().fill_normal(0.3, x.as_mut_slice());
    let s = AdamW::default();
    let mut st = s.init(f, x).unwrap();
    let a = best(|| s.step(f, &mut st).unwrap(), inner);
    let mut w = vec![0.0; f.work_len()];
    let b = best(
        || {
            std::hint::black_box(f.value(&st.x, &mut w));
        },
        inner,
    );
    (a, b)
}
fn main() {
    let seed = Seed::root(1);
    for (d, t, n) in [(5, 3, 1000), (10, 3, 1000), (20, 3, 1000)] {
        let data: Vec<_> = (0..t).map(|t| samples(d, n, &seed.child(t as u64))).collect();
        for ad in [Some(Adapters { kind: Kind::Asymmetric, rank: 1 }), None] {
            let f = RetrainingObjective::new(Sizes::square(d), ad, &data).unwrap();
            println!("retraining d{d} T{t} N{n} {}: {:?}", ad.is_some(), steps(&f, 5));
        }
    }
    for (d, n, r) in [(10, 100, 1), (10, 100, 3), (20, 100, 1)] {
        let data = samples(d, n, &seed);
        let mut net = Network::zeros(Sizes::square(d)).unwrap();
        seed.stream().fill_normal(0.5, net.weights_mut().as_mut_slice());
        let f = FineTuningObjective::new(&net, Adapters { kind: Kind::Asymmetric, rank: r }, &data)
            .unwrap();
        println!("fine-tuning d{d} n{n} r{r}: {:?}", steps(&f, 100));
    }
    let mut v = vec![0.0; 1000];
    Seed::root(3).stream().fill_normal(2.0, &mut v);
    let v0 = v.clone();
    println!(
        "1000 sigmoids {}",
        best(
            || {
                v.copy_from_slice(&v0);
                sigmoid_in_place(std::hint::black_box(&mut v))
            },
            100
        )
    );
}
