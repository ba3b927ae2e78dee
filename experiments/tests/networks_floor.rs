//! Truth across floors: on the paper's linear problem PEFT-ML through networks makes the linear solver's
//! iterates.
//!
//! The network is one linear layer without bias, the method symmetric LoRA, the schedule the authors':
//! ten simultaneous steps of all adapters, one of the base. It computes from samples what the solver
//! computes from `S_t` and `C_t`.

use faer::{Mat, MatRef};
use peftml_data::synthetic::linear::{Family, LinearSpec, sample};
use peftml_linalg::Blocks;
use peftml_peft::models::Linear;
use peftml_peft::optimiser::{OptimiserConfig, ScheduleConfig};
use peftml_peft::train::{Algorithm, Rounds, Training, TrainingConfig, TrainingState};
use peftml_peft::{
    AdapterConfig, Network, Parameter, Parameters, Place, Precision, Task, VectorExamples,
};
use peftml_solvers::Problem;
use peftml_solvers::first_order::authors::AuthorsScheme;
use peftml_theory::linear::Kind;

const SEED: u64 = 11;

struct Scene {
    spec: LinearSpec,
    rounds: usize,
}

impl Scene {
    fn new(samples_per_task: usize, rounds: usize) -> Self {
        let spec = LinearSpec {
            dimension: 10,
            rank: 1,
            tasks: 3,
            samples_per_task,
            test_samples: 10,
            noise_std: 0.1,
            kind: Kind::Symmetric,
            family: Family::Iid,
        };
        Self { spec, rounds }
    }

    /// The adapters' start: N(0, 0.1^2), d x k each.
    fn start(&self) -> Vec<Mat<f64>> {
        let seed = self.spec.seed(SEED).child("start");
        let (d, k) = (self.spec.dimension, self.spec.rank);
        let draw = |t: usize| seed.child(t).stream().normal_matrix(d, k, 0.1);
        (0..self.spec.tasks).map(draw).collect()
    }

    /// Base and adapters after every round, by the solver.
    fn by_solver(&self) -> Vec<(Mat<f64>, Vec<Mat<f64>>)> {
        let seed = self.spec.seed(SEED);
        let truth = self.spec.ground_truth(&seed);
        let tasks = self.spec.retraining_tasks(&truth, &seed).unwrap();
        let problem = Problem { tasks: &tasks, rank: self.spec.rank, kind: Kind::Symmetric };
        let start = blocks(&self.start());
        let scheme = AuthorsScheme { rounds: self.rounds, ..AuthorsScheme::default() };
        let d = self.spec.dimension;
        let mut iterates = Vec::new();
        let zero = Mat::zeros(d, d);
        scheme
            .retrain(&problem, zero.as_ref(), &start, &mut |round| {
                let adapters = (0..self.spec.tasks).map(|t| round.adapter(t).0.to_owned());
                iterates.push((round.base().to_owned(), adapters.collect()));
            })
            .unwrap();
        iterates
    }

    fn tasks(&self) -> Vec<Task> {
        let seed = self.spec.seed(SEED);
        let truth = self.spec.ground_truth(&seed);
        let (d, n) = (self.spec.dimension, self.spec.samples_per_task);
        let task = |t: usize| {
            let (x, y) = sample(&truth, t, n, self.spec.noise_std, &seed);
            // Samples are columns there and rows here.
            let rows = |m: &Mat<f64>| m.col_iter().flat_map(|c| c.iter().copied()).collect();
            let (x, y): (Vec<f64>, Vec<f64>) = (rows(&x), rows(&y));
            let training = VectorExamples::values(d, x, d, y).unwrap();
            let none = VectorExamples::values(d, Vec::new(), d, Vec::new()).unwrap();
            Task { name: t.to_string(), training: Box::new(training), validation: Box::new(none) }
        };
        (0..self.spec.tasks).map(task).collect()
    }

