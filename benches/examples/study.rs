use peftml_data::synthetic::shallow::*;
use peftml_solvers::{AdamW, iterate::*};
use peftml_theory::linear::Kind;
use peftml_theory::shallow::*;
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    for seed in a[0]..a[1] {
        let spec = ShallowSpec {
            dimension: 10,
            rank: 1,
            tasks: 3,
            samples_per_task: 1000,
            test_samples: 100,
            fresh_samples: 10000,
            noise_std: 0.1,
            kind: Kind::Symmetric,
            biases: a[2] == 1,
        };
        let s = spec.seed(seed);
        let truth = spec.ground_truth(&s).unwrap();
        let tasks = spec.retraining_tasks(&truth, &s).unwrap();
        let test = spec.test_task(&truth, &s).unwrap();
        let ad = Adapters { kind: Kind::Asymmetric, rank: 1 };
        for m in [None, Some(ad)] {
            let t = std::time::Instant::now();
            let f = RetrainingObjective::new(spec.sizes(), m, &tasks).unwrap();
            let st = run(
                &AdamW::default(),
                &f,
                spec.retraining_start(m, &s, 0).unwrap(),
                &MaxIterations(40000),
                &mut Silent,
            )
            .unwrap();
            let net = Network::from_blocks(spec.sizes(), &st.x).unwrap();
            let ft = FineTuningObjective::new(&net, ad, &test.samples).unwrap();
            let q = run(
                &AdamW::default(),
                &ft,
                spec.fine_tuning_start(ad, &s, 0).unwrap(),
                &MaxIterations(15000),
                &mut Silent,
            )
            .unwrap();
            let tuned = ft.network_at(&q.x).unwrap();
            println!(
                "{seed} {} {:.3e} {:.4e} {:.4e} {:.1}",
                m.is_some(),
                st.value / 3.0,
                tuned.mean_squared_error(&test.noiseless).unwrap(),
                tuned.mean_squared_error(&test.fresh).unwrap(),
                t.elapsed().as_secs_f64()
            );
        }
    }
}
