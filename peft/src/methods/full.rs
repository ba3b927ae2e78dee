//! Full fine-tuning: every parameter gets a copy of its own, which is trained. The upper baseline.
//!
//! As a method of retraining it would leave nothing of the base in use; that is refused.

use super::{Configured, Entry, Kind, Selection, SelectionMethod, read_settings};
use crate::PeftError;
use crate::parameters::Spec;
use crate::sites::Sites;

pub(super) const ENTRY: Entry = Entry {
    name: "full",
    summary: "every parameter is trained",
    formula: "the network's parameters",
    source: "the common baseline",
    hugging_face: None,
    examples: &[""],
    configure,
};

/// Nothing to set.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

struct Full;

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let Settings {} = read_settings(ENTRY.name, table)?;
    Ok(Configured::new(Kind::Selection(Box::new(Full))))
}

impl SelectionMethod for Full {
    fn select(&self, _: &Spec, _: &Sites) -> Option<Selection> {
        Some(Selection::Copy)
    }
}
