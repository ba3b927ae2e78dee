//! The kind of offsets and adapters, by name.

use peftml_theory::linear::Kind;
use serde::{Deserialize, Serialize};

/// [`Kind`] in a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KindName {
    /// `U U^T`.
    Symmetric,
    /// `U V^T`.
    Asymmetric,
}

impl From<KindName> for Kind {
    fn from(name: KindName) -> Kind {
        match name {
            KindName::Symmetric => Kind::Symmetric,
            KindName::Asymmetric => Kind::Asymmetric,
        }
    }
}
