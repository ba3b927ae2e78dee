//! `cargo xtask bench`: Criterion's benches, then the comparison with the peers in one run.
//!
//! A suite `S` is the bench target `S` of `benches/`, the program `peftml-bench-S`, or both; the suite
//! `solvers` has `peftml bench` for its comparison, `networks` a program of `experiments`. Peers run on the Python named by PEFTML_PYTHON, else on
//! the environment that `--make-peers` makes in the target folder.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::{pairs, workspace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "bench",
    summary: "Time the hot paths, and compare with the peers.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag { name: "--suite", value: Some("S"), help: "only this suite (default: all)" },
        Flag { name: "--peers", value: None, help: "only the comparison, without Criterion" },
        Flag {
            name: "--make-peers",
            value: None,
            help: "make the peers' Python environment (benches/peers/requirements.txt), and no more",
        },
        Flag {
            name: "--compare",
            value: Some("REVISION"),
            help: "Criterion's benches here and at a revision, in pairs: what got slower",
        },
        Flag { name: "--pairs", value: Some("N"), help: "pairs of --compare (default: 5)" },
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

/// The suite whose comparison the binary `peftml` makes.
const SOLVERS: &str = "solvers";

/// The suite whose program belongs to `experiments`, with the feature that takes many minutes to build: it runs
/// where it is named only.
const NETWORKS: &str = "networks";

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let root = workspace::root()?;
    if parsed.has("--make-peers") {
        return make_peers(&root);
    }
    let mut suites = suites(&root)?;
    if let Some(wanted) = parsed.value("--suite") {
        if wanted == NETWORKS {
            suites.insert(NETWORKS.into(), Suite { criterion: false, peers: true });
        }
        if !suites.contains_key(wanted) {
            let known = suites.keys().map(String::as_str).chain([NETWORKS]);
            let known = known.collect::<Vec<_>>().join(", ");
            return Err(Failure::Usage(format!("unknown suite `{wanted}`; known: {known}")));
        }
        suites.retain(|name, _| name == wanted);
    }
    if let Some(revision) = parsed.value("--compare") {
        let text = parsed.value("--pairs").unwrap_or("5");
        let pairs = text.parse().ok().filter(|n| *n >= 2).ok_or_else(|| {
            Failure::Usage(format!("--pairs {text}: a whole number from 2 is needed"))
        })?;
        let (suite, rest) = (parsed.value("--suite"), parsed.rest.as_slice());
        return pairs::compare(&pairs::Request { revision, suite, pairs, rest });
    }
    for (name, suite) in suites {
        if suite.criterion && !parsed.has("--peers") {
            let mut command = workspace::cargo()?;
            command.args(["bench", "--package", "peftml-benches", "--bench", &name]);
            if !suite.peers && name != SOLVERS {
                command.arg("--").args(&parsed.rest);
            }
            workspace::run(&mut command)?;
        }
        if name == SOLVERS {
            let mut command = Command::new(workspace::build_peftml(None)?);
            command.current_dir(&root).arg("bench").args(&parsed.rest).envs(KEEPS_MEMORY);
            workspace::run(with_python(&mut command, &root))?;
        } else if suite.peers {
            let mut command = workspace::cargo()?;
            command.args(["run", "--release", "--quiet", "--package"]);
            if name == NETWORKS {
                command.arg("peftml-experiments");
            } else {
                command.arg("peftml-benches");
            }
            command.arg("--bin").arg(format!("{PREFIX}{name}")).arg("--").args(&parsed.rest);
            workspace::run(with_python(&mut command, &root))?;
        }
    }
    Ok(())
}

/// An allocator that does not give memory back between runs, as the peers have: page faults are no part of a method.
const KEEPS_MEMORY: [(&str, &str); 3] = [
    ("MALLOC_TOP_PAD_", "268435456"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "1073741824"),
];

const PREFIX: &str = "peftml-bench-";

/// The Python of the peers' environment.
fn python(root: &Path) -> PathBuf {
    let folder = pairs::target(root).join("peers");
    if cfg!(windows) { folder.join("Scripts/python.exe") } else { folder.join("bin/python") }
}

/// Names the peers' Python to `command` where the environment is there and nothing else was named.
fn with_python<'c>(command: &'c mut Command, root: &Path) -> &'c mut Command {
    let python = python(root);
    if std::env::var_os("PEFTML_PYTHON").is_none() && python.is_file() {
        command.env("PEFTML_PYTHON", python);
    }
    command
}

/// A virtual environment with the packages of `benches/peers/requirements.txt`.
fn make_peers(root: &Path) -> Result<(), Failure> {
    let folder = pairs::target(root).join("peers");
    let base = std::env::var_os("PEFTML_PYTHON").unwrap_or_else(|| "python3".into());
    workspace::run(Command::new(base).args(["-m", "venv"]).arg(&folder))?;
    let mut install = Command::new(python(root));
    install.args(["-m", "pip", "install", "--disable-pip-version-check", "--requirement"]);
    workspace::run(install.arg(root.join("benches/peers/requirements.txt")))?;
    println!("{}", folder.display());
    Ok(())
}

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
