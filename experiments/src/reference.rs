//! The reference of configurations, as Markdown.
//!
//! Written from what every suite says of its leaves and from the embedded configurations, read by
//! their types and written again: defaults included.

use crate::config::{COMMON, ConfigError, Leaf, StudyName, leaves, load, names, shown};
use crate::suites;
use std::fmt::Write;
use toml::Table;

/// Every suite with its studies and its leaves.
///
/// # Errors
/// [`ConfigError`] where an embedded configuration cannot be read.
pub fn configuration() -> Result<String, ConfigError> {
    let mut text = String::from(INTRODUCTION);
    text.push_str("## Every suite\n\n| leaf | meaning |\n|---|---|\n");
    for Leaf { path, meaning } in COMMON {
        let _ = writeln!(text, "| `{path}` | {meaning} |");
    }
    for (suite, lists) in suites::leaves() {
        if !lists.is_empty() {
            write_suite(&mut text, suite, lists)?;
        }
    }
    Ok(text)
}

const INTRODUCTION: &str = "\
# Configurations

A study's configuration is one complete TOML file; those below `configs/` are embedded in the program, and a
path that ends in `.toml` names one's own. `--set path.to.leaf=value` changes one leaf, `--seeds` the seeds.
A leaf that is not known, lacks, or has a value outside its range is refused in one sentence. The value that is
shown is that of the first configuration, in the order of the list, that has the leaf.

This page is what `peftml reference configuration` prints.

";

fn write_suite(text: &mut String, suite: &str, lists: &[&[Leaf]]) -> Result<(), ConfigError> {
    let studies: Vec<&str> = studies(suite).collect();
    let list: Vec<String> = studies.iter().map(|name| format!("`{name}`")).collect();
    let _ = write!(text, "\n## {suite}\n\n{}.\n\n", list.join(", "));
    text.push_str("| leaf | value | for example | meaning |\n|---|---|---|---|\n");
    let tables = studies.iter().map(|name| complete(name)).collect::<Result<Vec<_>, _>>()?;
    for leaf in lists.iter().copied().flatten() {
        let (kind, value) = example(&tables, leaf).unwrap_or_default();
        let Leaf { path, meaning } = leaf;
        let _ = writeln!(text, "| `{path}` | {kind} | {value} | {meaning} |");
    }
    Ok(())
}

fn studies(suite: &str) -> impl Iterator<Item = &'static str> {
    names().filter(move |name| name.split('/').next() == Some(suite))
}

/// An embedded configuration as its suite's types write it.
fn complete(name: &str) -> Result<Table, ConfigError> {
    let study = suites::open(&load(&StudyName(name.to_owned()))?)?;
    Ok(study.config().clone())
}

/// Kind and value of the first leaf that `leaf` explains; nothing where they are of several kinds.
fn example(tables: &[Table], leaf: &Leaf) -> Option<(&'static str, String)> {
    let mut found: Option<(&'static str, String)> = None;
    for table in tables {
        for path in leaves(table).iter().filter(|path| leaf.explains(path)) {
            match (shown(table, path), &found) {
                (Some((kind, value)), None) => found = Some((kind, format!("`{value}`"))),
                (Some((kind, _)), Some((first, _))) if kind != *first => return None,
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::unexplained;

    #[test]
    fn every_leaf_is_explained_and_every_entry_explains_one() {
        for (suite, lists) in suites::leaves().filter(|(_, lists)| !lists.is_empty()) {
            let tables: Vec<Table> = studies(suite).map(|name| complete(name).unwrap()).collect();
            let entries = lists.concat();
            let mut missing: Vec<String> =
                tables.iter().flat_map(|table| unexplained(table, &[COMMON, &entries])).collect();
            missing.sort();
            missing.dedup();
            assert!(missing.is_empty(), "{suite}: {missing:?}");
            for table in &tables {
                assert!(!unexplained(table, &[COMMON, &entries[1..]]).is_empty());
            }
            let explains = |leaf: &Leaf| {
                tables.iter().any(|table| leaves(table).iter().any(|path| leaf.explains(path)))
            };
            let idle: Vec<_> = entries.iter().filter(|leaf| !explains(leaf)).collect();
            assert!(idle.is_empty(), "{suite}: {idle:?}");
        }
    }

    /// Without networks the program has fewer suites.
    #[cfg(feature = "networks")]
    #[test]
    fn the_page_is_what_the_program_prints() {
        let page = include_str!("../../docs/configuration.md");
        assert!(
            page == configuration().unwrap(),
            "docs/configuration.md differs: peftml reference configuration > docs/configuration.md"
        );
    }
}
