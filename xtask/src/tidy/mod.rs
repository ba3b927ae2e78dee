//! `cargo xtask tidy`: the invariants of ARCHITECTURE.md that a machine can check.
//!
//! Rust sources are read as tokens, not as text: what stands in a comment or a string is neither
//! reported nor a way round. Every check has a planted violation in the tests below.

mod architecture;
mod arrows;
mod book;
mod files;
mod libraries;
mod links;
mod modules;
mod randomness;
mod source;
mod tree;
mod unfinished;
mod unsafe_code;

use crate::failure::Failure;
use crate::flags::{Parsed, Verb};
use crate::workspace;
use tree::Tree;

/// The verb.
pub const VERB: Verb = Verb {
    name: "tidy",
    summary: "Check the invariants that a machine can check.",
    operands: "",
    operand_count: 0..=0,
    flags: &[],
    rest: None,
    run,
};

/// What a check found.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Problem {
    /// File, relative to the root.
    file: String,
    /// Line, from 1; 0 for the file as a whole.
    line: usize,
    /// What is wrong and what would be right.
    message: String,
}

impl Problem {
    fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.into(), line, message: message.into() }
    }
}

/// A named check.
struct Check {
    name: &'static str,
    find: fn(&Tree) -> Vec<Problem>,
}

impl Check {
    /// What the check finds, in the order of files and lines, everything once.
    fn problems(&self, tree: &Tree) -> Vec<Problem> {
        let mut problems = (self.find)(tree);
        problems.sort();
        problems.dedup();
        problems
    }
}

const CHECKS: &[Check] = &[
    Check { name: "arrows", find: arrows::in_manifests },
    Check { name: "imports", find: arrows::in_sources },
    Check { name: "unused", find: arrows::unused },
    Check { name: "re-exports", find: arrows::re_exports },
    Check { name: "manifests", find: architecture::manifests },
    Check { name: "toolchain", find: architecture::toolchain },
    Check { name: "dependencies", find: architecture::dependencies },
    Check { name: "picture", find: architecture::picture },
    Check { name: "modules", find: modules::picture },
    Check { name: "quiet", find: libraries::quiet },
    Check { name: "printing", find: libraries::printing },
    Check { name: "state", find: libraries::state },
    Check { name: "errors", find: libraries::errors },
    Check { name: "writes", find: libraries::writes },
    Check { name: "randomness", find: randomness::generators },
    Check { name: "property-seeds", find: randomness::property_tests },
    Check { name: "unfinished", find: unfinished::code },
    Check { name: "notes", find: unfinished::notes },
    Check { name: "unsafe", find: unsafe_code::without_proof },
    Check { name: "links", find: links::relative },
    Check { name: "book", find: book::chapters },
    Check { name: "verdicts", find: book::verdicts },
    Check { name: "places", find: files::machine_places },
    Check { name: "hosts", find: files::registry_hosts },
    Check { name: "junk", find: files::junk },
];