    /// The largest relative distance of any round's base and adapters from the solver's.
    fn distance(&self, precision: Precision, flipped: bool) -> f64 {
        let (place, tasks) = (Place::cpu(precision), self.tasks());
        let d = self.spec.dimension;
        let network = Linear::new(d, d).unwrap();
        let settings = format!("rank = {}", self.spec.rank);
        let adapter = AdapterConfig::new("symmetric-lora").with_settings(&settings).unwrap();
        let scheme = AuthorsScheme::default();
        let (inner, outer) = (scheme.inner_steps as u64, 1);
        let config = TrainingConfig {
            algorithm: Algorithm::PeftMl {
                adapter,
                rounds: Rounds::Alternating { inner, outer },
                adapter_optimiser: Some(OptimiserConfig::sgd(scheme.inner_step_size)),
            },
            steps: (inner + outer) * self.rounds as u64,
            batch: self.spec.tasks * self.spec.samples_per_task,
            optimiser: OptimiserConfig::sgd(scheme.outer_step_size),
            schedule: ScheduleConfig::Constant,
            validate_every: 0,
        };
        let seed = self.spec.seed(SEED);
        let base = network.sites().initial(&seed, &place).unwrap();
        let training = Training::new(&network, &tasks, config, &base, &seed, &place).unwrap();
        let training = if flipped { training.with_outer_sign_flipped() } else { training };
        let mut state = training.start(&base).unwrap();
        for (theta, start) in state.adapters.iter_mut().zip(self.start()) {
            set(theta, start.as_ref(), &place);
        }
        let (mut worst, mut round) = (0.0f64, 0);
        let expected = self.by_solver();
        worst = worst.max(gap(&state, &expected[round], d));
        training
            .run(&mut state, &mut |state| {
                round += 1;
                worst = worst.max(gap(state, &expected[round], d));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(round, self.rounds);
        worst
    }
}

fn blocks(adapters: &[Mat<f64>]) -> Blocks {
    Blocks::from_matrices("U", adapters.iter().map(|u| u.as_ref()))
}

/// Puts `u` in the place of an adapter's only parameter.
fn set(theta: &mut Parameters, u: MatRef<'_, f64>, place: &Place) {
    let (name, parameter) = theta.iter().next().map(|(n, p)| (n.to_owned(), p.clone())).unwrap();
    let rows = u.row_iter().flat_map(|row| row.iter().copied().collect::<Vec<_>>()).collect();
    let value = place.tensor(rows, [u.nrows() * u.ncols()]).unwrap();
    theta.insert(name, Parameter { value, ..parameter });
}

/// Relative Frobenius distance of base and adapters; at round 0 the base is 0 in both.
fn gap(state: &TrainingState, (base, adapters): &(Mat<f64>, Vec<Mat<f64>>), d: usize) -> f64 {
    // The layer computes x W, so W is the solver's A^T.
    let w = state.base.values("linear.weight").unwrap();
    let mut worst = relative(|i, j| w[j * d + i], base.as_ref());
    for (theta, u) in state.adapters.iter().zip(adapters) {
        let (name, _) = theta.iter().next().unwrap();
        let (own, k) = (theta.values(name).unwrap(), u.ncols());
        worst = worst.max(relative(|i, j| own[i * k + j], u.as_ref()));
    }
    worst
}

fn relative(own: impl Fn(usize, usize) -> f64, expected: MatRef<'_, f64>) -> f64 {
    let (rows, cols) = (expected.nrows(), expected.ncols());
    let difference = Mat::from_fn(rows, cols, |i, j| own(i, j) - expected[(i, j)]);
    let size = expected.norm_l2();
    if size == 0.0 { difference.norm_l2() } else { difference.norm_l2() / size }
}

/// A workspace without the paper's method has no floor to compare.
fn has_method() -> bool {
    peftml_peft::methods::entry("symmetric-lora").is_ok()
}

#[test]
fn double_precision_makes_the_solvers_iterates() {
    if !has_method() {
        return;
    }
    let scene = Scene::new(200, 300);
    let distance = scene.distance(Precision::F64, false);
    assert!(distance < 1e-12, "{distance}");
}

#[test]
fn single_precision_stays_near_for_a_hundred_rounds() {
    if !has_method() {
        return;
    }
    let scene = Scene::new(5000, 100);
    let distance = scene.distance(Precision::F32, false);
    assert!(distance < 1e-5, "{distance}");
}

#[test]
fn a_base_that_steps_uphill_is_seen_at_once() {
    if !has_method() {
        return;
    }
    let distance = Scene::new(200, 2).distance(Precision::F64, true);
    assert!(distance > 1.0, "{distance}");
}
