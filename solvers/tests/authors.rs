//! The authors' scheme on statistics against the same scheme written once on samples.

use faer::{Mat, Scale};
use peftml_linalg::{Blocks, Seed, compare};
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_solvers::first_order::fine_tuning::GradientFineTuning;
use peftml_solvers::{BaseSolver, Problem};
use peftml_theory::linear::{Kind, Task, Tasks};

struct Sampled {
    x: Vec<Mat<f64>>,
    y: Vec<Mat<f64>>,
}

fn sampled(d: usize, k: usize, count: usize, n: usize, kind: Kind, seed: u64) -> Sampled {
    let mut stream = Seed::root(seed).child("authors").stream();
    let base = stream.normal_matrix(d, d, 1.0);
    let (mut xs, mut ys) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let u = stream.normal_matrix(d, k, 1.0);
        let v = if kind == Kind::Symmetric { u.clone() } else { stream.normal_matrix(d, k, 1.0) };
        let x = stream.normal_matrix(d, n, 1.0);
        let noise = stream.normal_matrix(d, n, 0.1);
        ys.push((&base + &u * v.transpose()) * &x + noise);
        xs.push(x);
    }
    Sampled { x: xs, y: ys }
}

fn start(d: usize, k: usize, count: usize, kind: Kind) -> Blocks {
    let mut stream = Seed::root(5).child("start").stream();
    let blocks = if kind == Kind::Symmetric { count } else { 2 * count };
    let us: Vec<_> = (0..blocks).map(|_| stream.normal_matrix(d, k, 0.1)).collect();
    let mut start = Blocks::from_matrices("U", us[..count].iter().map(|u| u.as_ref()));
    if kind == Kind::Asymmetric {
        let v = Blocks::from_matrices("V", us[count..].iter().map(|v| v.as_ref()));
        let mut both = Blocks::zeros(start.layout().followed_by(v.layout()));
        for (t, u) in us.iter().enumerate() {
            both.block_mut(t).copy_from(u);
        }
        start = both;
    }
    start
}

/// The reference's scheme, sample by sample: predictions, residuals, products with the samples.
fn naive(
    data: &Sampled,
    start: &Blocks,
    kind: Kind,
    scheme: &AuthorsScheme,
) -> (Mat<f64>, Vec<Mat<f64>>) {
    let (d, n) = (data.x[0].nrows(), data.x[0].ncols() as f64);
    let count = data.x.len();
    let mut a = Mat::<f64>::zeros(d, d);
    let mut factors: Vec<Mat<f64>> =
        (0..start.count()).map(|i| start.block(i).to_owned()).collect();
    let residual = |a: &Mat<f64>, factors: &[Mat<f64>], t: usize| {
        let v = if kind == Kind::Symmetric { &factors[t] } else { &factors[count + t] };
        a * &data.x[t] + &factors[t] * (v.transpose() * &data.x[t]) - &data.y[t]
    };
    for _ in 0..scheme.rounds {
        for _ in 0..scheme.inner_steps {
            let before = factors.clone();
            for t in 0..count {
                let r = residual(&a, &before, t);
                let step = scheme.inner_step_size / n;
                match kind {
                    Kind::Symmetric => {
                        let both = &data.x[t] * r.transpose() + &r * data.x[t].transpose();
                        factors[t] = &before[t] - Scale(step) * (both * &before[t]);
                    }
                    Kind::Asymmetric => {
                        let v = &before[count + t];
                        let u = &before[t];
                        factors[t] = u - Scale(step) * (&r * (data.x[t].transpose() * v));
                        factors[count + t] = v - Scale(step) * (&data.x[t] * (r.transpose() * u));
                    }
                }
            }
        }
        let mut gradient = Mat::<f64>::zeros(d, d);
        for t in 0..count {
            gradient += residual(&a, &factors, t) * data.x[t].transpose();
        }
        a -= Scale(scheme.outer_step_size / (n * count as f64)) * gradient;
    }
    (a, factors)
}

