//! The tables of a run for other programs: CSV or Parquet, and a description of their columns.
//!
//! `trials`, `curves` and `timings` are written with `datapackage.json` beside them, which names every
//! column's type in the words of Frictionless Data's Table Schema (specs.frictionlessdata.io):
//! `integer`, `number` or `string`. The types are read off the cells: whole numbers are integers,
//! numbers with a point, an exponent or the words `NaN` and `Inf` are numbers, all else is text. A
//! column of numbers may have empty cells: null in Parquet, NaN or NA in pandas and R.
//!
//! Limits: a table is held in memory; Parquet needs the feature `parquet`.

use crate::runs::csv::Table;
use crate::runs::{RunError, RunFolder, write_atomically};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The tables of a run folder; a run without timings has none of them.
const TABLES: [&str; 3] = ["trials", "curves", "timings"];

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated, as in the run folder.
    Csv,
    /// Apache Parquet: one row group, no compression.
    Parquet,
}

impl Format {
    fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The run folder, or the folder to write to.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run whose trials were not merged yet.
    #[error("{} is not there: `peftml merge` writes the tables of a run", path.display())]
    NotMerged {
        /// The table.
        path: PathBuf,
    },
    /// A table that is none.
    #[error("{}, line {line}: {reason}", path.display())]
    Malformed {
        /// The table.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// This build has no Parquet.
    #[error("this build has no Parquet; build with `--features parquet`, or take `--format csv`")]
    NoParquet,
    /// The Parquet writer refused.
    #[error("{} cannot be written as Parquet: {reason}", path.display())]
    Parquet {
        /// The table.
        path: PathBuf,
        /// The writer's words.
        reason: String,
    },
}

/// Type of a column's cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cells {
    Integer,
    Number,
    Text,
}

impl Cells {
    fn of(table: &Table<'_>, column: usize) -> Self {
        let mut found = Self::Integer;
        let mut any = false;
        for row in 0..table.len() {
            let cell = table.text(row, Some(column));
            if cell.is_empty() {
                continue;
            }
            any = true;
            if cell.parse::<i64>().is_err() {
                found = Self::Number;
                if cell.parse::<f64>().is_err() {
                    return Self::Text;
                }
            }
        }
        if any { found } else { Self::Text }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "string",
        }
    }
}

/// Writes the tables of the run in `folder` to the folder `out`, and returns what was written, the
/// description last.
///
/// # Errors
/// [`ExportError`]; every file appears whole or not at all.
pub fn export(folder: &Path, out: &Path, format: Format) -> Result<Vec<PathBuf>, ExportError> {
    let run = RunFolder::open(folder)?;
    if format == Format::Parquet && !cfg!(feature = "parquet") {
        return Err(ExportError::NoParquet);
    }
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| RunError::Io { action, path, source }
    };
    let mut files = Vec::new();
    let mut resources = Vec::new();
    for name in TABLES {
        let path = run.file(&format!("{name}.csv"));
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if name == "trials" {
                    return Err(ExportError::NotMerged { path });
                }
                continue;
            }
            Err(error) => return Err(io("read", &path)(error).into()),
        };
        let table = Table::parse(&text).map_err(|(line, reason)| {
            let path = path.clone();
            ExportError::Malformed { path, line, reason }
        })?;
        let cells: Vec<Cells> = (0..table.columns().len()).map(|c| Cells::of(&table, c)).collect();
        let bytes = match format {
            Format::Csv => text.clone().into_bytes(),
            Format::Parquet => encode(&table, &cells)
                .map_err(|reason| ExportError::Parquet { path: path.clone(), reason })?,
        };
        resources.push(resource(name, format, &table, &cells));
        files.push((out.join(format!("{name}.{}", format.extension())), bytes));
    }
    let identity = run.path().file_name().map(|name| name.to_string_lossy().into_owned());
    let package = json!({ "name": identity, "profile": "data-package", "resources": resources });
    files.push((out.join("datapackage.json"), format!("{package:#}\n").into_bytes()));
    std::fs::create_dir_all(out).map_err(io("make the folder", out))?;
    for (path, bytes) in &files {
        write_atomically(path, bytes)?;
    }
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

fn resource(name: &str, format: Format, table: &Table<'_>, cells: &[Cells]) -> serde_json::Value {
    let fields: Vec<_> = table
        .columns()
        .iter()
        .zip(cells)
        .map(|(column, cells)| json!({ "name": column, "type": cells.name() }))
        .collect();
    json!({
        "name": name,
        "path": format!("{name}.{}", format.extension()),
        "format": format.extension(),
        "rows": table.len(),
        "schema": { "fields": fields, "missingValues": [""] },
    })
}

#[cfg(not(feature = "parquet"))]
fn encode(_: &Table<'_>, _: &[Cells]) -> Result<Vec<u8>, String> {
    Err(ExportError::NoParquet.to_string())
}

