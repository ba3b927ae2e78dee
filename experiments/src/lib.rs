//! Studies, claims, run folders, figures and the peftml command.

pub mod config;
