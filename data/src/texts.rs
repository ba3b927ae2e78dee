//! Labelled text: CSV with a header, or JSON lines, with the columns `text`, `label` and perhaps `text_pair`.
//!
//! CSV is RFC 4180's: fields in double quotes may hold commas, line breaks and doubled quotes; the line of a row is the
//! one that it begins at. In JSON a label may be a text or a whole number. Other columns are left alone.
//! Limits: a file above 1 GiB, a row above 1 MiB or of more than 256 columns is refused.

use crate::DataError;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest file in bytes.
const LARGEST_FILE: u64 = 1 << 30;
/// Longest row in bytes.
const LONGEST_ROW: usize = 1 << 20;
const MOST_COLUMNS: usize = 256;
/// Kinds of files, by the ends of their names.
const CSV: &str = "csv";
const JSON_LINES: [&str; 2] = ["jsonl", "ndjson"];

/// A text with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledText {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub pair: Option<String>,
    /// The label.
    pub label: String,
}

/// What is wrong with a file of labelled text.
#[derive(Debug, thiserror::Error)]
pub enum TextProblem {
    /// The system refuses.
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    /// A folder, device or pipe.
    #[error("is no regular file")]
    NotAFile,
    /// Another kind of file.
    #[error("is neither .csv nor .jsonl")]
    Kind,
    /// More bytes than are read.
    #[error("has {found} bytes; at most {LARGEST_FILE} are read")]
    TooLarge {
        /// Bytes of the file.
        found: u64,
    },
    /// Not UTF-8.
    #[error("is no UTF-8 at byte {at}")]
    Utf8 {
        /// The byte, from 0.
        at: usize,
    },
    /// No rows.
    #[error("holds no rows")]
    Empty,
    /// A folder without tasks.
    #[error("is a folder without .csv or .jsonl files, one a task")]
    NoTasks,
    /// A row that is not what it should be.
    #[error("line {line}: {problem}")]
    Row {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        problem: RowProblem,
    },
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RowProblem {
    /// No such column.
    #[error(
        "has no column {column:?} (it has {found}); text, label and perhaps text_pair are needed"
    )]
    Missing {
        /// The column.
        column: &'static str,
        /// Those that there are.
        found: String,
    },
    /// A column twice.
    #[error("has the column {column:?} twice")]
    Twice {
        /// The column.
        column: String,
    },
    /// Another number of fields than the header.
    #[error("has {found} fields, the header has {expected}")]
    Fields {
        /// In the header.
        expected: usize,
        /// Here.
        found: usize,
    },
    /// A quote where none may be, or an open one.
    #[error("has a quote that is not closed, or text behind a closed one")]
    Quote,
    /// Too long, or too many columns.
    #[error("is longer than {LONGEST_ROW} bytes or has more than {MOST_COLUMNS} columns")]
    TooLong,
    /// Not JSON.
    #[error("is no JSON object: {0}")]
    Json(String),
    /// A value of another type.
    #[error("has {column:?} = {found}; a text is needed, or for a label a whole number")]
    Type {
        /// The column.
        column: &'static str,
        /// The value.
        found: String,
    },
    /// An empty label.
    #[error("has an empty label")]
    NoLabel,
}

/// The rows of the file `path`; its name's end says what it is.
///
/// # Errors
/// [`DataError::Texts`].
pub fn read(path: &Path) -> Result<Vec<LabelledText>, DataError> {
    let failed = |problem| DataError::texts(path, problem);
    let kind = kind(path).ok_or_else(|| failed(TextProblem::Kind))?;
    let found = std::fs::metadata(path).map_err(|error| failed(error.into()))?;
    if !found.is_file() {
        return Err(failed(TextProblem::NotAFile));
    }
    if found.len() > LARGEST_FILE {
        return Err(failed(TextProblem::TooLarge { found: found.len() }));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(error.into()))?;
    parse(&bytes, kind).map_err(failed)
}

/// One task a file of `folder`: the file's name without its end, and its rows; in the order of the names.
///
/// # Errors
/// [`DataError::Texts`].
pub fn read_folder(folder: &Path) -> Result<Vec<(String, Vec<LabelledText>)>, DataError> {
    let failed = |problem| DataError::texts(folder, problem);
    let mut paths = BTreeMap::new();
    for entry in std::fs::read_dir(folder).map_err(|error| failed(error.into()))? {
        let path = entry.map_err(|error| failed(error.into()))?.path();
        if kind(&path).is_some() {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            paths.insert(path, name);
        }
    }
    if paths.is_empty() {
        return Err(failed(TextProblem::NoTasks));
    }
    paths.into_iter().map(|(path, name)| Ok((name, read(&path)?))).collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Csv,
    JsonLines,
}

