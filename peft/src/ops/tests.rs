//! Every operation of the CPU against its composed form: values and gradients, for operands as they may
//! come (strided, with an offset, not tracked), whatever the number of threads.
//!
//! In double precision both forms are sums of a few thousand terms of order 1: they agree to 1e-12, and any
//! mistake is far larger. In single precision a sum of n terms, rounded to u each, is off by about
//! `sqrt(n) u` times its terms; the bound takes eight times that at the operation's longest sum.

use super::mixing::{composed_channels, composed_tokens};
use super::*;
use crate::device::{Place, Precision, values};
use peftml_linalg::Seed;

/// The operands of an operation by number: leaves of a graph where they are tracked.
struct Case<'a> {
    place: Place,
    name: &'a str,
    leaves: Vec<Tensor<1>>,
    tracked: u32,
    strided: bool,
}

impl<'a> Case<'a> {
    fn new(place: &Place, name: &'a str) -> Self {
        Self { place: place.clone(), name, leaves: Vec::new(), tracked: u32::MAX, strided: false }
    }

    fn is_tracked(&self, leaf: usize) -> bool {
        self.tracked >> leaf & 1 == 1
    }

    fn numbers(&self, count: usize) -> Vec<f64> {
        let mut stream = Seed::root(8).child(self.name).child(self.leaves.len()).stream();
        (0..count).map(|_| stream.normal()).collect()
    }

    fn leaf(&mut self, count: usize) -> Tensor<1> {
        let x = self.place.tensor(self.numbers(count), [count]).unwrap();
        let x = if self.is_tracked(self.leaves.len()) { x.autodiff().require_grad() } else { x };
        self.leaves.push(x.clone());
        x
    }

    /// An operand of `D` axes: where it is to be strided, as the turned or cut view of other memory.
    fn operand<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let count = shape.iter().product();
        if !self.strided {
            return self.leaf(count).reshape(shape);
        }
        if D >= 2 {
            let mut turned = shape;
            turned.swap(D - 2, D - 1);
            return self.leaf(count).reshape(turned).swap_dims(D - 2, D - 1);
        }
        self.leaf(count + 3).narrow(0, 2, count).reshape(shape)
    }
}

type Operation<'f> = dyn Fn(&mut Case<'_>, bool) -> Tensor<2> + Sync + 'f;

/// The result, and the gradient of each leaf of a weighted sum of the result.
fn run(
    operation: &Operation<'_>,
    mut case: Case<'_>,
    composed: bool,
) -> (Vec<f64>, Vec<Option<Vec<f64>>>) {
    let y = operation(&mut case, composed);
    let count = y.dims().iter().product::<usize>();
    let mut stream = Seed::root(9).child("weights").stream();
    let weights = (0..count).map(|_| stream.normal()).collect();
    let weights = case.place.tensor(weights, y.dims()).unwrap();
    let result = values(&y).unwrap();
    if !y.is_tracked() {
        return (result, case.leaves.iter().map(|_| None).collect());
    }
    let gradients = (y * weights).sum().backward();
    let of = |leaf: &Tensor<1>| leaf.grad(&gradients).map(|g| values(&g).unwrap());
    let found = (0..case.leaves.len())
        .map(|i| if case.is_tracked(i) { of(&case.leaves[i]) } else { None })
        .collect();
    (result, found)
}

/// The largest difference over the largest number.
fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let size = a.iter().fold(1.0f64, |size, x| size.max(x.abs()));
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max) / size
}

/// Compares the two forms everywhere; `longest` is the operation's longest sum.
fn check(name: &str, leaves: u32, longest: usize, operation: &Operation<'_>) {
    for precision in [Precision::F64, Precision::F32] {
        let place = Place::cpu(precision);
        let bound = match precision {
            Precision::F64 => 1e-12,
            Precision::F32 => 8.0 * (longest as f64).sqrt() * precision.epsilon(),
        };
        // All tracked, none, each alone, all but each.
        let alone = (0..leaves).flat_map(|leaf| [1 << leaf, !(1 << leaf)]);
        for tracked in [u32::MAX, 0].into_iter().chain(alone) {
            for strided in [false, true] {
                let case = || Case { tracked, strided, ..Case::new(&place, name) };
                let (value, gradients) = run(operation, case(), false);
                let (expected, wanted) = run(operation, case(), true);
                let at = format!("{name}, {precision:?}, tracked {tracked:b}, strided {strided}");
                assert!(distance(&expected, &value) < bound, "{at}");
                for (leaf, (expected, found)) in wanted.iter().zip(&gradients).enumerate() {
                    match (expected, found) {
                        (Some(expected), Some(found)) => {
                            let distance = distance(expected, found);
                            assert!(distance < bound, "{at}: leaf {leaf}: {distance}");
                            // Control: a gradient that is off by a thousandth is seen.
                            let off: Vec<f64> = found.iter().map(|x| x * 1.001 + 1e-3).collect();
                            assert!(self::distance(expected, &off) > bound, "{at}");
                        }
                        (None, None) => {}
                        _ => panic!("{at}: leaf {leaf} has a gradient in one form only"),
                    }
                }
            }
        }
    }
    threads_change_nothing(name, operation);
}

