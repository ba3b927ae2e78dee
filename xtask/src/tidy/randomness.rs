//! No global or default random generator anywhere, tests included (invariant 3).

use super::Problem;
use super::tree::Tree;

/// The one file that makes generators.
const SEEDS: &str = "linalg/src/seed.rs";

/// Generators seeded by the system, or made past `Seed`.
pub fn generators(tree: &Tree) -> Vec<Problem> {
    const BY_THE_SYSTEM: [&str; 10] = [
        "thread_rng",
        "ThreadRng",
        "from_os_rng",
        "try_from_os_rng",
        "from_entropy",
        "OsRng",
        "SysRng",
        "make_rng",
        "getrandom",
        "fastrand",
    ];
    const PAST_SEED: [&str; 7] = [
        "SeedableRng",
        "seed_from_u64",
        "StdRng",
        "SmallRng",
        "ChaCha8Rng",
        "ChaCha12Rng",
        "ChaCha20Rng",
    ];
    let mut problems = Vec::new();
    for source in tree.sources.iter().filter(|source| source.path != SEEDS) {
        let mut lines = Vec::new();
        for token in &source.tokens {
            let name = token.text.as_str();
            if BY_THE_SYSTEM.contains(&name) || PAST_SEED.contains(&name) {
                lines.push(token.line);
            }
        }
        for path in &source.paths {
            let [first, second, ..] = &path.segments[..] else { continue };
            if first == "rand" && (second == "rng" || second.starts_with("random")) {
                lines.push(path.line);
            }
        }
        lines.sort_unstable();
        lines.dedup();
        for line in lines {
            let message = "a generator of its own: draw from a `Seed` path";
            problems.push(Problem::new(&source.path, line, message));
        }
    }
    problems
}

/// Property tests name their seed; by default the system draws one.
pub fn property_tests(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in &tree.sources {
        let seeded = ["RngSeed", "deterministic", "TestRng"]
            .iter()
            .any(|name| source.identifiers(name).next().is_some());
        if seeded {
            continue;
        }
        let called = source.macro_calls("proptest").map(|(line, _)| line);
        let made = source.identifiers("TestRunner").map(|token| token.line);
        if let Some(line) = called.chain(made).next() {
            let message = "a property test without a seed: set `rng_seed` in its configuration";
            problems.push(Problem::new(&source.path, line, message));
        }
    }
    problems
}
