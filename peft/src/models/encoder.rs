//! Transformer encoder with a classification head, in BERT's or RoBERTa's form, with their module names.
//!
//! Embeddings of words, positions and segments are added and normalised; each layer is
//! `x <- norm(x + attention(x))`, `x <- norm(x + W2 gelu(W1 x))`; the first token's vector goes through
//! `tanh(dense)` to a linear head. In BERT's form that `dense` is the encoder's pooler and positions count
//! from 0; in RoBERTa's it belongs to the head, and positions count the tokens that are no padding from
//! `padding + 1` on.
//! Sources: Devlin et al. 2018 (arXiv:1810.04805), Liu et al. 2019 (arXiv:1907.11692).
//! Limits: a sequence, with what an adapter puts before it, must fit the positions.

use super::{at_least_one, rate};
use crate::methods::in_range;
use crate::ops;
use crate::parameters::{Init, Spec};
use crate::sites::Sites;
use crate::{Input, Network, Pass, PeftError, Sequences, Tokens};
use burn::tensor::{Int, Tensor};

/// Which of the two published forms an encoder has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Pooler below the head, positions from 0.
    #[default]
    Bert,
    /// A head of two layers, positions from `padding + 1`.
    Roberta,
}

impl Family {
    /// The name of the family, and of the module that holds all but the head.
    pub fn name(self) -> &'static str {
        match self {
            Family::Bert => "bert",
            Family::Roberta => "roberta",
        }
    }
}

/// What distinguishes encoders of the same sizes.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct EncoderForm {
    /// The family.
    pub family: Family,
    /// Number of the padding token; in RoBERTa's form positions depend on it.
    pub padding: usize,
    /// Added to variances in layer norms.
    pub norm_epsilon: f64,
    /// Dropout rate of attention; the network's own where nothing is said.
    pub attention_dropout: Option<f64>,
    /// Dropout rate in the head; the network's own where nothing is said.
    pub head_dropout: Option<f64>,
    /// Whether there is a pooler; BERT's head needs it, RoBERTa's has none below it.
    pub pooler: bool,
}

impl Default for EncoderForm {
    fn default() -> Self {
        Self {
            family: Family::Bert,
            padding: 0,
            norm_epsilon: 1e-12,
            attention_dropout: None,
            head_dropout: None,
            pooler: true,
        }
    }
}

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
    /// Number of classes; 0: there is no head, and the network's output is the mean vector of a
    /// sequence's tokens.
    pub classes: usize,
    /// Dropout rate.
    pub dropout: f64,
    /// Family and the like; BERT's where nothing is said.
    #[serde(default)]
    pub form: EncoderForm,
}

impl EncoderConfig {
    /// The longest sequence, padding included.
    pub fn longest(&self) -> usize {
        self.positions.saturating_sub(self.first_position())
    }

    fn first_position(&self) -> usize {
        match self.form.family {
            Family::Bert => 0,
            Family::Roberta => self.form.padding + 1,
        }
    }
}

