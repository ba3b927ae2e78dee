//! ConvAI2: dialogues with personas, in ParlAI's text format, and maps of personas to clusters.
//!
//! A line is `N text`; `N` counts from 1 in every dialogue. First come `your persona: ...` lines, then turns,
//! `utterance<TAB>reply<TAB><TAB>candidate|candidate|...`, the reply among the candidates once; every turn of a
//! file has as many candidates. A map is a JSON object from a cluster's name to a list of personas, each a list of
//! sentences without their final period.
//!
//! Source: Dinan et al. 2019, The Second Conversational Intelligence Challenge (arXiv:1902.00098).
//! Limits: a line above 1 MiB or a file above 1 GiB is refused; a persona of the partner is none of ours.

mod maps;

pub use maps::{Cluster, PersonaMap, tasks_by_persona};

use crate::DataError;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest line in bytes.
pub const LONGEST_LINE: usize = 1 << 20;
/// Largest file in bytes; the official training file has about 200 MB.
pub const LARGEST_FILE: u64 = 1 << 30;

const PERSONA: &str = "your persona:";
const PARTNER: &str = "partner's persona:";

/// A conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialogue {
    /// The line that it begins at, from 1.
    pub line: usize,
    /// Sentences about the one who replies, as they stand in the file.
    pub persona: Vec<String>,
    /// What was said.
    pub turns: Vec<Turn>,
}

/// An utterance with its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What the partner says.
    pub utterance: String,
    /// Possible replies.
    pub candidates: Vec<String>,
    /// Which of them is the true one.
    pub answer: usize,
}

impl Turn {
    /// The true reply.
    pub fn reply(&self) -> &str {
        &self.candidates[self.answer]
    }
}

impl Dialogue {
    /// What was said before the reply of turn `turn` (from 0), utterances and replies joined without a separator.
    /// Panics where there is no such turn.
    pub fn history(&self, turn: usize) -> String {
        let mut text = String::new();
        for earlier in &self.turns[..turn] {
            text += &earlier.utterance;
            text += earlier.reply();
        }
        text + &self.turns[turn].utterance
    }
}

/// What is wrong with a file of dialogues or a map of personas.
#[derive(Debug, thiserror::Error)]
pub enum DialogueProblem {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A folder, device or pipe.
    #[error("is no regular file")]
    NotAFile,
    /// More bytes than any file of the set has.
    #[error("has {found} bytes; at most {most} are read")]
    TooLarge {
        /// Bytes of the file.
        found: u64,
        /// Limit.
        most: u64,
    },
    /// No dialogue.
    #[error("holds no dialogue")]
    Empty,
    /// A line that is not what it should be.
    #[error("line {line}: {problem}")]
    Line {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// A map that is not of the form.
    #[error("is no map of personas: {0}")]
    Map(String),
    /// A persona in two clusters.
    #[error("has the persona {persona:?} in the clusters {first} and {second}")]
    Twice {
        /// Its first sentence.
        persona: String,
        /// One cluster.
        first: String,
        /// The other.
        second: String,
    },
    /// A persona that no dialogue has.
    #[error(
        "names {count} personas that no dialogue has, the first in cluster {cluster}: {persona:?}"
    )]
    Unknown {
        /// How many.
        count: usize,
        /// The cluster of the first.
        cluster: String,
        /// Its first sentence.
        persona: String,
    },
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LineProblem {
    /// More bytes than any line has.
    #[error("is longer than {LONGEST_LINE} bytes")]
    TooLong,
    /// Not UTF-8.
    #[error("is no UTF-8 at byte {at}")]
    Utf8 {
        /// The byte, from 0.
        at: usize,
    },
    /// No number before the text.
    #[error("does not begin with a number and a space")]
    NoNumber,
    /// A number out of order.
    #[error("has the number {found}; {expected} would follow, or 1 for a new dialogue")]
    Number {
        /// What would follow.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A persona behind a turn.
    #[error("is a persona behind a turn; personas come first")]
    LatePersona,
    /// The partner's persona.
    #[error("is a persona of the partner; the files `self_original` have none")]
    Partner,
    /// Fields that are missing or too many.
    #[error(
        "has {found} fields; utterance, reply, an empty one and candidates, with tabs between, are needed"
    )]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// A reward or the like.
    #[error("has something in its third field, which must be empty")]
    Third,
    /// No candidates.
    #[error("has {found} candidates; at least 2 are needed")]
    FewCandidates {
        /// How many there are.
        found: usize,
    },
    /// Another number of candidates than before.
    #[error("has {found} candidates, the turns before have {expected}")]
    Candidates {
        /// In the turns before.
        expected: usize,
        /// Here.
        found: usize,
    },
    /// The reply is not among the candidates, or several times.
    #[error("has its reply {found} times among the candidates; once is needed")]
    Answer {
        /// How often.
        found: usize,
    },
    /// A dialogue without turns.
    #[error("ends a dialogue without a turn")]
    NoTurn,
}

