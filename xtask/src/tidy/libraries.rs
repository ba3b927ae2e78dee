//! What library code must not do (invariants 2, 4, 9 and 10).

use super::Problem;
use super::source::Source;
use super::tree::Tree;

/// Crates that compute and nothing else.
const PURE: [&str; 3] = ["linalg", "theory", "solvers"];
/// Crates that may touch files, but neither print nor look around.
const READERS: [&str; 2] = ["data", "peft"];

const PRINTING: [&str; 5] = ["print", "println", "eprint", "eprintln", "dbg"];

/// No files, clock, environment or threads in what computes; no clock and environment in what reads.
pub fn quiet(tree: &Tree) -> Vec<Problem> {
    const EVERYWHERE: [&str; 4] = ["std::env", "std::time", "std::thread", "std::process"];
    const FILES: [&str; 6] =
        ["std::fs", "std::net", "std::os", "std::io::stdin", "std::io::stdout", "std::io::stderr"];
    // `rayon` draws on a pool that is the process's; faer's setting is global too.
    const POOLS: [&str; 2] = ["rayon", "faer::set_global_parallelism"];
    let mut problems = Vec::new();
    for folder in PURE.iter().chain(&READERS) {
        let mut banned = EVERYWHERE.to_vec();
        if PURE.contains(folder) {
            banned.extend(FILES.iter().chain(&POOLS));
        }
        for source in library_sources(tree, folder) {
            for path in source.paths.iter().filter(|path| !path.test) {
                if let Some(reached) = banned.iter().find(|prefix| path.reaches(prefix)) {
                    let message = format!("`{reached}` in `{folder}`: make it the caller's matter");
                    problems.push(Problem::new(&source.path, path.line, message));
                }
            }
            for name in ["env", "option_env"] {
                for (line, _) in source.macro_calls(name).filter(|(_, test)| !test) {
                    let message = format!("`{name}!` in `{folder}`: make it the caller's matter");
                    problems.push(Problem::new(&source.path, line, message));
                }
            }
        }
    }
    problems
}

/// Libraries do not print; of `experiments`, only the command line does.
pub fn printing(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for folder in PURE.iter().chain(&READERS).chain(&["experiments"]) {
        for source in library_sources(tree, folder) {
            let inside = source.path.split_once("/src/").map_or("", |(_, rest)| rest);
            if *folder == "experiments" && (inside.starts_with("cli") || inside.starts_with("bin/"))
            {
                continue;
            }
            for name in PRINTING {
                for (line, _) in source.macro_calls(name).filter(|(_, test)| !test) {
                    let message =
                        format!("`{name}!` in a library: return it, or hand it to an observer");
                    problems.push(Problem::new(&source.path, line, message));
                }
            }
        }
    }
    problems
}

/// Solvers are configuration only; nothing in a library is global and mutable.
pub fn state(tree: &Tree) -> Vec<Problem> {
    const CELLS: [&str; 11] = [
        "Cell",
        "RefCell",
        "UnsafeCell",
        "OnceCell",
        "LazyCell",
        "Mutex",
        "RwLock",
        "OnceLock",
        "LazyLock",
        "AtomicUsize",
        "AtomicU64",
    ];
    let mut problems = Vec::new();
    for folder in PURE.iter().chain(&READERS) {
        for source in library_sources(tree, folder) {
            for (line, _) in source.macro_calls("thread_local").filter(|(_, test)| !test) {
                problems.push(Problem::new(
                    &source.path,
                    line,
                    "state of a thread is global state",
                ));
            }
            for window in source.tokens.windows(2).filter(|w| !w[0].test) {
                if window[0].text == "static" && window[1].text == "mut" {
                    let message = "a `static mut` is global state";
                    problems.push(Problem::new(&source.path, window[0].line, message));
                }
            }
            if *folder != "solvers" {
                continue;
            }
            for name in CELLS {
                for token in source.identifiers(name).filter(|token| !token.test) {
                    let message =
                        format!("`{name}` in a solver: what changes belongs to the state");
                    problems.push(Problem::new(&source.path, token.line, message));
                }
            }
        }
    }
    problems
}

/// Errors are typed: no `anyhow`, no variant that takes any sentence.
pub fn errors(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for folder in PURE.iter().chain(&READERS).chain(&["experiments"]) {
        for source in library_sources(tree, folder) {
            for path in &source.paths {
                if ["anyhow", "eyre", "color_eyre"].contains(&path.segments[0].as_str()) {
                    let message = "an error of no type: use the crate's `thiserror` enum";
                    problems.push(Problem::new(&source.path, path.line, message));
                }
            }
            for window in source.tokens.windows(4) {
                let texts: Vec<&str> = window.iter().map(|token| token.text.as_str()).collect();
                if texts == ["Other", "(", "String", ")"] {
                    let message = "`Other(String)` says nothing: name the cause, with its figures";
                    problems.push(Problem::new(&source.path, window[0].line, message));
                }
            }
        }
    }
    problems
}

/// Files appear whole or not at all (invariant 10): nothing writes in place.
pub fn writes(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for folder in ["data", "peft", "experiments"] {
        for source in library_sources(tree, folder) {
            for path in source.paths.iter().filter(|path| !path.test) {
                let [.., owner, call] = &path.segments[..] else { continue };
                if matches!(
                    (owner.as_str(), call.as_str()),
                    ("fs", "write" | "copy") | ("File", "create")
                ) {
                    let message = "a file written in place: a killed process leaves a part of it; write beside it and rename";
                    problems.push(Problem::new(&source.path, path.line, message));
                }
            }
        }
    }
    problems
}

fn library_sources<'a>(tree: &'a Tree, folder: &str) -> impl Iterator<Item = &'a Source> {
    let prefix = format!("{folder}/src/");
    tree.sources.iter().filter(move |source| source.path.starts_with(&prefix))
}
