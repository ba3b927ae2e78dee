//! Studies, claims, run folders, figures and the peftml command.
