//! Studies, claims, run folders, figures and the peftml command.

pub mod claims;
pub mod cli;
pub mod config;
pub mod figures;
pub mod linear;
pub mod report;
pub mod runs;
pub mod slurm;
pub mod suites;
pub mod theory;
