//! The global solver on random problems that are hard or have no answer.
//!
//! `cargo run --release -p peftml-benches --bin robustness -- [DRAWS [SEED]]`: DRAWS problems (default 10000)
//! over the classes of [`peftml_benches::hard`], in turn dense and passed over. Every answer is right to its
//! bound or refused; the table counts. Exit status 1 where an answer is wrong, not finite, or a panic.

use peftml_benches::hard::{Class, Counts, Outcome, run};
use peftml_linalg::Seed;
use std::process::ExitCode;

const CLASSES: [Class; 11] = Class::ALL;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<u64>().expect("a number"));
    let draws = arguments.next().unwrap_or(10_000);
    let root = Seed::root(arguments.next().unwrap_or(0)).child("robustness");
    let mut counts = vec![Counts::default(); CLASSES.len()];
    for draw in 0..draws {
        let index = draw as usize % CLASSES.len();
        let outcome = run(CLASSES[index], &root.child(draw), draw);
        match &outcome {
            Outcome::Wrong { what } => eprintln!("WRONG {draw}, {}: {what}", CLASSES[index].name()),
            Outcome::Refused { solvable: true, what, .. } => {
                eprintln!("refused {draw}, {}: {what}", CLASSES[index].name());
            }
            _ => {}
        }
        counts[index].add(&outcome);
    }
    println!(
        "| class | problems | right | largest error/bound | refused | refused with a bound below 1e-6 | wrong |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut total = Counts::default();
    for (class, count) in CLASSES.iter().zip(&counts) {
        println!("{}", count.row(class.name()));
        total.merge(count);
    }
    println!("{}", total.row("all"));
    for (reason, count) in &total.reasons {
        println!("refused as {reason}: {count}");
    }
    if total.wrong > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
