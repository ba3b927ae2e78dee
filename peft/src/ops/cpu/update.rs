//! Adam's update on the CPU in one sweep.

use super::number::Number;
use super::parts::{PARTS, ranges};
use super::wide::wide;
use crate::ops::AdamConstants;
use burn::backend::Flex;
use burn::backend::flex::FlexTensor;
use burn::tensor::{DType, Shape, Tensor};

/// (x, m, v) after the step, where all lie on the CPU in one type.
pub(in crate::ops) fn adam(operands: [&Tensor<1>; 4], c: AdamConstants) -> Option<[Tensor<1>; 3]> {
    let mut primitives = Vec::with_capacity(4);
    for tensor in operands {
        let x = tensor.clone().inner().try_into_primitive::<Flex>().ok()?;
        primitives.push(if x.is_contiguous() { x } else { x.to_contiguous() });
    }
    let dtype = primitives[0].dtype();
    if primitives.iter().any(|x| x.dtype() != dtype) {
        return None;
    }
    match dtype {
        DType::F32 => Some(step::<f32>(&primitives, c)),
        DType::F64 => Some(step::<f64>(&primitives, c)),
        _ => None,
    }
}

/// The constants of a step.
struct Rates<T> {
    keep: [T; 2],
    take: [T; 2],
    step: T,
    root: T,
    epsilon: T,
}

wide! {
    fn advance<T: Number>(x: &mut [T], g: &[T], m: &mut [T], v: &mut [T], c: &Rates<T>) {
        let count = g.len();
        let (x, m, v) = (&mut x[..count], &mut m[..count], &mut v[..count]);
        for i in 0..count {
            m[i] = m[i] * c.keep[0] + g[i] * c.take[0];
            v[i] = v[i] * c.keep[1] + g[i] * g[i] * c.take[1];
            x[i] += -(m[i] / (v[i].root() / c.root + c.epsilon) * c.step);
        }
    }
}

fn step<T: Number>(operands: &[FlexTensor], c: AdamConstants) -> [Tensor<1>; 3] {
    let [x, g, m, v] = [0, 1, 2, 3].map(|i| T::numbers(&operands[i]));
    let count = x.len();
    let rates = Rates {
        keep: [T::of(c.beta1), T::of(c.beta2)],
        take: [T::of(1.0 - c.beta1), T::of(1.0 - c.beta2)],
        step: T::of(c.step),
        root: T::of(c.root_correction),
        epsilon: T::of(c.epsilon),
    };
    let parts = super::parts::each(&ranges(count), PARTS * count, |range| {
        let mut new = [x, m, v].map(|from| from[range.clone()].to_vec());
        let [x, m, v] = &mut new;
        advance(x, &g[range], m, v, &rates);
        new
    });
    let mut all = [0, 1, 2].map(|_| Vec::with_capacity(count));
    for part in parts {
        for (all, part) in all.iter_mut().zip(part) {
            all.extend(part);
        }
    }
    all.map(|numbers| Tensor::from_primitive::<Flex>(T::tensor(numbers, Shape::from([count]))))
}
