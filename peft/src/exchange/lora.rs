//! What the two methods of the type LORA have in common.

use super::{Description, Layers, number};
use crate::PeftError;
use crate::methods::Patterns;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Settings of a description of the type LORA: ranks, scales, dropout, rank stabilisation.
pub(crate) fn import_lora(
    description: &mut Description,
    layers: &Layers,
) -> Result<toml::Table, PeftError> {
    let mut table = layers.ranks(description, "lora_alpha", true)?.table;
    let dropout: f64 = description.taken("lora_dropout")?.unwrap_or(0.0);
    let stabilised: bool = description.taken("use_rslora")?.unwrap_or(false);
    table.insert("dropout".into(), dropout.into());
    table.insert("rslora".into(), stabilised.into());
    description.drop("use_dora");
    // Starts that leave the base as it is; the others put a part of it into the adapter.
    let starts = [json!(true), json!(false), json!("gaussian"), json!("eva"), json!("orthogonal")];
    let reason = "this start changes the base's weights; save it in peft with \
                  path_initial_model_for_weight_conversion";
    description.only("init_lora_weights", &starts, reason)?;
    let reason = "biases that are trained beside the adapter have no place here; only \"none\" has";
    description.only("bias", &[json!("none")], reason)?;
    // Of training, of the program's own, or about layers that are none of these networks'.
    for key in ["fan_in_fan_out", "megatron_core", "qalora_group_size", "eva_config"] {
        description.drop(key);
    }
    for key in ["runtime_config", "ephemeral_gpu_offload"] {
        description.drop(key);
    }
    Ok(table)
}

/// The keys of a description for such settings.
pub(crate) fn export_lora(
    layers: &Layers,
    (rank, alpha): (usize, f64),
    alphas: &BTreeMap<String, f64>,
    dropout: f64,
    stabilised: bool,
) -> Result<Map<String, Value>, PeftError> {
    let alphas = Patterns::new(alphas)?;
    let own_rank = |path: &str| {
        let shape = layers.shape(&format!("{path}.lora_A.weight"));
        shape.and_then(|shape| shape.get(1)).copied().unwrap_or(rank) as f64
    };
    let mut map = Map::new();
    map.insert("r".into(), json!(rank));
    map.insert("lora_alpha".into(), number(alpha));
    map.insert("lora_dropout".into(), json!(dropout));
    map.insert("use_rslora".into(), json!(stabilised));
    map.insert("bias".into(), json!("none"));
    map.insert("rank_pattern".into(), layers.pattern(rank as f64, |site| own_rank(&site.path)));
    let own_alpha = |path: &str| alphas.get(path).unwrap_or(alpha);
    map.insert("alpha_pattern".into(), layers.pattern(alpha, |site| own_alpha(&site.path)));
    Ok(map)
}
