//! Encoders from folders, in the layout of Hugging Face's transformers, and back.
//!
//! A folder holds `config.json`; `model.safetensors`, or its shards with `model.safetensors.index.json`; and a
//! tokenizer's files. Read are BERT and RoBERTa, bare, below a head for sequence classification or below
//! heads of pretraining (which are left out), with weights in F32, F16, BF16 or F64. Nothing else is
//! guessed at: another architecture, a key that nothing asks for or a missing one is refused by name.

mod config;
mod examples;
mod tokenizer;
mod weights;

pub use crate::sequences::Encoded;
pub(crate) use config::read as read_object;
pub use examples::TextExamples;
pub use tokenizer::Tokenizer;

use crate::models::{Encoder, EncoderConfig, Family};
use crate::parameters::Parameters;
use crate::store::{Archive, write_whole};
use crate::{FileProblem, Network as _, PeftError, Place, Precision, Tokens};
use peftml_linalg::Seed;
use std::path::Path;

pub(crate) const CONFIG_FILE: &str = "config.json";
pub(crate) const WEIGHTS_FILE: &str = "model.safetensors";

/// Which head an encoder gets.
#[derive(Clone, Debug)]
pub enum Head {
    /// The folder's own, or none where it has none.
    Own,
    /// The folder's own where it has so many classes, else a new one, drawn below the seed.
    Fitting(usize, Seed),
    /// A new one of so many classes, drawn below the seed.
    New(usize, Seed),
}

/// An encoder with its weights, and what its folder says beside them.
pub struct Pretrained {
    /// The network.
    pub encoder: Encoder,
    /// Its weights.
    pub base: Parameters,
    description: serde_json::Map<String, serde_json::Value>,
}

impl Pretrained {
    /// The encoder in `folder` with the head `head`.
    ///
    /// # Errors
    /// [`PeftError::Io`], [`PeftError::File`] with the file, what is wrong and what would be right;
    /// [`PeftError::Range`] for sizes that no encoder has.
    pub fn load(folder: &Path, head: &Head, place: &Place) -> Result<Self, PeftError> {
        let description = config::read(&folder.join(CONFIG_FILE))?;
        let mut config = config::encoder(&description, &folder.join(CONFIG_FILE))?;
        let weights = weights::Weights::open(folder, config.form.family)?;
        config.form.pooler = weights.has_module("pooler");
        if !weights.has_head() {
            config.classes = 0;
        }
        if config.form.family == Family::Roberta && config.classes > 0 {
            // transformers has none below this head either.
            config.form.pooler = false;
        }
        let new = match head {
            Head::Own => None,
            Head::Fitting(classes, _) if *classes == config.classes => None,
            Head::Fitting(classes, seed) | Head::New(classes, seed) => Some((*classes, seed)),
        };
        let drawn = new.map(|(classes, _)| drawn(&mut config, classes));
        let encoder = Encoder::new(config)?;
        let fresh = |name: &str| drawn.as_ref().is_some_and(|modules| modules.draws(name));
        let specs = encoder.sites().parameters().iter().filter(|spec| !fresh(&spec.name));
        let mut base = weights.parameters(specs, encoder.config(), place)?;
        if let Some((_, seed)) = new {
            let mut head = encoder.sites().clone();
            head.keep_parameters(|name| fresh(name));
            for (name, parameter) in head.initial(seed, place)?.iter() {
                base.insert(name, parameter.clone());
            }
        }
        Ok(Self { encoder, base, description })
    }

    /// Writes the encoder with the weights `base` as a folder of the same layout; the tokenizer's files of
    /// `tokenizer_from` are copied. `folder` must be absent or empty, and appears whole or not at all.
    ///
    /// # Errors
    /// [`PeftError::Io`]; [`PeftError::File`] where `folder` holds something.
    pub fn save(
        &self,
        folder: &Path,
        base: &Parameters,
        tokenizer_from: Option<&Path>,
    ) -> Result<(), PeftError> {
        let config = self.encoder.config();
        let bare = config.classes == 0;
        let own = format!("{}.", config.form.family.name());
        let key = |name: &str| match name.strip_prefix(&own) {
            Some(rest) if bare => rest.to_owned(),
            _ => name.to_owned(),
        };
        let mut archive = Archive::default();
        archive.add(base, Precision::F32, key)?;
        archive.text("format", "pt".into());
        let description = config::updated(&self.description, config);
        let text = format!("{:#}\n", serde_json::Value::Object(description));
        in_new_folder(folder, |new| {
            write_whole(&new.join(CONFIG_FILE), text.as_bytes())?;
            if let Some(from) = tokenizer_from {
                tokenizer::copy(from, new)?;
            }
            archive.write(&new.join(WEIGHTS_FILE))
        })
    }

