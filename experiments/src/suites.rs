//! The suites: one line each. Everything else iterates over this list.

use crate::comparison::ComparisonStudy;
use crate::config::{ConfigError, Leaf};
#[cfg(feature = "networks")]
use crate::language::LanguageStudy;
use crate::linear::LinearStudy;
use crate::runs::Study;
use crate::shallow::ShallowStudy;
use crate::theory::TheoryStudy;
#[cfg(feature = "networks")]
use crate::vision::VisionStudy;
use toml::{Table, Value};

/// A family of studies with one kind of configuration.
struct Suite {
    name: &'static str,
    open: fn(&Table) -> Result<Box<dyn Study>, ConfigError>,
    /// What its leaves mean.
    leaves: &'static [&'static [Leaf]],
}

const SUITES: &[Suite] = &[
    #[cfg(feature = "networks")]
    Suite {
        name: "language",
        open: |table| Ok(Box::new(LanguageStudy::new(table)?)),
        leaves: &[crate::networks::config::LEAVES, crate::language::config::LEAVES],
    },
    #[cfg(not(feature = "networks"))]
    Suite {
        name: "language",
        open: |_| Err(ConfigError::NeedsNetworks { suite: "language" }),
        leaves: &[],
    },
    Suite {
        name: "linear",
        open: |table| Ok(Box::new(LinearStudy::new(table)?)),
        leaves: &[crate::linear::config::LEAVES],
    },
    Suite {
        name: "shallow",
        open: |table| Ok(Box::new(ShallowStudy::new(table)?)),
        leaves: &[crate::shallow::config::LEAVES],
    },
    Suite {
        name: "solvers",
        open: |table| Ok(Box::new(ComparisonStudy::new(table)?)),
        leaves: &[crate::comparison::config::LEAVES],
    },
    Suite {
        name: "theory",
        open: |table| Ok(Box::new(TheoryStudy::new(table)?)),
        leaves: &[crate::theory::LEAVES],
    },
    #[cfg(feature = "networks")]
    Suite {
        name: "vision",
        open: |table| Ok(Box::new(VisionStudy::new(table)?)),
        leaves: &[crate::networks::config::LEAVES, crate::vision::config::LEAVES],
    },
    #[cfg(not(feature = "networks"))]
    Suite {
        name: "vision",
        open: |_| Err(ConfigError::NeedsNetworks { suite: "vision" }),
        leaves: &[],
    },
];

/// The study of a complete configuration, by its leaf `suite`.
///
/// # Errors
/// [`ConfigError::UnknownSuite`] with the known ones, and what the suite has to say.
pub fn open(table: &Table) -> Result<Box<dyn Study>, ConfigError> {
    let named = table.get("suite").and_then(Value::as_str).unwrap_or_default();
    match SUITES.iter().find(|suite| suite.name == named) {
        Some(suite) => (suite.open)(table),
        None => Err(ConfigError::UnknownSuite {
            suite: named.to_owned(),
            known: SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", "),
        }),
    }
}

/// Names of the suites and what their leaves mean; the list of one that this binary lacks is empty.
pub fn leaves() -> impl Iterator<Item = (&'static str, &'static [&'static [Leaf]])> {
    SUITES.iter().map(|suite| (suite.name, suite.leaves))
}
