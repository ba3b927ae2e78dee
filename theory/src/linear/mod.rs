//! Linear tasks: ground truth, statistics, objectives, standard retraining and predictions.

mod error;
mod factored;
mod ground_truth;
mod identification;
mod matrices;
pub mod predictions;
mod profile;
pub mod standard;
mod tasks;
mod weighted;

pub use error::LinearError;
pub use ground_truth::GroundTruth;
pub use identification::{Identification, IdentificationWork, Spectrum};
pub use matrices::TaskMatrices;
pub use profile::ProfileObjective;
pub use tasks::{Task, TaskSource, Tasks};

/// Whether offsets and adapters are `U U^T` or `U V^T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `R = U U^T`.
    Symmetric,
    /// `R = U V^T`.
    Asymmetric,
}

impl Kind {
    /// `"symmetric"` or `"asymmetric"`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Symmetric => "symmetric",
            Kind::Asymmetric => "asymmetric",
        }
    }
}
