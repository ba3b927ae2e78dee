//! `cargo xtask data`: which real data sets are at hand.
//!
//! The linear, shallow and theory suites draw their data; only real images and dialogues are looked
//! for, in `$PEFTML_DATA`, else `~/.cache/peftml`.

use crate::failure::Failure;
use crate::flags::{Parsed, Verb};
use std::path::PathBuf;

/// The verb.
pub const VERB: Verb = Verb {
    name: "data",
    summary: "Show which real data sets are at hand.",
    operands: "",
    operand_count: 0..=0,
    flags: &[],
    rest: None,
    run,
};

/// Folder and source of each data set.
const SETS: [(&str, &str); 4] = [
    (
        "cifar-10-batches-bin",
        "CIFAR-10, binary version: https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    ("convai2", "ConvAI2, ParlAI's text format: https://parl.ai"),
    (
        "all-MiniLM-L6-v2",
        "MiniLM encoder: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    ),
    ("roberta-tokenizer", "vocab.json and merges.txt: https://huggingface.co/roberta-base"),
];

fn run(_: &Parsed) -> Result<(), Failure> {
    let folder = folder().ok_or_else(|| {
        Failure::Work("neither PEFTML_DATA nor HOME is set: there is no place to look".into())
    })?;
    println!("{}", folder.display());
    for (name, source) in SETS {
        let state = if folder.join(name).is_dir() { "present" } else { "absent " };
        println!("{state}  {name:<22} {source}");
    }
    Ok(())
}

fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PEFTML_DATA").or_else(|| set("HOME").map(|home| home.join(".cache/peftml")))
}
