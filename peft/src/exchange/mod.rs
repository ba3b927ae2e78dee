//! Adapters in Hugging Face's format: `adapter_config.json` beside `adapter_model.safetensors`.
//!
//! Keys are `base_model.model.<module path>.<name>`; `base_model.<name>` for what belongs to no module, and for
//! modules that are saved whole beside a prompt. Module paths begin with `bert.` or `roberta.` in a network with
//! a head, and without in a bare one; both are read. Which modules are meant is resolved as peft does it
//! (lists of path ends, regular expressions in Python's syntax, `all-linear`, exclusions, layer numbers), and a
//! file's keys must then be exactly those. A method's file says how its settings correspond
//! ([`HuggingFace`]); a setting without counterpart is refused by name.

mod description;
mod lora;
mod modules;

pub use description::Description;
pub(crate) use lora::{export_lora, import_lora};
pub use modules::{Layers, Ranks, number};

use crate::parameters::{Parameters, Spec};
use crate::store::{self, Archive, Contents, write_whole};
use crate::{Adapter, AdapterConfig, FileProblem, PeftError, Place, Precision, Sites, Targets};
use modules::Naming;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;

/// A description's keys for settings of ours.
pub type Export = fn(&toml::Table, &Layers) -> Result<Map<String, Value>, PeftError>;

/// What an adapter's folder says of itself.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// Its description.
    pub description: Map<String, Value>,
    /// Its tensors' keys and shapes.
    pub tensors: Vec<(String, Vec<usize>)>,
}

/// How a method stands in Hugging Face's format.
#[derive(Clone, Copy)]
pub struct HuggingFace {
    /// Its `peft_type`.
    pub peft_type: &'static str,
    /// Whether a description of this type is this method's, where several share it.
    pub is_own: fn(&Map<String, Value>) -> bool,
    /// Our settings for a description; every key that it understands is taken.
    pub import: fn(&mut Description, &Layers) -> Result<toml::Table, PeftError>,
    /// The description's keys for our settings.
    pub export: Export,
}

impl HuggingFace {
    /// For methods that have their `peft_type` for themselves.
    pub const fn alone(_: &Map<String, Value>) -> bool {
        true
    }
}

/// Keys that every description may have and that say nothing of the adapter's function.
const SILENT: [&str; 9] = [
    "peft_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "inference_mode",
    "peft_version",
    "modules_to_save",
    "peftml",
];

/// Keys that say which modules are meant.
const CHOOSING: [&str; 4] =
    ["target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"];

/// The adapter in `folder`, in Hugging Face's or in our own form, bound to the network of `sites`.
///
/// # Errors
/// [`PeftError::Io`]; [`PeftError::File`] with what is missing, unexpected, of another shape or without
/// counterpart here; as [`Adapter::new`] where it does not fit the network.
pub fn load_adapter(
    folder: &Path,
    sites: &Sites,
    place: &Place,
) -> Result<(Adapter, Parameters), PeftError> {
    let path = folder.join(store::ADAPTER_DESCRIPTION);
    let description = Description::read(&path)?;
    if description.map().contains_key("peftml") {
        return store::load_adapter(folder, sites, place);
    }
    let contents = Contents::read(&folder.join(store::ADAPTER_FILE))?;
    let keys = contents.keys()?;
    let naming = Naming::of_keys(sites, keys.iter().map(String::as_str));
    let (config, prompt) = import_config(description, sites, &naming)?;
    let adapter = Adapter::new(&config, sites)?;
    let key = |name: &str, spec: &Spec| naming.key(&adapter, name, spec, prompt);
    let expected: BTreeSet<String> =
        adapter.specs().iter().map(|(name, spec)| key(name, spec)).collect();
    let missing: Vec<String> = expected.iter().filter(|key| !keys.contains(key)).cloned().collect();
    if !missing.is_empty() {
        return Err(contents.problem(FileProblem::Missing(missing)));
    }
    contents.only(|key| expected.contains(key))?;
    let part = |trainable: bool| {
        let named = || adapter.specs().iter().filter(move |(_, spec)| spec.trainable == trainable);
        let keys: std::collections::BTreeMap<&str, String> =
            named().map(|(name, spec)| (name.as_str(), key(name, spec))).collect();
        let specs = named().map(|(name, spec)| (name.as_str(), spec));
        contents.parameters(specs, |name| keys.get(name).cloned().unwrap_or_default(), place)
    };
    let (theta, constants) = (part(true)?, part(false)?);
    Ok((adapter.with_constants(constants), theta))
}