#[test]
fn iterates_are_those_of_the_scheme_on_samples() {
    let scheme = AuthorsScheme { rounds: 100, ..Default::default() };
    for kind in [Kind::Symmetric, Kind::Asymmetric] {
        for (d, k, count) in [(10, 1, 3), (7, 2, 2), (5, 3, 4)] {
            let data = sampled(d, k, count, 300, kind, 1);
            let pairs = data.x.iter().zip(&data.y).map(|(x, y)| (x.as_ref(), y.as_ref()));
            let tasks = Tasks::from_samples(pairs).unwrap();
            let problem = Problem { tasks: &tasks, kind, rank: k };
            let first = start(d, k, count, kind);
            let mut rounds = 0;
            let ours = scheme
                .retrain(&problem, Mat::zeros(d, d).as_ref(), &first, &mut |round| {
                    assert_eq!(round.number(), rounds);
                    rounds += 1;
                })
                .unwrap();
            assert_eq!(rounds, 101);
            let (a, factors) = naive(&data, &first, kind, &scheme);
            // 1e-10: a thousand steps whose roundings (1e-16 of numbers below 10) the iteration may
            // amplify; a wrong formula differs in the first digits.
            assert!(compare::distance(ours.base.as_ref(), a.as_ref()) < 1e-10);
            for (i, factor) in factors.iter().enumerate() {
                assert!(compare::distance(ours.adapters.block(i), factor.as_ref()) < 1e-10);
            }
            assert!(compare::distance(ours.base.as_ref(), Mat::zeros(d, d).as_ref()) > 0.1);

            // The loss is the sampled one without the least-squares residual.
            let n = 300.0;
            let sampled_loss: f64 = (0..count)
                .map(|t| {
                    let v = if kind == Kind::Symmetric { &factors[t] } else { &factors[count + t] };
                    let w = &a + &factors[t] * v.transpose();
                    (&w * &data.x[t] - &data.y[t]).squared_norm_l2() / (2.0 * n)
                })
                .sum::<f64>()
                / count as f64;
            let gap = ours.loss + tasks.residual_loss() - sampled_loss;
            assert!(gap.abs() < 1e-10 * sampled_loss);
        }
    }
}

#[test]
fn a_scheme_with_another_order_of_steps_is_told_apart() {
    // Negative control: 9 inner steps instead of 10 are visible after 100 rounds.
    let data = sampled(10, 1, 3, 300, Kind::Symmetric, 1);
    let first = start(10, 1, 3, Kind::Symmetric);
    let scheme = AuthorsScheme { rounds: 100, ..Default::default() };
    let other = AuthorsScheme { inner_steps: 9, ..scheme };
    let (a, _) = naive(&data, &first, Kind::Symmetric, &scheme);
    let (b, _) = naive(&data, &first, Kind::Symmetric, &other);
    assert!(compare::distance(a.as_ref(), b.as_ref()) > 1e-6);
}

#[test]
fn solution_is_the_schemes_own_iterate_and_states_agree_with_it() {
    let kind = Kind::Asymmetric;
    let data = sampled(6, 2, 3, 100, kind, 3);
    let pairs = data.x.iter().zip(&data.y).map(|(x, y)| (x.as_ref(), y.as_ref()));
    let tasks = Tasks::from_samples(pairs).unwrap();
    let problem = Problem { tasks: &tasks, kind, rank: 2 };
    let scheme = AuthorsScheme { rounds: 20, ..Default::default() };
    let first = start(6, 2, 3, kind);
    let mut seen = Vec::new();
    let solution = scheme
        .solve(&problem, Some(&first), &mut |state: &peftml_solvers::State| {
            seen.push((state.iteration, state.value, state.x.block(0).to_owned()));
        })
        .unwrap();
    assert_eq!(seen.len(), 21);
    let (iteration, value, base) = seen.last().unwrap();
    assert_eq!(*iteration, 20);
    assert_eq!(base, &solution.base);
    assert_eq!(*value, solution.loss);
    assert!(seen[0].1 > *value);
    // Without the observer's evaluations in between, the same bits.
    let silent = scheme.retrain(&problem, Mat::zeros(6, 6).as_ref(), &first, &mut |_| {}).unwrap();
    assert_eq!(silent.base, solution.base);
    assert!(scheme.solve(&problem, None, &mut peftml_solvers::iterate::Silent).is_err());
}