/// All dialogues of the file `path`.
///
/// # Errors
/// [`DataError::Dialogues`] with the line and what is wrong with it.
pub fn read(path: &Path) -> Result<Vec<Dialogue>, DataError> {
    let failed = |problem| DataError::dialogues(path, problem);
    let file = open(path, LARGEST_FILE).map_err(failed)?;
    parse(BufReader::new(file)).map_err(failed)
}

fn open(path: &Path, most: u64) -> Result<File, DialogueProblem> {
    // A pipe or device is not opened: that could wait for ever.
    let kind = std::fs::metadata(path)?;
    if !kind.is_file() {
        return Err(DialogueProblem::NotAFile);
    }
    if kind.len() > most {
        return Err(DialogueProblem::TooLarge { found: kind.len(), most });
    }
    Ok(File::open(path)?)
}

fn parse(mut reader: impl BufRead) -> Result<Vec<Dialogue>, DialogueProblem> {
    let mut dialogues = Vec::new();
    let mut bytes = Vec::new();
    let (mut line, mut last, mut candidates) = (0, 0, None);
    loop {
        bytes.clear();
        let most = LONGEST_LINE as u64 + 2;
        if reader.by_ref().take(most).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        line += 1;
        let wrong = |problem| DialogueProblem::Line { line, problem };
        let (number, text) = numbered(&bytes).map_err(wrong)?;
        if number != last + 1 && number != 1 {
            return Err(wrong(LineProblem::Number { expected: last + 1, found: number }));
        }
        if number == 1 {
            ended(&dialogues, line)?;
            dialogues.push(Dialogue { line, persona: Vec::new(), turns: Vec::new() });
        }
        last = number;
        if let Some(dialogue) = dialogues.last_mut() {
            add(dialogue, text, &mut candidates).map_err(wrong)?;
        }
    }
    if dialogues.is_empty() {
        return Err(DialogueProblem::Empty);
    }
    ended(&dialogues, line + 1)?;
    Ok(dialogues)
}

/// Whether the last dialogue is whole where `line` begins another.
fn ended(dialogues: &[Dialogue], line: usize) -> Result<(), DialogueProblem> {
    match dialogues.last() {
        Some(last) if last.turns.is_empty() => {
            Err(DialogueProblem::Line { line: line - 1, problem: LineProblem::NoTurn })
        }
        _ => Ok(()),
    }
}

fn numbered(bytes: &[u8]) -> Result<(u64, &str), LineProblem> {
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.len() > LONGEST_LINE {
        return Err(LineProblem::TooLong);
    }
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes)
        .map_err(|error| LineProblem::Utf8 { at: error.valid_up_to() })?;
    let (number, text) = text.split_once(' ').ok_or(LineProblem::NoNumber)?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let number = number.parse().ok().filter(|_| digits).ok_or(LineProblem::NoNumber)?;
    Ok((number, text))
}

fn add(
    dialogue: &mut Dialogue,
    text: &str,
    candidates: &mut Option<usize>,
) -> Result<(), LineProblem> {
    if text.starts_with(PARTNER) {
        return Err(LineProblem::Partner);
    }
    if let Some(sentence) = text.strip_prefix(PERSONA) {
        if !dialogue.turns.is_empty() {
            return Err(LineProblem::LatePersona);
        }
        dialogue.persona.push(sentence.trim().to_owned());
        return Ok(());
    }
    let fields: Vec<&str> = text.split('\t').collect();
    let &[utterance, reply, third, all] = fields.as_slice() else {
        return Err(LineProblem::Fields { found: fields.len() });
    };
    if !third.is_empty() {
        return Err(LineProblem::Third);
    }
    let all: Vec<&str> = if all.is_empty() { Vec::new() } else { all.split('|').collect() };
    let found = all.len();
    if found < 2 {
        return Err(LineProblem::FewCandidates { found });
    }
    let expected = *candidates.get_or_insert(found);
    if found != expected {
        return Err(LineProblem::Candidates { expected, found });
    }
    let times = all.iter().filter(|candidate| **candidate == reply).count();
    let answer = all.iter().position(|candidate| *candidate == reply).filter(|_| times == 1);
    let answer = answer.ok_or(LineProblem::Answer { found: times })?;
    let candidates = all.into_iter().map(str::to_owned).collect();
    dialogue.turns.push(Turn { utterance: utterance.to_owned(), candidates, answer });
    Ok(())
}

#[cfg(test)]
mod tests;
