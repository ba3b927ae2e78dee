//! A folder's tokenizer: `tokenizer.json`; else `vocab.txt` (WordPiece, as BERT's); else `vocab.json` with
//! `merges.txt` (byte-level BPE, as RoBERTa's).
//!
//! What `tokenizer.json` says of truncation and padding is left out: text is cut and filled up only where the
//! caller asks for it. Text is normalised, cut into words and pieces by the crate `tokenizers`.

use super::config;
use crate::sequences::Encoded;
use crate::store::write_whole;
use crate::{FileProblem, PeftError};
use serde_json::{Map, Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tokenizers::PostProcessor as _;
use tokenizers::utils::truncation::TruncationParams;

const WHOLE: &str = "tokenizer.json";
const WORDPIECE: &str = "vocab.txt";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";
/// What names special tokens; both may be missing.
const SPECIAL: [&str; 2] = ["special_tokens_map.json", "tokenizer_config.json"];
const ADDED: &str = "added_tokens.json";

/// More than any vocabulary needs: memory stays bounded.
const LARGEST: u64 = 1 << 27;

/// Models of pieces that are read.
const MODELS: [&str; 2] = ["WordPiece", "BPE"];

/// Text to numbers of tokens.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    most: usize,
}

impl Tokenizer {
    /// The tokenizer in `folder`.
    ///
    /// # Errors
    /// [`PeftError::Io`]; [`PeftError::File`] for a file that is none, or of a kind that is not read.
    pub fn from_folder(folder: &Path) -> Result<Self, PeftError> {
        let [whole, wordpiece, vocabulary, merges] =
            [WHOLE, WORDPIECE, VOCABULARY, MERGES].map(|name| folder.join(name));
        if whole.is_file() {
            let bytes = read(&whole)?;
            return Self::from_json(&bytes, whole);
        }
        if wordpiece.is_file() {
            let description = word_pieces(folder, &wordpiece)?;
            return Self::from_json(&encoded(&description), wordpiece);
        }
        if vocabulary.is_file() && merges.is_file() {
            let description = byte_pairs(folder, &vocabulary, &merges)?;
            return Self::from_json(&encoded(&description), vocabulary);
        }
        let text = format!(
            "it holds no tokenizer: neither {WHOLE} nor {WORDPIECE} nor {VOCABULARY} with {MERGES}"
        );
        Err(PeftError::File { path: folder.into(), problem: FileProblem::Description(text) })
    }

    /// The tokenizer that the JSON text `bytes` of the file `path` describes.
    ///
    /// # Errors
    /// [`PeftError::File`].
    pub(crate) fn from_json(bytes: &[u8], path: PathBuf) -> Result<Self, PeftError> {
        let wrong = |text: String| {
            let problem = FileProblem::Description(text);
            PeftError::File { path: path.clone(), problem }
        };
        let value: Value =
            serde_json::from_slice(bytes).map_err(|error| wrong(format!("no JSON: {error}")))?;
        checked(&value).map_err(&wrong)?;
        let made = guarded(|| tokenizers::Tokenizer::from_bytes(bytes));
        let mut inner = made.map_err(|error| wrong(format!("no tokenizer: {error}")))?;
        inner.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        inner.with_padding(None);
        Ok(Self { inner, path, most: usize::MAX })
    }

    /// The same, cutting what is longer than `most` tokens, special ones included.
    ///
    /// # Errors
    /// [`PeftError::Range`] where not even the special tokens fit.
    pub fn cut_at(mut self, most: usize) -> Result<Self, PeftError> {
        self.most = most;
        self.fits(false)?;
        let parameters = TruncationParams { max_length: most, ..TruncationParams::default() };
        let set = guarded(|| self.inner.with_truncation(Some(parameters)).map(|_| ()));
        set.map_err(|problem| self.cannot(&problem))?;
        Ok(self)
    }

    /// Whether the special tokens of a text, or of a pair, leave room.
    fn fits(&self, pair: bool) -> Result<(), PeftError> {
        let special = self.inner.get_post_processor().map_or(0, |p| p.added_tokens(pair));
        let expected = format!("at least the {special} special tokens");
        let fits = self.most >= special.max(1);
        crate::methods::in_range("max_length", self.most as f64, fits, &expected)
    }

    fn cannot(&self, problem: &str) -> PeftError {
        let problem = FileProblem::Description(format!("it cannot encode a text: {problem}"));
        PeftError::File { path: self.path.clone(), problem }
    }

    /// What `tokenizer.json` would say.
    ///
    /// # Errors
    /// [`PeftError::File`].
    pub fn description(&self) -> Result<String, PeftError> {
        self.inner.to_string(false).map_err(|error| {
            let problem = FileProblem::Description(error.to_string());
            PeftError::File { path: self.path.clone(), problem }
        })
    }

