//! Studies, claims, run folders, figures and the peftml command.

#[cfg(feature = "networks")]
pub mod checkpoints;
pub mod claims;
pub mod cli;
pub mod comparison;
pub mod config;
mod descent;
pub mod export;
pub mod figures;
pub mod grid;
#[cfg(feature = "networks")]
pub mod language;
pub mod linear;
#[cfg(feature = "networks")]
pub mod networks;
#[cfg(test)]
mod recut;
pub mod reference;
pub mod report;
pub mod runs;
pub mod shallow;
pub mod slurm;
pub mod statistics;
pub mod suites;
pub mod swept;
pub mod theory;
mod two_stage;
#[cfg(feature = "networks")]
pub mod vision;
