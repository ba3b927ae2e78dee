//! VeRA: `W = W0 + A diag(d) B diag(b)`, `A` and `B` random, never trained, shared by all layers.
//!
//! Shapes: `W0` in x out, `A` (largest in) x r, `B` r x (largest out), cut to the layer's size; `d` r,
//! `b` out. Start: `A`, `B` uniform as Kaiming's, `d = 0.1`, `b = 0`.
//! Source: Kopiczko et al. 2023 (arXiv:2310.11454). The rank is no layer's: it may exceed a layer's
//! sides.

use super::settings::in_range;
use super::{Configured, Entry, Kind, Note, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::parameters::{Init, Spec};
use crate::sites::LinearSite;
use burn::tensor::Tensor;

pub(super) const ENTRY: Entry = Entry {
    name: "vera",
    summary: "two vectors a layer scale random projections that all layers share",
    formula: "r + out a layer",
    source: "arXiv:2310.11454",
    hugging_face: Some("VERA"),
    examples: &["rank = 5"],
    configure,
};

/// Settings, with Hugging Face's defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    rank: usize,
    d_initial: f64,
    dropout: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rank: 256, d_initial: 0.1, dropout: 0.0 }
    }
}

struct Vera(Settings);

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range("rank", s.rank as f64, s.rank >= 1, "at least 1")?;
    in_range("d_initial", s.d_initial, s.d_initial != 0.0, "not 0: training starts nowhere else")?;
    in_range("dropout", s.dropout, (0.0..1.0).contains(&s.dropout), "from 0 to below 1")?;
    Ok(Configured::new(Kind::Weight(Box::new(Vera(s)))))
}

impl Vera {
    /// `A diag(d)` and `B diag(b)`, cut to the layer.
    fn factors(
        &self,
        base: &Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<(Tensor<2>, Tensor<2>), PeftError> {
        let [inputs, outputs] = base.dims();
        let a = theta.get::<2>("vera_A")?.narrow(0, 0, inputs);
        let b = theta.get::<2>("vera_B")?.narrow(1, 0, outputs);
        let d = theta.get::<1>("vera_lambda_d")?.unsqueeze::<2>();
        let scales = theta.get::<1>("vera_lambda_b")?.unsqueeze::<2>();
        Ok((a * d, b * scales))
    }
}

impl WeightMethod for Vera {
    fn parameters(&self, layer: &LinearSite, _: &mut Vec<Note>) -> Result<Vec<Spec>, PeftError> {
        let Settings { rank, d_initial, .. } = self.0;
        Ok(vec![
            Spec::new("vera_lambda_d", [rank], Init::Constant(d_initial)),
            Spec::new("vera_lambda_b", [layer.outputs], Init::Constant(0.0)),
        ])
    }

    fn count(&self, layer: &LinearSite) -> usize {
        self.0.rank + layer.outputs
    }

    fn shared(&self, layers: &[LinearSite]) -> Vec<Spec> {
        let inputs = layers.iter().map(|layer| layer.inputs).max().unwrap_or(0);
        let outputs = layers.iter().map(|layer| layer.outputs).max().unwrap_or(0);
        // Kaiming's uniform start: sqrt(3) times sqrt(2 / fan in).
        let kaiming = |fan: usize| Init::Uniform { bound: (6.0 / fan as f64).sqrt() };
        let rank = self.0.rank;
        vec![
            Spec::matrix("vera_A", inputs, rank, kaiming(inputs)).constant(),
            Spec::matrix("vera_B", rank, outputs, kaiming(rank)).constant(),
        ]
    }

    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        let (a, b) = self.factors(&base, theta)?;
        Ok(base + a.matmul(b))
    }

    fn low_rank(
        &self,
        base: &Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Option<(Tensor<2>, Tensor<2>)>, PeftError> {
        self.factors(base, theta).map(Some)
    }

    fn is_plain(&self) -> bool {
        self.0.dropout == 0.0
    }

    fn product(
        &self,
        x: Tensor<2>,
        base: Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        let (a, b) = self.factors(&base, theta)?;
        let through = theta.dropout(x.clone(), self.0.dropout).matmul(a).matmul(b);
        Ok(x.matmul(base) + through)
    }
}
