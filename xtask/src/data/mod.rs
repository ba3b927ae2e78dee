//! `cargo xtask data`: which real data sets are at hand; `cargo xtask data cifar10` gets one.
//!
//! The linear, shallow and theory suites draw their data; only real images and dialogues are looked
//! for, in `$PEFTML_DATA`, else `~/.cache/peftml`.

mod cifar10;

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::workspace;
use std::path::PathBuf;

/// The verb.
pub const VERB: Verb = Verb {
    name: "data",
    summary: "Show which real data sets are at hand, or get one.",
    operands: "[cifar10]",
    operand_count: 0..=1,
    flags: &[Flag {
        name: "--from",
        value: Some("FOLDER"),
        help: "take the files (or the archive) from here instead of downloading them",
    }],
    rest: None,
    run,
};

/// Folder and source of each data set.
const SETS: [(&str, &str); 4] = [
    (cifar10::FOLDER, "CIFAR-10, binary version: https://www.cs.toronto.edu/~kriz/cifar.html"),
    ("convai2", "ConvAI2, ParlAI's text format: https://parl.ai"),
    (
        "all-MiniLM-L6-v2",
        "MiniLM encoder: https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2",
    ),
    ("roberta-tokenizer", "vocab.json and merges.txt: https://huggingface.co/roberta-base"),
];

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let folder = folder().ok_or_else(|| {
        Failure::Work("neither PEFTML_DATA nor HOME is set: there is no place to look".into())
    })?;
    let from = parsed.value("--from").map(workspace::absolute).transpose()?;
    match (parsed.operands.first().map(String::as_str), from) {
        (None, None) => {
            list(&folder);
            Ok(())
        }
        (None, Some(_)) => Err(Failure::Usage("--from: of which set? cifar10 is known".into())),
        (Some("cifar10"), from) => {
            let place = cifar10::get(&cifar10::OFFICIAL, &folder, from.as_deref())?;
            println!("{}", place.display());
            Ok(())
        }
        (Some(other), _) => {
            Err(Failure::Usage(format!("no way to get `{other}` is known; cifar10 is")))
        }
    }
}

fn list(folder: &std::path::Path) {
    println!("{}", folder.display());
    for (name, source) in SETS {
        let state = if folder.join(name).is_dir() { "present" } else { "absent " };
        println!("{state}  {name:<22} {source}");
    }
}

fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("PEFTML_DATA").or_else(|| set("HOME").map(|home| home.join(".cache/peftml")))
}