fn run(_: &Parsed) -> Result<(), Failure> {
    let tree = Tree::open(&workspace::root()?)?;
    let mut found = 0;
    for check in CHECKS {
        let problems = check.problems(&tree);
        found += problems.len();
        for Problem { file, line, message } in problems {
            println!("{file}:{line}: {message} [{}]", check.name);
        }
    }
    if found > 0 {
        return Err(Failure::Work(format!("{found} problems")));
    }
    println!("tidy: {} checks over {} files", CHECKS.len(), tree.files.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use tempfile::TempDir;

    /// Files of a small workspace in which every check passes.
    const CLEAN: &[(&str, &str)] = &[
        (
            "Cargo.toml",
            r#"[workspace]
members = ["linalg", "theory", "solvers", "experiments", "xtask"]
[workspace.package]
rust-version = "1.95"
[workspace.dependencies]
peftml-linalg = { path = "linalg" }
peftml-theory = { path = "theory" }
peftml-solvers = { path = "solvers" }
faer = "0.24"
"#,
        ),
        ("Cargo.lock", "source = \"registry+https://github.com/rust-lang/crates.io-index\"\n"),
        ("rust-toolchain.toml", "[toolchain]\nchannel = \"1.95.0\"\n"),
        (
            "linalg/Cargo.toml",
            "[package]\nname = \"peftml-linalg\"\n[lints]\nworkspace = true\n[dependencies]\nfaer.workspace = true\n",
        ),
        (
            "theory/Cargo.toml",
            "[package]\nname = \"peftml-theory\"\n[lints]\nworkspace = true\n[dependencies]\npeftml-linalg.workspace = true\n",
        ),
        (
            "solvers/Cargo.toml",
            "[package]\nname = \"peftml-solvers\"\n[lints]\nworkspace = true\n[dependencies]\npeftml-theory.workspace = true\n",
        ),
        (
            "experiments/Cargo.toml",
            "[package]\nname = \"peftml-experiments\"\n[lints]\nworkspace = true\n[dependencies]\npeftml-solvers.workspace = true\n",
        ),
        ("xtask/Cargo.toml", "[package]\nname = \"xtask\"\n[lints]\nworkspace = true\n"),
        ("linalg/src/lib.rs", "//! Ground floor.\n"),
        (
            "theory/src/lib.rs",
            // Near misses of most checks: all of this is right.
            r##"//! Prints with `println!`, see `peftml_solvers`, not std::fs.
use peftml_linalg::Seed;
/// A word in a string is no note, nor is METHODOLOGY.
pub const WORDS: &str = r#"unsafe { std::env::var("FIXME") } println!("thread_rng")"#;
/* std::time::Instant /* nested */ rand::random() */
pub fn random(x: &mut impl Draw) -> f64 { x.random() }
pub fn lifetime<'a>(fs: &'a str, c: char) -> bool { c == '"' && fs.len() > 1 }
pub enum Reason { Other { what: String }, Another(String) }
#[cfg(test)]
mod tests {
    use std::time::Instant;
    fn scratch() { println!("{:?}", std::env::temp_dir()); }
}
"##,
        ),
        (
            "solvers/src/lib.rs",
            "use peftml_theory::Objective;\nfn first(x: &[f64]) -> f64 {\n    // SAFETY: the caller's slice is not empty.\n    unsafe { *x.get_unchecked(0) }\n}\n",
        ),
        (
            "experiments/src/lib.rs",
            "pub mod cli;\npub fn name() -> Name { peftml_solvers::name() }\n",
        ),
        ("experiments/src/cli.rs", "pub fn main() { eprintln!(\"ready\"); }\n"),
        ("xtask/src/main.rs", "fn main() { println!(\"{:?}\", std::env::args()); }\n"),
        (
            "book/SUMMARY.md",
            "# Summary\n- [Book](start.md)\n- [Later]()\n- [B](../docs/b.md)\n- [House](../ARCHITECTURE.md)\n- [C](../docs/claims.md)\n",
        ),
        ("book/start.md", "# Start\n$x^2$ [code](../theory/src/lib.rs)\n\n<!-- claims: C1 -->\n"),
        (
            "docs/claims.md",
            "# Claims\n| claim | statement | evidence |\n|---|---|---|\n| `C1.a` | x | exact |\n",
        ),
        (
            "docs/results/claims.csv",
            "claim,verdict,kind,measured,relation,bound,tolerance,control,scale,revision,what\nC1.a,holds,exact,0.0,=,0.0,0.0,caught,quick,r,\"a\"\n",
        ),
        ("experiments/src/claims/a.rs", "pub const CLAIMS: &[&str] = &[\"C1.a\"];\n"),
        (
            "docs/b.md",
            "# B, `c`\n[a](../ARCHITECTURE.md#dependencies) [b](#b-c) [d](claims.md) [e](https://x.y/z#w) `[f](g.md)`\n",
        ),
        (
            "ARCHITECTURE.md",
            "# House\n```mermaid\ngraph TD\n  experiments --> solvers\n  solvers --> theory\n  theory --> linalg\n  xtask\n```\n## Modules\n```text\n```\n## Dependencies\n| crate | earns |\n|---|---|\n| `faer` | products |\n## Rest\n",
        ),
    ];

    /// For every check: a file to add or replace, its text, and where the problem is to be found.
    const PLANTED: &[(&str, &str, &str, usize)] = &[
        (
            "arrows",
            "theory/Cargo.toml",
            "[package]\nname = \"peftml-theory\"\n[lints]\nworkspace = true\n[dependencies]\npeftml-linalg.workspace = true\n[dev-dependencies]\nup = { package = \"peftml-solvers\", path = \"../solvers\" }\n",
            8,
        ),
        (
            "arrows",
            "xtask/Cargo.toml",
            "[package]\nname = \"xtask\"\n[lints]\nworkspace = true\n[target.'cfg(unix)'.dependencies]\npeftml-linalg.workspace = true\n",
            6,
        ),
        ("imports", "theory/tests/up.rs", "//! Up.\nuse peftml_solvers as below;\n", 2),
        ("imports", "xtask/src/verb.rs", "fn f() -> usize { ::peftml_linalg::size() }\n", 1),
        (
            "unused",
            "experiments/Cargo.toml",
            "[package]\nname = \"peftml-experiments\"\n[lints]\nworkspace = true\n[dependencies]\npeftml-solvers.workspace = true\npeftml-theory.workspace = true\n",
            7,
        ),
        (
            "modules",
            "ARCHITECTURE.md",
            "```mermaid\n  experiments --> solvers\n  solvers --> theory\n  theory --> linalg\n  xtask\n```\n## Modules\n```text\nlinalg\n  a\n```\n## Dependencies\n| `faer` | products |\n",
            10,
        ),
        ("re-exports", "solvers/src/more.rs", "pub use ::peftml_theory::Objective;\n", 1),
        (
            "manifests",
            "linalg/Cargo.toml",
            "[package]\nname = \"peftml-linalg\"\n[dependencies]\nfaer.workspace = true\n",
            0,
        ),
        (
            "manifests",
            "linalg/Cargo.toml",
            "[package]\nname = \"peftml-linalg\"\n[lints]\nworkspace = true\n[dependencies]\nfaer = \"0.23\"\n",
            6,
        ),
        ("toolchain", "rust-toolchain.toml", "[toolchain]\nchannel = \"stable\"\n", 0),
        (
            "dependencies",
            "ARCHITECTURE.md",
            "```mermaid\n  experiments --> solvers\n  solvers --> theory\n  theory --> linalg\n  xtask\n```\n## Dependencies\n| crate | earns |\n|---|---|\n| `faer` | |\n",
            10,
        ),
        (
            "dependencies",
            "ARCHITECTURE.md",
            "```mermaid\n  experiments --> solvers\n  solvers --> theory\n  theory --> linalg\n  xtask\n```\n## Dependencies\n| `faer` | products |\n| `gone` | once |\n",
            9,
        ),
        (
            "picture",
            "ARCHITECTURE.md",
            "```mermaid\n  experiments --> solvers\n  solvers --> linalg\n  theory --> linalg\n  xtask\n```\n## Dependencies\n| `faer` | products |\n",
            3,
        ),
        (
            "quiet",
            "linalg/src/a.rs",
            "//! A.\nuse std::{\n    fmt,\n    fs::{self, File},\n};\n",
            4,
        ),
        (
            "quiet",
            "linalg/src/a.rs",
            "fn f() {\n    let _ = std :: time :: Instant::now();\n}\n",
            2,
        ),
        ("quiet", "theory/src/a.rs", "use std as s;\n", 1),
        ("quiet", "theory/src/a.rs", "use rayon::prelude::*;\n", 1),
        (
            "quiet",
            "solvers/src/a.rs",
            "#[cfg(not(test))]\nfn f() { std::thread::spawn(|| 1); }\n",
            2,
        ),
        (
            "quiet",
            "solvers/src/a.rs",
            "#[cfg(test)]\nconst A: u8 = 1;\nfn f() { let _ = ::std::env::args(); }\n",
            3,
        ),
        ("printing", "linalg/src/a.rs", "fn f() { dbg!(1); }\n", 1),
        ("printing", "experiments/src/runs.rs", "fn f() {\n    std::println!(\"{}\", 1);\n}\n", 2),
        ("state", "solvers/src/a.rs", "struct S {\n    count: std::cell::Cell<usize>,\n}\n", 2),
        ("state", "linalg/src/a.rs", "thread_local! { static A: u8 = 1; }\n", 1),
        ("errors", "theory/src/a.rs", "enum E {\n    Other(String),\n}\n", 2),
        ("errors", "theory/src/a.rs", "use anyhow::Context;\n", 1),
        ("writes", "experiments/src/a.rs", "fn f() {\n    std::fs::write(\"a\", \"b\");\n}\n", 2),
        ("writes", "experiments/src/a.rs", "use std::fs::{read, write};\n", 1),
        ("randomness", "experiments/src/a.rs", "use rand::{rngs::X, random};\n", 1),
        ("randomness", "experiments/tests/a.rs", "fn f() { let r = rand::rng(); }\n", 1),
        (
            "randomness",
            "theory/src/a.rs",
            "#[cfg(test)]\nmod tests { fn f() { R::from_os_rng(); } }\n",
            2,
        ),
        ("randomness", "solvers/src/a.rs", "fn f() { StdRng::seed_from_u64(1); }\n", 1),
        ("property-seeds", "linalg/tests/p.rs", "proptest! { fn f(x in 0..1) {} }\n", 1),
        ("unfinished", "xtask/src/a.rs", "fn f() {\n    todo!()\n}\n", 2),
        ("unfinished", "linalg/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}\n", 2),
        ("notes", "linalg/src/a.rs", "fn f() {} // FIXME: wrong\n", 1),
        ("notes", "benches/peer.py", "x = 1\n# TODO later\n", 2),
        (
            "unsafe",
            "linalg/src/a.rs",
            "fn f(x: *const u8) -> u8 {\n    let s = \"// SAFETY: no\"; unsafe { *x }\n}\n",
            2,
        ),
        (
            "unsafe",
            "linalg/src/a.rs",
            "// SAFETY: of another one.\nfn g() {}\nunsafe impl Send for A {}\n",
            3,
        ),
        ("unsafe", "linalg/src/a.rs", "impl A {\n    /// Fast.\n    unsafe fn f() {}\n}\n", 3),
        ("links", "docs/a.md", "# A\n[gone](c.md)\n", 2),
        ("links", "docs/a.md", "# A\n\n[a](#a), [b](../docs/a.md#b)\n", 3),
        ("links", "docs/a.md", "![](../docs)\n", 1),
        ("links", "docs/a.md", "[up](../../a.md)\n", 1),
        ("links", "docs/a.md", "[a][b]\n\n[b]: ../Cargo.toml\n", 1),
        ("book", "book/extra.md", "# Nowhere\n", 0),
        ("book", "docs/b.md", "# B\n\n[folder](../docs)\n", 3),
        (
            "verdicts",
            "docs/results/claims.csv",
            "claim,verdict,kind,measured,relation,bound,tolerance,control,scale,revision,what\nC1.a,fails,exact,1.0,=,0.0,0.0,caught,quick,r,\"a\"\n",
            2,
        ),
        ("places", "docs/a.md", concat!("see\nthe file /ho", "me/someone/x\n"), 2),
        ("hosts", ".cargo/config.toml", "[source.crates-io]\nreplace-with = \"mirror\"\n", 1),
        (
            "hosts",
            "benches/requirements.txt",
            concat!("numpy==2.0\n--index-", "url http://example.com/simple\n"),
            2,
        ),
        ("hosts", "Cargo.lock", "source = \"registry+http://example.org/index\"\n", 1),
        ("junk", "docs/a.bin", "\0\u{1}", 0),
        ("junk", "docs/.DS_Store", "x", 0),
    ];

    fn plant(changes: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in CLEAN.iter().chain(changes) {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    fn problems(root: &TempDir, check: &Check) -> Vec<Problem> {
        check.problems(&Tree::open(root.path()).unwrap())
    }

    #[test]
    fn every_check_passes_on_a_clean_tree() {
        let root = plant(&[]);
        for check in CHECKS {
            assert_eq!(problems(&root, check), [], "{}", check.name);
        }
    }

    #[test]
    fn every_check_finds_what_is_planted_and_no_other_check_does() {
        for (name, file, text, line) in PLANTED {
            let root = plant(&[(file, text)]);
            for check in CHECKS {
                let found: Vec<_> =
                    problems(&root, check).into_iter().map(|p| (p.file, p.line)).collect();
                if check.name == *name {
                    assert_eq!(found, [(file.to_string(), *line)], "{name}: {text}");
                } else if !["picture", "modules", "dependencies", "unused", "book"]
                    .contains(&check.name)
                {
                    // A changed manifest may well change the pictures too, and a document the book.
                    assert_eq!(found, [], "{} on what is planted for {name}: {text}", check.name);
                }
            }
        }
    }

    #[test]
    fn every_check_has_something_planted() {
        let planted: BTreeSet<_> = PLANTED.iter().map(|(name, ..)| *name).collect();
        let checks: BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(planted, checks);
    }

    #[test]
    fn a_file_above_the_limit_is_reported() {
        let root = plant(&[
            ("docs/long.csv", &"1,2\n".repeat(1 << 18)),
            ("docs/big.csv", &"1,2\n".repeat(1 << 19)),
        ]);
        let junk = CHECKS.iter().find(|check| check.name == "junk").unwrap();
        let found = problems(&root, junk);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].file, "docs/big.csv");
    }

    #[test]
    fn a_module_file_that_only_tests_compile_counts_as_test_code() {
        let uses_clock = ("theory/src/slow/fixtures.rs", "use std::time::Instant;\n");
        let quiet = CHECKS.iter().find(|check| check.name == "quiet").unwrap();
        let with = |declaration| plant(&[uses_clock, ("theory/src/slow.rs", declaration)]);
        assert_eq!(problems(&with("#[cfg(test)]\nmod fixtures;\n"), quiet), []);
        assert_eq!(problems(&with("mod fixtures;\n"), quiet).len(), 1);
    }
}
