use peftml_data::synthetic::shallow::*;
use peftml_solvers::{AdamW, Solver, iterate::*, first_order::lbfgs::Lbfgs, second_order::trust_region::TrustRegion};
use peftml_theory::linear::Kind;
use peftml_theory::shallow::*;
fn main() {
    let a: Vec<u64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    for seed in a[0]..a[1] {
        let spec = ShallowSpec { dimension: 10, rank: 1, tasks: a[2] as usize, samples_per_task: 1000, test_samples: 100, fresh_samples: 10000, noise_std: 0.1, kind: Kind::Symmetric, biases: false };
        let s = spec.seed(seed);
        let truth = spec.ground_truth(&s).unwrap();
        let tasks = spec.retraining_tasks(&truth, &s).unwrap();
        let test = spec.test_task(&truth, &s).unwrap();
        let ad = Adapters { kind: Kind::Asymmetric, rank: 1 };
        let f = RetrainingObjective::new(spec.sizes(), Some(ad), &tasks).unwrap();
        let tune = |st: &State, label: String, secs: f64| {
            let net = Network::from_blocks(spec.sizes(), &st.x).unwrap();
            let ft = FineTuningObjective::new(&net, ad, &test.samples).unwrap();
            let q = run(&AdamW::default(), &ft, spec.fine_tuning_start(ad, &s, 0).unwrap(), &MaxIterations(15000), &mut Silent).unwrap();
            let tuned = ft.network_at(&q.x).unwrap();
            println!("{seed} {label} {:.4e} {:.4e} {:.4e} {} {} {} {:.2e} {:.1}", st.value / a[2] as f64, tuned.mean_squared_error(&test.noiseless).unwrap(), tuned.mean_squared_error(&test.fresh).unwrap(), st.iteration, st.evaluations.gradients + st.evaluations.values, st.evaluations.hessian_products, st.gradient_norm, secs);
        };
        let lb = Lbfgs { memory: 20 };
        let tr = TrustRegion::default();
        for (name, solver, iters) in [("lbfgs", &lb as &dyn Solver, 9000usize), ("tr", &tr, 150)] {
            let mut best: Option<State> = None;
            let mut secs = 0.0;
            for start in 0..4u64 {
                let t = std::time::Instant::now();
                let x = spec.retraining_start(Some(ad), &s, start).unwrap();
                let rule = Any(vec![Box::new(MaxIterations(iters)), Box::new(ScaledGradient { tolerance: 1e-9, scale: 1.0 })]);
                let st = run(solver, &f, x, &rule, &mut Silent).unwrap();
                secs += t.elapsed().as_secs_f64();
                let better = best.as_ref().is_none_or(|b| st.value < b.value);
                if start == 0 { tune(&st, format!("{name}-1"), secs); }
                if better { best = Some(st); }
            }
            tune(&best.unwrap(), format!("{name}-4"), secs);
            if name == "lbfgs" && a.len() > 3 { break; }
        }
    }
}