/// Writes `adapter` at `theta` to the new folder `folder` in Hugging Face's format.
///
/// # Errors
/// [`PeftError::NotInFormat`] for a method or a setting that the format has not; [`PeftError::Io`],
/// [`PeftError::File`] where `folder` holds something.
pub fn export_adapter(
    folder: &Path,
    adapter: &Adapter,
    theta: &Parameters,
    sites: &Sites,
    base_name: Option<&str>,
) -> Result<(), PeftError> {
    let naming = Naming::of_network(sites);
    let (description, prompt) = export_config(adapter, sites, &naming, base_name)?;
    let mut archive = Archive::default();
    let specs: std::collections::BTreeMap<&str, &Spec> =
        adapter.specs().iter().map(|(name, spec)| (name.as_str(), spec)).collect();
    let key = |name: &str| match specs.get(name) {
        Some(spec) => naming.key(adapter, name, spec, prompt),
        None => name.to_owned(),
    };
    archive.add(theta, Precision::F32, key)?;
    archive.add(adapter.constants(), Precision::F32, key)?;
    archive.text("format", "pt".into());
    let text = format!("{:#}\n", Value::Object(description));
    crate::pretrained::in_new_folder(folder, |new| {
        write_whole(&new.join(store::ADAPTER_DESCRIPTION), text.as_bytes())?;
        archive.write(&new.join(store::ADAPTER_FILE))
    })
}

/// How many classes the head has that is saved with the adapter in `folder`; `None` where none is.
///
/// # Errors
/// [`PeftError::Io`], [`PeftError::File`].
pub fn saved_classes(folder: &Path) -> Result<Option<usize>, PeftError> {
    let contents = Contents::read(&folder.join(store::ADAPTER_FILE))?;
    let head = ["classifier.weight", "classifier.out_proj.weight"];
    for key in contents.keys()? {
        if head.iter().any(|end| key == *end || key.ends_with(&format!(".{end}"))) {
            return Ok(contents.shape(&key)?.first().copied());
        }
    }
    Ok(None)
}

/// What the adapter in `folder` says of itself, without a network: its description and its tensors.
///
/// # Errors
/// [`PeftError::Io`], [`PeftError::File`].
pub fn inspect(folder: &Path) -> Result<Inspected, PeftError> {
    let description = Description::read(&folder.join(store::ADAPTER_DESCRIPTION))?;
    let contents = Contents::read(&folder.join(store::ADAPTER_FILE))?;
    let mut keys = contents.keys()?;
    keys.sort();
    let shaped = |key: String| contents.shape(&key).map(|shape| (key, shape));
    let tensors = keys.into_iter().map(shaped).collect::<Result<_, _>>()?;
    Ok(Inspected { description: description.map().clone(), tensors })
}

/// Our configuration for `description`, and whether it is a prompt's.
fn import_config(
    mut description: Description,
    sites: &Sites,
    naming: &Naming,
) -> Result<(AdapterConfig, bool), PeftError> {
    let kind: String = description.required("peft_type")?;
    let known = || crate::methods::registry().iter().filter_map(|e| Some((e, e.hugging_face?)));
    let found =
        known().find(|(_, format)| format.peft_type == kind && (format.is_own)(description.map()));
    let Some((entry, format)) = found else {
        let types: BTreeSet<&str> = known().map(|(_, format)| format.peft_type).collect();
        let types = Vec::from_iter(types).join(", ");
        return Err(
            description.foreign("peft_type", format!("the types that are read are {types}"))
        );
    };
    let whole = entry.acts_on_the_whole();
    let saved: Vec<String> = description.taken("modules_to_save")?.unwrap_or_default();
    let modules_to_save = naming.saved(sites, &saved);
    let layers = if whole {
        Layers::none(sites)
    } else {
        modules::chosen(&mut description, sites, naming, &saved)?
    };
    let settings = (format.import)(&mut description, &layers)?;
    for key in SILENT.iter().chain(if whole { &[][..] } else { &CHOOSING }) {
        description.drop(key);
    }
    description.finish()?;
    let targets = (!whole).then(|| Targets::Names(layers.own_paths()));
    let method = entry.name.to_owned();
    let config = AdapterConfig { method, targets, modules_to_save, fresh_modules: false, settings };
    Ok((config, whole))
}

/// The description of `adapter`, and whether it is a prompt's.
fn export_config(
    adapter: &Adapter,
    sites: &Sites,
    naming: &Naming,
    base_name: Option<&str>,
) -> Result<(Map<String, Value>, bool), PeftError> {
    let entry = adapter.entry();
    let format = entry.hugging_face.ok_or(PeftError::NotInFormat {
        method: entry.name,
        problem: "Hugging Face's format has no such method".into(),
    })?;
    let whole = entry.acts_on_the_whole();
    let layers = Layers::of_adapter(adapter, sites, naming);
    let mut map = Map::new();
    map.insert("peft_type".into(), json!(format.peft_type));
    let task = if naming.is_bare() { "FEATURE_EXTRACTION" } else { "SEQ_CLS" };
    map.insert("task_type".into(), json!(task));
    map.insert("base_model_name_or_path".into(), json!(base_name));
    map.insert("inference_mode".into(), json!(true));
    map.insert("modules_to_save".into(), naming.saved_names(&adapter.config().modules_to_save));
    if !whole {
        map.insert("target_modules".into(), json!(layers.shortest_names(sites, naming)));
    }
    map.extend((format.export)(&adapter.config().settings, &layers)?);
    Ok((map, whole))
}

#[cfg(test)]
mod tests;
