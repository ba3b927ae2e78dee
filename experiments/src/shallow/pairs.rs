//! Trials read back from a merged table: values by sweep point, fine-tuning and retraining method, and
//! pairs of them by seed.

use super::methods::{OPTIMISERS, RetrainingMethod};
use crate::runs::csv::Table;
use crate::swept::Swept;
use crate::two_stage::SIZES;

/// Trials of one sweep point, fine-tuning method and rank, and retraining method.
pub struct Cell {
    /// Swept values in words; empty where nothing is swept.
    pub title: String,
    /// Position on the swept axis.
    pub x: f64,
    /// The problem's sizes: cells of one problem differ in how it is solved.
    pub problem: Vec<String>,
    /// Fine-tuning method and adapter rank, in words where the study has several.
    pub tuning: String,
    /// Retraining method.
    pub method: RetrainingMethod,
    /// Seed and value.
    pub values: Vec<(String, f64)>,
}

impl Cell {
    /// Values alone.
    pub fn numbers(&self) -> Vec<f64> {
        self.values.iter().map(|(_, value)| *value).collect()
    }

    /// Values of `self` and `other` at seeds that both have.
    pub fn pairs(&self, other: &Cell) -> Vec<(f64, f64)> {
        self.values
            .iter()
            .filter_map(|(seed, value)| {
                let (_, partner) = other.values.iter().find(|(known, _)| known == seed)?;
                Some((*value, *partner))
            })
            .collect()
    }
}

/// All cells with values of `column`, in order of appearance.
pub fn cells(table: &Table<'_>, swept: &Swept<'_>, column: &str) -> Vec<Cell> {
    let several = several_tunings(table);
    let (value, seed) = (table.column(column), table.column("seed"));
    let mut cells: Vec<Cell> = Vec::new();
    for row in 0..table.len() {
        let Some(method) = method_of(table, row) else { continue };
        let (Some(number), Some(x)) = (table.number(row, value), swept.x(table, row)) else {
            continue;
        };
        let title = swept.title(table, row);
        let problem = SIZES.map(|size| table.text(row, table.column(size)).to_owned()).to_vec();
        let tuning = if several { tuning_of(table, row) } else { String::new() };
        let found = cells.iter().position(|cell| {
            cell.title == title && cell.tuning == tuning && cell.method.name() == method.name()
        });
        let at = found.unwrap_or_else(|| {
            cells.push(Cell { title, x, problem, tuning, method, values: Vec::new() });
            cells.len() - 1
        });
        cells[at].values.push((table.text(row, seed).to_owned(), number));
    }
    cells
}

/// Meta-learning beside standard retraining: each cell with adapters with the one without at the same
/// point, fine-tuning and optimiser.
pub fn comparisons(cells: &[Cell]) -> Vec<(&Cell, &Cell)> {
    let baseline = |cell: &&Cell| {
        cells.iter().find(|other| {
            !other.method.model.adapters
                && other.method.optimiser.name == cell.method.optimiser.name
                && other.title == cell.title
                && other.tuning == cell.tuning
        })
    };
    let adapted = cells.iter().filter(|cell| cell.method.model.adapters);
    adapted.filter_map(|cell| Some((cell, baseline(&cell)?))).collect()
}

/// Other ways of solving the same problem beside the reference's: each cell with the first one of its
/// problem, model and fine-tuning that the reference's optimiser made.
pub fn refinements(cells: &[Cell]) -> Vec<(&Cell, &Cell)> {
    let baseline = |cell: &Cell| {
        cells.iter().find(|other| {
            other.method.optimiser.name == OPTIMISERS[0].name
                && other.method.model.name == cell.method.model.name
                && other.problem == cell.problem
                && other.tuning == cell.tuning
        })
    };
    let pairs = cells.iter().filter_map(|cell| Some((cell, baseline(cell)?)));
    pairs.filter(|(cell, baseline)| !std::ptr::eq(*cell, *baseline)).collect()
}

/// A row's retraining method.
pub fn method_of(table: &Table<'_>, row: usize) -> Option<RetrainingMethod> {
    let cell = |name: &str| table.text(row, table.column(name));
    let name = format!("{}/{}", cell("retraining"), cell("solver"));
    RetrainingMethod::find_all(&[name]).ok()?.pop()
}

/// A row's fine-tuning in words: `rank 3`, `rank 1, l-bfgs`.
pub fn tuning_of(table: &Table<'_>, row: usize) -> String {
    let cell = |name: &str| table.text(row, table.column(name));
    match cell("fine_tuning") {
        "adamw" => format!("rank {}", cell("adapter_rank")),
        other => format!("rank {}, {other}", cell("adapter_rank")),
    }
}

/// Whether some retraining of one point and seed is fine-tuned in more than one way.
pub fn several_tunings(table: &Table<'_>) -> bool {
    let key = |row: usize| {
        SIZES
            .iter()
            .chain(&["seed", "retraining", "solver"])
            .map(|name| table.text(row, table.column(name)))
            .collect::<Vec<_>>()
    };
    // Rows of one trial are neighbours; those of its retraining have no fine-tuning.
    let fine_tuning = table.column("fine_tuning");
    let rows: Vec<usize> =
        (0..table.len()).filter(|row| !table.text(*row, fine_tuning).is_empty()).collect();
    rows.windows(2).any(|pair| {
        key(pair[0]) == key(pair[1]) && tuning_of(table, pair[0]) != tuning_of(table, pair[1])
    })
}
