//! The example of `docs/adding-a-solver.md` runs, is short, and is what the document shows.

#[path = "../examples/own_solver.rs"]
mod own_solver;

#[test]
fn the_documents_example_is_the_one_that_runs() {
    own_solver::main().unwrap();
    let example = include_str!("../examples/own_solver.rs");
    assert!(example.lines().count() < 60);
    assert!(include_str!("../../docs/adding-a-solver.md").contains(example));
}
