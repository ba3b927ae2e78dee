//! `--set path.to.leaf=value`: edits one existing leaf of a table before it is read.

use super::ConfigError;
use toml::{Table, Value};

/// The paths of all leaves, sorted. A list is a leaf.
pub fn leaves(table: &Table) -> Vec<String> {
    let mut found = Vec::new();
    collect(table, "", &mut found);
    found
}

fn collect(table: &Table, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) => collect(inner, &path, found),
            _ => found.push(path),
        }
    }
}

/// Applies `text`, of the form `path.to.leaf=value`.
///
/// The value is TOML where it parses as that and text otherwise, so that `ground_truth=per-seed`
/// needs no quotes. A leaf that holds text takes the value as text; a whole number fits a float's
/// place, and `1e3` a whole number's.
///
/// # Errors
/// [`ConfigError::NotAnEdit`], [`ConfigError::NotALeaf`] with all leaves listed,
/// [`ConfigError::Swept`] where the leaf's values come from `[sweep]`.
pub fn set(table: &mut Table, text: &str) -> Result<(), ConfigError> {
    let Some((path, raw)) = text.split_once('=') else {
        return Err(ConfigError::NotAnEdit { text: text.to_owned() });
    };
    let (path, raw) = (path.trim(), raw.trim());
    if find(table, &format!("sweep.{path}")).is_some() {
        return Err(ConfigError::Swept { path: path.to_owned() });
    }
    let all = leaves(table).join(", ");
    match find(table, path) {
        Some(leaf) => {
            let value = parse(raw);
            *leaf = fit(leaf, value, raw);
            Ok(())
        }
        None => Err(ConfigError::NotALeaf { path: path.to_owned(), leaves: all }),
    }
}

/// Sets the leaf `path` to `value`; false where there is no such leaf.
pub(super) fn replace(table: &mut Table, path: &str, value: &Value) -> bool {
    match find(table, path) {
        Some(leaf) => {
            *leaf = value.clone();
            true
        }
        None => false,
    }
}

fn find<'t>(table: &'t mut Table, path: &str) -> Option<&'t mut Value> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    match (table.get_mut(first)?, rest) {
        (Value::Table(inner), Some(rest)) => find(inner, rest),
        (Value::Table(_), None) | (_, Some(_)) => None,
        (leaf, None) => Some(leaf),
    }
}

fn parse(raw: &str) -> Value {
    let text = || Value::String(raw.to_owned());
    match toml::from_str::<Table>(&format!("value = {raw}")) {
        // A line break in the value could smuggle in a second key.
        Ok(mut table) if table.len() == 1 => table.remove("value").unwrap_or_else(text),
        _ => text(),
    }
}

fn fit(leaf: &Value, value: Value, raw: &str) -> Value {
    match (leaf, value) {
        (Value::String(_), Value::String(value)) => Value::String(value),
        (Value::String(_), _) => Value::String(raw.to_owned()),
        (Value::Float(_), Value::Integer(value)) => Value::Float(value as f64),
        (Value::Integer(_), Value::Float(value)) if value.fract() == 0.0 && value.abs() < 9e15 => {
            Value::Integer(value as i64)
        }
        (_, value) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        toml::from_str(
            "name = \"a\"\nsize = 3\nnoise = 0.5\n[inner]\nsteps = 4\n[sweep]\nsize = [1, 2]\n",
        )
        .unwrap()
    }

    #[test]
    fn one_leaf_changes_and_keeps_its_type() {
        let mut edited = table();
        for text in ["name=per-seed", "noise=2", "inner.steps=1e3", "sweep.size=[7]"] {
            set(&mut edited, text).unwrap();
        }
        let expected = "name = \"per-seed\"\nsize = 3\nnoise = 2.0\n[inner]\nsteps = 1000\n[sweep]\nsize = [7]\n";
        assert_eq!(edited, toml::from_str::<Table>(expected).unwrap());
    }

    #[test]
    fn what_is_no_leaf_is_refused_with_the_leaves_listed() {
        for path in ["nothing", "inner", "inner.steps.deeper", "sweep", "inner.", ""] {
            let mut edited = table();
            let error = set(&mut edited, &format!("{path}=1")).unwrap_err();
            assert!(matches!(error, ConfigError::NotALeaf { .. }), "{path}");
            assert!(error.to_string().contains("inner.steps"));
            assert_eq!(edited, table(), "{path} changed nothing");
        }
        assert!(matches!(set(&mut table(), "size"), Err(ConfigError::NotAnEdit { .. })));
        assert!(matches!(set(&mut table(), "size=4"), Err(ConfigError::Swept { .. })));
    }

    #[test]
    fn a_value_cannot_smuggle_in_a_second_key() {
        let mut edited = table();
        set(&mut edited, "name=1\nsize = 9").unwrap();
        assert_eq!(edited["size"], Value::Integer(3));
    }
}
