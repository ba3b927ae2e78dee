//! Transformer encoder with a classification head, in BERT's form and with its module names.
//!
//! Embeddings of words, positions and segments are added and normalised; each layer is
//! `x <- norm(x + attention(x))`, `x <- norm(x + W2 gelu(W1 x))`; the first token's vector goes through
//! `tanh(pooler)` to a linear head. Source: Devlin et al. 2018 (arXiv:1810.04805).
//! Limits: a sequence, with what an adapter puts before it, must fit `positions`.

use super::{at_least_one, rate};
use crate::methods::in_range;
use crate::ops;
use crate::parameters::{Init, Spec};
use crate::sites::Sites;
use crate::{Input, Network, Pass, PeftError, Tokens};
use burn::tensor::{Int, Tensor};

/// Sizes of an [`Encoder`].
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderConfig {
    /// Number of words.
    pub vocabulary: usize,
    /// Length of a token's vector.
    pub width: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of attention heads; divides the width.
    pub heads: usize,
    /// Hidden length of a layer's two-layer part.
    pub hidden: usize,
    /// Longest sequence.
    pub positions: usize,
    /// Number of segments.
    pub segments: usize,
    /// Number of classes.
    pub classes: usize,
    /// Dropout rate.
    pub dropout: f64,
}

/// Added to variances, and the spread of a start, as in BERT.
const NORM_EPSILON: f64 = 1e-12;
const START_STD: f64 = 0.02;

/// The network; see the module's text.
#[derive(Debug)]
pub struct Encoder {
    config: EncoderConfig,
    sites: Sites,
}

impl Encoder {
    /// A network of these sizes.
    ///
    /// # Errors
    /// [`PeftError::Range`] for a length of 0, a rate outside [0, 1), heads that do not divide the width.
    pub fn new(config: EncoderConfig) -> Result<Self, PeftError> {
        let c = &config;
        for (name, value) in [
            ("vocabulary", c.vocabulary),
            ("width", c.width),
            ("layers", c.layers),
            ("heads", c.heads),
            ("hidden", c.hidden),
            ("positions", c.positions),
            ("segments", c.segments),
            ("classes", c.classes),
        ] {
            at_least_one(name, value)?;
        }
        rate("dropout", c.dropout)?;
        let divides = c.width.is_multiple_of(c.heads);
        in_range("heads", c.heads as f64, divides, "a divisor of width")?;
        let sites = declare(c);
        Ok(Self { config, sites })
    }

    fn embedded(
        &self,
        pass: &Pass<'_>,
        tokens: &Tokens,
    ) -> Result<(Tensor<3>, Tensor<2>), PeftError> {
        let Tokens { ids, mask, segments } = tokens;
        let [batch, _] = ids.dims();
        let words = pass.parameter::<2>("bert.embeddings.word_embeddings.weight")?;
        let (x, added) = pass.tokens(looked_up(words, ids.clone()))?;
        let [_, length, width] = x.dims();
        let most = self.config.positions;
        in_range("length", length as f64, length <= most, &format!("at most {most} positions"))?;
        let positions = pass
            .parameter::<2>("bert.embeddings.position_embeddings.weight")?
            .narrow(0, 0, length)
            .unsqueeze::<3>();
        let kinds = pass.parameter::<2>("bert.embeddings.token_type_embeddings.weight")?;
        let kinds = match segments {
            Some(segments) => {
                let own = looked_up(kinds.clone(), segments.clone());
                if added == 0 {
                    own
                } else {
                    let first = kinds.narrow(0, 0, 1).unsqueeze::<3>();
                    Tensor::cat(vec![first.expand([batch, added, width]), own], 1)
                }
            }
            None => kinds.narrow(0, 0, 1).unsqueeze::<3>().expand([batch, length, width]),
        };
        let sum = x + positions + kinds;
        let path = "bert.embeddings";
        let normed = pass.layer_norm(&format!("{path}.LayerNorm"), sum, NORM_EPSILON)?;
        let x = pass.dropout(path, self.config.dropout, normed);
        Ok((x, seen_before(mask.clone(), added)))
    }

