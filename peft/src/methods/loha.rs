//! LoHa: `W = W0 + s (B1 A1) o (B2 A2)`, `o` entry by entry, `s = alpha / r`: rank up to `r^2`.
//!
//! Shapes: `W0` in x out, `B1`, `B2` in x r, `A1`, `A2` r x out (Hugging Face's `hada_w1_b`, `hada_w2_b`,
//! `hada_w1_a`, `hada_w2_a`, turned). Start: `B2 = 0`, the others uniform as Kaiming's.
//! Source: Hyeon-Woo et al. 2021 (FedPara, arXiv:2108.06098).
//! Limits: the product needs the weight's change formed.

use super::{Configured, Entry, Kind, LowRank, Note, Patterns, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::exchange::{Description, HuggingFace, Layers, number};
use crate::parameters::{Init, Spec};
use crate::sites::LinearSite;
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) const ENTRY: Entry = Entry {
    name: "loha",
    summary: "the entrywise product of two low-rank products is added to each weight",
    formula: "2 r (in + out) a layer",
    source: "arXiv:2108.06098",
    hugging_face: Some(HuggingFace {
        peft_type: "LOHA",
        is_own: HuggingFace::alone,
        import,
        export,
    }),
    examples: &["rank = 2"],
    configure,
};

/// Settings, with Hugging Face's defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    rank: usize,
    alpha: f64,
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
}

impl Default for Settings {
    fn default() -> Self {
        let (rank_pattern, alpha_pattern) = Default::default();
        Self { rank: 8, alpha: 8.0, rank_pattern, alpha_pattern }
    }
}

struct Loha(LowRank);

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    let (ranks, alphas) = (Patterns::new(&s.rank_pattern)?, Patterns::new(&s.alpha_pattern)?);
    let method = Loha(LowRank::new(s.rank, s.alpha, ranks, alphas)?);
    Ok(Configured::new(Kind::Weight(Box::new(method))))
}

fn import(description: &mut Description, layers: &Layers) -> Result<toml::Table, PeftError> {
    description.drop("init_weights");
    Ok(layers.ranks(description, "alpha", true)?.table)
}

fn export(table: &toml::Table, layers: &Layers) -> Result<Map<String, Value>, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table.clone())?;
    let alphas = Patterns::new(&s.alpha_pattern)?;
    let rank = |path: &str| {
        let shape = layers.shape(&format!("{path}.hada_w1_a"));
        shape.and_then(|shape| shape.first()).copied().unwrap_or(s.rank) as f64
    };
    let alpha = |path: &str| alphas.get(path).unwrap_or(s.alpha);
    let map = json!({
        "r": s.rank, "alpha": number(s.alpha),
        "rank_pattern": layers.pattern(s.rank as f64, |site| rank(&site.path)),
        "alpha_pattern": layers.pattern(s.alpha, |site| alpha(&site.path)),
    });
    Ok(map.as_object().cloned().unwrap_or_default())
}

impl WeightMethod for Loha {
    fn parameters(
        &self,
        layer: &LinearSite,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<Spec>, PeftError> {
        let rank = self.0.rank(layer, notes)?;
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let uniform = |fan: usize| Init::Uniform { bound: 1.0 / (fan as f64).sqrt() };
        Ok(vec![
            Spec::matrix("hada_w1_a", rank, outputs, uniform(rank)),
            Spec::matrix("hada_w1_b", inputs, rank, uniform(inputs)),
            Spec::matrix("hada_w2_a", rank, outputs, uniform(rank)),
            Spec::matrix("hada_w2_b", inputs, rank, Init::Constant(0.0)),
        ])
    }

    fn count(&self, layer: &LinearSite) -> usize {
        2 * self.0.fitting(layer) * (layer.inputs + layer.outputs)
    }

    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        let product = |b: &str, a: &str| -> Result<Tensor<2>, PeftError> {
            Ok(theta.get::<2>(b)?.matmul(theta.get::<2>(a)?))
        };
        let first = product("hada_w1_b", "hada_w1_a")?;
        let second = product("hada_w2_b", "hada_w2_a")?;
        let rank = theta.get::<2>("hada_w1_a")?.dims()[0];
        Ok(base + (first * second).mul_scalar(self.0.scale(theta.path(), rank)))
    }
}
