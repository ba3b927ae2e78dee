//! PEFT-ML for networks: parameter-efficient methods, retraining and fine-tuning.
//!
//! * [`Network`], [`models`]: a network says what modules it has and computes through a [`Pass`].
//! * [`methods`]: one file a method; an [`Adapter`] is a method bound to a network's modules.
//! * [`train`]: retraining (`standard`, `peft-ml`, `reptile`, `fomaml`) and fine-tuning, for any network
//!   and any method.
//! * [`pretrained`]: encoders and tokenizers from Hugging Face's folders, and back.
//! * [`exchange`]: adapters in Hugging Face's format, both ways.
//! * [`ops`]: the operations that time goes into.
//!
//! PEFT-ML minimises `sum_t min_theta_t L_t(W, theta_t)`: the base parameters `W` exist once, every
//! task has its own adapter parameters `theta_t`, and the base is what is kept. Devices and the
//! floating-point type are chosen at run time ([`Place`]). Every draw comes from a
//! [`peftml_linalg::Seed`] path. Nothing here prints or reads the environment or a clock.

// So that a method's file reads the same inside the crate and in the documentation's example.
#[allow(unused_extern_crates)]
extern crate self as peftml_peft;

mod adapter;
mod batch;
pub mod device;
mod error;
pub mod exchange;
pub mod methods;
pub mod models;
mod network;
pub mod ops;
pub mod optimiser;
pub mod parameters;
pub mod pretrained;
mod sequences;
pub mod sites;
pub mod store;
pub mod train;

pub use adapter::{Adapter, AdapterConfig, Targets};
pub use batch::{Batch, Examples, Input, Target, Task, VectorExamples};
pub use device::{Place, Precision};
pub use error::{FileProblem, PeftError};
pub use network::{Network, Pass};
pub use parameters::{Gradients, Parameter, Parameters};
pub use sequences::{Encoded, Sequences, Tokens};
pub use sites::Sites;

/// The example of `docs/adding-a-method.md`, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../docs/adding-a-method.md")]
struct AddingAMethod;
