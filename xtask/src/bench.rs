//! `cargo xtask bench`: Criterion's benches, then the comparison with the peers in one run.
//!
//! A suite `S` is the bench target `S` of `benches/`, the program `peftml-bench-S`, or both.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::workspace;
use std::collections::BTreeMap;
use std::path::Path;

/// The verb.
pub const VERB: Verb = Verb {
    name: "bench",
    summary: "Time the hot paths, and compare with the peers.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag { name: "--suite", value: Some("S"), help: "only this suite (default: all)" },
        Flag { name: "--peers", value: None, help: "only the comparison, without Criterion" },
    ],
    rest: Some("the peers' program, or of cargo bench where there is none"),
    run,
};

/// What a suite has.
#[derive(Debug, Default, PartialEq, Eq)]
struct Suite {
    criterion: bool,
    peers: bool,
}

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let mut suites = suites(&workspace::root()?)?;
    if let Some(wanted) = parsed.value("--suite") {
        if !suites.contains_key(wanted) {
            let known = suites.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(Failure::Usage(format!("unknown suite `{wanted}`; known: {known}")));
        }
        suites.retain(|name, _| name == wanted);
    }
    for (name, suite) in suites {
        if suite.criterion && !parsed.has("--peers") {
            let mut command = workspace::cargo()?;
            command.args(["bench", "--package", "peftml-benches", "--bench", &name]);
            if !suite.peers {
                command.arg("--").args(&parsed.rest);
            }
            workspace::run(&mut command)?;
        }
        if suite.peers {
            let mut command = workspace::cargo()?;
            command.args(["run", "--release", "--quiet", "--package", "peftml-benches", "--bin"]);
            command.arg(format!("{PREFIX}{name}")).arg("--").args(&parsed.rest);
            workspace::run(&mut command)?;
        }
    }
    Ok(())
}

const PREFIX: &str = "peftml-bench-";

/// The suites that the manifest of `benches/` lists.
fn suites(root: &Path) -> Result<BTreeMap<String, Suite>, Failure> {
    let path = root.join("benches/Cargo.toml");
    let unreadable = |what: String| Failure::Work(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    let manifest: toml::Table =
        text.parse().map_err(|error: toml::de::Error| unreadable(error.to_string()))?;
    let names = |kind: &str| -> Vec<String> {
        let targets = manifest.get(kind).and_then(toml::Value::as_array);
        let names = targets.into_iter().flatten().filter_map(|t| t.get("name")?.as_str());
        names.map(String::from).collect()
    };
    let mut suites: BTreeMap<String, Suite> = BTreeMap::new();
    for name in names("bench") {
        suites.entry(name).or_default().criterion = true;
    }
    for name in names("bin") {
        if let Some(suite) = name.strip_prefix(PREFIX) {
            suites.entry(suite.to_string()).or_default().peers = true;
        }
    }
    Ok(suites)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_bench_targets_and_peers_programs() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("benches")).unwrap();
        let manifest = "[[bench]]\nname = \"linear\"\n[[bin]]\nname = \"peftml-bench-linear\"\n\
                        [[bin]]\nname = \"accuracy\"\n[[bench]]\nname = \"shallow\"\n";
        std::fs::write(root.path().join("benches/Cargo.toml"), manifest).unwrap();
        let found = suites(root.path()).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found["linear"], Suite { criterion: true, peers: true });
        assert_eq!(found["shallow"], Suite { criterion: true, peers: false });
    }
}
