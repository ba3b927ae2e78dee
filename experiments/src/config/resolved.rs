//! A study's configuration with its sweep resolved.

use super::{ConfigError, sweep};
use serde::Serialize;
use toml::{Table, Value};

/// A typed configuration of one family of studies.
pub trait PointConfig: Serialize + Sized {
    /// What it is called in errors: `of a linear study`.
    const NAME: &'static str;

    /// Reads and checks one point's configuration, or a whole study's.
    ///
    /// # Errors
    /// [`ConfigError`] that names the leaf, its value and what would be right.
    fn read(table: &Table) -> Result<Self, ConfigError>;
}

/// A study's configuration with its sweep resolved.
#[derive(Clone, Debug)]
pub struct Resolved<C> {
    /// The whole configuration.
    pub config: C,
    /// The same as a table, complete and normalised.
    pub table: Table,
    /// Paths of the swept leaves.
    pub swept: Vec<String>,
    /// Swept values and configuration of every point.
    pub points: Vec<(Vec<(String, Value)>, C)>,
}

impl<C: PointConfig> Resolved<C> {
    /// Reads a study's table.
    ///
    /// # Errors
    /// [`ConfigError`]; for a sweep that makes a point impossible, with that point's values.
    pub fn read(table: &Table) -> Result<Self, ConfigError> {
        let config = C::read(table)?;
        let table = Table::try_from(&config).map_err(|error| ConfigError::Malformed {
            name: C::NAME.to_owned(),
            reason: error.to_string(),
        })?;
        let swept = sweep::lists(&table)?.into_iter().map(|(path, _)| path).collect();
        let mut points = Vec::new();
        for point in sweep::points(&table)? {
            points.push((point.values, C::read(&point.table)?));
        }
        Ok(Self { config, table, swept, points })
    }
}

/// A swept value as a cell.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