    /// The same without its head, with those weights of `base` that it needs.
    ///
    /// # Errors
    /// [`PeftError::MissingParameter`] where `base` is another network's.
    pub fn bare(&self, base: &Parameters) -> Result<Self, PeftError> {
        let mut config = self.encoder.config().clone();
        config.classes = 0;
        let encoder = Encoder::new(config)?;
        let kept = encoder.sites().parameters().iter().map(|spec| {
            let missing = || PeftError::MissingParameter { name: spec.name.clone() };
            Ok((spec.name.clone(), base.get(&spec.name).cloned().ok_or_else(missing)?))
        });
        let base = kept.collect::<Result<_, PeftError>>()?;
        Ok(Self { encoder, base, description: self.description.clone() })
    }

    /// What the folder's `config.json` says.
    pub fn description(&self) -> &serde_json::Map<String, serde_json::Value> {
        &self.description
    }

    /// Sequences in a tensor, checked: numbers of tokens and segments that the encoder knows.
    ///
    /// # Errors
    /// [`PeftError::Shape`], [`PeftError::Range`].
    pub fn tokens(
        &self,
        ids: Vec<i64>,
        mask: Vec<f64>,
        segments: Option<Vec<i64>>,
        shape: [usize; 2],
        place: &Place,
    ) -> Result<Tokens, PeftError> {
        let config = self.encoder.config();
        below("input_ids", &ids, config.vocabulary)?;
        if let Some(segments) = &segments {
            below("token_type_ids", segments, config.segments)?;
        }
        if let Some(wrong) = mask.iter().find(|x| **x != 0.0 && **x != 1.0) {
            let expected = "0 (padding) or 1".into();
            return Err(PeftError::Range {
                name: "attention_mask".into(),
                value: *wrong,
                expected,
            });
        }
        Ok(Tokens {
            ids: place.integers(ids, shape)?,
            mask: place.tensor(mask, shape)?,
            segments: segments.map(|segments| place.integers(segments, shape)).transpose()?,
        })
    }
}

/// The modules that are drawn anew.
struct Drawn {
    pooler: Option<String>,
}

impl Drawn {
    fn draws(&self, name: &str) -> bool {
        name.starts_with("classifier.")
            || self.pooler.as_ref().is_some_and(|module| name.starts_with(module.as_str()))
    }
}

fn drawn(config: &mut EncoderConfig, classes: usize) -> Drawn {
    config.classes = classes;
    match config.form.family {
        Family::Roberta => {
            config.form.pooler = false;
            Drawn { pooler: None }
        }
        Family::Bert => {
            let missing = !std::mem::replace(&mut config.form.pooler, true);
            Drawn { pooler: missing.then(|| "bert.pooler.".to_owned()) }
        }
    }
}

fn below(name: &str, numbers: &[i64], count: usize) -> Result<(), PeftError> {
    match numbers.iter().find(|x| **x < 0 || **x as u64 >= count as u64) {
        None => Ok(()),
        Some(wrong) => Err(PeftError::Range {
            name: name.into(),
            value: *wrong as f64,
            expected: format!("from 0 to {} in this model", count - 1),
        }),
    }
}

/// Lets `write` fill a folder that then appears as `folder`, whole or not at all.
pub(crate) fn in_new_folder(
    folder: &Path,
    write: impl FnOnce(&Path) -> Result<(), PeftError>,
) -> Result<(), PeftError> {
    let io = |source| PeftError::Io { path: folder.into(), source };
    if folder.exists() {
        let empty = folder.is_dir() && std::fs::read_dir(folder).map_err(io)?.next().is_none();
        if !empty {
            let problem = FileProblem::Description("it exists already; name a new folder".into());
            return Err(PeftError::File { path: folder.into(), problem });
        }
    }
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).map_err(io)?;
    let new = tempfile::Builder::new().prefix(".peftml-").tempdir_in(parent).map_err(io)?;
    write(new.path())?;
    readable(new.path()).map_err(io)?;
    // An empty folder in the way is replaced by the rename; elsewhere than on Unix it must go first.
    if folder.exists() {
        std::fs::remove_dir(folder).map_err(io)?;
    }
    std::fs::rename(new.keep(), folder).map_err(io)
}

/// Temporary folders are their owner's alone; a result is as other programs make it.
#[cfg(unix)]
fn readable(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755))?;
    for entry in std::fs::read_dir(folder)? {
        std::fs::set_permissions(entry?.path(), std::fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn readable(_: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests;