fn threads_change_nothing(name: &str, operation: &Operation<'_>) {
    let place = Place::cpu(Precision::F32);
    let ends = [1, 2, 5].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(operation, Case::new(&place, name), false))
    });
    assert!(ends[0] == ends[1] && ends[0] == ends[2], "{name}");
    // Control: other operands give other bits.
    assert!(run(operation, Case::new(&place, "other"), false) != ends[0], "{name}");
}

fn mask(key: u64) -> Option<Dropout> {
    Some(Dropout { rate: 0.3, key })
}

#[test]
fn dropout_is_its_composed_form() {
    check("dropout", 1, 1, &|case, composed| {
        let x = case.operand([300, 130]);
        if composed { dropout::composed(x, mask(5).unwrap()) } else { dropout(x, mask(5)) }
    });
}

#[test]
fn bias_gelu_dropout_is_its_composed_form() {
    for mask in [mask(6), None] {
        check("gelu", 2, 300, &|case, composed| {
            let (x, b) = (case.operand([300, 35]), Some(case.operand([35])));
            let form = if composed { composed_bias_gelu_dropout } else { bias_gelu_dropout };
            form(x, b, mask)
        });
    }
    check("gelu alone", 1, 1, &|case, composed| {
        let form = if composed { composed_bias_gelu_dropout } else { bias_gelu_dropout };
        form(case.operand([40, 35]), None, None)
    });
}

#[test]
fn layer_norm_is_its_composed_form() {
    check("norm", 3, 400, &|case, composed| {
        let operands = (case.operand([400, 33]), case.operand([33]), case.operand([33]));
        let form = if composed { normalise::composed } else { layer_norm };
        form(operands.0, operands.1, operands.2, 1e-5)
    });
    check("norm mean", 3, 400, &|case, composed| {
        let operands = (case.operand([40, 10, 33]), case.operand([33]), case.operand([33]));
        let form = if composed { normalise::composed_mean } else { layer_norm_mean };
        form(operands.0, operands.1, operands.2, 1e-5)
    });
}

#[test]
fn the_end_of_a_sublayer_is_its_composed_form() {
    for mask in [mask(7), None] {
        check("add norm", 4, 400, &|case, composed| {
            let (x, y) = (case.operand([400, 33]), case.operand([400, 33]));
            let (gamma, beta) = (case.operand([33]), case.operand([33]));
            let form = if composed { normalise::composed_add } else { add_norm };
            form(x, y, gamma, beta, 1e-5, mask)
        });
    }
}

#[test]
fn attention_is_its_composed_form() {
    let (batch, queries, keys, width, heads) = (9, 5, 7, 12, 3);
    for (hides, drop) in [(false, None), (true, None), (true, mask(8))] {
        check("attention", 3, 64, &|case, composed| {
            let q = case.operand([batch, queries, width]);
            let (k, v) = (case.operand([batch, keys, width]), case.operand([batch, keys, width]));
            // Every second sample hides its last keys, one hides all.
            let seen = |b: usize, j: usize| b != 4 && (b.is_multiple_of(2) || j < 4);
            let numbers = (0..batch * keys).map(|i| f64::from(u8::from(seen(i / keys, i % keys))));
            let mask = case.place.tensor(numbers.collect(), [batch, keys]).unwrap();
            let form = if composed { composed_attention } else { attention };
            form([q, k, v], heads, hides.then_some(mask), drop).reshape([batch * queries, width])
        });
    }
}

