//! `config.json`: what it says of an encoder, and what is written back.

use crate::methods::in_range;
use crate::models::{EncoderConfig, EncoderForm, Family};
use crate::{FileProblem, PeftError};
use serde_json::{Map, Value, json};
use std::path::Path;

/// More than any configuration needs: memory stays bounded.
const LARGEST: u64 = 1 << 24;
/// No encoder has sizes beyond these; products of two of them fit every whole number in use.
const MOST: u64 = 1 << 24;
const MOST_LAYERS: u64 = 1 << 10;

/// What may stand above the encoder: heads of pretraining are left out.
const ABOVE: [&str; 4] = ["Model", "ForSequenceClassification", "ForMaskedLM", "ForPreTraining"];

/// The object in the file `path`.
pub fn read(path: &Path) -> Result<Map<String, Value>, PeftError> {
    let io = |source| PeftError::Io { path: path.into(), source };
    let file = |problem| PeftError::File { path: path.into(), problem };
    if std::fs::metadata(path).map_err(io)?.len() > LARGEST {
        return Err(file(FileProblem::Description("it is larger than any configuration".into())));
    }
    let bytes = std::fs::read(path).map_err(io)?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(file(FileProblem::Description("it is no JSON object".into()))),
        Err(error) => Err(file(FileProblem::Description(format!("no JSON: {error}")))),
    }
}

/// The encoder that `description` stands for.
pub fn encoder(description: &Map<String, Value>, path: &Path) -> Result<EncoderConfig, PeftError> {
    let file = |problem| PeftError::File { path: path.into(), problem };
    let wrong = |text: String| file(FileProblem::Description(text));
    let family = family(description).map_err(file)?;
    for (key, computed) in [("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
        if let Some(found) =
            description.get(key).filter(|found| *found != computed && !found.is_null())
        {
            return Err(wrong(format!("{key} is {found}; only \"{computed}\" is computed")));
        }
    }
    for key in ["is_decoder", "add_cross_attention"] {
        if description.get(key) == Some(&Value::Bool(true)) {
            return Err(wrong(format!("{key} is true; only encoders are computed")));
        }
    }
    let whole = |key: &str, default: u64, most: u64| -> Result<usize, PeftError> {
        let value = match description.get(key) {
            None | Some(Value::Null) => default,
            Some(value) => value
                .as_u64()
                .ok_or_else(|| wrong(format!("{key} is {value}; it must be a whole number")))?,
        };
        in_range(key, value as f64, value <= most, &format!("at most {most}"))?;
        Ok(value as usize)
    };
    let number = |key: &str| -> Result<Option<f64>, PeftError> {
        match description.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_f64()
                .map(Some)
                .ok_or_else(|| wrong(format!("{key} is {value}; it must be a number"))),
        }
    };
    // Defaults are those of transformers' configurations.
    let (vocabulary, positions, padding) = match family {
        Family::Bert => (30_522, 512, 0),
        Family::Roberta => (50_265, 514, 1),
    };
    let dropout = number("hidden_dropout_prob")?.unwrap_or(0.1);
    Ok(EncoderConfig {
        vocabulary: whole("vocab_size", vocabulary, MOST)?,
        width: whole("hidden_size", 768, MOST)?,
        layers: whole("num_hidden_layers", 12, MOST_LAYERS)?,
        heads: whole("num_attention_heads", 12, MOST)?,
        hidden: whole("intermediate_size", 3072, MOST)?,
        positions: whole("max_position_embeddings", positions, MOST)?,
        segments: whole("type_vocab_size", 2, MOST)?,
        classes: classes(description, whole("num_labels", 2, MOST)?),
        dropout,
        form: EncoderForm {
            family,
            padding: whole("pad_token_id", padding, MOST)?,
            norm_epsilon: number("layer_norm_eps")?.unwrap_or(1e-12),
            attention_dropout: Some(number("attention_probs_dropout_prob")?.unwrap_or(0.1)),
            head_dropout: number("classifier_dropout")?,
            pooler: true,
        },
    })
}

fn family(description: &Map<String, Value>) -> Result<Family, FileProblem> {
    let families = [Family::Bert, Family::Roberta];
    let supported = || {
        let of = |family: Family| {
            let class = class_of(family);
            ABOVE.map(|above| format!("{class}{above}")).to_vec()
        };
        families.into_iter().flat_map(of).collect::<Vec<_>>()
    };
    let named = description.get("model_type").and_then(Value::as_str);
    let architecture = description
        .get("architectures")
        .and_then(Value::as_array)
        .and_then(|all| all.first())
        .and_then(Value::as_str);
    let found = match (named, architecture) {
        (None, None) => return Err(FileProblem::Description("it names no model_type".into())),
        (named, architecture) => named.or(architecture).unwrap_or_default().to_owned(),
    };
    let family = families.into_iter().find(|family| match named {
        Some(named) => family.name() == named,
        None => architecture.is_some_and(|name| name.starts_with(class_of(*family))),
    });
    let Some(family) = family else {
        return Err(FileProblem::Architecture { found, supported: supported() });
    };
    match architecture {
        Some(name) if !supported().iter().any(|known| known == name) => {
            Err(FileProblem::Architecture { found: name.to_owned(), supported: supported() })
        }
        _ => Ok(family),
    }
}

fn class_of(family: Family) -> &'static str {
    match family {
        Family::Bert => "Bert",
        Family::Roberta => "Roberta",
    }
}

/// As many as labels are named, else the number that is given.
fn classes(description: &Map<String, Value>, given: usize) -> usize {
    match description.get("id2label").and_then(Value::as_object) {
        Some(labels) if !labels.is_empty() => labels.len(),
        _ => given,
    }
}

/// `description` as it is for `config`, whose head may be another.
pub fn updated(description: &Map<String, Value>, config: &EncoderConfig) -> Map<String, Value> {
    let mut map = description.clone();
    let family = config.form.family;
    let above = if config.classes == 0 { ABOVE[0] } else { ABOVE[1] };
    map.insert("architectures".into(), json!([format!("{}{above}", class_of(family))]));
    map.insert("model_type".into(), json!(family.name()));
    map.insert("torch_dtype".into(), json!("float32"));
    map.remove("dtype");
    map.remove("_name_or_path");
    if config.classes > 0 && classes(description, 2) != config.classes {
        let name = |class: usize| format!("LABEL_{class}");
        let numbered = |class: usize| (class.to_string(), Value::from(name(class)));
        let named = |class: usize| (name(class), Value::from(class));
        map.insert(
            "id2label".into(),
            (0..config.classes).map(numbered).collect::<Map<_, _>>().into(),
        );
        map.insert("label2id".into(), (0..config.classes).map(named).collect::<Map<_, _>>().into());
        map.remove("num_labels");
    }
    map
}
