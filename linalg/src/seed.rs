//! Random streams named by path.
//!
//! Every draw of the project comes from a stream whose name is a path from one root:
//! `Seed::root(7).child("task").child(3).stream()`. A child's key is
//! SHA-256(parent's key, tag, label), a stream is ChaCha8 with that key: streams do not depend on
//! the order in which they are made, on threads, or on how much another stream was used. There is
//! no global generator and none seeded by the system.

use faer::Mat;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use sha2::{Digest, Sha256};

/// A node in the tree of random streams.
///
/// ```
/// use peftml_linalg::Seed;
/// let root = Seed::root(7);
/// let mut first = root.child("task").child(3u64).stream();
/// let mut again = Seed::root(7).child("task").child(3u64).stream();
/// assert_eq!(first.normal(), again.normal());
/// assert_ne!(root.child("data").stream().normal(), root.child("split").stream().normal());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    key: [u8; 32],
}

/// What can name a child: text or a whole number.
pub trait SeedLabel {
    /// Feeds a tag of the kind and the label into `hash`, without ambiguity.
    fn feed(&self, hash: &mut dyn FnMut(&[u8]));
}

impl SeedLabel for &str {
    fn feed(&self, hash: &mut dyn FnMut(&[u8])) {
        hash(b"s");
        hash(&(self.len() as u64).to_le_bytes());
        hash(self.as_bytes());
    }
}

impl SeedLabel for u64 {
    fn feed(&self, hash: &mut dyn FnMut(&[u8])) {
        hash(b"n");
        hash(&self.to_le_bytes());
    }
}

impl SeedLabel for usize {
    fn feed(&self, hash: &mut dyn FnMut(&[u8])) {
        (*self as u64).feed(hash);
    }
}

impl Seed {
    /// The root with number `value`.
    pub fn root(value: u64) -> Self {
        Self { key: [0; 32] }.child("peftml").child(value)
    }

    /// The child called `label`.
    pub fn child(&self, label: impl SeedLabel) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.key);
        label.feed(&mut |bytes| hash.update(bytes));
        Self { key: hash.finalize().into() }
    }

    /// The stream of this node, from its beginning.
    pub fn stream(&self) -> Stream {
        Stream { generator: ChaCha8Rng::from_seed(self.key) }
    }

    /// A 64-bit number of this node, for libraries that take an integer seed.
    pub fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.key[..8]);
        u64::from_le_bytes(bytes)
    }
}

/// A random stream; see [`Seed`].
#[derive(Clone, Debug)]
pub struct Stream {
    generator: ChaCha8Rng,
}

impl Stream {
    /// A draw of N(0, 1).
    pub fn normal(&mut self) -> f64 {
        self.generator.sample(StandardNormal)
    }

    /// Fills with independent N(0, std^2).
    pub fn fill_normal(&mut self, std: f64, out: &mut [f64]) {
        for x in out {
            *x = std * self.normal();
        }
    }

    /// A `rows` x `cols` matrix of independent N(0, std^2), drawn column by column.
    pub fn normal_matrix(&mut self, rows: usize, cols: usize, std: f64) -> Mat<f64> {
        Mat::from_fn(rows, cols, |_, _| std * self.normal())
    }

    /// A uniform draw from [0, 1).
    pub fn uniform(&mut self) -> f64 {
        self.generator.random::<f64>()
    }

    /// A uniform whole number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.generator.random_range(0..bound) }
    }

    /// +1 or -1 with equal probability.
    pub fn sign(&mut self) -> f64 {
        if self.generator.random::<bool>() { 1.0 } else { -1.0 }
    }

    /// Permutes `items` uniformly (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_different_kinds_or_splits_name_different_streams() {
        let root = Seed::root(0);
        let names = [
            root.child("1"),
            root.child(1u64),
            root.child("ab").child("c"),
            root.child("a").child("bc"),
            root.child("abc"),
            Seed::root(1).child("1"),
        ];
        for i in 0..names.len() {
            for j in 0..i {
                assert_ne!(names[i], names[j]);
            }
        }
    }

    #[test]
    fn streams_do_not_depend_on_each_other() {
        let root = Seed::root(5);
        let mut a = root.child("a").stream();
        let expected = root.child("b").stream().normal();
        (0..100).for_each(|_| {
            a.normal();
        });
        assert_eq!(root.child("b").stream().normal(), expected);
    }

    #[test]
    fn normal_draws_have_the_moments_of_the_law() {
        let n = 200_000;
        let mut stream = Seed::root(1).child("moments").stream();
        let draws: Vec<f64> = (0..n).map(|_| stream.normal()).collect();
        let moment = |p: i32| draws.iter().map(|x| x.powi(p)).sum::<f64>() / n as f64;
        // Standard errors of the moments of N(0,1): sqrt((m_2p - m_p^2)/n); six of them.
        let allowed = |variance: f64| 6.0 * (variance / n as f64).sqrt();
        assert!(moment(1).abs() < allowed(1.0));
        assert!((moment(2) - 1.0).abs() < allowed(2.0));
        assert!((moment(4) - 3.0).abs() < allowed(96.0));
    }
}
