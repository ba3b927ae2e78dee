//! A run folder as it is read for a report.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::ReportError;
use crate::figures::Figure;

/// Readers bound memory: larger files leave a note.
const LARGEST_JSON: u64 = 16 << 20;
const LARGEST_TABLE: u64 = 256 << 20;
const LARGEST_FIGURE: u64 = 16 << 20;
const MOST_FIGURES: usize = 64;

/// A figure of the folder, or why there is none.
pub(super) struct Drawn {
    /// File name below `figures/`.
    pub file: String,
    pub figure: Result<Figure, String>,
    /// Whether the file is byte for byte what its own data draw.
    pub faithful: bool,
}

/// What a report needs of a run folder.
pub(super) struct Run {
    pub path: PathBuf,
    /// run.json, empty where it is malformed.
    pub run: Map<String, Value>,
    /// summary.json.
    pub summary: Map<String, Value>,
    pub config: Option<String>,
    pub trials: Option<String>,
    pub timings: Option<String>,
    pub verdicts: Vec<Map<String, Value>>,
    pub figures: Vec<Drawn>,
    /// What was missing or malformed, for the reader of the page.
    pub notes: Vec<String>,
}

impl Run {
    pub(super) fn read(path: &Path) -> Result<Run, ReportError> {
        // Verified claims are a run without trials and without a configuration.
        let claims_alone =
            path.join("verdicts.jsonl").is_file() && !path.join("trials.csv").exists();
        if !claims_alone && !path.join("run.json").is_file() {
            return Err(ReportError::NotARun { path: path.to_owned() });
        }
        let mut notes = Vec::new();
        let mut needed = |name: &str, limit: u64| match read_text(&path.join(name), limit) {
            Ok(None) if claims_alone => None,
            Ok(text) => text.or_else(|| {
                notes.push(format!("{name} is missing."));
                None
            }),
            Err(reason) => {
                notes.push(format!("{name} could not be read: {reason}."));
                None
            }
        };
        let run = needed("run.json", LARGEST_JSON);
        let summary = needed("summary.json", LARGEST_JSON);
        let config = needed("config.toml", LARGEST_JSON);
        let trials = needed("trials.csv", LARGEST_TABLE);
        let mut read = Run {
            path: path.to_owned(),
            run: object("run.json", run, &mut notes),
            summary: object("summary.json", summary, &mut notes),
            config,
            trials,
            timings: optional(path, "timings.csv", LARGEST_TABLE, &mut notes),
            verdicts: Vec::new(),
            figures: figures(path, &mut notes),
            notes,
        };
        if let Some(text) = optional(path, "verdicts.jsonl", LARGEST_JSON, &mut read.notes) {
            read.verdicts = verdicts(&text, &mut read.notes);
        }
        Ok(read)
    }

    /// The study's description in run.json.
    fn study(&self) -> Option<&Map<String, Value>> {
        self.run.get("study").and_then(Value::as_object)
    }

    /// A text of the study's description, empty where it is missing.
    pub(super) fn about(&self, key: &str) -> &str {
        self.study().and_then(|study| study.get(key)).and_then(Value::as_str).unwrap_or("")
    }

    /// A list of column names of the study's description.
    pub(super) fn columns(&self, key: &str) -> Vec<String> {
        let list = self.study().and_then(|study| study.get(key)).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Title, or the folder's name where there is none.
    pub(super) fn title(&self) -> String {
        match self.about("title") {
            "" => self.folder(),
            title => title.to_owned(),
        }
    }

    /// The folder's name.
    pub(super) fn folder(&self) -> String {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.unwrap_or_else(|| self.path.display().to_string())
    }

    /// `suite/study.preset`, as far as it is known.
    pub(super) fn name(&self) -> String {
        [self.about("suite"), self.about("name")]
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join("/")
    }
}

/// The file's text; `None` where there is no file.
fn read_text(path: &Path, limit: u64) -> Result<Option<String>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("it is larger than {} MiB", limit >> 20));
    }
    String::from_utf8(bytes).map(Some).map_err(|_| "it is not UTF-8".to_owned())
}

fn optional(folder: &Path, name: &str, limit: u64, notes: &mut Vec<String>) -> Option<String> {
    read_text(&folder.join(name), limit).unwrap_or_else(|reason| {
        notes.push(format!("{name} could not be read: {reason}."));
        None
    })
}

fn object(name: &str, text: Option<String>, notes: &mut Vec<String>) -> Map<String, Value> {
    let Some(text) = text else { return Map::new() };
    match serde_json::from_str(&text) {
        Ok(Value::Object(map)) => map,
        Ok(_) => {
            notes.push(format!("{name} is malformed: expected a JSON object."));
            Map::new()
        }
        Err(error) => {
            notes.push(format!("{name} is malformed: {error}."));
            Map::new()
        }
    }
}

/// The SVG files of `figures/`, in the order of their names.
fn figures(folder: &Path, notes: &mut Vec<String>) -> Vec<Drawn> {
    let Ok(entries) = std::fs::read_dir(folder.join("figures")) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".svg") && !name.starts_with('.'))
        .collect();
    names.sort_by_key(|name| natural(name));
    if names.len() > MOST_FIGURES {
        notes.push(format!("Of {} figures the first {MOST_FIGURES} are shown.", names.len()));
        names.truncate(MOST_FIGURES);
    }
    names.into_iter().map(|file| read_figure(folder, file)).collect()
}

/// A name as text and numbers in turn, so that `tasks_10` comes after `tasks_5`.
fn natural(name: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let text = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let digits = rest[text..].find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len() - text);
        let number = rest[text..text + digits].parse().unwrap_or(u64::MAX);
        parts.push((rest[..text].to_owned(), number));
        rest = &rest[text + digits..];
    }
    parts
}

fn read_figure(folder: &Path, file: String) -> Drawn {
    let text = match read_text(&folder.join("figures").join(&file), LARGEST_FIGURE) {
        Ok(text) => text.unwrap_or_default(),
        Err(reason) => return Drawn { file, figure: Err(reason), faithful: true },
    };
    let figure = Figure::from_svg(&text).map_err(|error| error.to_string());
    let again = figure.as_ref().ok().and_then(|figure| figure.to_svg().ok());
    let faithful = again.is_none_or(|again| again == text);
    Drawn { file, figure, faithful }
}

fn verdicts(text: &str, notes: &mut Vec<String>) -> Vec<Map<String, Value>> {
    let mut verdicts = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(Value::Object(map)) => verdicts.push(map),
            Ok(_) => notes.push(format!("verdicts.jsonl, line {}: expected a JSON object.", i + 1)),
            Err(error) => notes.push(format!("verdicts.jsonl, line {}: {error}.", i + 1)),
        }
    }
    verdicts
}
