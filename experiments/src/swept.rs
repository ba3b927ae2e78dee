//! The swept quantities of a study in tables, titles and on axes.

use crate::figures::{Axis, Scale};
use crate::runs::csv::Table;

/// The swept leaves and how they are shown.
#[derive(Clone, Copy, Debug)]
pub struct Swept<'s> {
    /// Leaf paths, which are columns of the tables.
    pub paths: &'s [String],
    /// The column that stands in where nothing is swept.
    pub default: &'static str,
}

impl Swept<'_> {
    /// What runs along the horizontal axis: the first swept leaf.
    pub fn path(&self) -> &str {
        self.paths.first().map_or(self.default, String::as_str)
    }

    /// A row's position on that axis.
    pub fn x(&self, table: &Table<'_>, row: usize) -> Option<f64> {
        table.number(row, table.column(self.path()))
    }

    /// The values of the other swept leaves, for labels: empty, or `", rank 2"`.
    pub fn others(&self, table: &Table<'_>, row: usize) -> String {
        let rest = self.paths.iter().skip(1);
        rest.map(|path| format!(", {} {}", words(path), table.text(row, table.column(path))))
            .collect()
    }

    /// All swept values of a row: `test_samples_100`.
    pub fn point(&self, table: &Table<'_>, row: usize) -> String {
        let text = |path: &String| format!("{path}_{}", table.text(row, table.column(path)));
        let parts: Vec<String> = self.paths.iter().map(text).collect();
        let clean = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        parts.join("_").chars().map(clean).collect()
    }

    /// All swept values of a row in words: `test samples 100`.
    pub fn title(&self, table: &Table<'_>, row: usize) -> String {
        let text =
            |path: &String| format!("{} {}", words(path), table.text(row, table.column(path)));
        self.paths.iter().map(text).collect::<Vec<_>>().join(", ")
    }

    /// Logarithmic where the values spread over more than a factor of eight.
    pub fn axis(&self, table: &Table<'_>) -> Axis {
        let values = (0..table.len()).filter_map(|row| self.x(table, row));
        let (low, high) =
            values.fold((f64::INFINITY, 0.0_f64), |(low, high), x| (low.min(x), high.max(x)));
        let scale = if low > 0.0 && high > 8.0 * low { Scale::Log } else { Scale::Linear };
        Axis { label: words(self.path()), scale }
    }
}

/// A leaf's path as words.
pub fn words(path: &str) -> String {
    path.replace(['_', '.'], " ")
}
