//! Named parameters: what a network or an adapter consists of.
//!
//! A parameter is one flat tensor with a shape beside it, so that optimisers, files and checkpoints
//! treat all alike. Clones share memory: a hundred adapters on one base hold one base.
//!
//! Matrices of linear maps are held `inputs x outputs`, for `x W`; files of the PyTorch world hold
//! them `outputs x inputs`. [`Stored`] says which parameters are turned on their way to a file.

use crate::PeftError;
use crate::device::{Place, values};
use burn::tensor::{Gradients as Backward, Tensor};
use peftml_linalg::Stream;
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a parameter lies in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// As in memory.
    AsIs,
    /// As its transpose (matrices only).
    Transposed,
}

/// The matrix that a parameter starts from, `inputs x outputs`, row-major.
#[derive(Clone, Copy, Debug)]
pub struct WeightView<'a> {
    /// Its numbers.
    pub values: &'a [f64],
    /// Rows.
    pub inputs: usize,
    /// Columns.
    pub outputs: usize,
}

/// A start computed from the weight of the layer that the parameter belongs to.
pub type StartFromWeight = Arc<dyn Fn(WeightView<'_>) -> Result<Vec<f64>, PeftError> + Send + Sync>;

/// How a parameter starts.
#[derive(Clone)]
pub enum Init {
    /// One number everywhere.
    Constant(f64),
    /// Independent N(0, std^2).
    Normal {
        /// The standard deviation.
        std: f64,
    },
    /// Independent and uniform on [-bound, bound].
    Uniform {
        /// The bound.
        bound: f64,
    },
    /// From the layer's weight.
    FromWeight(StartFromWeight),
}

impl std::fmt::Debug for Init {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Init::Constant(value) => write!(f, "Constant({value})"),
            Init::Normal { std } => write!(f, "Normal({std})"),
            Init::Uniform { bound } => write!(f, "Uniform({bound})"),
            Init::FromWeight(_) => write!(f, "FromWeight"),
        }
    }
}

/// What a parameter is: name, shape, start, and whether it is trained.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Its name; for an adapter's, relative to the module that it belongs to.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its start.
    pub init: Init,
    /// Whether it is trained; if not, all tasks share one copy.
    pub trainable: bool,
    /// How it lies in a file.
    pub stored: Stored,
}

impl Spec {
    /// A trained parameter that is stored as it is.
    pub fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, init: Init) -> Self {
        let (name, shape) = (name.into(), shape.into());
        Self { name, shape, init, trainable: true, stored: Stored::AsIs }
    }

    /// A trained matrix that is stored as its transpose.
    pub fn matrix(name: impl Into<String>, rows: usize, cols: usize, init: Init) -> Self {
        Self { stored: Stored::Transposed, ..Self::new(name, [rows, cols], init) }
    }

    /// The same, never trained.
    pub fn constant(self) -> Self {
        Self { trainable: false, ..self }
    }

    /// How many numbers it has.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// Its start; `weight` is needed by [`Init::FromWeight`] only.
    pub(crate) fn start(
        &self,
        stream: &mut Stream,
        weight: Option<WeightView<'_>>,
        place: &Place,
    ) -> Result<Parameter, PeftError> {
        let count = self.count();
        let numbers = match &self.init {
            Init::Constant(value) => vec![*value; count],
            Init::Normal { std } => (0..count).map(|_| std * stream.normal()).collect(),
            Init::Uniform { bound } => {
                (0..count).map(|_| bound * (2.0 * stream.uniform() - 1.0)).collect()
            }
            Init::FromWeight(start) => {
                let missing = || PeftError::MissingParameter { name: "weight".into() };
                start(weight.ok_or_else(missing)?)?
            }
        };
        let value = place.tensor(numbers, [count])?;
        Ok(Parameter { value, shape: self.shape.clone(), stored: self.stored })
    }
}

/// A parameter: its numbers in a row, its shape.
#[derive(Clone, Debug)]
pub struct Parameter {
    /// The numbers, row-major.
    pub value: Tensor<1>,
    /// The shape.
    pub shape: Vec<usize>,
    /// How it lies in a file.
    pub stored: Stored,
}

