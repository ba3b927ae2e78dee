//! A network, and one pass through it.
//!
//! A network computes through a [`Pass`]: it names a module and hands over what goes in. The pass knows
//! the base parameters, the adapter and its parameters, so that no network knows a method and no
//! method a network.

use crate::adapter::Adapter;
use crate::methods::{Kind, Theta};
use crate::ops::{self, Dropout};
use crate::parameters::Parameters;
use crate::sites::Sites;
use crate::{Input, PeftError};
use burn::tensor::Tensor;
use peftml_linalg::Seed;

/// A network: modules, and the way through them.
pub trait Network: Send + Sync {
    /// Its parameters and modules.
    fn sites(&self) -> &Sites;

    /// Its outputs, examples x classes (or x outputs).
    ///
    /// # Errors
    /// [`PeftError::InputKind`] or [`PeftError::Shape`] for an input that it does not take;
    /// [`PeftError::MissingParameter`] where `pass` holds parameters of another network.
    fn forward(&self, pass: &Pass<'_>, input: &Input) -> Result<Tensor<2>, PeftError>;
}

/// Parameters, adapter and masks of one pass through a network.
#[derive(Clone)]
pub struct Pass<'a> {
    base: &'a Parameters,
    adapter: Option<(&'a Adapter, &'a Parameters)>,
    masks: Option<Seed>,
}

impl<'a> Pass<'a> {
    /// Evaluation of the base alone.
    pub fn new(base: &'a Parameters) -> Self {
        Self { base, adapter: None, masks: None }
    }

    /// The same with `adapter` at `theta`.
    pub fn with_adapter(self, adapter: &'a Adapter, theta: &'a Parameters) -> Self {
        Self { adapter: Some((adapter, theta)), ..self }
    }

    /// The same in training: dropout masks are drawn below `seed`.
    pub fn training(self, seed: &Seed) -> Self {
        Self { masks: Some(seed.clone()), ..self }
    }

    /// The mask of the dropout called `path`; none in evaluation.
    pub fn mask(&self, path: &str, rate: f64) -> Option<Dropout> {
        let seed = self.masks.as_ref()?;
        (rate > 0.0).then(|| Dropout::new(rate, &seed.child("dropout").child(path)))
    }

    /// `x` after the dropout called `path`.
    pub fn dropout<const D: usize>(&self, path: &str, rate: f64, x: Tensor<D>) -> Tensor<D> {
        ops::dropout(x, self.mask(path, rate))
    }

    /// The network's parameter `name`, with the adapter's replacement or addition where it has one.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`], [`PeftError::Shape`].
    pub fn parameter<const D: usize>(&self, name: &str) -> Result<Tensor<D>, PeftError> {
        if let Some((adapter, theta)) = self.adapter {
            if adapter.replaces(name) {
                return theta.tensor(name);
            }
            if let Some(delta) = adapter.delta_name(name) {
                return Ok(self.base.tensor(name)? + theta.tensor(delta)?);
            }
        }
        self.base.tensor(name)
    }

