//! The `peftml` command.
fn main() {}
