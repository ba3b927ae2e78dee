//! The methods: one file each, one line in the registry.
//!
//! A method's file holds its formula, its settings, its start and the number of its parameters. What
//! it acts on decides which of four traits it implements:
//!
//! | kind | acts on | trait |
//! |---|---|---|
//! | weight | a linear map's weight, `W(W0, theta)` | [`WeightMethod`] |
//! | activation | a sublayer's output | [`ActivationMethod`] |
//! | input | the token sequence, or an attention's keys and values | [`InputMethod`] |
//! | selection | parameters of the network itself | [`SelectionMethod`] |
//!
//! Command line, files, training and the contract tests iterate over [`registry`]; nothing else
//! branches on a method's name. `docs/adding-a-method.md` shows a whole one.

mod kinds;
mod patterns;
mod settings;

pub(crate) use kinds::joined;
pub use kinds::{
    ActivationMethod, InputMethod, Kind, Note, Selection, SelectionMethod, Theta, WeightMethod,
};
pub(crate) use patterns::whole;
pub use patterns::{Patterns, nearest};
pub(crate) use settings::in_range;
pub use settings::{LowRank, read_settings};

use crate::PeftError;
use crate::exchange::HuggingFace;

/// A method of the registry.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its name in configurations and on the command line.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// How many parameters it trains, in words and symbols.
    pub formula: &'static str,
    /// Where it comes from.
    pub source: &'static str,
    /// How it stands in Hugging Face's format, where it does.
    pub hugging_face: Option<HuggingFace>,
    /// Settings that the contract tests run it with, small enough for their networks.
    pub examples: &'static [&'static str],
    /// Makes the method from its settings; unknown keys are refused.
    pub configure: fn(toml::Table) -> Result<Configured, PeftError>,
}

impl Entry {
    /// Whether it acts on the network as a whole: there is nothing to choose.
    pub fn acts_on_the_whole(&self) -> bool {
        self.is_of(|kind| matches!(kind, Kind::Input(_)))
    }

    /// Whether it acts on linear layers' weights.
    pub fn acts_on_linear_layers(&self) -> bool {
        self.is_of(|kind| matches!(kind, Kind::Weight(_)))
    }

    fn is_of(&self, kind: impl Fn(&Kind) -> bool) -> bool {
        (self.configure)(toml::Table::new()).is_ok_and(|configured| kind(&configured.kind))
    }
}

/// A method with its settings.
pub struct Configured {
    /// What it does.
    pub kind: Kind,
    /// Whether a fresh adapter leaves the network's outputs as they are.
    pub starts_at_base: bool,
    /// Whether the gradient is the derivative of the formula. Not where a method holds a part of it
    /// fixed on purpose.
    pub exact_gradient: bool,
}

impl Configured {
    /// A method that starts at the base model and is differentiated as it stands.
    pub fn new(kind: Kind) -> Self {
        Self { kind, starts_at_base: true, exact_gradient: true }
    }

    /// The same, not starting at the base model.
    pub fn away_from_base(self) -> Self {
        Self { starts_at_base: false, ..self }
    }
}

/// Declares the modules below and lists their entries: a method is one line.
macro_rules! methods {
    ($($module:ident,)*) => {
        $(mod $module;)*
        const REGISTRY: &[Entry] = &[$($module::ENTRY,)*];
    };
}

methods! {
    lora,
    symmetric_lora,
    dora,
    vera,
    lora_xs,
    loha,
    lokr,
    ia3,
    oft,
    bottleneck,
    bitfit,
    prompt,
    prefix,
    last_layer,
    full,
}

/// All methods.
pub fn registry() -> &'static [Entry] {
    REGISTRY
}

/// The method called `name`.
///
/// # Errors
/// [`PeftError::UnknownMethod`], with those that exist.
pub fn entry(name: &str) -> Result<&'static Entry, PeftError> {
    registry().iter().find(|entry| entry.name == name).ok_or_else(|| PeftError::UnknownMethod {
        name: name.into(),
        known: nearest(name, registry().iter().map(|entry| entry.name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_an_unknown_one_is_answered_with_the_nearest() {
        for (i, entry) in registry().iter().enumerate() {
            assert!(registry()[..i].iter().all(|other| other.name != entry.name));
            let misspelt = format!("{}x", entry.name);
            match super::entry(&misspelt) {
                Err(PeftError::UnknownMethod { known, .. }) => {
                    assert_eq!((known[0], known.len()), (entry.name, registry().len()));
                }
                _ => panic!("{misspelt} was found"),
            }
        }
    }

    #[test]
    fn unknown_keys_are_refused_with_the_known_ones() {
        for entry in registry() {
            let table: toml::Table = "no_such_key = 1".parse().unwrap();
            let message = (entry.configure)(table).err().map(|error| error.to_string());
            let message = message.unwrap_or_else(|| panic!("{} takes any key", entry.name));
            assert!(message.contains("no_such_key"), "{message}");
            assert!(
                (entry.configure)(toml::Table::new()).is_ok(),
                "{} has no defaults",
                entry.name
            );
        }
    }
}
