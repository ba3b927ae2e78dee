//! DoRA: `W = m (W0 + s A B) / ||W0 + s A B||`, norm and magnitude `m` per output, `s = alpha / r`, or
//! `alpha / sqrt r` with rank stabilisation.
//!
//! Shapes: `W0` in x out, `A` in x r, `B` r x out, `m` out. Start: `A` uniform within `1/sqrt(in)`,
//! `B = 0`, `m` the norms of `W0`'s columns.
//! The norm is held fixed in the gradient, as in the paper's section 4.3 and in Hugging Face's peft;
//! `detach_norm = false` differentiates it.
//! Source: Liu et al. 2024 (arXiv:2402.09353). Limits: a column of zeros has no direction; its norm is
//! taken as the smallest that does not divide by zero.

use super::settings::in_range;
use super::{Configured, Entry, Kind, LowRank, Note, Patterns, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::exchange::{HuggingFace, Layers, export_lora, import_lora};
use crate::parameters::{Init, Spec};
use crate::sites::LinearSite;
use burn::tensor::Tensor;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const ENTRY: Entry = Entry {
    name: "dora",
    summary: "a weight's columns get a magnitude of their own and a direction moved by LoRA",
    formula: "r (in + out) + out a layer",
    source: "arXiv:2402.09353",
    hugging_face: Some(HuggingFace {
        peft_type: "LORA",
        is_own: |map| map.get("use_dora") == Some(&Value::Bool(true)),
        import: import_lora,
        export,
    }),
    examples: &["rank = 2\ndetach_norm = false", "rank = 2"],
    configure,
};

/// Added to squared norms: far below any squared norm that training meets, in either precision.
const TINY: f64 = 1e-30;

/// Settings, with Hugging Face's defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    rank: usize,
    alpha: f64,
    dropout: f64,
    rslora: bool,
    detach_norm: bool,
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
}

impl Default for Settings {
    fn default() -> Self {
        let (rank_pattern, alpha_pattern) = Default::default();
        Self {
            rank: 8,
            alpha: 8.0,
            dropout: 0.0,
            rslora: false,
            detach_norm: true,
            rank_pattern,
            alpha_pattern,
        }
    }
}

struct Dora {
    low_rank: LowRank,
    dropout: f64,
    rslora: bool,
    detach_norm: bool,
}

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range("dropout", s.dropout, (0.0..1.0).contains(&s.dropout), "from 0 to below 1")?;
    let (ranks, alphas) = (Patterns::new(&s.rank_pattern)?, Patterns::new(&s.alpha_pattern)?);
    let low_rank = LowRank::new(s.rank, s.alpha, ranks, alphas)?;
    let exact_gradient = !s.detach_norm;
    let method =
        Dora { low_rank, dropout: s.dropout, rslora: s.rslora, detach_norm: s.detach_norm };
    Ok(Configured { exact_gradient, ..Configured::new(Kind::Weight(Box::new(method))) })
}

/// The format has no word for a norm that is differentiated: it is a matter of training.
fn export(table: &toml::Table, layers: &Layers) -> Result<Map<String, Value>, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table.clone())?;
    let mut map = export_lora(layers, (s.rank, s.alpha), &s.alpha_pattern, s.dropout, s.rslora)?;
    map.insert("use_dora".into(), Value::Bool(true));
    Ok(map)
}

impl Dora {
    fn factors(&self, theta: &Theta<'_>) -> Result<(Tensor<2>, Tensor<2>), PeftError> {
        let (a, b) = (theta.get::<2>("lora_A.weight")?, theta.get::<2>("lora_B.weight")?);
        let rank = a.dims()[1] as f64;
        let alpha = self.low_rank.alpha(theta.path());
        let scale = if self.rslora { alpha / rank.sqrt() } else { alpha / rank };
        Ok((a.mul_scalar(scale), b))
    }

    /// `m / ||W0 + s A B||`, 1 x out.
    fn ratio(
        &self,
        base: Tensor<2>,
        (a, b): (Tensor<2>, Tensor<2>),
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        let magnitude = theta.get::<1>("lora_magnitude_vector")?;
        let moved = if self.detach_norm {
            base.inner() + a.inner().matmul(b.inner())
        } else {
            base + a.matmul(b)
        };
        let norms = (moved.clone() * moved).sum_dim(0).add_scalar(TINY).sqrt();
        Ok(magnitude.unsqueeze::<2>() / norms)
    }
}

impl WeightMethod for Dora {
    fn parameters(
        &self,
        layer: &LinearSite,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<Spec>, PeftError> {
        let rank = self.low_rank.rank(layer, notes)?;
        let bound = 1.0 / (layer.inputs as f64).sqrt();
        let norms: crate::parameters::StartFromWeight = Arc::new(|weight| {
            let norm = |column: usize| {
                let entries = weight.values.iter().skip(column).step_by(weight.outputs);
                entries.map(|w| w * w).sum::<f64>().sqrt()
            };
            Ok((0..weight.outputs).map(norm).collect())
        });
        Ok(vec![
            Spec::matrix("lora_A.weight", layer.inputs, rank, Init::Uniform { bound }),
            Spec::matrix("lora_B.weight", rank, layer.outputs, Init::Constant(0.0)),
            Spec::new("lora_magnitude_vector", [layer.outputs], Init::FromWeight(norms)),
        ])
    }

    fn count(&self, layer: &LinearSite) -> usize {
        self.low_rank.fitting(layer) * (layer.inputs + layer.outputs) + layer.outputs
    }

    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        let (a, b) = self.factors(theta)?;
        let ratio = self.ratio(base.clone(), (a.clone(), b.clone()), theta)?;
        Ok((base + a.matmul(b)) * ratio)
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
        let ratio = self.ratio(base.clone(), (a.clone(), b.clone()), theta)?;
        // As in peft, the mask touches both paths of the change, not the base's own output.
        let through = theta.dropout(x.clone(), self.dropout).matmul(a).matmul(b);
        Ok((x.matmul(base) + through) * ratio)
    }
}
