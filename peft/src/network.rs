//! A network, and one pass through it.
//!
//! A network computes through a [`Pass`]: it names a module and hands over what goes in. The pass knows
//! the base parameters, the adapter and its parameters, so that no network knows a method and no
//! method a network.

use crate::adapter::Adapter;
use crate::methods::{Kind, Theta};
use crate::ops::{self, Along, Dropout, Half, LinearMap};
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

    /// The same for part `number` of a batch that is computed in parts: masks of its own.
    pub fn part(&self, number: usize) -> Self {
        let masks = self.masks.as_ref().map(|seed| seed.child("part").child(number));
        Self { masks, ..self.clone() }
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
        let y = self.product(path, rows(x), true)?;
        shape[D - 1] = y.dims()[1];
        Ok(y.reshape(shape))
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
        let product = self.product(path, rows(x), false)?;
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

    /// The mean over the second axis of the layer norm `path` of `x`.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn layer_norm_mean(
        &self,
        path: &str,
        x: Tensor<3>,
        epsilon: f64,
    ) -> Result<Tensor<2>, PeftError> {
        let gamma = self.parameter(&format!("{path}.weight"))?;
        let beta = self.parameter(&format!("{path}.bias"))?;
        Ok(ops::layer_norm_mean(x, gamma, beta, epsilon))
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

    /// `norm(x + block(dropout(y)))`, the end of the sublayer `path` with its layer norm `{path}.LayerNorm`.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn sublayer_end(
        &self,
        path: &str,
        x: Tensor<3>,
        y: Tensor<3>,
        rate: f64,
        epsilon: f64,
    ) -> Result<Tensor<3>, PeftError> {
        let (shape, norm) = (x.dims(), format!("{path}.LayerNorm"));
        if let Some((Kind::Activation(_), _)) = self.acting_on(path) {
            let y = self.block(path, self.dropout(path, rate, y))?;
            return self.layer_norm(&norm, x + y, epsilon);
        }
        let gamma = self.parameter(&format!("{norm}.weight"))?;
        let beta = self.parameter(&format!("{norm}.bias"))?;
        let mask = self.mask(path, rate);
        Ok(ops::add_norm(rows(x), rows(y), gamma, beta, epsilon, mask).reshape(shape))
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

    /// How many positions an input method takes before the sequence's first, though no token stands there.
    pub fn positions_before(&self) -> usize {
        match self.acting_on("") {
            Some((Kind::Input(method), _)) => method.positions_before(),
            _ => 0,
        }
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

    /// The linear map `path` as operations take it; `None` where the adapter makes something else of it in
    /// this pass than a product with a weight.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn linear_map(&self, path: &str) -> Result<Option<LinearMap>, PeftError> {
        let weight = self.parameter(&format!("{path}.weight"))?;
        let Some((Kind::Weight(method), theta)) = self.acting_on(path) else {
            return Ok(Some(LinearMap { weight, bias: self.bias(path)?, low_rank: None }));
        };
        if self.masks.is_some() && !method.is_plain() {
            return Ok(None);
        }
        let bias = self.bias(path)?;
        Ok(Some(match method.low_rank(&weight, &theta)? {
            Some(factors) => LinearMap { weight, bias, low_rank: Some(factors) },
            None => LinearMap { weight: method.weight(weight, &theta)?, bias, low_rank: None },
        }))
    }

    /// The half `path` of a mixer block on `x`, batch x tokens x width: layer norm `{path}_norm`, linear maps
    /// `{path}.up` and `{path}.down`, dropout behind each, and the input added; `mix` says along which axis.
    ///
    /// # Errors
    /// As [`Pass::parameter`].
    pub fn half_block(
        &self,
        path: &str,
        x: Tensor<3>,
        rate: f64,
        epsilon: f64,
        along: Along,
    ) -> Result<Tensor<3>, PeftError> {
        let (up_path, down_path) = (format!("{path}.up"), format!("{path}.down"));
        let norm = format!("{path}_norm");
        let maps = (self.linear_map(&up_path)?, self.linear_map(&down_path)?);
        let (Some(up), Some(down)) = maps else {
            let normed = self.layer_norm(&norm, x.clone(), epsilon)?;
            let turned = |x: Tensor<3>| match along {
                Along::Tokens => x.swap_dims(1, 2),
                Along::Channels => x,
            };
            let hidden = self.linear_gelu_dropout(&up_path, turned(normed), rate)?;
            let mixed = turned(self.linear(&down_path, hidden)?);
            return Ok(x + self.block(path, self.dropout(&down_path, rate, mixed))?);
        };
        // An adapter of the sublayer's output comes before the sum.
        let residual = !matches!(self.acting_on(path), Some((Kind::Activation(_), _)));
        let half = Half {
            gamma: self.parameter(&format!("{norm}.weight"))?,
            beta: self.parameter(&format!("{norm}.bias"))?,
            epsilon,
            up,
            down,
            up_mask: self.mask(&up_path, rate),
            down_mask: self.mask(&down_path, rate),
            residual,
        };
        half.check(path, x.dims(), along)?;
        let mix = match along {
            Along::Tokens => ops::mix_tokens,
            Along::Channels => ops::mix_channels,
        };
        if residual {
            return Ok(mix(x, half));
        }
        let y = mix(x.clone(), half);
        Ok(x + self.block(path, y)?)
    }

    /// `x W`, or what a weight method makes of it; with the bias where `bias` says so.
    fn product(&self, path: &str, x: Tensor<2>, bias: bool) -> Result<Tensor<2>, PeftError> {
        let weight = self.parameter(&format!("{path}.weight"))?;
        check_width(path, &x, &weight)?;
        let own_bias = || if bias { self.bias(path) } else { Ok(None) };
        let low_rank = match self.acting_on(path) {
            Some((Kind::Weight(method), theta)) => {
                let plain = self.masks.is_none() || method.is_plain();
                let low_rank = if plain { method.low_rank(&weight, &theta)? } else { None };
                if low_rank.is_none() {
                    let y = method.product(x, weight, &theta)?;
                    return Ok(match own_bias()? {
                        Some(bias) => y + bias.unsqueeze::<2>(),
                        None => y,
                    });
                }
                low_rank
            }
            _ => None,
        };
        Ok(ops::linear(x, LinearMap { weight, bias: own_bias()?, low_rank }))
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
