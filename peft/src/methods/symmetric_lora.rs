//! Symmetric LoRA: `W = W0 + U U^T`.
//!
//! Shapes: `W0` d x d, `U` d x r. Start: `U` ~ N(0, 0.1^2), away from the base: at `U = 0` the gradient
//! `(G + G^T) U` vanishes and no training would start.
//! Source: Block et al. 2025 (arXiv:2410.22264), section 3.
//! Limits: square weights; `U` is identified up to `U Q`, Q orthogonal; only positive semidefinite
//! changes.

use super::settings::in_range;
use super::{Configured, Entry, Kind, LowRank, Note, Patterns, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::parameters::{Init, Spec, Stored};
use crate::sites::LinearSite;
use burn::tensor::Tensor;
use std::collections::BTreeMap;

pub(super) const ENTRY: Entry = Entry {
    name: "symmetric-lora",
    summary: "U U^T is added to each square weight, as in the paper's linear model",
    formula: "d r a square layer",
    source: "arXiv:2410.22264",
    hugging_face: None,
    examples: &["rank = 2"],
    configure,
};

/// Settings; the start is the paper's.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    rank: usize,
    start_std: f64,
    rank_pattern: BTreeMap<String, usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rank: 8, start_std: 0.1, rank_pattern: BTreeMap::new() }
    }
}

struct SymmetricLora {
    low_rank: LowRank,
    start_std: f64,
}

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range(
        "start_std",
        s.start_std,
        s.start_std > 0.0,
        "more than 0: training starts nowhere else",
    )?;
    let ranks = Patterns::new(&s.rank_pattern)?;
    let low_rank = LowRank::new(s.rank, 1.0, ranks, Patterns::default())?;
    let method = SymmetricLora { low_rank, start_std: s.start_std };
    Ok(Configured::new(Kind::Weight(Box::new(method))).away_from_base())
}

impl WeightMethod for SymmetricLora {
    fn parameters(
        &self,
        layer: &LinearSite,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<Spec>, PeftError> {
        if layer.inputs != layer.outputs {
            let reason = "its weight is not square";
            notes.push(Note::Skipped { layer: layer.path.clone(), reason });
            return Ok(Vec::new());
        }
        let rank = self.low_rank.rank(layer, notes)?;
        let init = Init::Normal { std: self.start_std };
        let spec = Spec::matrix("lora_U.weight", layer.inputs, rank, init);
        Ok(vec![Spec { stored: Stored::AsIs, ..spec }])
    }

    fn count(&self, layer: &LinearSite) -> usize {
        let square = layer.inputs == layer.outputs;
        if square { layer.inputs * self.low_rank.fitting(layer) } else { 0 }
    }

    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        let u = theta.get::<2>("lora_U.weight")?;
        Ok(base + u.clone().matmul(u.transpose()))
    }

    fn low_rank(
        &self,
        _: &Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Option<(Tensor<2>, Tensor<2>)>, PeftError> {
        let u = theta.get::<2>("lora_U.weight")?;
        Ok(Some((u.clone(), u.transpose())))
    }

    fn product(
        &self,
        x: Tensor<2>,
        base: Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        let u = theta.get::<2>("lora_U.weight")?;
        let through = x.clone().matmul(u.clone()).matmul(u.transpose());
        Ok(x.matmul(base) + through)
    }
}
