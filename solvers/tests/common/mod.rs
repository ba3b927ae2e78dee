//! Problems that the tests over the registry share.

use peftml_linalg::{Blocks, Layout, Seed};
use peftml_theory::linear::{Kind, Tasks};

/// Tasks with offsets of rank `k` (exact, or from `samples` noisy samples) and a start of unit scale.
pub fn problem(
    (d, k, count): (usize, usize, usize),
    kind: Kind,
    samples: Option<usize>,
    seed: u64,
) -> (Tasks, Blocks) {
    let mut stream = Seed::root(seed).child("registry").stream();
    let mut base = stream.normal_matrix(d, d, 1.0);
    if kind == Kind::Symmetric {
        peftml_linalg::kernel::symmetrise(base.as_mut());
    }
    let (mut exact, mut pairs) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let u = stream.normal_matrix(d, k, 1.0);
        let v = if kind == Kind::Symmetric { u.clone() } else { stream.normal_matrix(d, k, 1.0) };
        let truth = &base + &u * v.transpose();
        if let Some(n) = samples {
            let x = stream.normal_matrix(d, n, 1.0);
            let y = &truth * &x + stream.normal_matrix(d, n, 0.1);
            pairs.push((x, y));
        }
        exact.push(truth);
    }
    let tasks = match samples {
        None => Tasks::exact(exact),
        Some(_) => Tasks::from_samples(pairs.iter().map(|(x, y)| (x.as_ref(), y.as_ref()))),
    };
    let mut layout = Layout::repeated("U", count, d, k);
    if kind == Kind::Asymmetric {
        layout = layout.followed_by(&Layout::repeated("V", count, d, k));
    }
    let mut start = Blocks::zeros(layout);
    stream.fill_normal(0.5, start.as_mut_slice());
    (tasks.unwrap(), start)
}
