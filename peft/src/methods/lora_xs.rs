//! LoRA-XS: `W = W0 + s A R B`, `A = U_r S_r`, `B = V_r^T` from the thin SVD `W0 = U S V^T`.
//!
//! Shapes: `W0` in x out, `A` in x r, `R` r x r, `B` r x out. Start: `R` ~ N(0, 1e-5^2), so the start is
//! near the base and not at it. `A` and `B` are never trained and belong to the weights that the
//! adapter was made for: in retraining, to those that it started from.
//! Source: Balazy et al. 2024 (arXiv:2405.17604).

use super::settings::in_range;
use super::{Configured, Entry, Kind, LowRank, Note, Patterns, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::parameters::{Init, Spec, StartFromWeight, Stored, WeightView};
use crate::sites::LinearSite;
use burn::tensor::Tensor;
use peftml_linalg::{ThinSvd, decompose};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) const ENTRY: Entry = Entry {
    name: "lora-xs",
    summary: "a small square matrix between a weight's own leading singular vectors",
    formula: "r^2 a layer",
    source: "arXiv:2405.17604",
    hugging_face: None,
    examples: &["rank = 2"],
    configure,
};

/// Settings; the start is the paper's.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    rank: usize,
    alpha: f64,
    start_std: f64,
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
}

impl Default for Settings {
    fn default() -> Self {
        let (rank_pattern, alpha_pattern) = Default::default();
        Self { rank: 8, alpha: 8.0, start_std: 1e-5, rank_pattern, alpha_pattern }
    }
}

struct LoraXs {
    low_rank: LowRank,
    start_std: f64,
}

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range("start_std", s.start_std, s.start_std >= 0.0, "at least 0")?;
    let (ranks, alphas) = (Patterns::new(&s.rank_pattern)?, Patterns::new(&s.alpha_pattern)?);
    let low_rank = LowRank::new(s.rank, s.alpha, ranks, alphas)?;
    let method = LoraXs { low_rank, start_std: s.start_std };
    let starts_at_base = s.start_std == 0.0;
    Ok(Configured { starts_at_base, ..Configured::new(Kind::Weight(Box::new(method))) })
}

impl LoraXs {
    /// `s A R`, `B`.
    fn factors(&self, theta: &Theta<'_>) -> Result<(Tensor<2>, Tensor<2>), PeftError> {
        let r = theta.get::<2>("lora_R.weight")?;
        let scale = self.low_rank.scale(theta.path(), r.dims()[0]);
        let a = theta.get::<2>("lora_A.weight")?;
        Ok((a.matmul(r.mul_scalar(scale)), theta.get("lora_B.weight")?))
    }
}

impl WeightMethod for LoraXs {
    fn parameters(
        &self,
        layer: &LinearSite,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<Spec>, PeftError> {
        let rank = self.low_rank.rank(layer, notes)?;
        let path = layer.path.clone();
        let scaled_left: StartFromWeight = Arc::new(move |weight| {
            let svd = singular(weight, &path)?;
            let entry = |i: usize| svd.left[(i / rank, i % rank)] * svd.values[i % rank];
            Ok((0..weight.inputs * rank).map(entry).collect())
        });
        let path = layer.path.clone();
        let right: StartFromWeight = Arc::new(move |weight| {
            let svd = singular(weight, &path)?;
            let outputs = weight.outputs;
            let entry = |i: usize| svd.right[(i % outputs, i / outputs)];
            Ok((0..rank * outputs).map(entry).collect())
        });
        let (inputs, outputs) = (layer.inputs, layer.outputs);
        let start = Init::Normal { std: self.start_std };
        let square = Spec::matrix("lora_R.weight", rank, rank, start);
        Ok(vec![
            Spec::matrix("lora_A.weight", inputs, rank, Init::FromWeight(scaled_left)).constant(),
            Spec::matrix("lora_B.weight", rank, outputs, Init::FromWeight(right)).constant(),
            Spec { stored: Stored::Transposed, ..square },
        ])
    }

    fn count(&self, layer: &LinearSite) -> usize {
        self.low_rank.fitting(layer).pow(2)
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

    fn product(
        &self,
        x: Tensor<2>,
        base: Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        let (a, b) = self.factors(theta)?;
        Ok(x.clone().matmul(base) + x.matmul(a).matmul(b))
    }
}

fn singular(weight: WeightView<'_>, path: &str) -> Result<ThinSvd, PeftError> {
    let matrix = faer::MatRef::from_row_major_slice(weight.values, weight.inputs, weight.outputs);
    decompose::thin_svd(matrix)
        .map_err(|source| PeftError::Decomposition { name: format!("{path}.weight"), source })
}
