//! Dialogues as token sequences: the tasks of both stages, and a hash of every example.

use super::config::{Grouping, LanguageConfig, Model, SPECIAL, Source};
use crate::networks::stages::TrialError;
use crate::runs::{Site, write_atomically};
use peftml_data::DataError;
use peftml_data::convai2::{self, Cluster, Dialogue, PersonaMap, tasks_by_persona};
use peftml_linalg::Seed;
use peftml_peft::PeftError;
use peftml_peft::pretrained::{Encoded, Tokenizer};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files of the training and of the validation set, with their maps, below the folder of data sets.
const FILES: [[&str; 2]; 2] = [
    ["convai2/train_self_original.txt", "convai2/train_persona_map.json"],
    ["convai2/valid_self_original.txt", "convai2/valid_persona_map.json"],
];

/// A turn: a sequence for each candidate.
pub struct Turn {
    /// Context and candidate.
    pub rows: Vec<Encoded>,
    /// Which candidate is the true reply.
    pub answer: usize,
}

/// A task.
pub struct TalkTask {
    /// Its persona or cluster.
    pub name: String,
    /// Numbers of its dialogues in the file, each with the places of its turns among the stage's.
    pub dialogues: Vec<(usize, Range<usize>)>,
}

/// One stage's dialogues.
pub struct Stage {
    /// All turns.
    pub turns: Arc<Vec<Turn>>,
    /// Whose they are.
    pub tasks: Vec<TalkTask>,
}

/// The dialogues of both stages.
pub struct Talk {
    /// Of retraining.
    pub retraining: Stage,
    /// Of the tests.
    pub test: Stage,
    /// How many tokens there are.
    pub vocabulary: usize,
    /// A hash of all examples.
    pub name: String,
    /// A line for every example: its place, and the hash of its sequences.
    pub hashes: String,
}

/// Text to tokens.
enum Words {
    Pieces(Box<Tokenizer>),
    /// A word a token.
    Own(BTreeMap<String, u32>),
}

impl Words {
    /// `text` between the two ends.
    fn encode(&self, text: &str) -> Result<Vec<u32>, PeftError> {
        match self {
            Words::Pieces(tokenizer) => Ok(tokenizer.encode(text)?.ids),
            Words::Own(words) => {
                let word = |word: &str| words.get(word).copied().unwrap_or(SPECIAL as u32 - 1);
                let inner = text.split_whitespace().map(word);
                Ok([1].into_iter().chain(inner).chain([2]).collect())
            }
        }
    }
}

impl Talk {
    /// The dialogues that `config` means for seed `number`'s `seed`.
    ///
    /// # Errors
    /// [`TrialError`]: files that are missing or malformed, too few tasks.
    pub fn new(config: &LanguageConfig, seed: &Seed, site: &Site<'_>) -> Result<Self, TrialError> {
        let data = site.data.unwrap_or(Path::new(""));
        let (words, vocabulary) = match (&config.model, config.spec()) {
            (Model::Folder { folder }, _) => {
                let tokenizer = Tokenizer::from_folder(&data.join(folder))?;
                let vocabulary = tokenizer.vocabulary();
                (Words::Pieces(Box::new(tokenizer)), vocabulary)
            }
            (Model::Random { .. }, spec) => {
                let count = spec.map_or(0, |spec| spec.words);
                let number = |word: usize| (format!("w{word}"), (word + SPECIAL) as u32);
                (Words::Own((0..count).map(number).collect()), count + SPECIAL)
            }
        };
        let counts = [config.data.retraining_tasks, config.data.test_tasks];
        let mut stages = Vec::new();
        for (at, role) in ["training", "test"].into_iter().enumerate() {
            let (path, dialogues, clusters) = match config.data.source {
                Source::Convai2 { grouping } => read(data, FILES[at], grouping)?,
                Source::Synthetic { .. } => {
                    let spec = config.spec();
                    let drawn = spec.map(|spec| spec.draw(&seed.child("data"), role));
                    let dialogues = drawn.unwrap_or_default();
                    let clusters = tasks_by_persona(&dialogues);
                    (PathBuf::from("synthetic dialogues"), dialogues, clusters)
                }
            };
            let (found, needed) = (clusters.len(), counts[at]);
            let Some(chosen) = clusters.get(..needed) else {
                return Err(TrialError::FewTasks { path, found, needed });
            };
            stages.push(Stage::new(&dialogues, chosen, &words, config.data.max_length)?);
        }
        // Two were pushed.
        let [Some(test), Some(retraining)] = [stages.pop(), stages.pop()] else {
            return Err(TrialError::FewTasks { path: data.into(), found: 0, needed: 2 });
        };
        let mut hashes = "stage,task,dialogue,turn,tokens,sha256\n".to_owned();
        retraining.hash("retraining", &mut hashes);
        test.hash("test", &mut hashes);
        let name = hex(Sha256::digest(&hashes).as_slice());
        Ok(Self { retraining, test, vocabulary, name, hashes })
    }

