//! Tasks: dialogues of one persona, or of one cluster of personas.

use super::{Dialogue, DialogueProblem, open};
use crate::DataError;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::Path;

/// Largest map in bytes.
const LARGEST_MAP: u64 = 1 << 26;

/// Clusters of personas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersonaMap {
    /// A persona's sentences, sorted and without their final periods: its cluster.
    clusters: BTreeMap<Vec<String>, String>,
}

/// Dialogues that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// The cluster's name in the map, or the persona's first sentence.
    pub name: String,
    /// Numbers of its dialogues, rising.
    pub dialogues: Vec<usize>,
    /// How many turns they have.
    pub turns: usize,
}

impl PersonaMap {
    /// The map in the file `path`.
    ///
    /// # Errors
    /// [`DataError::Dialogues`] for what is no such map, and for a persona in two clusters.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let failed = |problem| DataError::dialogues(path, problem);
        let mut bytes = Vec::new();
        let file = open(path, LARGEST_MAP).map_err(failed)?;
        file.take(LARGEST_MAP).read_to_end(&mut bytes).map_err(|error| failed(error.into()))?;
        Self::parse(&bytes).map_err(failed)
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DialogueProblem> {
        let raw: BTreeMap<String, Vec<Vec<String>>> = serde_json::from_slice(bytes)
            .map_err(|error| DialogueProblem::Map(error.to_string()))?;
        let mut clusters = BTreeMap::new();
        for (name, personas) in raw {
            for persona in personas {
                let key = key(&persona);
                match clusters.insert(key, name.clone()) {
                    Some(first) if first != name => {
                        let persona = persona.first().cloned().unwrap_or_default();
                        return Err(DialogueProblem::Twice { persona, first, second: name });
                    }
                    _ => {}
                }
            }
        }
        Ok(Self { clusters })
    }

    /// The clusters with their dialogues, largest number of turns first, then by name; and how many dialogues
    /// have a persona that the map has not.
    ///
    /// # Errors
    /// [`DialogueProblem::Unknown`] where the map names a persona that none of `dialogues` has.
    pub fn tasks(&self, dialogues: &[Dialogue]) -> Result<(Vec<Cluster>, usize), DialogueProblem> {
        let keys: Vec<Vec<String>> = dialogues.iter().map(|d| key(&d.persona)).collect();
        let known: BTreeSet<&Vec<String>> = keys.iter().collect();
        let mut unknown = self.clusters.iter().filter(|(persona, _)| !known.contains(persona));
        if let Some((persona, cluster)) = unknown.next() {
            let (count, cluster) = (1 + unknown.count(), cluster.clone());
            let persona = persona.first().cloned().unwrap_or_default();
            return Err(DialogueProblem::Unknown { count, cluster, persona });
        }
        let named = keys.iter().map(|key| self.clusters.get(key).cloned());
        let left_out = keys.iter().filter(|key| !self.clusters.contains_key(*key)).count();
        Ok((grouped(dialogues, named), left_out))
    }
}

/// One task a persona, largest number of turns first, then by name.
pub fn tasks_by_persona(dialogues: &[Dialogue]) -> Vec<Cluster> {
    grouped(dialogues, dialogues.iter().map(|dialogue| Some(key(&dialogue.persona).join(". "))))
}

fn grouped(dialogues: &[Dialogue], names: impl Iterator<Item = Option<String>>) -> Vec<Cluster> {
    let mut groups: BTreeMap<String, Cluster> = BTreeMap::new();
    for (number, name) in names.enumerate() {
        let Some(name) = name else { continue };
        let empty = || Cluster { name: name.clone(), dialogues: Vec::new(), turns: 0 };
        let group = groups.entry(name.clone()).or_insert_with(empty);
        group.dialogues.push(number);
        group.turns += dialogues[number].turns.len();
    }
    let mut groups: Vec<Cluster> = groups.into_values().collect();
    // Stable: names decide among equals.
    groups.sort_by_key(|group| std::cmp::Reverse(group.turns));
    groups
}

/// A persona as maps have it: sentences without their final period, sorted.
fn key(persona: &[String]) -> Vec<String> {
    let bare = |sentence: &String| {
        let sentence = sentence.trim();
        sentence.strip_suffix('.').unwrap_or(sentence).to_owned()
    };
    let mut key: Vec<String> = persona.iter().map(bare).collect();
    key.sort();
    key
}