    /// The linear map `path` on the last axis of `x`.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn linear<const D: usize>(&self, path: &str, x: Tensor<D>) -> Result<Tensor<D>, PeftError> {
        let mut shape = x.dims();
        let y = self.product(path, rows(x))?;
        shape[D - 1] = y.dims()[1];
        Ok(match self.bias(path)? {
            Some(bias) => (y + bias.unsqueeze::<2>()).reshape(shape),
            None => y.reshape(shape),
        })
    }

    /// `dropout(gelu(linear(x)))` on the last axis of `x`, the middle of a two-layer block.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn linear_gelu_dropout<const D: usize>(
        &self,
        path: &str,
        x: Tensor<D>,
        rate: f64,
    ) -> Result<Tensor<D>, PeftError> {
        let mut shape = x.dims();
        let product = self.product(path, rows(x))?;
        let y = ops::bias_gelu_dropout(product, self.bias(path)?, self.mask(path, rate));
        shape[D - 1] = y.dims()[1];
        Ok(y.reshape(shape))
    }

    /// The layer norm `path` on the last axis of `x`.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn layer_norm<const D: usize>(
        &self,
        path: &str,
        x: Tensor<D>,
        epsilon: f64,
    ) -> Result<Tensor<D>, PeftError> {
        let shape = x.dims();
        let gamma = self.parameter(&format!("{path}.weight"))?;
        let beta = self.parameter(&format!("{path}.bias"))?;
        Ok(ops::layer_norm(rows(x), gamma, beta, epsilon).reshape(shape))
    }

    /// The sublayer's output `path`, as activation methods leave it.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn block<const D: usize>(&self, path: &str, x: Tensor<D>) -> Result<Tensor<D>, PeftError> {
        match self.acting_on(path) {
            Some((Kind::Activation(method), theta)) => {
                let shape = x.dims();
                Ok(method.apply(rows(x), &theta)?.reshape(shape))
            }
            _ => Ok(x),
        }
    }

    /// The embedded tokens (batch x length x width), as input methods leave them: perhaps longer, with
    /// how many were put before them.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn tokens(&self, x: Tensor<3>) -> Result<(Tensor<3>, usize), PeftError> {
        let before = x.dims()[1];
        let Some((Kind::Input(method), theta)) = self.acting_on("") else { return Ok((x, 0)) };
        let x = method.tokens(x, &theta)?;
        let added = x.dims()[1].saturating_sub(before);
        Ok((x, added))
    }

    /// Keys and values (batch x length x width each) of attention number `layer`, as input methods
    /// leave them, with how many were put before them.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn keys_values(
        &self,
        layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
    ) -> Result<(Tensor<3>, Tensor<3>, usize), PeftError> {
        let before = keys.dims()[1];
        let Some((Kind::Input(method), theta)) = self.acting_on("") else {
            return Ok((keys, values, 0));
        };
        let (keys, values) = method.keys_values(layer, keys, values, &theta)?;
        let added = keys.dims()[1].saturating_sub(before);
        Ok((keys, values, added))
    }

    /// `x W`, or what a weight method makes of it.
    fn product(&self, path: &str, x: Tensor<2>) -> Result<Tensor<2>, PeftError> {
        let weight = self.parameter(&format!("{path}.weight"))?;
        check_width(path, &x, &weight)?;
        match self.acting_on(path) {
            Some((Kind::Weight(method), theta)) => method.product(x, weight, &theta),
            _ => Ok(x.matmul(weight)),
        }
    }

    fn bias(&self, path: &str) -> Result<Option<Tensor<1>>, PeftError> {
        let name = format!("{path}.bias");
        if self.base.get(&name).is_none() {
            return Ok(None);
        }
        let bias = self.parameter(&name)?;
        match self.acting_on(path) {
            Some((Kind::Weight(method), theta)) => method.bias(bias, &theta).map(Some),
            _ => Ok(Some(bias)),
        }
    }

    /// The method that acts on module `path`, with its parameters there.
    fn acting_on<'b>(&'b self, path: &'b str) -> Option<(&'b Kind, Theta<'b>)> {
        let (adapter, parameters) = self.adapter?;
        let masks = self.masks.as_ref().map(|seed| seed.child("adapter").child(path));
        adapter
            .acts_on(path)
            .then(|| (adapter.kind(), Theta::new(parameters, adapter.constants(), path, masks)))
    }
}

/// `x` with all axes but the last made one.
fn rows<const D: usize>(x: Tensor<D>) -> Tensor<2> {
    let shape = x.dims();
    let width = shape[D - 1];
    x.reshape([shape[..D - 1].iter().product(), width])
}

fn check_width(path: &str, x: &Tensor<2>, weight: &Tensor<2>) -> Result<(), PeftError> {
    let ([found_rows, found], [expected, _]) = (x.dims(), weight.dims());
    if found == expected {
        return Ok(());
    }
    Err(PeftError::Shape {
        name: format!("input of {path}"),
        expected: vec![found_rows, expected],
        found: vec![found_rows, found],
    })
}
