//! The product of a sweep.
//!
//! `[sweep]` maps leaf paths to lists: `test_samples = [100, 1000]`, or for a leaf in a table
//! `fine_tuning.steps = [10, 20]`. Points are ordered with the last path (in alphabetical order)
//! running fastest.

use super::ConfigError;
use super::edit;
use toml::{Table, Value};

/// More points than this are a slip of the finger.
const MOST_POINTS: usize = 100_000;

/// One combination of swept values.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Swept leaf and its value at this point, by path.
    pub values: Vec<(String, Value)>,
    /// The configuration at this point, without `[sweep]`.
    pub table: Table,
}

/// Leaf paths of the sweep with their lists, by path.
///
/// # Errors
/// [`ConfigError::Value`] where a path does not hold a non-empty list without repetition.
pub fn lists(table: &Table) -> Result<Vec<(String, Vec<Value>)>, ConfigError> {
    let empty = Table::new();
    let sweep = match table.get("sweep") {
        Some(Value::Table(sweep)) => sweep,
        None => &empty,
        Some(other) => {
            return Err(ConfigError::value("sweep", other, "a table of leaf paths and lists"));
        }
    };
    let mut found = Vec::new();
    for path in edit::leaves(sweep) {
        let value = lookup(sweep, &path);
        match value {
            Some(Value::Array(list)) if !list.is_empty() => {
                if (1..list.len()).any(|i| list[..i].contains(&list[i])) {
                    let key = format!("sweep.{path}");
                    return Err(ConfigError::value(
                        key,
                        Value::Array(list.clone()),
                        "no value may stand twice",
                    ));
                }
                found.push((path, list.clone()));
            }
            other => {
                let shown = other.map(Value::to_string).unwrap_or_default();
                return Err(ConfigError::value(
                    format!("sweep.{path}"),
                    shown,
                    "a list of at least one value is needed",
                ));
            }
        }
    }
    Ok(found)
}

/// All points of the sweep; one, without values, where there is no sweep.
///
/// # Errors
/// As [`lists`], and [`ConfigError::NotALeaf`] for a path that the configuration lacks.
pub fn points(table: &Table) -> Result<Vec<Point>, ConfigError> {
    let lists = lists(table)?;
    let mut base = table.clone();
    base.remove("sweep");
    let count = lists.iter().try_fold(1usize, |n, (_, list)| n.checked_mul(list.len()));
    if count.is_none_or(|n| n > MOST_POINTS) {
        return Err(ConfigError::value("sweep", "its product", "at most 100000 points"));
    }
    let mut points = vec![Point { values: Vec::new(), table: base }];
    for (path, list) in &lists {
        let mut next = Vec::with_capacity(points.len() * list.len());
        for point in &points {
            for value in list {
                let mut point = point.clone();
                if !edit::replace(&mut point.table, path, value) {
                    let leaves = edit::leaves(&point.table).join(", ");
                    return Err(ConfigError::NotALeaf { path: path.clone(), leaves });
                }
                point.values.push((path.clone(), value.clone()));
                next.push(point);
            }
        }
        points = next;
    }
    Ok(points)
}

/// The table with every list of the sweep replaced by `true`: which leaves are swept, not over what.
pub fn without_values(table: &Table) -> Table {
    fn blank(table: &mut Table) {
        for (_, value) in table.iter_mut() {
            match value {
                Value::Table(inner) => blank(inner),
                leaf => *leaf = Value::Boolean(true),
            }
        }
    }
    let mut table = table.clone();
    if let Some(Value::Table(sweep)) = table.get_mut("sweep") {
        blank(sweep);
    }
    table
}

/// Replaces quoted dotted keys of `[sweep]` (`"a.b" = [..]`) by nested ones (`a.b = [..]`).
pub(super) fn nest_dotted_keys(table: &mut Table) {
    let Some(Value::Table(sweep)) = table.get_mut("sweep") else { return };
    let dotted: Vec<String> = sweep.keys().filter(|key| key.contains('.')).cloned().collect();
    for key in dotted {
        if let Some(value) = sweep.remove(&key) {
            insert(sweep, &key, value);
        }
    }
}

fn insert(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            table.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

fn lookup<'t>(table: &'t Table, path: &str) -> Option<&'t Value> {
    match path.split_once('.') {
        None => table.get(path),
        Some((first, rest)) => lookup(table.get(first)?.as_table()?, rest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Table {
        let mut table = toml::from_str(text).unwrap();
        nest_dotted_keys(&mut table);
        table
    }

    #[test]
    fn the_product_runs_over_all_lists_and_nested_leaves() {
        let table = parsed("a = 0\n[b]\nc = 0\n[sweep]\na = [1, 2]\n\"b.c\" = [3, 4, 5]\n");
        let points = points(&table).unwrap();
        let seen: Vec<(i64, i64)> = points
            .iter()
            .map(|p| (p.table["a"].as_integer().unwrap(), p.table["b"]["c"].as_integer().unwrap()))
            .collect();
        assert_eq!(seen, [(1, 3), (1, 4), (1, 5), (2, 3), (2, 4), (2, 5)]);
        assert!(points.iter().all(|p| !p.table.contains_key("sweep")));
        assert_eq!(super::points(&parsed("a = 0\n")).unwrap().len(), 1);
    }

    #[test]
    fn paths_and_lists_that_cannot_be_are_refused() {
        for text in [
            "a = 0\n[sweep]\nb = [1]\n",
            "a = 0\n[sweep]\na = []\n",
            "a = 0\n[sweep]\na = 3\n",
            "a = 0\n[sweep]\na = [1, 1]\n",
            "sweep = 3\n",
        ] {
            assert!(points(&parsed(text)).is_err(), "{text}");
        }
    }
}
