//! A folder's weights: one safetensors file, or shards with an index.

use super::WEIGHTS_FILE;
use crate::models::{EncoderConfig, Family};
use crate::parameters::{Parameters, Spec};
use crate::store::Contents;
use crate::{FileProblem, PeftError, Place};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const INDEX_FILE: &str = "model.safetensors.index.json";
const PICKLES: [&str; 2] = ["pytorch_model.bin", "pytorch_model.bin.index.json"];

/// Keys of buffers and of heads that no encoder needs.
const IGNORED: [&str; 3] = ["cls.", "lm_head.", "qa_outputs."];
const IGNORED_END: [&str; 2] = ["embeddings.position_ids", "embeddings.token_type_ids"];

/// Which tensors lie in which file.
pub struct Weights {
    files: Vec<PathBuf>,
    /// The network's name of a tensor: number of its file, key in it.
    places: BTreeMap<String, (usize, String)>,
    family: Family,
}

impl Weights {
    /// Reads the directories of all files.
    pub fn open(folder: &Path, family: Family) -> Result<Self, PeftError> {
        let files = files(folder)?;
        let mut places = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            let contents = Contents::read(file)?;
            for key in contents.keys()? {
                let Some(name) = name(&key, family) else { continue };
                if places.insert(name, (number, key.clone())).is_some() {
                    return Err(contents.problem(FileProblem::Unexpected(vec![key])));
                }
            }
        }
        Ok(Self { files, places, family })
    }

    /// Whether there are tensors of the encoder's module `module`.
    pub fn has_module(&self, module: &str) -> bool {
        self.any(&format!("{}.{module}.", self.family.name()))
    }

    /// Whether there are tensors of a head.
    pub fn has_head(&self) -> bool {
        self.any("classifier.")
    }

    fn any(&self, prefix: &str) -> bool {
        self.places.keys().any(|name| name.starts_with(prefix))
    }

    /// The parameters `specs` of the network `config`; a head or a pooler that it has not is left out.
    pub fn parameters<'a>(
        &self,
        specs: impl Iterator<Item = &'a Spec>,
        config: &EncoderConfig,
        place: &Place,
    ) -> Result<Parameters, PeftError> {
        let specs: BTreeMap<&str, &Spec> = specs.map(|spec| (spec.name.as_str(), spec)).collect();
        let missing = |name: &&&str| !self.places.contains_key(**name);
        let missing: Vec<String> =
            specs.keys().filter(missing).map(|name| (*name).to_owned()).collect();
        if !missing.is_empty() {
            return Err(self.problem(0, FileProblem::Missing(missing)));
        }
        let pooler = format!("{}.pooler.", config.form.family.name());
        let optional = |name: &str| name.starts_with("classifier.") || name.starts_with(&pooler);
        let mut found = Parameters::default();
        for number in 0..self.files.len() {
            let mut strange = Vec::new();
            let mut here = Vec::new();
            for (name, (_, key)) in self.places.iter().filter(|(_, (file, _))| *file == number) {
                match specs.get(name.as_str()) {
                    Some(spec) => here.push((name.as_str(), key.as_str(), *spec)),
                    None if optional(name) => {}
                    None => strange.push(key.clone()),
                }
            }
            if !strange.is_empty() {
                return Err(self.problem(number, FileProblem::Unexpected(strange)));
            }
            // One file in memory at a time.
            let contents = Contents::read(&self.files[number])?;
            let keys: BTreeMap<&str, &str> =
                here.iter().map(|(name, key, _)| (*name, *key)).collect();
            let named = here.iter().map(|(name, _, spec)| (*name, *spec));
            let key = |name: &str| keys.get(name).copied().unwrap_or(name).to_owned();
            for (name, parameter) in contents.parameters(named, key, place)?.iter() {
                found.insert(name, parameter.clone());
            }
        }
        Ok(found)
    }

    fn problem(&self, file: usize, problem: FileProblem) -> PeftError {
        let path = self.files.get(file).cloned().unwrap_or_default();
        PeftError::File { path, problem }
    }
}

/// The network's name of the tensor `key`; `None` for what no encoder needs.
fn name(key: &str, family: Family) -> Option<String> {
    if IGNORED.iter().any(|start| key.starts_with(start))
        || IGNORED_END.iter().any(|end| key.ends_with(end))
    {
        return None;
    }
    // Names of the first BERT checkpoints.
    let key = match (key.strip_suffix("LayerNorm.gamma"), key.strip_suffix("LayerNorm.beta")) {
        (Some(module), _) => format!("{module}LayerNorm.weight"),
        (_, Some(module)) => format!("{module}LayerNorm.bias"),
        _ => key.to_owned(),
    };
    let own = format!("{}.", family.name());
    Some(if key.starts_with(&own) || key.starts_with("classifier.") { key } else { own + &key })
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, PeftError> {
    let (whole, index) = (folder.join(WEIGHTS_FILE), folder.join(INDEX_FILE));
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    if index.is_file() {
        return shards(folder, &index);
    }
    let problem = match PICKLES.iter().find(|name| folder.join(name).is_file()) {
        Some(name) => FileProblem::Pickle { name },
        None => FileProblem::Description(format!(
            "it holds neither {WEIGHTS_FILE} nor {INDEX_FILE}; a model's folder is needed"
        )),
    };
    Err(PeftError::File { path: folder.into(), problem })
}

fn shards(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, PeftError> {
    let wrong = |text: String| PeftError::File {
        path: index.into(),
        problem: FileProblem::Description(text),
    };
    let map = super::config::read(index)?;
    let map = map.get("weight_map").and_then(|map| map.as_object());
    let map = map.ok_or_else(|| wrong("it has no object weight_map".into()))?;
    let mut names = BTreeSet::new();
    for (key, file) in map {
        // A name, no path: nothing outside of the folder is read.
        let plain = |name: &&str| Path::new(name).file_name() == Some(name.as_ref());
        let file = file.as_str().filter(plain).ok_or_else(|| {
            wrong(format!("weight_map: {key} is in {file}, which is no name of a file"))
        })?;
        names.insert(file.to_owned());
    }
    if names.is_empty() {
        return Err(wrong("weight_map names no file".into()));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}