/// The spread of a start, as in BERT.
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
    /// [`PeftError::Range`] for a length of 0, a rate outside [0, 1), heads that do not divide the width,
    /// positions that leave none for a token, a head in BERT's form without a pooler.
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
        ] {
            at_least_one(name, value)?;
        }
        rate("dropout", c.dropout)?;
        rate("attention_dropout", c.form.attention_dropout.unwrap_or(0.0))?;
        rate("head_dropout", c.form.head_dropout.unwrap_or(0.0))?;
        let (epsilon, positions) = (c.form.norm_epsilon, c.positions as f64);
        in_range("norm_epsilon", epsilon, epsilon >= 0.0, "at least 0")?;
        in_range("positions", positions, c.longest() >= 1, "more than the padding token's number")?;
        let padding = c.form.padding;
        in_range("padding", padding as f64, padding < c.vocabulary, "a token of the vocabulary")?;
        if let Family::Bert = c.form.family {
            let stands = c.form.pooler || c.classes == 0;
            in_range("classes", c.classes as f64, stands, "0 without a pooler")?;
        }
        let divides = c.width.is_multiple_of(c.heads);
        in_range("heads", c.heads as f64, divides, "a divisor of width")?;
        let sites = declare(c);
        Ok(Self { config, sites })
    }

    /// Its sizes.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// The last layer's vectors, batch x length x width, where an adapter put `added` tokens before the
    /// sequence's own, and `added`.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn states(
        &self,
        pass: &Pass<'_>,
        tokens: &Tokens,
    ) -> Result<(Tensor<3>, usize), PeftError> {
        let (mut x, mask, added) = self.embedded(pass, tokens)?;
        for layer in 0..self.config.layers {
            x = self.attention(pass, layer, x, &mask)?;
            let path = self.layer(layer);
            let hidden =
                pass.linear_gelu_dropout(&format!("{path}.intermediate.dense"), x.clone(), 0.0)?;
            x = self.added_and_normed(pass, &format!("{path}.output"), x, hidden)?;
        }
        Ok((x, added))
    }

    /// The first token's vector of each sequence, rows x width: all that a head needs.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn first_vectors(
        &self,
        pass: &Pass<'_>,
        sequences: &Sequences,
    ) -> Result<Tensor<2>, PeftError> {
        in_parts(pass, sequences, |pass, tokens| {
            let shape = [tokens.ids.dims()[0], self.config.width];
            Ok(self.states(pass, tokens)?.0.narrow(1, 0, 1).reshape(shape))
        })
    }

    fn outputs(&self, pass: &Pass<'_>, tokens: &Tokens) -> Result<Tensor<2>, PeftError> {
        let (states, added) = self.states(pass, tokens)?;
        match self.head(pass, states.clone())? {
            Some(outputs) => Ok(outputs),
            None => {
                let [_, length, _] = states.dims();
                Ok(masked_mean(states.narrow(1, added, length - added), tokens.mask.clone()))
            }
        }
    }

    /// The head's outputs for the last layer's vectors; `None` where there is no head.
    ///
    /// # Errors
    /// As [`Network::forward`].
    pub fn head(&self, pass: &Pass<'_>, states: Tensor<3>) -> Result<Option<Tensor<2>>, PeftError> {
        if self.config.classes == 0 {
            return Ok(None);
        }
        let [batch, _, width] = states.dims();
        let first = states.narrow(1, 0, 1).reshape([batch, width]);
        let rate = self.config.form.head_dropout.unwrap_or(self.config.dropout);
        let (pooled, output) = match self.config.form.family {
            Family::Bert => (pass.linear("bert.pooler.dense", first)?, "classifier"),
            Family::Roberta => {
                let first = pass.dropout("classifier.input", rate, first);
                (pass.linear("classifier.dense", first)?, "classifier.out_proj")
            }
        };
        pass.linear(output, pass.dropout("classifier", rate, pooled.tanh())).map(Some)
    }

    fn layer(&self, number: usize) -> String {
        format!("{}.encoder.layer.{number}", self.config.form.family.name())
    }

    fn embedded(
        &self,
        pass: &Pass<'_>,
        tokens: &Tokens,
    ) -> Result<(Tensor<3>, Tensor<2>, usize), PeftError> {
        let Tokens { ids, mask, segments } = tokens;
        let path = format!("{}.embeddings", self.config.form.family.name());
        let [batch, _] = ids.dims();
        let words = pass.parameter::<2>(&format!("{path}.word_embeddings.weight"))?;
        let (x, added) = pass.tokens(looked_up(words, ids.clone()))?;
        let [_, length, width] = x.dims();
        let positions = self.positions(pass, &path, ids, added)?;
        let kinds = pass.parameter::<2>(&format!("{path}.token_type_embeddings.weight"))?;
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
        let epsilon = self.config.form.norm_epsilon;
        let normed = pass.layer_norm(&format!("{path}.LayerNorm"), sum, epsilon)?;
        let x = pass.dropout(&path, self.config.dropout, normed);
        Ok((x, seen_before(mask.clone(), added), added))
    }

    /// The vectors of the positions, (1 or batch) x (added + length) x width. In RoBERTa's form padding
    /// has the position `padding`; tokens that an adapter puts before the sequence make all count, as
    /// in transformers, which then no longer sees which are padding.
    fn positions(
        &self,
        pass: &Pass<'_>,
        path: &str,
        ids: &Tensor<2, Int>,
        added: usize,
    ) -> Result<Tensor<3>, PeftError> {
        let length = ids.dims()[1] + added;
        let (most, shift) = (self.config.longest(), pass.positions_before());
        let expected = format!("at most {most} positions");
        in_range("length", (length + shift) as f64, length + shift <= most, &expected)?;
        let table = pass.parameter::<2>(&format!("{path}.position_embeddings.weight"))?;
        if let (Family::Roberta, 0) = (self.config.form.family, added) {
            let padding = self.config.form.padding as i64;
            let own = ids.clone().not_equal_scalar(padding).int();
            let numbers = (own.clone().cumsum(1) + shift as i64) * own + padding;
            return Ok(looked_up(table, numbers));
        }
        let first = self.config.first_position() + shift;
        Ok(table.narrow(0, first, length).unsqueeze::<3>())
    }

    fn attention(
        &self,
        pass: &Pass<'_>,
        layer: usize,
        x: Tensor<3>,
        mask: &Tensor<2>,
    ) -> Result<Tensor<3>, PeftError> {
        let path = format!("{}.attention", self.layer(layer));
        let project = |name: &str| pass.linear(&format!("{path}.self.{name}"), x.clone());
        let (keys, values) = (project("key")?, project("value")?);
        let (keys, values, added) = pass.keys_values(layer, keys, values)?;
        let mask = seen_before(mask.clone(), added);
        let rate = self.config.form.attention_dropout.unwrap_or(self.config.dropout);
        let drop = pass.mask(&format!("{path}.self"), rate);
        let inputs = [project("query")?, keys, values];
        let y = ops::attention(inputs, self.config.heads, Some(mask), drop);
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
        let epsilon = self.config.form.norm_epsilon;
        pass.sublayer_end(path, x, y, self.config.dropout, epsilon)
    }
}

