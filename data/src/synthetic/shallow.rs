//! Shallow-network problems with a known ground truth.
//!
//! `y = c^T sigmoid((A + U_t U_t^T) x) + e`, scalar output, `x ~ N(0, I_d)`, entries of `A` (d x d),
//! `c` (d) and `U_t` (d x k) independent N(0, 1), `e ~ N(0, noise_std^2)`; asymmetric problems have
//! `U_t V_t^T`. N samples for each of the T retraining tasks, n for the test task (t = T), whose
//! noiseless labels and fresh inputs are there for measuring.
//!
//! Weights start as PyTorch's `Linear` does, uniform within `1/sqrt(fan-in)`; adapters with the left
//! factor zero and the right one so. Every draw has its own stream below [`ShallowSpec::seed`], so
//! that methods are paired. Source: experiments.md, section 2.

use crate::DataError;
use faer::{Col, Mat};
use peftml_linalg::{Blocks, Seed, Stream};
use peftml_theory::linear::Kind;
use peftml_theory::shallow::{Adapters, Network, Samples, ShallowError, Sizes};

/// Sizes and laws of a shallow problem.
#[derive(Clone, Debug, PartialEq)]
pub struct ShallowSpec {
    /// Dimension d: inputs and hidden units.
    pub dimension: usize,
    /// True adapter rank k, at most d.
    pub rank: usize,
    /// Retraining tasks T; the test task comes on top.
    pub tasks: usize,
    /// Samples N of each retraining task.
    pub samples_per_task: usize,
    /// Samples n of the test task.
    pub test_samples: usize,
    /// Fresh inputs on which a fine-tuned network is tested.
    pub fresh_samples: usize,
    /// Standard deviation of the noise on the labels.
    pub noise_std: f64,
    /// Offsets `U U^T` or `U V^T`.
    pub kind: Kind,
    /// Whether the trained networks have biases; the truth has none.
    pub biases: bool,
}

/// The truth: a network, and the offset of each task (the last one is the test task's).
#[derive(Clone, Debug)]
pub struct ShallowTruth {
    /// `A` and `c`, without biases.
    pub base: Network,
    /// `(U_t, V_t)`, d x k each; equal for symmetric problems.
    pub offsets: Vec<(Mat<f64>, Mat<f64>)>,
}

/// The test task.
#[derive(Clone, Debug)]
pub struct TestTask {
    /// n samples with noisy labels: what fine-tuning sees.
    pub samples: Samples,
    /// The same inputs with noiseless labels: what the reference measures on.
    pub noiseless: Samples,
    /// Fresh inputs with noiseless labels.
    pub fresh: Samples,
}

impl ShallowSpec {
    /// Checks that the problem exists.
    ///
    /// # Errors
    /// [`DataError::Setting`] for a size of 0, a rank above d, or a noise that is no finite number
    /// from 0.
    pub fn check(&self) -> Result<(), DataError> {
        let sizes = [
            ("dimension", self.dimension),
            ("rank", self.rank),
            ("tasks", self.tasks),
            ("samples_per_task", self.samples_per_task),
            ("test_samples", self.test_samples),
            ("fresh_samples", self.fresh_samples),
        ];
        for (name, value) in sizes {
            if value == 0 {
                return Err(DataError::Setting { name, value: 0.0, expected: "1 or more" });
            }
        }
        if self.rank > self.dimension {
            let expected = "at most the dimension";
            return Err(DataError::Setting { name: "rank", value: self.rank as f64, expected });
        }
        if !self.noise_std.is_finite() || self.noise_std < 0.0 {
            return Err(DataError::Setting {
                name: "noise_std",
                value: self.noise_std,
                expected: "a finite number, 0 or more",
            });
        }
        Ok(())
    }

    /// Sizes of the trained networks.
    pub fn sizes(&self) -> Sizes {
        Sizes { biases: self.biases, ..Sizes::square(self.dimension) }
    }

    /// The root of this problem's streams: one per number and sizes `d, k, T, N, n`.
    ///
    /// Roles below it: `"ground-truth"`; `"task"`, t with `"inputs"` and `"noise"` (t = T is the test
    /// task) and `"fresh"`; `"start"` with `"network"` and `"adapter"`, t: initial weights of
    /// retraining; `"adapter"`: the fresh adapter of fine-tuning. More starts (`restart` > 0) have a
    /// number below `"start"` and `"adapter"`.
    pub fn seed(&self, seed: u64) -> Seed {
        let Self { dimension, rank, tasks, samples_per_task, test_samples, .. } = self;
        let key = format!("d={dimension} k={rank} T={tasks} N={samples_per_task} n={test_samples}");
        Seed::root(seed).child("shallow").child(key.as_str())
    }

