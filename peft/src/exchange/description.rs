//! `adapter_config.json`, key by key: what is not taken must say nothing.

use crate::{FileProblem, PeftError};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A description whose keys are taken one after the other.
#[derive(Debug)]
pub struct Description {
    path: PathBuf,
    map: Map<String, Value>,
    taken: Vec<String>,
}

impl Description {
    /// Reads the file `path`.
    ///
    /// # Errors
    /// [`PeftError::Io`], [`PeftError::File`].
    pub fn read(path: &Path) -> Result<Self, PeftError> {
        let map = crate::pretrained::read_object(path)?;
        Ok(Self { path: path.into(), map, taken: Vec::new() })
    }

    /// All keys.
    pub fn map(&self) -> &Map<String, Value> {
        &self.map
    }

    /// The value of `key`, which is hereby understood; `None` where it is missing or null.
    ///
    /// # Errors
    /// [`PeftError::File`] where it is of another type.
    pub fn taken<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>, PeftError> {
        self.taken.push(key.to_owned());
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => serde_json::from_value(value.clone())
                .map(Some)
                .map_err(|error| self.wrong(format!("{key} is {}: {error}", short(value)))),
        }
    }

    /// The same for a key that must be there.
    ///
    /// # Errors
    /// [`PeftError::File`].
    pub fn required<T: DeserializeOwned>(&mut self, key: &str) -> Result<T, PeftError> {
        self.taken(key)?.ok_or_else(|| self.wrong(format!("it has no key {key}")))
    }

    /// Refuses `key` with a value other than null and those in `allowed`.
    ///
    /// # Errors
    /// [`PeftError::File`] with [`FileProblem::Foreign`].
    pub fn only(&mut self, key: &str, allowed: &[Value], reason: &str) -> Result<(), PeftError> {
        self.taken.push(key.to_owned());
        match self.map.get(key) {
            Some(value) if !value.is_null() && !allowed.contains(value) => {
                Err(self.foreign(key, reason.into()))
            }
            _ => Ok(()),
        }
    }

    /// A key that says nothing of the adapter's function.
    pub fn drop(&mut self, key: &str) {
        self.taken.push(key.to_owned());
    }

    /// Refuses what is left and says something: keys of later versions are harmless as long as they are off.
    ///
    /// # Errors
    /// [`PeftError::File`] with [`FileProblem::Foreign`].
    pub fn finish(&self) -> Result<(), PeftError> {
        let off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            Value::Number(number) => number.as_f64() == Some(0.0),
            _ => false,
        };
        let left = |(key, value): &(&String, &Value)| !self.taken.contains(key) && !off(value);
        match self.map.iter().find(left) {
            None => Ok(()),
            Some((key, _)) => Err(self.foreign(key, "nothing here corresponds to it".into())),
        }
    }

    /// The refusal of `key` with its value.
    pub fn foreign(&self, key: &str, reason: String) -> PeftError {
        let value = self.map.get(key).map_or_else(|| "missing".into(), short);
        let problem = FileProblem::Foreign { setting: key.into(), value, reason };
        PeftError::File { path: self.path.clone(), problem }
    }

    /// The refusal of the file with a sentence.
    pub fn wrong(&self, text: String) -> PeftError {
        PeftError::File { path: self.path.clone(), problem: FileProblem::Description(text) }
    }
}

/// A value that fits a sentence.
fn short(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    if text.chars().count() <= MOST {
        return text;
    }
    text.chars().take(MOST).chain("..".chars()).collect()
}
