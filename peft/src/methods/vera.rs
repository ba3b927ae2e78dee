//! VeRA: `W = W0 + A diag(d) B diag(b)`, `A` and `B` random, never trained, shared by all layers.
//!
//! Shapes: `W0` in x out, `A` (largest in) x r, `B` r x (largest out), cut to the layer's size; `d` r,
//! `b` out. Start: `A`, `B` uniform as Kaiming's, `d = 0.1`, `b = 0`.
//! Source: Kopiczko et al. 2023 (arXiv:2310.11454). The rank is no layer's: it may exceed a layer's
//! sides.

use super::settings::in_range;
use super::{Configured, Entry, Kind, Note, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::exchange::{Description, HuggingFace, Layers};
use crate::parameters::{Init, Spec};
use crate::sites::LinearSite;
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};

pub(super) const ENTRY: Entry = Entry {
    name: "vera",
    summary: "two vectors a layer scale random projections that all layers share",
    formula: "r + out a layer",
    source: "arXiv:2310.11454",
    hugging_face: Some(HuggingFace {
        peft_type: "VERA",
        is_own: HuggingFace::alone,
        import,
        export,
    }),
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

fn import(description: &mut Description, _: &Layers) -> Result<toml::Table, PeftError> {
    let reason = "its projections are not in the file, and no other generator than PyTorch's draws them \
                  again; save it with save_projection = true";
    description.only("save_projection", &[json!(true)], reason)?;
    let reason = "biases that are trained beside the adapter have no place here; only \"none\" has";
    description.only("bias", &[json!("none")], reason)?;
    for key in ["projection_prng_key", "fan_in_fan_out", "init_weights"] {
        description.drop(key);
    }
    let mut table = toml::Table::new();
    let rank: u32 = description.taken("r")?.unwrap_or(256);
    table.insert("rank".into(), i64::from(rank).into());
    for (own, key, default) in [("d_initial", "d_initial", 0.1), ("dropout", "vera_dropout", 0.0)] {
        let value: f64 = description.taken(key)?.unwrap_or(default);
        table.insert(own.into(), value.into());
    }
    Ok(table)
}

fn export(table: &toml::Table, _: &Layers) -> Result<Map<String, Value>, PeftError> {
    let Settings { rank, d_initial, dropout } = read_settings(ENTRY.name, table.clone())?;
    let map = json!({"r": rank, "d_initial": d_initial, "vera_dropout": dropout,
                     "save_projection": true, "projection_prng_key": 0, "bias": "none"});
    Ok(map.as_object().cloned().unwrap_or_default())
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
