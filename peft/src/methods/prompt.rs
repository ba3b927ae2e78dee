//! Prompt tuning: `n` trained vectors are put before the embedded tokens.
//!
//! Shapes: n x width. Start: N(0, 1), as Hugging Face's random one: away from the base.
//! Source: Lester et al. 2021 (arXiv:2104.08691), whose default length is 100.
//! Limits: needs a network that embeds a token sequence; cannot be merged.

use super::settings::in_range;
use super::{Configured, Entry, InputMethod, Kind, Theta, read_settings};
use crate::PeftError;
use crate::exchange::{Description, HuggingFace, Layers};
use crate::parameters::{Init, Spec};
use crate::sites::Sites;
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};

pub(super) const ENTRY: Entry = Entry {
    name: "prompt",
    summary: "trained vectors are put before the embedded tokens",
    formula: "n w, w the width of an embedding",
    source: "arXiv:2104.08691",
    hugging_face: Some(HuggingFace {
        peft_type: "PROMPT_TUNING",
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
        Self { tokens: 100, start_std: 1.0 }
    }
}

struct Prompt(Settings);

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range("tokens", s.tokens as f64, s.tokens >= 1, "at least 1")?;
    in_range("start_std", s.start_std, s.start_std >= 0.0, "at least 0")?;
    Ok(Configured::new(Kind::Input(Box::new(Prompt(s)))).away_from_base())
}

fn import(description: &mut Description, _: &Layers) -> Result<toml::Table, PeftError> {
    let tokens: u32 = description.required("num_virtual_tokens")?;
    let reason = "networks with a decoder of their own are not read";
    description.only("num_transformer_submodules", &[json!(1)], reason)?;
    for key in ["prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path"] {
        description.drop(key);
    }
    description.drop("tokenizer_kwargs");
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
        "num_transformer_submodules": 1, "prompt_tuning_init": "RANDOM",
    });
    Ok(map.as_object().cloned().unwrap_or_default())
}

impl InputMethod for Prompt {
    fn parameters(&self, sites: &Sites) -> Result<Vec<Spec>, PeftError> {
        let needed = "a token sequence of variable length";
        let site = sites.tokens().ok_or(PeftError::NoSite { method: ENTRY.name, needed })?;
        let Settings { tokens, start_std: std } = self.0;
        let expected = format!("fewer than the network's {} positions", site.longest);
        in_range("tokens", tokens as f64, tokens < site.longest, &expected)?;
        Ok(vec![Spec::new("prompt_embeddings", [tokens, site.width], Init::Normal { std })])
    }

    fn count(&self, sites: &Sites) -> usize {
        self.0.tokens * sites.tokens().map_or(0, |site| site.width)
    }

    fn tokens(&self, x: Tensor<3>, theta: &Theta<'_>) -> Result<Tensor<3>, PeftError> {
        let prompt = theta.get::<2>("prompt_embeddings")?;
        let ([batch, _, _], [tokens, width]) = (x.dims(), prompt.dims());
        let prompt = prompt.unsqueeze::<3>().expand([batch, tokens, width]);
        Ok(Tensor::cat(vec![prompt, x], 1))
    }
}
