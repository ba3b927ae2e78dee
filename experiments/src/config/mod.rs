//! Configurations: one complete TOML table per study and preset, no inheritance.
//!
//! ```text
//! embedded file or path -> table -> `--set path.to.leaf=value` edits one leaf -> typed, checked
//! ```
//! `[sweep]` maps leaf paths to lists; [`sweep::points`] is their product. The identity of a run is a
//! hash of the resolved configuration; seeds, threads, engine, output path and revision have no part
//! in it, nor the values of a sweep where a study says that its trials do not depend on them, so that
//! seeds and values can be added to a run later.

mod catalogue;
mod edit;
mod kind;
mod leaves;
pub mod resolved;
mod seeds;
pub mod sweep;

pub use self::leaves::{COMMON, Leaf, shown, unexplained};
pub use catalogue::{StudyName, load, names};
pub use edit::{leaves, set};
pub use kind::KindName;
pub use seeds::Seeds;

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use toml::Table;

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such study.
    #[error("there is no study `{name}`; known are {known} (or give the path of a .toml file)")]
    UnknownStudy {
        /// What was asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A suite that this binary does not hold.
    #[error("there is no suite `{suite}`; known are {known}")]
    UnknownSuite {
        /// The suite asked for.
        suite: String,
        /// The suites there are.
        known: String,
    },
    /// A suite of networks in a binary without them.
    #[error(
        "the suite `{suite}` needs networks, and this binary was built without: `cargo xtask run` builds \
         one that has them, as does `--features networks`"
    )]
    NeedsNetworks {
        /// The suite.
        suite: &'static str,
    },
    /// A configuration file cannot be read.
    #[error("cannot read the configuration {path}: {reason}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// Not TOML, or keys and types that do not fit.
    #[error("configuration {name}: {reason}")]
    Malformed {
        /// Name or path of the configuration.
        name: String,
        /// The parser's words; unknown keys come with the known ones.
        reason: String,
    },
    /// `--set` without `=`.
    #[error("`--set {text}` is not of the form path.to.leaf=value")]
    NotAnEdit {
        /// What was given.
        text: String,
    },
    /// `--set` names something that is not a leaf.
    #[error("`--set {path}`: there is no such leaf; the leaves are {leaves}")]
    NotALeaf {
        /// The path given.
        path: String,
        /// All leaves.
        leaves: String,
    },
    /// `--set` names a leaf whose value comes from the sweep.
    #[error("`--set {path}`: this leaf is swept, its values are those of sweep.{path}")]
    Swept {
        /// The path given.
        path: String,
    },
    /// A value out of range.
    #[error("{key} = {value}: {expected}")]
    Value {
        /// The leaf.
        key: String,
        /// Its value.
        value: String,
        /// What would be right.
        expected: String,
    },
}

impl ConfigError {
    /// A value that is out of range.
    pub fn value(
        key: impl Into<String>,
        value: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self::Value { key: key.into(), value: value.to_string(), expected: expected.into() }
    }
}

/// Reads a typed configuration from a table; unknown keys fail with the known ones listed.
///
/// # Errors
/// [`ConfigError::Malformed`] with the place in the table.
pub fn typed<T: DeserializeOwned>(name: &str, table: &Table) -> Result<T, ConfigError> {
    toml::Value::Table(table.clone()).try_into().map_err(|error: toml::de::Error| {
        // The parser's message spans lines where it points at the place; one sentence is enough.
        let reason = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        ConfigError::Malformed { name: name.to_owned(), reason }
    })
}

/// The first eight hexadecimal digits of the SHA-256 of the table in canonical form: JSON without
/// white space, keys sorted, floats in their shortest form.
pub fn hash8(identity: &Table) -> String {
    // toml's table is a sorted map and JSON of it is infallible: floats are finite by validation.
    let canonical = serde_json::to_string(identity).unwrap_or_default();
    let digest = Sha256::digest(canonical.as_bytes());
    digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_values_and_not_the_order_of_keys() {
        let table = |text: &str| toml::from_str::<Table>(text).unwrap();
        let first = hash8(&table("a = 1\nb = 0.1\n[c]\nx = true\n"));
        assert_eq!(first, hash8(&table("b = 0.1\na = 1\nc.x = true\n")));
        assert_ne!(first, hash8(&table("a = 1\nb = 0.2\n[c]\nx = true\n")));
        assert_eq!(first.len(), 8);
    }

    #[test]
    fn unknown_keys_fail_with_the_known_ones_listed() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only its schema is of interest")]
        struct Small {
            alpha: f64,
            beta: usize,
        }
        let table = toml::from_str::<Table>("alpha = 1.0\nbeta = 2\ngamma = 3\n").unwrap();
        let error = typed::<Small>("here", &table).unwrap_err().to_string();
        for part in ["here", "gamma", "alpha", "beta"] {
            assert!(error.contains(part), "{error}");
        }
        assert!(!error.contains('\n'));
    }
}
