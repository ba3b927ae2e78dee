//! Last layer: the network's head is trained, everything before it stays.
//!
//! A task gets a head of its own. It starts drawn anew, as the network's own (`start = "fresh"`), or as
//! a copy of the base's head (`start = "base"`).
//! Source: Block et al. 2025 (arXiv:2410.22264), section 5.

use super::{Configured, Entry, Kind, Selection, SelectionMethod, read_settings};
use crate::PeftError;
use crate::parameters::Spec;
use crate::sites::Sites;

pub(super) const ENTRY: Entry = Entry {
    name: "last-layer",
    summary: "a head of its own for each task",
    formula: "the head's parameters",
    source: "arXiv:2410.22264",
    hugging_face: None,
    examples: &["start = 'base'", ""],
    configure,
};

/// Where a head starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Start {
    #[default]
    Fresh,
    Base,
}

/// Settings.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    start: Start,
}

struct LastLayer(Selection);

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let settings: Settings = read_settings(ENTRY.name, table)?;
    let at_base = settings.start == Start::Base;
    let selection = if at_base { Selection::Copy } else { Selection::Fresh };
    let method = Configured::new(Kind::Selection(Box::new(LastLayer(selection))));
    Ok(if at_base { method } else { method.away_from_base() })
}

impl SelectionMethod for LastLayer {
    fn select(&self, parameter: &Spec, sites: &Sites) -> Option<Selection> {
        sites.in_head(&parameter.name).then_some(self.0)
    }
}
