//! LoRA: `W = W0 + s A B`, `s = alpha / r`, or `alpha / sqrt r` with rank stabilisation.
//!
//! Shapes: `W0` in x out, `A` in x r, `B` r x out. Start: `A` uniform within `1/sqrt(in)`, `B = 0`.
//! The product is `x W0 + s (x A) B`: nothing of the weight's size is formed.
//! Source: Hu et al. 2021 (arXiv:2106.09685); rank stabilisation: Kalajdzievski 2023
//! (arXiv:2312.03732). Limits: `A`, `B` are identified up to `A Q`, `Q^-1 B`.

use super::settings::in_range;
use super::{Configured, Entry, Kind, LowRank, Note, Patterns, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::exchange::{HuggingFace, Layers, export_lora, import_lora};
use crate::ops::{LinearMap, linear};
use crate::parameters::{Init, Spec};
use crate::sites::LinearSite;
use burn::tensor::Tensor;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(super) const ENTRY: Entry = Entry {
    name: "lora",
    summary: "a low-rank product is added to each weight",
    formula: "r (in + out) a layer",
    source: "arXiv:2106.09685, arXiv:2312.03732",
    hugging_face: Some(HuggingFace {
        peft_type: "LORA",
        is_own: |map| map.get("use_dora") != Some(&Value::Bool(true)),
        import: import_lora,
        export,
    }),
    examples: &[
        "rank = 2",
        "rank = 2\nrslora = true\nalpha = 4.0\nrank_pattern = { up = 1 }\nalpha_pattern = { up = 3.0 }",
    ],
    configure,
};

/// Settings, with Hugging Face's defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    rank: usize,
    alpha: f64,
    dropout: f64,
    rslora: bool,
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
}

impl Default for Settings {
    fn default() -> Self {
        let (rank_pattern, alpha_pattern) = Default::default();
        Self { rank: 8, alpha: 8.0, dropout: 0.0, rslora: false, rank_pattern, alpha_pattern }
    }
}

struct Lora {
    low_rank: LowRank,
    dropout: f64,
    rslora: bool,
}

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range("dropout", s.dropout, (0.0..1.0).contains(&s.dropout), "from 0 to below 1")?;
    let (ranks, alphas) = (Patterns::new(&s.rank_pattern)?, Patterns::new(&s.alpha_pattern)?);
    let low_rank = LowRank::new(s.rank, s.alpha, ranks, alphas)?;
    let method = Lora { low_rank, dropout: s.dropout, rslora: s.rslora };
    Ok(Configured::new(Kind::Weight(Box::new(method))))
}

fn export(table: &toml::Table, layers: &Layers) -> Result<Map<String, Value>, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table.clone())?;
    export_lora(layers, (s.rank, s.alpha), &s.alpha_pattern, s.dropout, s.rslora)
}

impl Lora {
    /// `s A`, `B`: scaled where the numbers are fewest.
    fn factors(&self, theta: &Theta<'_>) -> Result<(Tensor<2>, Tensor<2>), PeftError> {
        let (a, b) = (theta.get::<2>("lora_A.weight")?, theta.get::<2>("lora_B.weight")?);
        let rank = a.dims()[1];
        let alpha = self.low_rank.alpha(theta.path());
        let scale = if self.rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 };
        Ok((a.mul_scalar(scale), b))
    }
}

impl WeightMethod for Lora {
    fn parameters(
        &self,
        layer: &LinearSite,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<Spec>, PeftError> {
        let rank = self.low_rank.rank(layer, notes)?;
        let bound = 1.0 / (layer.inputs as f64).sqrt();
        Ok(vec![
            Spec::matrix("lora_A.weight", layer.inputs, rank, Init::Uniform { bound }),
            Spec::matrix("lora_B.weight", rank, layer.outputs, Init::Constant(0.0)),
        ])
    }

    fn count(&self, layer: &LinearSite) -> usize {
        self.low_rank.fitting(layer) * (layer.inputs + layer.outputs)
    }

    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        let (a, b) = self.factors(theta)?;
        Ok(base + a.matmul(b))
    }

    fn low_rank(
        &self,
        _: &Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Option<(Tensor<2>, Tensor<2>)>, PeftError> {
        self.factors(theta).map(Some)
    }

    fn is_plain(&self) -> bool {
        self.dropout == 0.0
    }

    fn product(
        &self,
        x: Tensor<2>,
        base: Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        let (a, b) = self.factors(theta)?;
        let through = theta.dropout(x.clone(), self.dropout).matmul(a).matmul(b);
        Ok(linear(x, LinearMap::plain(base, None)) + through)
    }
}

#[cfg(test)]
mod tests {
    use crate::models::{Mixer, MixerConfig};
    use crate::{Adapter, AdapterConfig, Network};

    #[test]
    fn the_papers_networks_have_the_papers_numbers_of_parameters() {
        let mixer = Mixer::new(MixerConfig::default()).unwrap();
        let config = AdapterConfig::new("lora").with_settings("rank = 1").unwrap();
        let adapter = Adapter::new(&config, mixer.sites()).unwrap();
        assert_eq!(adapter.count(), 3_250);
        assert_eq!(mixer.sites().count() + 4 * adapter.count(), 338_186);
    }

    #[test]
    fn a_rank_named_for_a_layer_that_it_does_not_fit_is_refused() {
        let mixer = Mixer::new(MixerConfig::default()).unwrap();
        let with = |settings: &str| {
            let config = AdapterConfig::new("lora").with_settings(settings).unwrap();
            Adapter::new(&config, mixer.sites())
        };
        let capped = with("rank = 8").unwrap();
        assert_eq!(capped.notes().len(), 1, "the head has two outputs");
        assert!(with("rank = 8\nrank_pattern = { head = 2 }").unwrap().notes().is_empty());
        let error = with("rank_pattern = { head = 3 }").err().unwrap().to_string();
        assert!(error.contains("head, which is 512 x 2"), "{error}");
    }
}