fn kind(path: &Path) -> Option<Kind> {
    let end = path.extension()?.to_str()?.to_ascii_lowercase();
    match end.as_str() {
        CSV => Some(Kind::Csv),
        end if JSON_LINES.contains(&end) => Some(Kind::JsonLines),
        _ => None,
    }
}

fn parse(bytes: &[u8], kind: Kind) -> Result<Vec<LabelledText>, TextProblem> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| TextProblem::Utf8 { at: error.valid_up_to() })?;
    // Spreadsheets put a mark before the first column.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let rows = match kind {
        Kind::Csv => comma_separated(text)?,
        Kind::JsonLines => json_lines(text)?,
    };
    if rows.is_empty() { Err(TextProblem::Empty) } else { Ok(rows) }
}

fn json_lines(text: &str) -> Result<Vec<LabelledText>, TextProblem> {
    let mut rows = Vec::new();
    for (number, line) in text.split('\n').enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |problem| TextProblem::Row { line: number + 1, problem };
        if line.len() > LONGEST_ROW {
            return Err(wrong(RowProblem::TooLong));
        }
        rows.push(json_row(line).map_err(wrong)?);
    }
    Ok(rows)
}

fn json_row(line: &str) -> Result<LabelledText, RowProblem> {
    let map: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(line).map_err(|error| RowProblem::Json(error.to_string()))?;
    let names = || map.keys().take(12).cloned().collect::<Vec<_>>().join(", ");
    let missing = |column| RowProblem::Missing { column, found: names() };
    let wrong = |column, value: &serde_json::Value| {
        let found = value.to_string().chars().take(40).collect();
        RowProblem::Type { column, found }
    };
    let text = |column: &'static str| match map.get(column) {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(text)) => Ok(Some(text.clone())),
        Some(value) => Err(wrong(column, value)),
    };
    let label = match map.get("label") {
        Some(serde_json::Value::Number(n)) if n.is_i64() || n.is_u64() => n.to_string(),
        _ => text("label")?.ok_or_else(|| missing("label"))?,
    };
    let row = LabelledText {
        text: text("text")?.ok_or_else(|| missing("text"))?,
        pair: text("text_pair")?,
        label,
    };
    if row.label.is_empty() { Err(RowProblem::NoLabel) } else { Ok(row) }
}

fn comma_separated(text: &str) -> Result<Vec<LabelledText>, TextProblem> {
    let mut records = Records { rest: text, line: 1 };
    let Some((line, header)) = records.next_record()? else { return Ok(Vec::new()) };
    let wrong = |problem| TextProblem::Row { line, problem };
    let header: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    for (i, column) in header.iter().enumerate() {
        if !column.is_empty() && header[..i].contains(column) {
            return Err(wrong(RowProblem::Twice { column: column.clone() }));
        }
    }
    let place = |column: &str| header.iter().position(|name| name == column);
    let needed = |column: &'static str| {
        place(column).ok_or_else(|| wrong(RowProblem::Missing { column, found: header.join(", ") }))
    };
    let (text, label, pair) = (needed("text")?, needed("label")?, place("text_pair"));
    let mut rows = Vec::new();
    while let Some((line, mut fields)) = records.next_record()? {
        if fields.len() == 1 && fields[0].is_empty() {
            continue;
        }
        let wrong = |problem| TextProblem::Row { line, problem };
        if fields.len() != header.len() {
            let (expected, found) = (header.len(), fields.len());
            return Err(wrong(RowProblem::Fields { expected, found }));
        }
        let mut taken = |place: usize| std::mem::take(&mut fields[place]);
        let (label, text) = (taken(label), taken(text));
        if label.is_empty() {
            return Err(wrong(RowProblem::NoLabel));
        }
        rows.push(LabelledText { text, pair: pair.map(&mut taken), label });
    }
    Ok(rows)
}

/// Records of a CSV text.
struct Records<'a> {
    rest: &'a str,
    line: usize,
}