impl Network for Encoder {
    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn forward(&self, pass: &Pass<'_>, input: &Input) -> Result<Tensor<2>, PeftError> {
        match input {
            Input::Tokens(tokens) => self.outputs(pass, tokens),
            Input::Sequences(sequences) => {
                in_parts(pass, sequences, |pass, tokens| self.outputs(pass, tokens))
            }
            _ => Err(PeftError::InputKind { expected: "token sequences", found: input.kind() }),
        }
    }
}

/// The head of an encoder on [`Encoder::first_vectors`], for trainings that leave all before it alone. Its
/// parameters are the whole encoder's, so that adapters and bases fit both.
pub struct EncoderHead<'e>(pub &'e Encoder);

impl Network for EncoderHead<'_> {
    fn sites(&self) -> &Sites {
        self.0.sites()
    }

    fn forward(&self, pass: &Pass<'_>, input: &Input) -> Result<Tensor<2>, PeftError> {
        let Input::Vectors(x) = input else {
            return Err(PeftError::InputKind { expected: "vectors", found: input.kind() });
        };
        let outputs = self.0.head(pass, x.clone().unsqueeze_dim::<3>(1))?;
        outputs.ok_or_else(|| PeftError::MissingParameter { name: "classifier.weight".into() })
    }
}

/// `compute` on parts of similar length, its rows back in the sequences' order.
fn in_parts(
    pass: &Pass<'_>,
    sequences: &Sequences,
    compute: impl Fn(&Pass<'_>, &Tokens) -> Result<Tensor<2>, PeftError>,
) -> Result<Tensor<2>, PeftError> {
    let parts = sequences.parts();
    let mut places = vec![0; sequences.rows.len()];
    for (place, &row) in parts.iter().flatten().enumerate() {
        places[row] = place as i64;
    }
    let outputs = parts
        .iter()
        .enumerate()
        .map(|(number, rows)| compute(&pass.part(number), &sequences.padded(rows)?));
    let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
    if outputs.is_empty() {
        let problem = "there are no sequences";
        return Err(PeftError::Tasks { what: "a batch".into(), problem });
    }
    let count = [places.len()];
    Ok(Tensor::cat(outputs, 0).select(0, sequences.place.integers(places, count)?))
}

fn declare(c: &EncoderConfig) -> Sites {
    let mut sites = Sites::default();
    let start = || Init::Normal { std: START_STD };
    let family = c.form.family.name();
    for (name, rows) in [
        ("word_embeddings", c.vocabulary),
        ("position_embeddings", c.positions),
        ("token_type_embeddings", c.segments),
    ] {
        let name = format!("{family}.embeddings.{name}.weight");
        sites.parameter(Spec::new(name, [rows, c.width], start()));
    }
    sites.layer_norm(&format!("{family}.embeddings.LayerNorm"), c.width);
    sites.token_sequence(c.width, c.longest());
    for layer in 0..c.layers {
        let path = format!("{family}.encoder.layer.{layer}");
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
    if c.form.pooler {
        dense(&mut sites, &format!("{family}.pooler.dense"), c.width, c.width);
    }
    match c.form.family {
        _ if c.classes == 0 => {}
        Family::Bert => dense(&mut sites, "classifier", c.width, c.classes),
        Family::Roberta => {
            dense(&mut sites, "classifier.dense", c.width, c.width);
            dense(&mut sites, "classifier.out_proj", c.width, c.classes);
        }
    }
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

/// The mean of the vectors (batch x length x width) that `mask` (batch x length) shows, batch x width; zero
/// where it shows none.
pub fn masked_mean(states: Tensor<3>, mask: Tensor<2>) -> Tensor<2> {
    /// As in sentence-transformers: far below the one token that a sequence has.
    const LEAST: f64 = 1e-9;
    let [batch, _, width] = states.dims();
    let counts = mask.clone().sum_dim(1).clamp_min(LEAST);
    (states * mask.unsqueeze_dim::<3>(2)).sum_dim(1).reshape([batch, width]) / counts
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
