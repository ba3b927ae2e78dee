//! BitFit: every bias of the network gets a trained difference `b = b0 + delta`, start `delta = 0`.
//!
//! The same model as training the biases themselves; as a difference it leaves `b0` to the base, so that
//! retraining with one difference per task still learns biases that the tasks share.
//! Source: Ben Zaken et al. 2021 (arXiv:2106.10199). Biases of layer norms are among them; a head comes
//! with `modules_to_save`.

use super::{Configured, Entry, Kind, Selection, SelectionMethod, read_settings};
use crate::PeftError;
use crate::parameters::Spec;
use crate::sites::Sites;

pub(super) const ENTRY: Entry = Entry {
    name: "bitfit",
    summary: "only biases are trained",
    formula: "the number of biases, those of layer norms included",
    source: "arXiv:2106.10199",
    hugging_face: None,
    examples: &[""],
    configure,
};

/// Nothing to set.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {}

struct BitFit;

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let Settings {} = read_settings(ENTRY.name, table)?;
    Ok(Configured::new(Kind::Selection(Box::new(BitFit))))
}

impl SelectionMethod for BitFit {
    fn select(&self, parameter: &Spec, _: &Sites) -> Option<Selection> {
        let name = parameter.name.as_str();
        (name == "bias" || name.ends_with(".bias")).then_some(Selection::Delta)
    }
}