impl Records<'_> {
    /// The next record and the line that it begins at; `None` at the end.
    fn next_record(&mut self) -> Result<Option<(usize, Vec<String>)>, TextProblem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (first, length) = (self.line, self.rest.len());
        let wrong = |problem| TextProblem::Row { line: first, problem };
        let mut fields = Vec::new();
        loop {
            let field = self.field().ok_or_else(|| wrong(RowProblem::Quote))?;
            fields.push(field);
            if fields.len() > MOST_COLUMNS || length - self.rest.len() > LONGEST_ROW {
                return Err(wrong(RowProblem::TooLong));
            }
            if let Some(rest) = self.rest.strip_prefix(',') {
                self.rest = rest;
                continue;
            }
            let end = ["\r\n", "\n", "\r"].iter().find_map(|end| self.rest.strip_prefix(end));
            match end {
                Some(rest) => self.rest = rest,
                None if self.rest.is_empty() => {}
                None => return Err(wrong(RowProblem::Quote)),
            }
            self.line += 1;
            return Ok(Some((first, fields)));
        }
    }

    /// The next field; `None` for a quote that is not closed.
    fn field(&mut self) -> Option<String> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', '\n', '\r']).unwrap_or(self.rest.len());
            let (field, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(field.to_owned());
        };
        let (mut field, mut rest) = (String::new(), quoted);
        loop {
            let end = rest.find('"')?;
            field += &rest[..end];
            rest = &rest[end + 1..];
            match rest.strip_prefix('"') {
                Some(more) => {
                    field.push('"');
                    rest = more;
                }
                None => break,
            }
        }
        self.line += field.matches('\n').count();
        self.rest = rest;
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peftml_linalg::Seed;

    const ROWS: &str = "id,text,label\n1,hello,yes\n2,\"a, \"\"b\"\"\nc\",no\r\n\n3,d,yes";
    const LINES: &str = "{\"text\": \"a\", \"label\": 1}\n\n{\"label\": \"x\", \"text\": \"b\", \"text_pair\": \"c\"}\n";

    fn row(text: &str, pair: Option<&str>, label: &str) -> LabelledText {
        LabelledText { text: text.into(), pair: pair.map(str::to_owned), label: label.into() }
    }

    fn problem(text: &str, kind: Kind) -> (usize, RowProblem) {
        match parse(text.as_bytes(), kind) {
            Err(TextProblem::Row { line, problem }) => (line, problem),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_are_read_with_quotes_pairs_and_whole_numbers() {
        let rows = parse(ROWS.as_bytes(), Kind::Csv).unwrap();
        let expected =
            [row("hello", None, "yes"), row("a, \"b\"\nc", None, "no"), row("d", None, "yes")];
        assert_eq!(rows, expected);
        let rows = parse(LINES.as_bytes(), Kind::JsonLines).unwrap();
        assert_eq!(rows, [row("a", None, "1"), row("b", Some("c"), "x")]);
        let pairs = parse("\u{feff}text,text_pair,label\na,b,c\n".as_bytes(), Kind::Csv).unwrap();
        assert_eq!(pairs, [row("a", Some("b"), "c")]);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let csv = |text: &str| problem(text, Kind::Csv);
        let found = "text, y".to_owned();
        assert_eq!(csv("text,y\n"), (1, RowProblem::Missing { column: "label", found }));
        assert_eq!(csv("text,label,text\n"), (1, RowProblem::Twice { column: "text".into() }));
        // The second row begins behind a field of two lines.
        let short = csv("text,label\n\"a\nb\",c\nd\n");
        assert_eq!(short, (4, RowProblem::Fields { expected: 2, found: 1 }));
        assert_eq!(csv("text,label\n\"a,b\n"), (2, RowProblem::Quote));
        assert_eq!(csv("text,label\n\"a\"x,b\n"), (2, RowProblem::Quote));
        assert_eq!(csv("text,label\na,\n"), (2, RowProblem::NoLabel));
        assert_eq!(csv(&format!("text,label\n{},b\n", "a".repeat(LONGEST_ROW + 1))).0, 2);
        let json = |text: &str| problem(text, Kind::JsonLines);
        assert!(matches!(
            json("{\"text\": \"a\", \"label\": \"b\"}\n[]"),
            (2, RowProblem::Json(_))
        ));
        assert!(matches!(json("{\"text\": 1, \"label\": \"b\"}"), (1, RowProblem::Type { .. })));
        assert!(matches!(json("{\"text\": \"a\"}"), (1, RowProblem::Missing { .. })));
        assert!(matches!(json("{\"text\": \"a\", \"label\": 0.5}"), (1, RowProblem::Type { .. })));
        assert!(matches!(parse(b"text,label\n", Kind::Csv), Err(TextProblem::Empty)));
        assert!(matches!(parse(b"a\xff", Kind::Csv), Err(TextProblem::Utf8 { at: 1 })));
    }

    #[test]
    fn ten_thousand_corrupted_files_are_answered_without_a_panic() {
        let mut stream = Seed::root(1).child("corrupt").stream();
        for (text, kind) in [(ROWS, Kind::Csv), (LINES, Kind::JsonLines)] {
            let mut refused = 0;
            for _ in 0..10_000 {
                let mut bytes = text.as_bytes().to_vec();
                for _ in 0..1 + stream.below(3) {
                    let at = stream.below(bytes.len() as u64) as usize;
                    match stream.below(3) {
                        0 => bytes[at] = stream.below(256) as u8,
                        1 => drop(bytes.remove(at)),
                        _ => bytes.insert(at, b"\",\n\r{\xe2"[stream.below(6) as usize]),
                    }
                }
                refused += usize::from(parse(&bytes, kind).is_err());
            }
            assert!((1_000..10_000).contains(&refused), "{refused}");
        }
    }
}
