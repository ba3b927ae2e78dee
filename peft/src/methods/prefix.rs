//! Prefix tuning: every attention gets `n` trained keys and values before its own.
//!
//! Shapes: one matrix n x (2 layers width); columns `2 l width ..` hold layer l's keys, the next `width` its
//! values, as Hugging Face's. Start: N(0, 1), away from the base.
//! Source: Li and Liang 2021 (arXiv:2101.00190), whose default length is 10; without the paper's
//! reparameterisation by a network, which is Hugging Face's default too.
//! Limits: needs attentions of one width; cannot be merged.

use super::settings::in_range;
use super::{Configured, Entry, InputMethod, Kind, Theta, read_settings};
use crate::PeftError;
use crate::exchange::{Description, HuggingFace, Layers};
use crate::parameters::{Init, Spec};
use crate::sites::Sites;
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};

pub(super) const ENTRY: Entry = Entry {
    name: "prefix",
    summary: "every attention gets trained keys and values before its own",
    formula: "2 n w a layer, w the attention's width",
    source: "arXiv:2101.00190",
    hugging_face: Some(HuggingFace {
        peft_type: "PREFIX_TUNING",
        is_own: HuggingFace::alone,
        import,
        export,
    }),
    examples: &["tokens = 3"],
    configure,
};

/// Settings, with the paper's default.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    tokens: usize,
    start_std: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { tokens: 10, start_std: 1.0 }
    }
}

struct Prefix(Settings);

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range("tokens", s.tokens as f64, s.tokens >= 1, "at least 1")?;
    in_range("start_std", s.start_std, s.start_std >= 0.0, "at least 0")?;
    Ok(Configured::new(Kind::Input(Box::new(Prefix(s)))).away_from_base())
}

fn import(description: &mut Description, _: &Layers) -> Result<toml::Table, PeftError> {
    let tokens: u32 = description.required("num_virtual_tokens")?;
    let reason = "networks with a decoder of their own are not read";
    description.only("num_transformer_submodules", &[json!(1)], reason)?;
    let reason =
        "a prefix behind its reparameterisation is saved in peft without it; this one is not";
    description.only("prefix_projection", &[json!(false)], reason)?;
    for key in ["encoder_hidden_size", "init_weights"] {
        description.drop(key);
    }
    for key in ["token_dim", "num_attention_heads", "num_layers"] {
        description.drop(key);
    }
    let mut table = toml::Table::new();
    table.insert("tokens".into(), i64::from(tokens).into());
    Ok(table)
}

fn export(table: &toml::Table, layers: &Layers) -> Result<Map<String, Value>, PeftError> {
    let Settings { tokens, .. } = read_settings(ENTRY.name, table.clone())?;
    let (width, count) = (layers.attentions().first(), layers.attentions().len());
    let map = json!({
        "num_virtual_tokens": tokens, "token_dim": width, "num_layers": count,
        "num_transformer_submodules": 1, "prefix_projection": false, "encoder_hidden_size": width,
    });
    Ok(map.as_object().cloned().unwrap_or_default())
}

impl InputMethod for Prefix {
    fn parameters(&self, sites: &Sites) -> Result<Vec<Spec>, PeftError> {
        let missing = |needed: &'static str| PeftError::NoSite { method: ENTRY.name, needed };
        let layers = sites.attentions();
        let first = layers.first().ok_or_else(|| missing("attentions"))?;
        if layers.iter().any(|layer| layer.width != first.width) {
            return Err(missing("attentions of one width"));
        }
        let shape = [self.0.tokens, 2 * layers.len() * first.width];
        Ok(vec![Spec::new("prompt_embeddings", shape, Init::Normal { std: self.0.start_std })])
    }

    fn count(&self, sites: &Sites) -> usize {
        sites.attentions().iter().map(|layer| 2 * self.0.tokens * layer.width).sum()
    }

    // As in transformers, where keys and values of a cache have positions of their own.
    fn positions_before(&self) -> usize {
        self.0.tokens
    }

    fn keys_values(
        &self,
        layer: usize,
        keys: Tensor<3>,
        values: Tensor<3>,
        theta: &Theta<'_>,
    ) -> Result<(Tensor<3>, Tensor<3>), PeftError> {
        let all = theta.get::<2>("prompt_embeddings")?;
        let [batch, _, width] = keys.dims();
        let tokens = all.dims()[0];
        let before = |number: usize, own: Tensor<3>| {
            let prefix = all.clone().narrow(1, number * width, width);
            let prefix = prefix.unsqueeze::<3>().expand([batch, tokens, width]);
            Tensor::cat(vec![prefix, own], 1)
        };
        Ok((before(2 * layer, keys), before(2 * layer + 1, values)))
    }
}