fn map(case: &mut Case<'_>, inputs: usize, outputs: usize, rank: usize) -> LinearMap {
    // Of order 1 / sqrt(inputs), so that activations are of order 1.
    let scale = 1.0 / (inputs as f64).sqrt();
    LinearMap {
        weight: case.operand([inputs, outputs]).mul_scalar(scale),
        bias: Some(case.operand([outputs])),
        low_rank: (rank > 0).then(|| {
            let a = case.operand([inputs, rank]).mul_scalar(scale);
            (a, case.operand([rank, outputs]))
        }),
    }
}

#[test]
fn a_linear_map_is_its_composed_form() {
    for (rank, leaves) in [(0, 3), (2, 5), (12, 5)] {
        check("linear", leaves, 200, &|case, composed| {
            let x = case.operand([200, 24]);
            let map = map(case, 24, 17, rank);
            if composed { composed_linear(x, map) } else { linear(x, map) }
        });
    }
    check("small linear", 3, 17, &|case, composed| {
        let (x, map) = (case.operand([3, 5]), map(case, 5, 2, 0));
        if composed { composed_linear(x, map) } else { linear(x, map) }
    });
}

#[test]
fn the_halves_of_a_block_are_their_composed_forms() {
    let (batch, tokens, width, hidden) = (9, 6, 20, 24);
    for along in [Along::Tokens, Along::Channels] {
        for (rank, leaves, residual, drop) in
            [(0, 7, true, true), (2, 11, true, true), (0, 7, false, false), (5, 11, false, true)]
        {
            check("half", leaves, batch * tokens * hidden, &|case, composed| {
                let x = case.operand([batch, tokens, width]);
                let (gamma, beta) = (case.operand([width]), case.operand([width]));
                let length = if along == Along::Tokens { tokens } else { width };
                let up = map(case, length, hidden, rank);
                let down = map(case, hidden, length, rank);
                let (up_mask, down_mask) = if drop { (mask(1), mask(2)) } else { (None, None) };
                let half =
                    Half { gamma, beta, epsilon: 1e-5, up, down, up_mask, down_mask, residual };
                half.check("half", [batch, tokens, width], along).unwrap();
                let form = match (along, composed) {
                    (Along::Tokens, false) => mix_tokens,
                    (Along::Tokens, true) => composed_tokens,
                    (Along::Channels, false) => mix_channels,
                    (Along::Channels, true) => composed_channels,
                };
                form(x, half).reshape([batch * tokens, width])
            });
        }
    }
}

#[test]
fn a_half_whose_maps_do_not_fit_is_refused() {
    let place = Place::cpu(Precision::F32);
    let mut case = Case::new(&place, "unfit");
    let (up, down) = (map(&mut case, 4, 8, 0), map(&mut case, 7, 4, 0));
    let (gamma, beta) = (case.operand([5]), case.operand([5]));
    let (up_mask, down_mask) = (None, None);
    let half = Half { gamma, beta, epsilon: 1e-5, up, down, up_mask, down_mask, residual: true };
    let error = half.check("half", [2, 4, 5], Along::Tokens).unwrap_err();
    assert!(error.to_string().contains("half.up.weight"), "{error}");
}

#[test]
fn the_step_of_adam_is_its_composed_form() {
    for precision in [Precision::F64, Precision::F32] {
        let place = Place::cpu(precision);
        let random = |name: &str| {
            let mut stream = Seed::root(10).child(name).stream();
            let numbers = (0..5000).map(|_| stream.normal().abs() + 0.1).collect();
            place.tensor(numbers, [5000]).unwrap()
        };
        let [x, g, m, v] = ["x", "g", "m", "v"].map(random);
        let c = AdamConstants {
            beta1: 0.9,
            beta2: 0.99,
            step: 0.1,
            root_correction: 0.7,
            epsilon: 1e-8,
        };
        let (a, b, c1) = adam(x.clone(), g.clone(), m.clone(), v.clone(), c);
        let (x1, m1, v1) = update::composed(x.clone(), g, m, v, c);
        for (found, expected) in [(a, &x1), (b, &m1), (c1, &v1)] {
            let (found, expected) = (values(&found).unwrap(), values(expected).unwrap());
            // Ten roundings of numbers of order 1 to 10.
            assert!(distance(&expected, &found) < 10.0 * precision.epsilon());
            // Control: it moves.
            assert!(distance(&values(&x).unwrap(), &found) > 1e-3);
        }
    }
}