    /// How many tokens there are.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// `text` with the special tokens around it.
    ///
    /// # Errors
    /// [`PeftError::File`] where the tokenizer cannot encode it.
    pub fn encode(&self, text: &str) -> Result<Encoded, PeftError> {
        self.encoded(|| self.inner.encode_fast(text, true))
    }

    /// `first` and `second` with the special tokens around and between them.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_pair(&self, first: &str, second: &str) -> Result<Encoded, PeftError> {
        self.fits(true)?;
        self.encoded(|| self.inner.encode_fast((first, second), true))
    }

    /// `text` without special tokens.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, PeftError> {
        Ok(self.encoded(|| self.inner.encode_fast(text, false))?.ids)
    }

    fn encoded(
        &self,
        encode: impl FnOnce() -> tokenizers::Result<tokenizers::Encoding>,
    ) -> Result<Encoded, PeftError> {
        let encoding = guarded(encode).map_err(|problem| self.cannot(&problem))?;
        let (ids, segments) = (encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec());
        Ok(Encoded { ids, segments })
    }
}

/// What `work` says; the crate `tokenizers` indexes what a damaged description names, and a panic of its is the
/// description's fault.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("its parts do not fit each other".into()),
    }
}

/// Copies the tokenizer's files that are in `from`.
pub fn copy(from: &Path, to: &Path) -> Result<(), PeftError> {
    for name in [WHOLE, WORDPIECE, VOCABULARY, MERGES, ADDED].into_iter().chain(SPECIAL) {
        let source = from.join(name);
        if source.is_file() {
            write_whole(&to.join(name), &read(&source)?)?;
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, PeftError> {
    let io = |source| PeftError::Io { path: path.into(), source };
    if std::fs::metadata(path).map_err(io)?.len() > LARGEST {
        let problem = FileProblem::Description("it is larger than any vocabulary".into());
        return Err(PeftError::File { path: path.into(), problem });
    }
    std::fs::read(path).map_err(io)
}

fn encoded(description: &Value) -> Vec<u8> {
    description.to_string().into_bytes()
}

/// Whether a description is of a kind that is read.
fn checked(value: &Value) -> Result<(), String> {
    let model = value.get("model").ok_or("it has no key model")?;
    let kind = match model.get("type").and_then(Value::as_str) {
        Some(kind) => kind,
        // Files from before the key.
        None if model.get("merges").is_some() => MODELS[1],
        None => return Err("its model has no type".into()),
    };
    if !MODELS.contains(&kind) {
        return Err(format!("a tokenizer of type {kind:?}; {} are read", MODELS.join(" and ")));
    }
    for template in ["single", "pair"] {
        check_template(value.get("post_processor"), template)?;
    }
    match value.get("normalizer").and_then(|n| n.get("type")).and_then(Value::as_str) {
        Some(kind @ "Precompiled") => Err(format!("a normalizer of type {kind:?} is not read")),
        _ => Ok(()),
    }
}

/// Whether a template's special tokens are described and its sequences are those that there are.
fn check_template(processor: Option<&Value>, name: &str) -> Result<(), String> {
    let Some(pieces) = processor.and_then(|p| p.get(name)).and_then(Value::as_array) else {
        return Ok(());
    };
    let known = processor.and_then(|p| p.get("special_tokens"));
    for piece in pieces {
        let id = |kind: &str| piece.get(kind).and_then(|p| p.get("id")).and_then(Value::as_str);
        if let Some(token) = id("SpecialToken").filter(|t| known.and_then(|k| k.get(t)).is_none()) {
            return Err(format!("its template {name} names {token}, which is not described"));
        }
        if name == "single" && id("Sequence") == Some("B") {
            return Err("its template single names a second sequence".into());
        }
    }
    Ok(())
}

/// Names of special tokens and settings beside a vocabulary.
struct Settings(Vec<Map<String, Value>>);

impl Settings {
    fn read(folder: &Path) -> Result<Self, PeftError> {
        let present = SPECIAL.iter().map(|name| folder.join(name)).filter(|path| path.is_file());
        present.map(|path| config::read(&path)).collect::<Result<_, _>>().map(Self)
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().filter_map(|map| map.get(key)).find(|value| !value.is_null())
    }

    fn token(&self, key: &str, default: &str) -> String {
        let named = self.get(key);
        let content = named.and_then(|token| token.get("content").unwrap_or(token).as_str());
        content.unwrap_or(default).to_owned()
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.get(key).and_then(Value::as_bool)
    }
}

/// Special tokens with their numbers in a vocabulary.
fn numbered(
    tokens: &[String],
    vocabulary: &Map<String, Value>,
    path: &Path,
) -> Result<Vec<u64>, PeftError> {
    let number = |token: &String| {
        vocabulary.get(token).and_then(Value::as_u64).ok_or_else(|| {
            let text = format!("the special token {token} is not in it");
            PeftError::File { path: path.into(), problem: FileProblem::Description(text) }
        })
    };
    tokens.iter().map(number).collect()
}

fn added(tokens: &[String], numbers: &[u64]) -> Vec<Value> {
    let mut known = std::collections::BTreeSet::new();
    let pairs = tokens.iter().zip(numbers).filter(|(_, number)| known.insert(**number));
    let describe = |(token, number): (&String, &u64)| {
        json!({"id": number, "content": token, "special": true, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    let mut added: Vec<Value> = pairs.map(describe).collect();
    // The order of a file's list decides the numbers of tokens that a model has not.
    added.sort_by_key(|token| token["id"].as_u64());
    added
}

fn word_pieces(folder: &Path, path: &Path) -> Result<Value, PeftError> {
    let text = utf8(read(path)?, path)?;
    let lines = text.strip_suffix('\n').unwrap_or(&text).split('\n');
    let token = |(number, line): (usize, &str)| {
        (line.strip_suffix('\r').unwrap_or(line).to_owned(), Value::from(number))
    };
    let vocabulary: Map<String, Value> = lines.enumerate().map(token).collect();
    let settings = Settings::read(folder)?;
    let names = [
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ];
    let tokens = names.map(|(key, default)| settings.token(key, default));
    let numbers = numbered(&tokens, &vocabulary, path)?;
    let [unknown, separator, _, start, _] = &tokens;
    let special =
        |token: &String, number: u64| json!({"id": token, "ids": [number], "tokens": [token]});
    let piece = |token: &String, kind: u8| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let sequence = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
    let single = [piece(start, 0), sequence("A", 0), piece(separator, 0)];
    let pair = [&single[..], &[sequence("B", 1), piece(separator, 1)]].concat();
    let mut specials = Map::new();
    specials.insert(start.clone(), special(start, numbers[3]));
    specials.insert(separator.clone(), special(separator, numbers[1]));
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(&tokens, &numbers),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true,
            "handle_chinese_chars": settings.flag("tokenize_chinese_chars").unwrap_or(true),
            "strip_accents": settings.flag("strip_accents"),
            "lowercase": settings.flag("do_lower_case").unwrap_or(true),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": specials,
        },
        "decoder": null,
        "model": {
            "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary,
        },
    }))
}

fn byte_pairs(folder: &Path, vocabulary: &Path, merges: &Path) -> Result<Value, PeftError> {
    let wrong = |path: &Path, text: String| PeftError::File {
        path: path.into(),
        problem: FileProblem::Description(text),
    };
    let words: Map<String, Value> = serde_json::from_slice(&read(vocabulary)?)
        .map_err(|error| wrong(vocabulary, format!("no JSON object: {error}")))?;
    let text = utf8(read(merges)?, merges)?;
    let lines = text.lines().enumerate();
    // A first line may name the format; a word may begin with the same letter.
    let lines =
        lines.filter(|(n, line)| !(line.is_empty() || *n == 0 && line.starts_with("#version")));
    let pair = |(number, line): (usize, &str)| match line.split_once(' ') {
        Some((first, second)) if !second.contains(' ') => Ok(json!([first, second])),
        _ => Err(wrong(merges, format!("line {} is no pair of pieces", number + 1))),
    };
    let merged: Vec<Value> = lines.map(pair).collect::<Result<_, _>>()?;
    let settings = Settings::read(folder)?;
    let names = [
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
        ("sep_token", "</s>"),
        ("pad_token", "<pad>"),
        ("cls_token", "<s>"),
        ("mask_token", "<mask>"),
    ];
    let tokens = names.map(|(key, default)| settings.token(key, default));
    let numbers = numbered(&tokens, &words, vocabulary)?;
    let before = settings.flag("add_prefix_space").unwrap_or(false);
    let [sep, cls] = [3, 5].map(|i| json!([tokens[i], numbers[i]]));
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added(&tokens, &numbers),
        "normalizer": null,
        "pre_tokenizer": {
            "type": "ByteLevel", "add_prefix_space": before, "trim_offsets": true, "use_regex": true,
        },
        "post_processor": {
            "type": "RobertaProcessing", "sep": sep, "cls": cls, "trim_offsets": true,
            "add_prefix_space": before,
        },
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
            "end_of_word_suffix": "", "fuse_unk": false, "vocab": words, "merges": merged,
        },
    }))
}

fn utf8(bytes: Vec<u8>, path: &Path) -> Result<String, PeftError> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let problem = FileProblem::Description(format!("it is no UTF-8 at byte {at}"));
        PeftError::File { path: path.into(), problem }
    })
}
