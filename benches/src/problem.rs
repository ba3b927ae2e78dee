//! The problems that are timed: experiments.md section 1, one fixed seed.

use faer::Mat;
use peftml_data::synthetic::linear::{Family, LinearSpec};
use peftml_linalg::{Blocks, Layout};
use peftml_theory::linear::{Kind, Tasks};

/// A sampled problem with its samples and the start of retraining.
pub struct Sampled {
    /// Inputs and outputs of each task, d x N.
    pub samples: Vec<(Mat<f64>, Mat<f64>)>,
    /// Their sufficient statistics.
    pub tasks: Tasks,
    /// `U_t ~ N(0, 0.1^2)`, d x k.
    pub start: Blocks,
}

/// The problem's sizes as they stand in a benchmark's name.
pub fn id(d: usize, k: usize, tasks: usize, samples: usize) -> String {
    format!("d{d}-k{k}-T{tasks}-N{samples}")
}

fn spec(d: usize, k: usize, tasks: usize, samples: usize, kind: Kind) -> LinearSpec {
    LinearSpec {
        dimension: d,
        rank: k,
        tasks,
        samples_per_task: samples,
        test_samples: 100,
        noise_std: 0.1,
        kind,
        family: Family::Iid,
    }
}

/// Adapters with N(0, std^2) entries for `tasks` tasks.
fn start(d: usize, k: usize, tasks: usize, kind: Kind, std: f64, spec: &LinearSpec) -> Blocks {
    let mut layout = Layout::repeated("U", tasks, d, k);
    if kind == Kind::Asymmetric {
        layout = layout.followed_by(&Layout::repeated("V", tasks, d, k));
    }
    let mut start = Blocks::zeros(layout);
    spec.seed(0).child("start").stream().fill_normal(std, start.as_mut_slice());
    start
}

/// A sampled problem of the authors' preset's law.
///
/// # Panics
/// If the sizes make no problem.
pub fn sampled(d: usize, k: usize, tasks: usize, samples: usize) -> Sampled {
    let spec = spec(d, k, tasks, samples, Kind::Symmetric);
    let seed = spec.seed(0);
    let truth = spec.ground_truth(&seed);
    let samples: Vec<_> = (0..tasks)
        .map(|t| peftml_data::synthetic::linear::sample(&truth, t, samples, 0.1, &seed))
        .collect();
    let pairs = samples.iter().map(|(x, y)| (x.as_ref(), y.as_ref()));
    let statistics = Tasks::from_samples(pairs).expect("drawn samples are finite");
    Sampled { samples, tasks: statistics, start: start(d, k, tasks, Kind::Symmetric, 0.1, &spec) }
}

/// Sufficient statistics of samples with noise 0.1.
///
/// # Panics
/// If the sizes make no problem.
pub fn statistics(d: usize, k: usize, tasks: usize, samples: usize, kind: Kind) -> Tasks {
    let spec = spec(d, k, tasks, samples, kind);
    let seed = spec.seed(0);
    let truth = spec.ground_truth(&seed);
    let draw = |t| peftml_data::synthetic::linear::sample(&truth, t, samples, 0.1, &seed);
    let samples: Vec<_> = (0..tasks).map(draw).collect();
    let pairs = samples.iter().map(|(x, y)| (x.as_ref(), y.as_ref()));
    Tasks::from_samples(pairs).expect("drawn samples are finite")
}

/// Exact tasks and a start of unit scale.
///
/// # Panics
/// If the sizes make no problem.
pub fn exact(d: usize, k: usize, tasks: usize, kind: Kind) -> (Tasks, Blocks) {
    let spec = spec(d, k, tasks, 1, kind);
    let truth = spec.ground_truth(&spec.seed(0));
    let exact = Tasks::exact((0..tasks).map(|t| truth.task(t))).expect("drawn tasks are finite");
    (exact, start(d, k, tasks, kind, 1.0, &spec))
}
