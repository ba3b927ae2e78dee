//! From tensors to slices and back: how an operation with a derivative of its own enters burn's graph.
//!
//! A [`Fused`] operation knows slices only. [`apply`] takes it where all its operands lie on the CPU in one
//! floating-point type and returns `None` everywhere else; the caller then composes the operation of
//! elementary ones. Operands may be strided or begin inside their buffer: they are then copied first. The
//! gradient of an operand that is not tracked is neither asked for nor kept.

use super::number::Number;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, BackendTypes, Flex};
use burn::tensor::{DType, Shape, Tensor};
use std::fmt::Debug;

type Ad = Autodiff<Flex, NoCheckpointing>;

/// A tensor with its place in the graph.
type Tracked = <Ad as BackendTypes>::FloatTensorPrimitive;

/// What a forward pass makes: the result, and what the backward pass wants to find again.
pub(in crate::ops) struct Made<T> {
    pub(in crate::ops) output: Vec<T>,
    pub(in crate::ops) kept: Vec<Vec<T>>,
}

impl<T> Made<T> {
    pub(in crate::ops) fn alone(output: Vec<T>) -> Self {
        Self { output, kept: Vec::new() }
    }
}

/// An operation of `N` operands on the CPU with a derivative of its own; a value is its settings and sizes.
pub(in crate::ops) trait Fused<const N: usize>:
    Clone + Debug + Send + 'static
{
    /// The shape of the result.
    fn shape(&self) -> Vec<usize>;

    /// The result for row-major operands; an absent one is empty. Nothing need be kept where no operand is
    /// tracked.
    fn forward<T: Number>(&self, operands: [&[T]; N], tracked: bool) -> Made<T>;

    /// The gradients of the operands that are `wanted`, in their sizes.
    fn backward<T: Number>(
        &self,
        operands: [&[T]; N],
        kept: &[&[T]],
        gradient: &[T],
        wanted: [bool; N],
    ) -> [Option<Vec<T>>; N];
}

/// An operand: a tensor on the CPU, its number of axes forgotten.
#[derive(Clone)]
pub(in crate::ops) enum Operand {
    Tracked(Tracked),
    Plain(FlexTensor),
    /// None was given.
    Absent,
}

impl Operand {
    /// `x`, where it lies on the CPU.
    pub(in crate::ops) fn of<const D: usize>(x: &Tensor<D>) -> Option<Self> {
        if x.is_tracked() {
            return Some(Operand::Tracked(x.clone().try_into_primitive::<Ad>().ok()?));
        }
        Some(Operand::Plain(x.clone().inner().try_into_primitive::<Flex>().ok()?))
    }

    /// The same, or nothing.
    pub(in crate::ops) fn maybe<const D: usize>(x: Option<&Tensor<D>>) -> Option<Self> {
        x.map_or(Some(Operand::Absent), Self::of)
    }

    fn primitive(&self, dtype: DType) -> FlexTensor {
        match self {
            Operand::Tracked(x) => x.primitive().clone(),
            Operand::Plain(x) => x.clone(),
            Operand::Absent => FlexTensor::empty(Shape::from([0]), dtype),
        }
    }

    fn dtype(&self) -> Option<DType> {
        match self {
            Operand::Tracked(x) => Some(x.primitive().dtype()),
            Operand::Plain(x) => Some(x.dtype()),
            Operand::Absent => None,
        }
    }
}

/// `op` on `operands`, where every one is on the CPU and all have one floating-point type.
pub(in crate::ops) fn apply<const N: usize, const D: usize, F: Fused<N>>(
    op: F,
    operands: [Option<Operand>; N],
) -> Option<Tensor<D>> {
    if operands.iter().any(Option::is_none) {
        return None;
    }
    let operands = operands.map(|operand| operand.unwrap_or(Operand::Absent));
    let mut dtypes = operands.iter().filter_map(Operand::dtype);
    let dtype = dtypes.next()?;
    if dtypes.any(|other| other != dtype) {
        return None;
    }
    match dtype {
        DType::F32 => Some(run::<f32, N, D, F>(op, operands)),
        DType::F64 => Some(run::<f64, N, D, F>(op, operands)),
        _ => None,
    }
}

/// What the backward pass finds again.
#[derive(Clone, Debug)]
struct Saved<F, const N: usize> {
    op: F,
    operands: [FlexTensor; N],
    kept: Vec<FlexTensor>,
}

/// The step of the backward pass; all that it knows is in its state.
struct Step<T, F>(std::marker::PhantomData<fn() -> (T, F)>);

impl<T, F> Debug for Step<T, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<T: Number, F: Fused<N>, const N: usize> Backward<Flex, N> for Step<T, F> {
    type State = Saved<F, N>;

    fn backward(self, ops: Ops<Saved<F, N>, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = contiguous(grads.consume::<Flex>(&ops.node));
        let nodes: [Option<NodeId>; N] =
            ops.parents.each_ref().map(|parent| parent.as_ref().map(|node| node.id));
        let Saved { op, operands, kept } = ops.state;
        let kept: Vec<&[T]> = kept.iter().map(T::numbers).collect();
        let found = op.backward(
            operands.each_ref().map(T::numbers),
            &kept,
            T::numbers(&gradient),
            nodes.map(|node| node.is_some()),
        );
        for ((node, operand), found) in nodes.into_iter().zip(&operands).zip(found) {
            if let (Some(node), Some(numbers)) = (node, found) {
                grads.register::<Flex>(node, T::tensor(numbers, operand.layout().shape().clone()));
            }
        }
    }
}

fn run<T: Number, const N: usize, const D: usize, F: Fused<N>>(
    op: F,
    operands: [Operand; N],
) -> Tensor<D> {
    let primitives = operands.each_ref().map(|operand| contiguous(operand.primitive(T::DTYPE)));
    let tracked = operands.iter().any(|operand| matches!(operand, Operand::Tracked(_)));
    let made = op.forward(primitives.each_ref().map(T::numbers), tracked);
    let output = T::tensor(made.output, Shape::from(op.shape()));
    if !tracked {
        return Tensor::from_primitive::<Flex>(output);
    }
    let nodes = operands.map(|operand| match operand {
        Operand::Tracked(x) => x.node(),
        other => Tracked::new(other.primitive(T::DTYPE)).node(),
    });
    let step = Step::<T, F>(std::marker::PhantomData);
    let result = match step.prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let length = |numbers: &Vec<T>| Shape::from([numbers.len()]);
            let kept = made.kept.into_iter().map(|numbers| {
                let shape = length(&numbers);
                T::tensor(numbers, shape)
            });
            let saved = Saved { op, operands: primitives, kept: kept.collect() };
            prepared.finish(saved, output)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(output),
    };
    Tensor::from_primitive::<Ad>(result)
}

fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() { x } else { x.to_contiguous() }
}