    fn attention(
        &self,
        pass: &Pass<'_>,
        layer: usize,
        x: Tensor<3>,
        mask: &Tensor<2>,
    ) -> Result<Tensor<3>, PeftError> {
        let path = format!("bert.encoder.layer.{layer}.attention");
        let project = |name: &str| pass.linear(&format!("{path}.self.{name}"), x.clone());
        let (keys, values) = (project("key")?, project("value")?);
        let (keys, values, added) = pass.keys_values(layer, keys, values)?;
        let mask = seen_before(mask.clone(), added);
        let [batch, length, width] = x.dims();
        let heads = self.config.heads;
        let cut = |t: Tensor<3>| {
            let length = t.dims()[1];
            t.reshape([batch, length, heads, width / heads]).swap_dims(1, 2)
        };
        let drop = pass.mask(&format!("{path}.self"), self.config.dropout);
        let y = ops::attention(cut(project("query")?), cut(keys), cut(values), Some(mask), drop);
        let y = y.swap_dims(1, 2).reshape([batch, length, width]);
        self.added_and_normed(pass, &format!("{path}.output"), x, y)
    }

    /// `norm(x + block(dropout(dense(y))))`.
    fn added_and_normed(
        &self,
        pass: &Pass<'_>,
        path: &str,
        x: Tensor<3>,
        y: Tensor<3>,
    ) -> Result<Tensor<3>, PeftError> {
        let y = pass.linear(&format!("{path}.dense"), y)?;
        let y = pass.block(path, pass.dropout(path, self.config.dropout, y))?;
        pass.layer_norm(&format!("{path}.LayerNorm"), x + y, NORM_EPSILON)
    }
}

impl Network for Encoder {
    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn forward(&self, pass: &Pass<'_>, input: &Input) -> Result<Tensor<2>, PeftError> {
        let Input::Tokens(tokens) = input else {
            return Err(PeftError::InputKind { expected: "token sequences", found: input.kind() });
        };
        let (mut x, mask) = self.embedded(pass, tokens)?;
        for layer in 0..self.config.layers {
            x = self.attention(pass, layer, x, &mask)?;
            let path = format!("bert.encoder.layer.{layer}");
            let hidden =
                pass.linear_gelu_dropout(&format!("{path}.intermediate.dense"), x.clone(), 0.0)?;
            x = self.added_and_normed(pass, &format!("{path}.output"), x, hidden)?;
        }
        let [batch, _, width] = x.dims();
        let first = x.narrow(1, 0, 1).reshape([batch, width]);
        let pooled = pass.linear("bert.pooler.dense", first)?.tanh();
        pass.linear("classifier", pass.dropout("classifier", self.config.dropout, pooled))
    }
}

fn declare(c: &EncoderConfig) -> Sites {
    let mut sites = Sites::default();
    let start = || Init::Normal { std: START_STD };
    for (name, rows) in [
        ("word_embeddings", c.vocabulary),
        ("position_embeddings", c.positions),
        ("token_type_embeddings", c.segments),
    ] {
        let name = format!("bert.embeddings.{name}.weight");
        sites.parameter(Spec::new(name, [rows, c.width], start()));
    }
    sites.layer_norm("bert.embeddings.LayerNorm", c.width);
    sites.token_sequence(c.width, c.positions);
    for layer in 0..c.layers {
        let path = format!("bert.encoder.layer.{layer}");
        for name in ["query", "key", "value"] {
            dense(&mut sites, &format!("{path}.attention.self.{name}"), c.width, c.width);
        }
        sites.attention(&format!("{path}.attention.self"), c.width);
        for (name, inputs) in [("attention.output", c.width), ("output", c.hidden)] {
            if name == "output" {
                dense(&mut sites, &format!("{path}.intermediate.dense"), c.width, c.hidden);
            }
            dense(&mut sites, &format!("{path}.{name}.dense"), inputs, c.width);
            sites.block(&format!("{path}.{name}"), c.width);
            sites.layer_norm(&format!("{path}.{name}.LayerNorm"), c.width);
        }
    }
    dense(&mut sites, "bert.pooler.dense", c.width, c.width);
    dense(&mut sites, "classifier", c.width, c.classes);
    sites.head("classifier");
    sites
}

fn dense(sites: &mut Sites, path: &str, inputs: usize, outputs: usize) {
    let zero = Some(Init::Constant(0.0));
    sites.linear_from(path, [inputs, outputs], Init::Normal { std: START_STD }, zero);
}

/// Rows of `table`, batch x length x width.
fn looked_up(table: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<3> {
    let ([batch, length], width) = (ids.dims(), table.dims()[1]);
    table.select(0, ids.reshape([batch * length])).reshape([batch, length, width])
}

/// `mask` with `added` places that are seen before it.
fn seen_before(mask: Tensor<2>, added: usize) -> Tensor<2> {
    if added == 0 {
        return mask;
    }
    let batch = mask.dims()[0];
    let ones = mask.clone().narrow(1, 0, 1).mul_scalar(0.0).add_scalar(1.0);
    Tensor::cat(vec![ones.expand([batch, added]), mask], 1)
}
