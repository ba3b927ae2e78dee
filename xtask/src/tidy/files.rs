//! What tracked files must not hold.

use super::Problem;
use super::tree::Tree;

/// Largest tracked file, bytes.
const SIZE_LIMIT: usize = 1 << 20;

/// Absolute paths of a particular machine.
pub fn machine_places(tree: &Tree) -> Vec<Problem> {
    // Without their slashes, so that this list is not itself a finding.
    const TOP_FOLDERS: [&str; 6] = ["home", "root", "Users", "work", "farm", "mnt"];
    let mut problems = Vec::new();
    for file in &tree.files {
        for (index, line) in file.text().unwrap_or_default().lines().enumerate() {
            let found = line.match_indices('/').any(|(at, _)| {
                let before = line[..at].chars().next_back();
                let starts =
                    !before.is_some_and(|c| c.is_alphanumeric() || "._-/~}$>)*".contains(c));
                let mut parts = line[at + 1..].split('/');
                let top = parts.next().unwrap_or_default();
                let below = parts.next().unwrap_or_default();
                starts
                    && TOP_FOLDERS.contains(&top)
                    && below.starts_with(|c: char| c.is_alphanumeric() || c == '.')
            });
            if found {
                let message = "a path of one machine; take it from the environment or an argument";
                problems.push(Problem::new(&file.path, index + 1, message));
            }
        }
    }
    problems
}

/// Package registries and mirrors: where packages come from is each machine's matter.
pub fn registry_hosts(tree: &Tree) -> Vec<Problem> {
    // In two parts, so that this list is not itself a finding.
    const HOSTS: [(&str, &str); 9] = [
        ("pypi.", "org"),
        ("pythonhosted.", "org"),
        ("registry.npmjs.", "org"),
        ("index.crates.", "io"),
        ("static.crates.", "io"),
        ("proxy.golang.", "org"),
        ("artifactory", "."),
        ("--index-", "url"),
        ("--extra-index-", "url"),
    ];
    const CRATES: &str = "registry+https://github.com/rust-lang/crates.io-index";
    let mut problems = Vec::new();
    for file in &tree.files {
        let text = file.text().unwrap_or_default();
        let mut report = |line: usize, message: &str| {
            problems.push(Problem::new(&file.path, line, message));
        };
        if file.path.ends_with("Cargo.lock") {
            for (index, line) in text.lines().enumerate() {
                let source = line.trim().strip_prefix("source = \"");
                if source.is_some_and(|source| source.trim_end_matches('"') != CRATES) {
                    report(index + 1, "a package from elsewhere than crates.io");
                }
            }
            continue;
        }
        let in_config = file.path.starts_with(".cargo/");
        for (index, line) in text.lines().enumerate() {
            let named = HOSTS.iter().any(|(a, b)| line.contains(&[*a, *b].concat()));
            let section = line.trim();
            let redirected =
                in_config && (section.starts_with("[source") || section.starts_with("[registr"));
            if named || redirected {
                report(index + 1, "a package registry; this is each machine's configuration");
            }
        }
    }
    problems
}

/// Files too large, binary files that are no figure or matrix, and droppings of tools.
pub fn junk(tree: &Tree) -> Vec<Problem> {
    const BINARY: [&str; 5] = ["png", "npz", "npy", "ico", "gz"];
    const DROPPINGS: [&str; 12] =
        ["o", "so", "a", "pyc", "swp", "swo", "orig", "rej", "tmp", "log", "bak", "profraw"];
    let mut problems = Vec::new();
    for file in &tree.files {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        if file.bytes.len() > SIZE_LIMIT {
            let message = format!("{} bytes; at most {SIZE_LIMIT} are kept here", file.bytes.len());
            problems.push(Problem::new(&file.path, 0, message));
        } else if DROPPINGS.contains(&extension)
            || [".DS_Store", "Thumbs.db", "core"].contains(&name)
            || name.ends_with('~')
            || file.path.split('/').any(|part| part == "__pycache__")
        {
            problems.push(Problem::new(&file.path, 0, "left over by a tool"));
        } else if file.text().is_none() && !BINARY.contains(&extension) {
            let known = BINARY.join(", ");
            let message = format!("a binary file that is none of {known}");
            problems.push(Problem::new(&file.path, 0, message));
        }
    }
    problems
}