    /// Writes the hashes into the run folder; where they stand already they must be the same.
    ///
    /// # Errors
    /// [`TrialError::OtherData`]; a file that cannot be written.
    pub fn keep_hashes(&self, folder: &Path, name: &str) -> Result<(), TrialError> {
        let folder = folder.join("tokens");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| PeftError::Io { path, source }
        };
        std::fs::create_dir_all(&folder).map_err(io(&folder))?;
        let path = folder.join(format!("{name}.csv"));
        match std::fs::read(&path) {
            Ok(known) if known == self.hashes.as_bytes() => Ok(()),
            Ok(_) => Err(TrialError::OtherData { path }),
            Err(_) => Ok(write_atomically(&path, self.hashes.as_bytes())?),
        }
    }
}

/// A file's dialogues and tasks, and its path.
fn read(
    data: &Path,
    [text, map]: [&str; 2],
    grouping: Grouping,
) -> Result<(PathBuf, Vec<Dialogue>, Vec<Cluster>), TrialError> {
    let path = data.join(text);
    let dialogues = convai2::read(&path)?;
    let clusters = match grouping {
        Grouping::Persona => tasks_by_persona(&dialogues),
        Grouping::PersonaMap => {
            let path = data.join(map);
            let tasks = PersonaMap::read(&path)?.tasks(&dialogues);
            let wrong = |problem| DataError::Dialogues { path, problem: Box::new(problem) };
            tasks.map_err(wrong)?.0
        }
    };
    Ok((path, dialogues, clusters))
}

impl Stage {
    fn new(
        dialogues: &[Dialogue],
        clusters: &[Cluster],
        words: &Words,
        most: usize,
    ) -> Result<Self, TrialError> {
        let (mut turns, mut tasks) = (Vec::new(), Vec::new());
        for cluster in clusters {
            let mut own = Vec::new();
            for &number in &cluster.dialogues {
                let first = turns.len();
                for (at, turn) in dialogues[number].turns.iter().enumerate() {
                    let context = words.encode(&dialogues[number].history(at))?;
                    let row = |candidate: &String| {
                        let ids = joined(&context, &words.encode(candidate)?, most);
                        Ok(Encoded { segments: vec![0; ids.len()], ids })
                    };
                    let rows = turn.candidates.iter().map(row).collect::<Result<_, PeftError>>()?;
                    turns.push(Turn { rows, answer: turn.answer });
                }
                own.push((number, first..turns.len()));
            }
            tasks.push(TalkTask { name: cluster.name.clone(), dialogues: own });
        }
        Ok(Self { turns: Arc::new(turns), tasks })
    }

    /// A line for every turn.
    fn hash(&self, stage: &str, out: &mut String) {
        for (task, at) in self.tasks.iter().zip(0..) {
            for (number, places) in &task.dialogues {
                for (turn, place) in places.clone().enumerate() {
                    let Turn { rows, answer } = &self.turns[place];
                    let mut hash = Sha256::new();
                    hash.update((*answer as u32).to_le_bytes());
                    for row in rows {
                        hash.update((row.ids.len() as u32).to_le_bytes());
                        row.ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
                    }
                    let tokens: usize = rows.iter().map(|row| row.ids.len()).sum();
                    let hash = hex(hash.finalize().as_slice());
                    // Writing into a string never fails.
                    let _ = writeln!(out, "{stage},{at},{number},{turn},{tokens},{hash}");
                }
            }
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `context` followed by `candidate`, each with its first and last token, at most `most` in all. The context's
/// oldest tokens go; where the candidate alone is too long, its last ones. Both ends of both always stay.
fn joined(context: &[u32], candidate: &[u32], most: usize) -> Vec<u32> {
    let mut over = (context.len() + candidate.len()).saturating_sub(most);
    let cut = over.min(context.len().saturating_sub(2));
    over -= cut;
    let mut ids = Vec::with_capacity(most);
    ids.extend(context.first());
    ids.extend(context.iter().skip(1 + cut));
    let kept = candidate.len().saturating_sub(over + 1).max(1).min(candidate.len());
    ids.extend(&candidate[..kept]);
    ids.extend(candidate.last().filter(|_| kept < candidate.len()));
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_tokens_go_first_and_the_ends_never() {
        // 1 and 2 are the ends.
        let (context, candidate) = ([1, 10, 11, 12, 2], [1, 20, 21, 2]);
        assert_eq!(joined(&context, &candidate, 20), [1, 10, 11, 12, 2, 1, 20, 21, 2]);
        assert_eq!(joined(&context, &candidate, 9).len(), 9);
        assert_eq!(joined(&context, &candidate, 7), [1, 12, 2, 1, 20, 21, 2]);
        assert_eq!(joined(&context, &candidate, 6), [1, 2, 1, 20, 21, 2]);
        assert_eq!(joined(&context, &candidate, 5), [1, 2, 1, 20, 2]);
        assert_eq!(joined(&[1, 2], &[1, 2], 6), [1, 2, 1, 2]);
    }
}