/// Parameters by name.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    map: BTreeMap<String, Parameter>,
}

impl Parameters {
    /// Adds or replaces a parameter.
    pub fn insert(&mut self, name: impl Into<String>, parameter: Parameter) {
        self.map.insert(name.into(), parameter);
    }

    /// The parameter called `name`.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.map.get(name)
    }

    /// The numbers of `name`, to be replaced by others of the same count.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Tensor<1>> {
        self.map.get_mut(name).map(|parameter| &mut parameter.value)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.map.iter().map(|(name, parameter)| (name.as_str(), parameter))
    }

    /// How many numbers they have together.
    pub fn count(&self) -> usize {
        self.map.values().map(|p| p.shape.iter().product::<usize>()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// The tensor called `name`, in its shape.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`], or [`PeftError::Shape`] where it has not `D` axes.
    pub fn tensor<const D: usize>(&self, name: &str) -> Result<Tensor<D>, PeftError> {
        let parameter =
            self.get(name).ok_or_else(|| PeftError::MissingParameter { name: name.into() })?;
        shaped(name, parameter.value.clone(), &parameter.shape)
    }

    /// The numbers of `name` in a row.
    pub(crate) fn tensor_flat(&self, name: &str) -> Result<Tensor<1>, PeftError> {
        let missing = || PeftError::MissingParameter { name: name.into() };
        Ok(self.get(name).ok_or_else(missing)?.value.clone())
    }

    /// Puts `value` in the place of the numbers of `name`, which must be as many.
    pub(crate) fn replace(&mut self, name: &str, value: Tensor<1>) -> Result<(), PeftError> {
        let missing = || PeftError::MissingParameter { name: name.into() };
        let parameter = self.map.get_mut(name).ok_or_else(missing)?;
        let (expected, found) = (parameter.value.dims(), value.dims());
        if expected != found {
            let (expected, found) = (expected.to_vec(), found.to_vec());
            return Err(PeftError::Shape { name: name.into(), expected, found });
        }
        parameter.value = value;
        Ok(())
    }

    /// The same parameters as leaves of a computation graph: what is computed from them can be
    /// differentiated. The numbers are shared, not copied.
    pub fn tracked(&self) -> Self {
        self.mapped(|value| value.clone().inner().autodiff().require_grad())
    }

    /// The gradients of the leaves in `backward`; parameters that the loss does not reach have none.
    pub fn gradients(&self, backward: &mut Backward) -> Gradients {
        let found = self.map.iter().filter_map(|(name, parameter)| {
            Some((name.clone(), parameter.value.grad_remove(backward)?))
        });
        Gradients { map: found.collect() }
    }

    /// Each parameter's numbers through `f`.
    pub fn mapped(&self, f: impl Fn(&Tensor<1>) -> Tensor<1>) -> Self {
        let map = self.map.iter().map(|(name, parameter)| {
            let value = f(&parameter.value);
            (name.clone(), Parameter { value, ..parameter.clone() })
        });
        Self { map: map.collect() }
    }

    /// `self + factor (target - self)`, each parameter; those that `target` lacks stay.
    pub fn moved_towards(&self, target: &Parameters, factor: f64) -> Self {
        let mut moved = self.clone();
        for (name, parameter) in &mut moved.map {
            if let Some(target) = target.get(name) {
                let difference = target.value.clone() - parameter.value.clone();
                parameter.value = parameter.value.clone() + difference.mul_scalar(factor);
            }
        }
        moved
    }

    /// All numbers of `name` in double precision.
    ///
    /// # Errors
    /// As [`Parameters::tensor`] and [`values`].
    pub fn values(&self, name: &str) -> Result<Vec<f64>, PeftError> {
        let parameter =
            self.get(name).ok_or_else(|| PeftError::MissingParameter { name: name.into() })?;
        values(&parameter.value)
    }

    /// Whether every number has the same bits as in `other`, and the names are the same.
    ///
    /// # Errors
    /// [`PeftError::Execution`] where the device fails.
    pub fn same_bits(&self, other: &Parameters) -> Result<bool, PeftError> {
        if !self.map.keys().eq(other.map.keys()) {
            return Ok(false);
        }
        for (name, parameter) in &self.map {
            let (a, b) = (values(&parameter.value)?, other.values(name)?);
            // Single precision widens without loss, so bits of the widened numbers tell.
            if a.len() != b.len() || a.iter().zip(&b).any(|(x, y)| x.to_bits() != y.to_bits()) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl FromIterator<(String, Parameter)> for Parameters {
    fn from_iter<I: IntoIterator<Item = (String, Parameter)>>(items: I) -> Self {
        Self { map: items.into_iter().collect() }
    }
}

/// Gradients by the name of the parameter.
#[derive(Clone, Debug, Default)]
pub struct Gradients {
    map: BTreeMap<String, Tensor<1>>,
}

impl Gradients {
    /// The gradient of `name`.
    pub fn get(&self, name: &str) -> Option<&Tensor<1>> {
        self.map.get(name)
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor<1>)> {
        self.map.iter().map(|(name, gradient)| (name.as_str(), gradient))
    }

    /// Adds `other`, name by name.
    pub fn add(&mut self, other: Gradients) {
        for (name, gradient) in other.map {
            let sum = match self.map.remove(&name) {
                Some(present) => present + gradient,
                None => gradient,
            };
            self.map.insert(name, sum);
        }
    }

    /// Multiplies all by `factor`.
    pub fn scaled(self, factor: f64) -> Self {
        // Exact, and spares a pass over the base for a single task.
        if factor == 1.0 {
            return self;
        }
        let map = self.map.into_iter().map(|(name, g)| (name, g.mul_scalar(factor)));
        Self { map: map.collect() }
    }
}

impl FromIterator<(String, Tensor<1>)> for Gradients {
    fn from_iter<I: IntoIterator<Item = (String, Tensor<1>)>>(items: I) -> Self {
        Self { map: items.into_iter().collect() }
    }
}

/// `value` in `shape`, which must have `D` axes.
pub(crate) fn shaped<const D: usize>(
    name: &str,
    value: Tensor<1>,
    shape: &[usize],
) -> Result<Tensor<D>, PeftError> {
    let shape: [usize; D] = shape.try_into().map_err(|_| PeftError::Shape {
        name: name.into(),
        expected: vec![0; D],
        found: shape.to_vec(),
    })?;
    Ok(value.reshape(shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Precision;
    use peftml_linalg::Seed;

    fn pair() -> Parameters {
        let place = Place::cpu(Precision::F64);
        let mut stream = Seed::root(1).child("pair").stream();
        let specs = [
            Spec::new("a", [2, 3], Init::Normal { std: 1.0 }),
            Spec::new("b", [3], Init::Constant(2.0)),
        ];
        let start = |s: &Spec| (s.name.clone(), s.start(&mut stream, None, &place).unwrap());
        specs.iter().map(start).collect()
    }

    #[test]
    fn a_gradient_is_found_by_name_and_only_where_the_loss_reaches() {
        let parameters = pair().tracked();
        let loss = parameters.tensor::<2>("a").unwrap().mul_scalar(3.0).sum();
        let gradients = parameters.gradients(&mut loss.backward());
        assert_eq!(values(gradients.get("a").unwrap()).unwrap(), vec![3.0; 6]);
        assert!(gradients.get("b").is_none());
    }

    #[test]
    fn moving_all_the_way_arrives_and_one_bit_is_seen() {
        let start = pair();
        let target = start.mapped(|value| value.clone().add_scalar(1.0));
        assert!(start.moved_towards(&start, 0.7).same_bits(&start).unwrap());
        assert!(!start.same_bits(&target).unwrap());
        let arrived = start.moved_towards(&target, 1.0);
        for (name, _) in target.iter() {
            for (x, y) in arrived.values(name).unwrap().iter().zip(target.values(name).unwrap()) {
                // x + (y - x): two roundings of numbers below 4.
                assert!((x - y).abs() <= 8.0 * f64::EPSILON, "{name}: {x} {y}");
            }
        }
    }
}
