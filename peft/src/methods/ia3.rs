//! IA3: each output of a linear map, or each input of a feed-forward one, is scaled.
//!
//! `W = W0 diag(l)`, `b = b0 l`; for `feedforward` layers `W = diag(l) W0`, `b = b0`. Shapes: `W0` in x out,
//! `l` out (in for `feedforward` layers). Start: `l = 1`.
//! Source: Liu et al. 2022 (arXiv:2205.05638).

use super::patterns::whole;
use super::{Configured, Entry, Kind, Note, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::exchange::{Description, HuggingFace, Layers};
use crate::parameters::{Init, Spec};
use crate::sites::LinearSite;
use burn::tensor::Tensor;
use regex::Regex;
use serde_json::{Map, Value, json};

pub(super) const ENTRY: Entry = Entry {
    name: "ia3",
    summary: "each output (or input) of a layer is scaled by a number of its own",
    formula: "out a layer, in a feed-forward layer",
    source: "arXiv:2205.05638",
    hugging_face: Some(HuggingFace {
        peft_type: "IA3",
        is_own: HuggingFace::alone,
        import,
        export,
    }),
    examples: &["", "feedforward = '.*down|head'"],
    configure,
};

/// Settings: which of the target layers are scaled at their inputs.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    feedforward: Option<String>,
}

struct Ia3 {
    feedforward: Option<Regex>,
}

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let settings: Settings = read_settings(ENTRY.name, table)?;
    let feedforward = settings.feedforward.as_deref().map(whole).transpose()?;
    Ok(Configured::new(Kind::Weight(Box::new(Ia3 { feedforward }))))
}

fn import(description: &mut Description, layers: &Layers) -> Result<toml::Table, PeftError> {
    for key in ["init_ia3_weights", "fan_in_fan_out"] {
        description.drop(key);
    }
    let at_inputs = layers.named(description, "feedforward_modules")?;
    let mut table = toml::Table::new();
    if !at_inputs.is_empty() {
        let paths: Vec<String> = at_inputs.iter().map(|path| regex::escape(path)).collect();
        table.insert("feedforward".into(), paths.join("|").into());
    }
    Ok(table)
}

fn export(table: &toml::Table, layers: &Layers) -> Result<Map<String, Value>, PeftError> {
    let Settings { feedforward } = read_settings(ENTRY.name, table.clone())?;
    let method = Ia3 { feedforward: feedforward.as_deref().map(whole).transpose()? };
    let at_inputs = layers.iter().filter(|(site, _)| method.at_inputs(&site.path));
    let at_inputs: Vec<&str> = at_inputs.map(|(_, foreign)| foreign).collect();
    let mut map = Map::new();
    map.insert("feedforward_modules".into(), json!(at_inputs));
    if !at_inputs.is_empty() {
        // peft wants those names among the targets as they stand.
        let all: Vec<&str> = layers.iter().map(|(_, foreign)| foreign).collect();
        map.insert("target_modules".into(), json!(all));
    }
    Ok(map)
}

impl Ia3 {
    fn at_inputs(&self, path: &str) -> bool {
        self.feedforward.as_ref().is_some_and(|pattern| pattern.is_match(path))
    }
}

impl WeightMethod for Ia3 {
    fn parameters(&self, layer: &LinearSite, _: &mut Vec<Note>) -> Result<Vec<Spec>, PeftError> {
        // Shapes as in Hugging Face's files, where a weight is outputs x inputs.
        let shape =
            if self.at_inputs(&layer.path) { [1, layer.inputs] } else { [layer.outputs, 1] };
        Ok(vec![Spec::new("ia3_l", shape, Init::Constant(1.0))])
    }

    fn count(&self, layer: &LinearSite) -> usize {
        if self.at_inputs(&layer.path) { layer.inputs } else { layer.outputs }
    }

    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        Ok(base * theta.get::<2>("ia3_l")?.transpose())
    }

    fn product(
        &self,
        x: Tensor<2>,
        base: Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        let scales = theta.get::<2>("ia3_l")?;
        Ok(if self.at_inputs(theta.path()) {
            (x * scales).matmul(base)
        } else {
            x.matmul(base) * scales.transpose()
        })
    }

    fn bias(&self, base: Tensor<1>, theta: &Theta<'_>) -> Result<Tensor<1>, PeftError> {
        if self.at_inputs(theta.path()) {
            return Ok(base);
        }
        let outputs = base.dims()[0];
        Ok(base * theta.get::<2>("ia3_l")?.reshape([outputs]))
    }
}
