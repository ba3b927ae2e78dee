//! What the leaves of a suite's configurations mean.
//!
//! A suite lists its leaves once, beside the type that reads them; the reference is made from that list
//! and from the embedded configurations as the types write them. A test holds the two together: every
//! leaf that a configuration has is explained by one entry, and every entry explains a leaf.

use super::leaves as paths;
use toml::{Table, Value};

/// A leaf and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// Its path; `*` stands for one name within it, `**` at its end for any number of them.
    pub path: &'static str,
    /// Its meaning: values, unit, and what follows from it.
    pub meaning: &'static str,
}

impl Leaf {
    /// An entry of a suite's list.
    pub const fn new(path: &'static str, meaning: &'static str) -> Self {
        Self { path, meaning }
    }

    /// Whether the entry explains the leaf `path`.
    pub fn explains(&self, path: &str) -> bool {
        let mut names = path.split('.');
        for wanted in self.path.split('.') {
            match (wanted, names.next()) {
                ("**", found) => return found.is_some(),
                (_, None) => return false,
                ("*", Some(_)) => {}
                (wanted, Some(name)) if wanted == name => {}
                _ => return false,
            }
        }
        names.next().is_none()
    }
}

/// The leaves that every suite has.
pub const COMMON: &[Leaf] = &[
    Leaf::new("suite", "the suite, which decides on all other leaves"),
    Leaf::new("study", "name of the study; the run folder begins with it"),
    Leaf::new("preset", "`paper`, or what the study's name is followed by: `authors`, `quick`, .."),
    Leaf::new("title", "title of figures and of the report"),
    Leaf::new("question", "the question that the study answers"),
    Leaf::new(
        "seeds",
        "half-open range, `\"0..20\"`; no part of a run's identity: seeds can be added to it later",
    ),
    Leaf::new("sweep.**", "lists of values by leaf; the study runs their product"),
];

/// The kind of a leaf's value, and the value as TOML writes it.
pub fn shown(table: &Table, path: &str) -> Option<(&'static str, String)> {
    let mut value = None;
    let mut inner = Some(table);
    for name in path.split('.') {
        value = inner?.get(name);
        inner = value.and_then(Value::as_table);
    }
    let value = value?;
    let kind = match value {
        Value::String(_) => "text",
        Value::Integer(_) => "whole number",
        Value::Float(_) => "number",
        Value::Boolean(_) => "true or false",
        Value::Array(_) => "list",
        Value::Datetime(_) => "date",
        Value::Table(_) => "table",
    };
    Some((kind, value.to_string()))
}

/// Leaves of `table` that no entry of `lists` explains, or that several do.
pub fn unexplained(table: &Table, lists: &[&[Leaf]]) -> Vec<String> {
    let entries = || lists.iter().flat_map(|list| list.iter());
    let mut found = paths(table);
    found.retain(|path| entries().filter(|leaf| leaf.explains(path)).count() != 1);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_explains_what_its_pattern_says() {
        let leaf = |path| Leaf::new(path, "");
        assert!(leaf("a.b").explains("a.b"));
        assert!(leaf("a.*.b").explains("a.x.b"));
        assert!(leaf("a.**").explains("a.x.y"));
        for (pattern, path) in
            [("a.b", "a"), ("a.b", "a.b.c"), ("a.*.b", "a.b"), ("a.**", "a"), ("a.*", "a.x.y")]
        {
            assert!(!leaf(pattern).explains(path), "{pattern} {path}");
        }
    }

    #[test]
    fn leaves_without_or_with_two_entries_are_named() {
        let table: Table = toml::from_str("a = 1\n[b]\nc = 2\nd = 3").unwrap();
        let list = [Leaf::new("a", ""), Leaf::new("b.c", ""), Leaf::new("b.*", "")];
        assert_eq!(unexplained(&table, &[&list[..2]]), ["b.d"]);
        assert_eq!(unexplained(&table, &[&list]), ["b.c"]);
        assert_eq!(shown(&table, "b.c"), Some(("whole number", "2".to_owned())));
        assert_eq!(shown(&table, "b.x"), None);
    }
}