#[test]
fn observed_gradients_are_the_slope_of_the_observed_values() {
    // The outer step moves the base against the observed gradient alone when there are no inner steps:
    // value(A - h g) = value(A) - h |g|^2 + h^2/2 <g, H g>, H = mean S_t on the right, exactly quadratic.
    let data = sampled(6, 1, 3, 50, Kind::Symmetric, 8);
    let pairs = data.x.iter().zip(&data.y).map(|(x, y)| (x.as_ref(), y.as_ref()));
    let tasks = Tasks::from_samples(pairs).unwrap();
    let problem = Problem { tasks: &tasks, kind: Kind::Symmetric, rank: 1 };
    let first = start(6, 1, 3, Kind::Symmetric);
    let step = 1e-3;
    let scheme =
        AuthorsScheme { rounds: 1, inner_steps: 0, outer_step_size: step, ..Default::default() };
    let mut states = Vec::new();
    scheme
        .solve(&problem, Some(&first), &mut |state: &peftml_solvers::State| {
            states.push((state.value, state.gradient.block(0).to_owned()));
        })
        .unwrap();
    let gradient = &states[0].1;
    let mut curvature = 0.0;
    for task in tasks.iter() {
        let weighted = gradient * task.second_moment().unwrap();
        curvature += peftml_linalg::kernel::inner(gradient.as_ref(), weighted.as_ref()) / 3.0;
    }
    let expected = states[0].0 - step * gradient.squared_norm_l2() + 0.5 * step * step * curvature;
    assert!((states[1].0 - expected).abs() < 1e-13 * expected);
}

#[test]
fn fine_tuning_is_the_scheme_on_samples() {
    let (d, r, n) = (8, 2, 60);
    let data = sampled(d, r, 1, n, Kind::Asymmetric, 9);
    let (x, y) = (&data.x[0], &data.y[0]);
    let task = Task::from_samples(0, x.as_ref(), y.as_ref()).unwrap();
    let first = start(d, r, 1, Kind::Asymmetric);
    let base = Mat::<f64>::identity(d, d);
    let tuning = GradientFineTuning { steps: 200, step_size: 0.005 };
    let mut seen = Vec::new();
    let reached = tuning
        .fine_tune(base.as_ref(), &task, &first, &[0, 1, 50, 500], &mut |step, u, v| {
            seen.push((step, u.to_owned(), v.to_owned()));
        })
        .unwrap();
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 1, 50]);
    let (mut u, mut v) = (first.block(0).to_owned(), first.block(1).to_owned());
    for step in 0..=200 {
        if let Some((_, left, right)) = seen.iter().find(|s| s.0 == step) {
            assert!(compare::distance(left.as_ref(), u.as_ref()) < 1e-11);
            assert!(compare::distance(right.as_ref(), v.as_ref()) < 1e-11);
        }
        if step == 200 {
            break;
        }
        let residual = &base * x + &u * (v.transpose() * x) - y;
        let h = 0.005 / n as f64;
        let next = &u - Scale(h) * (&residual * (x.transpose() * &v));
        v = &v - Scale(h) * (x * (residual.transpose() * &u));
        u = next;
    }
    assert!(compare::distance(reached.left(), u.as_ref()) < 1e-11);
    assert!(compare::distance(reached.right(), v.as_ref()) < 1e-11);
}