    /// The truth.
    ///
    /// # Errors
    /// [`ShallowError`] for a spec that [`ShallowSpec::check`] refuses.
    pub fn ground_truth(&self, seed: &Seed) -> Result<ShallowTruth, ShallowError> {
        let seed = seed.child("ground-truth");
        let mut base = Network::zeros(Sizes::square(self.dimension))?;
        for (index, role) in [(0, "base"), (1, "second-layer")] {
            let mut block = base.weights_mut().block_mut(index);
            let (rows, cols) = (block.nrows(), block.ncols());
            block.copy_from(seed.child(role).stream().normal_matrix(rows, cols, 1.0));
        }
        let factor = |task: &Seed, side: &str| {
            task.child(side).stream().normal_matrix(self.dimension, self.rank, 1.0)
        };
        let offsets = (0..=self.tasks).map(|t| {
            let task = seed.child("offset").child(t);
            let left = factor(&task, "left");
            let right = match self.kind {
                Kind::Symmetric => left.clone(),
                Kind::Asymmetric => factor(&task, "right"),
            };
            (left, right)
        });
        Ok(ShallowTruth { base, offsets: offsets.collect() })
    }

    /// Samples of the T retraining tasks.
    ///
    /// # Errors
    /// As [`ShallowSpec::ground_truth`].
    pub fn retraining_tasks(
        &self,
        truth: &ShallowTruth,
        seed: &Seed,
    ) -> Result<Vec<Samples>, ShallowError> {
        (0..self.tasks)
            .map(|t| {
                let task = seed.child("task").child(t);
                let (x, clean) = self.draw(truth, t, self.samples_per_task, &task)?;
                let y = noisy(&clean, self.noise_std, task.child("noise").stream());
                Samples::new(self.sizes(), x.as_ref(), y.as_ref())
            })
            .collect()
    }

    /// The test task.
    ///
    /// # Errors
    /// As [`ShallowSpec::ground_truth`].
    pub fn test_task(&self, truth: &ShallowTruth, seed: &Seed) -> Result<TestTask, ShallowError> {
        let task = seed.child("task").child(self.tasks);
        let (x, clean) = self.draw(truth, self.tasks, self.test_samples, &task)?;
        let y = noisy(&clean, self.noise_std, task.child("noise").stream());
        let samples = Samples::new(self.sizes(), x.as_ref(), y.as_ref())?;
        let (x, fresh) = self.draw(truth, self.tasks, self.fresh_samples, &task.child("fresh"))?;
        Ok(TestTask {
            noiseless: samples.with_labels(clean.as_ref())?,
            samples,
            fresh: Samples::new(self.sizes(), x.as_ref(), fresh.as_ref())?,
        })
    }

    fn draw(
        &self,
        truth: &ShallowTruth,
        t: usize,
        count: usize,
        seed: &Seed,
    ) -> Result<(Mat<f64>, Col<f64>), ShallowError> {
        let x = seed.child("inputs").stream().normal_matrix(self.dimension, count, 1.0);
        let (left, right) = &truth.offsets[t];
        let labels = truth.base.adapted(left.as_ref(), right.as_ref())?.outputs(x.as_ref())?;
        Ok((x, labels))
    }

    /// Initial weights of retraining: a network, and one adapter a task where `adapters` are trained.
    ///
    /// The network's are the same with and without adapters.
    ///
    /// # Errors
    /// [`ShallowError`] for adapters that are not defined.
    pub fn retraining_start(
        &self,
        adapters: Option<Adapters>,
        seed: &Seed,
        restart: u64,
    ) -> Result<Blocks, ShallowError> {
        let seed = numbered(seed.child("start"), restart);
        let sizes = self.sizes();
        let mut layout = sizes.layout();
        let network = layout.count();
        if let Some(adapters) = adapters {
            layout = layout.followed_by(&adapters.layout(sizes, self.tasks)?);
        }
        let mut start = Blocks::zeros(layout);
        for index in 0..network {
            // Both layers have d inputs: so have their biases' bounds.
            let role = seed.child("network").child(index);
            fill_uniform(&mut start, index, self.dimension, role.stream());
        }
        if let Some(adapters) = adapters {
            for t in 0..self.tasks {
                let stream = seed.child("adapter").child(t).stream();
                let right = right_factor(adapters, network, self.tasks, t);
                fill_uniform(&mut start, right, self.dimension, stream);
            }
        }
        Ok(start)
    }

    /// A fresh adapter for fine-tuning; a wider one of the same seed begins with a narrower one's
    /// columns.
    ///
    /// # Errors
    /// [`ShallowError`] for adapters that are not defined.
    pub fn fine_tuning_start(
        &self,
        adapters: Adapters,
        seed: &Seed,
        restart: u64,
    ) -> Result<Blocks, ShallowError> {
        let seed = numbered(seed.child("adapter"), restart);
        let mut start = Blocks::zeros(adapters.layout(self.sizes(), 1)?);
        let right = right_factor(adapters, 0, 1, 0);
        fill_uniform(&mut start, right, self.dimension, seed.stream());
        Ok(start)
    }
}

/// The block that starts uniform: the right factor, or the only one. (Symmetric adapters cannot start
/// at zero, a saddle.)
fn right_factor(adapters: Adapters, network: usize, tasks: usize, t: usize) -> usize {
    match adapters.kind {
        Kind::Symmetric => network + t,
        Kind::Asymmetric => network + tasks + t,
    }
}