/// One row group; numbers are optional, text is there in every row.
#[cfg(feature = "parquet")]
fn encode(table: &Table<'_>, cells: &[Cells]) -> Result<Vec<u8>, String> {
    use parquet::basic::{LogicalType, Repetition, Type as Physical};
    use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::types::Type;
    use std::sync::Arc;

    let fields = table.columns().iter().zip(cells).map(|(name, cells)| {
        let field = match cells {
            Cells::Integer => Type::primitive_type_builder(name, Physical::INT64),
            Cells::Number => Type::primitive_type_builder(name, Physical::DOUBLE),
            Cells::Text => Type::primitive_type_builder(name, Physical::BYTE_ARRAY)
                .with_logical_type(Some(LogicalType::String)),
        };
        let repetition =
            if *cells == Cells::Text { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        field.with_repetition(repetition).build().map(Arc::new)
    });
    let words = |error: parquet::errors::ParquetError| error.to_string();
    let fields = fields.collect::<Result<Vec<_>, _>>().map_err(words)?;
    let schema = Type::group_type_builder("schema").with_fields(fields).build().map_err(words)?;
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer =
        SerializedFileWriter::new(Vec::new(), Arc::new(schema), properties).map_err(words)?;
    let mut group = writer.next_row_group().map_err(words)?;
    for (index, cells) in cells.iter().enumerate() {
        let Some(mut column) = group.next_column().map_err(words)? else { break };
        let texts = || (0..table.len()).map(|row| table.text(row, Some(index)));
        // Definition levels: 1 where there is a value, 0 where there is none.
        let levels: Vec<i16> = texts().map(|cell| i16::from(!cell.is_empty())).collect();
        match cells {
            Cells::Integer => {
                let values: Vec<i64> = texts().filter_map(|cell| cell.parse().ok()).collect();
                column.typed::<Int64Type>().write_batch(&values, Some(&levels), None)
            }
            Cells::Number => {
                let values: Vec<f64> = texts().filter_map(|cell| cell.parse().ok()).collect();
                column.typed::<DoubleType>().write_batch(&values, Some(&levels), None)
            }
            Cells::Text => {
                let values: Vec<ByteArray> = texts().map(ByteArray::from).collect();
                column.typed::<ByteArrayType>().write_batch(&values, None, None)
            }
        }
        .map_err(words)?;
        column.close().map_err(words)?;
    }
    group.close().map_err(words)?;
    writer.into_inner().map_err(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(trials: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.toml"), "suite = \"linear\"\n").unwrap();
        std::fs::write(folder.path().join("trials.csv"), trials).unwrap();
        folder
    }

    const TRIALS: &str = "study,rank,risk,few,status\na,1,0.5,,ok\n\"b,c\",2,NaN,3,ok\n";

    #[test]
    fn types_are_read_off_the_cells() {
        let table = Table::parse(TRIALS).unwrap();
        let cells: Vec<_> = (0..5).map(|column| Cells::of(&table, column)).collect();
        let expected = [Cells::Text, Cells::Integer, Cells::Number, Cells::Integer, Cells::Text];
        assert_eq!(cells, expected);
        // Control: one word makes a column text, one point makes it a number.
        let table = Table::parse("a,b\n1,1\nx,1.0\n").unwrap();
        assert_eq!(Cells::of(&table, 0), Cells::Text);
        assert_eq!(Cells::of(&table, 1), Cells::Number);
    }

    #[test]
    fn csv_keeps_its_bytes_and_is_described() {
        let folder = run(TRIALS);
        let out = folder.path().join("out");
        let written = export(folder.path(), &out, Format::Csv).unwrap();
        assert_eq!(written.len(), 2);
        assert_eq!(std::fs::read_to_string(&written[0]).unwrap(), TRIALS);
        let package = std::fs::read_to_string(&written[1]).unwrap();
        let package: serde_json::Value = serde_json::from_str(&package).unwrap();
        let schema = &package["resources"][0]["schema"]["fields"];
        assert_eq!(schema[1], json!({ "name": "rank", "type": "integer" }));
        assert_eq!(package["resources"][0]["rows"], 2);
    }

    #[test]
    fn what_is_no_table_is_refused_and_nothing_is_written() {
        let folder = run("a,b\n1\n");
        let out = folder.path().join("out");
        let error = export(folder.path(), &out, Format::Csv).unwrap_err();
        assert!(matches!(error, ExportError::Malformed { line: 2, .. }), "{error}");
        std::fs::remove_file(folder.path().join("trials.csv")).unwrap();
        let error = export(folder.path(), &out, Format::Csv).unwrap_err();
        assert!(matches!(error, ExportError::NotMerged { .. }), "{error}");
        assert!(!out.exists());
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn parquet_is_refused_by_name_where_it_was_not_built() {
        let folder = run(TRIALS);
        let error = export(folder.path(), folder.path(), Format::Parquet).unwrap_err();
        assert!(matches!(error, ExportError::NoParquet), "{error}");
    }

    #[cfg(feature = "parquet")]
    #[test]
    fn parquet_reads_back_with_types_and_nulls() {
        use parquet::file::reader::{FileReader, SerializedFileReader};
        let folder = run(TRIALS);
        let written = export(folder.path(), &folder.path().join("out"), Format::Parquet).unwrap();
        let file = std::fs::File::open(&written[0]).unwrap();
        let reader = SerializedFileReader::new(file).unwrap();
        let rows: Vec<_> = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect();
        let shown: Vec<_> = rows.iter().map(|row| row.to_string()).collect();
        assert_eq!(
            shown,
            [
                "{study: \"a\", rank: 1, risk: 0.5, few: null, status: \"ok\"}",
                "{study: \"b,c\", rank: 2, risk: NaN, few: 3, status: \"ok\"}",
            ]
        );
    }
}