fn numbered(seed: Seed, restart: u64) -> Seed {
    if restart == 0 { seed } else { seed.child(restart) }
}

/// Uniform within `1/sqrt(inputs)`, column by column.
fn fill_uniform(point: &mut Blocks, index: usize, inputs: usize, mut stream: Stream) {
    let bound = 1.0 / (inputs as f64).sqrt();
    let mut block = point.block_mut(index);
    for j in 0..block.ncols() {
        for i in 0..block.nrows() {
            block[(i, j)] = bound * (2.0 * stream.uniform() - 1.0);
        }
    }
}

fn noisy(clean: &Col<f64>, noise_std: f64, mut stream: Stream) -> Col<f64> {
    Col::from_fn(clean.nrows(), |s| clean[s] + noise_std * stream.normal())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ShallowSpec {
        ShallowSpec {
            dimension: 6,
            rank: 2,
            tasks: 3,
            samples_per_task: 400,
            test_samples: 50,
            fresh_samples: 70,
            noise_std: 0.1,
            kind: Kind::Symmetric,
            biases: false,
        }
    }

    /// The truth's own network has the noise's variance as its error on noisy labels and none on
    /// noiseless ones; the base alone has not.
    #[test]
    fn the_truth_explains_its_samples_up_to_the_noise() {
        for (kind, biases) in [(Kind::Symmetric, false), (Kind::Asymmetric, true)] {
            let spec = ShallowSpec { kind, biases, ..spec() };
            let seed = spec.seed(1);
            let truth = spec.ground_truth(&seed).unwrap();
            let tasks = spec.retraining_tasks(&truth, &seed).unwrap();
            let test = spec.test_task(&truth, &seed).unwrap();
            let network = |t: usize| {
                let (left, right) = &truth.offsets[t];
                let adapted = truth.base.adapted(left.as_ref(), right.as_ref()).unwrap();
                // The truth has no biases; a network with them holds it with zeros there.
                let mut point = Blocks::zeros(spec.sizes().layout());
                (0..2).for_each(|i| point.block_mut(i).copy_from(adapted.weights().block(i)));
                Network::from_blocks(spec.sizes(), &point).unwrap()
            };
            for (t, samples) in tasks.iter().enumerate() {
                let error = network(t).mean_squared_error(samples).unwrap();
                // Mean of 400 squares of N(0, 0.1^2): standard error 0.01 sqrt(2/400); six of them.
                assert!((error - 0.01).abs() < 6.0 * 0.01 * (2.0_f64 / 400.0).sqrt(), "{error}");
                let other = network((t + 1) % 3).mean_squared_error(samples).unwrap();
                assert!(other > 0.03, "another task's offset does not explain them: {other}");
            }
            let last = network(3);
            assert!(last.mean_squared_error(&test.noiseless).unwrap() < 1e-28);
            assert!(last.mean_squared_error(&test.fresh).unwrap() < 1e-28);
            assert!(last.mean_squared_error(&test.samples).unwrap() > 1e-3);
        }
    }

    #[test]
    fn starts_are_paired_bounded_and_numbered() {
        let spec = spec();
        let seed = spec.seed(2);
        let asymmetric = Adapters { kind: Kind::Asymmetric, rank: 2 };
        let alone = spec.retraining_start(None, &seed, 0).unwrap();
        let with = spec.retraining_start(Some(asymmetric), &seed, 0).unwrap();
        assert_eq!(alone.as_slice(), &with.as_slice()[..alone.as_slice().len()]);
        assert!((0..3).all(|t| with.block(2 + t).norm_max() == 0.0));
        let bound = 1.0 / 6f64.sqrt();
        assert!(with.max_abs() <= bound && with.max_abs() > 0.8 * bound);
        assert_ne!(with.block(5), with.block(6));
        assert_ne!(spec.retraining_start(None, &seed, 1).unwrap(), alone);
        let narrow = spec.fine_tuning_start(asymmetric, &seed, 0).unwrap();
        let wide = Adapters { rank: 4, ..asymmetric };
        let wide = spec.fine_tuning_start(wide, &seed, 0).unwrap();
        assert_eq!(wide.block(1).subcols(0, 2), narrow.block(1));
        let symmetric = Adapters { kind: Kind::Symmetric, rank: 1 };
        assert!(spec.fine_tuning_start(symmetric, &seed, 0).unwrap().max_abs() > 0.0);
    }

    #[test]
    fn problems_that_cannot_be_are_refused_by_name() {
        let refused = |spec: ShallowSpec| match spec.check() {
            Err(DataError::Setting { name, .. }) => name,
            _ => "",
        };
        assert_eq!(refused(ShallowSpec { rank: 7, ..spec() }), "rank");
        assert_eq!(refused(ShallowSpec { fresh_samples: 0, ..spec() }), "fresh_samples");
        assert_eq!(refused(ShallowSpec { noise_std: f64::NAN, ..spec() }), "noise_std");
        assert_eq!(refused(spec()), "");
    }
}
