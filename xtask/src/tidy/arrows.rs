//! Imports run downwards (invariant 1).

use super::Problem;
use super::source::Source;
use super::tree::{Member, Tree, line_of_key};

/// What each member may import, dev-dependencies included.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("linalg", &[]),
    ("theory", &["linalg"]),
    ("solvers", &["theory", "linalg"]),
    ("data", &["theory", "linalg"]),
    ("peft", &["linalg"]),
    ("experiments", &["peft", "data", "solvers", "theory", "linalg"]),
    ("benches", &["experiments", "peft", "data", "solvers", "theory", "linalg"]),
    ("xtask", &[]),
];

/// What `folder` may import. Stand-ins under `vendor` know none of ours.
fn allowed(folder: &str) -> Option<&'static [&'static str]> {
    if folder.starts_with("vendor/") {
        return Some(&[]);
    }
    MAY_IMPORT.iter().find(|(name, _)| *name == folder).map(|(_, allowed)| *allowed)
}

fn complaint(from: &str, to: &str, allowed: &[&str]) -> String {
    let allowed = if allowed.is_empty() { "no member".into() } else { allowed.join(", ") };
    format!("`{from}` must not import `{to}`; it may import {allowed}")
}

/// Arrows drawn by manifests.
pub fn in_manifests(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in &tree.members {
        let manifest = format!("{}/Cargo.toml", member.folder);
        let Some(allowed) = allowed(&member.folder) else {
            let message = "this member has no place in the picture; give it one in tidy/arrows.rs";
            problems.push(Problem::new(&manifest, 0, message));
            continue;
        };
        for dependency in tree.dependencies(member) {
            let Some(to) = tree.member(&dependency.package) else { continue };
            if to.folder != member.folder && !allowed.contains(&to.folder.as_str()) {
                let line = line_of_key(&member.text, &dependency.key);
                let message = complaint(&member.folder, &to.folder, allowed);
                problems.push(Problem::new(&manifest, line, message));
            }
        }
    }
    problems
}

/// Arrows drawn by sources: a member's crate named in another's.
pub fn in_sources(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (member, source) in members_sources(tree) {
        let Some(allowed) = allowed(&member.folder) else { continue };
        for other in &tree.members {
            if other.folder == member.folder || allowed.contains(&other.folder.as_str()) {
                continue;
            }
            // A name is a crate's only as the first segment of a path.
            let name = crate_name(other);
            for path in source.paths.iter().filter(|path| path.segments[0] == name) {
                let message = complaint(&member.folder, &other.folder, allowed);
                problems.push(Problem::new(&source.path, path.line, message));
            }
        }
    }
    problems
}

/// Arrows that a manifest draws and no source: dependencies on members that nobody imports.
pub fn unused(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in &tree.members {
        for dependency in tree.dependencies(member) {
            let Some(to) = tree.member(&dependency.package) else { continue };
            let name = crate_name(to);
            let mut paths = tree.sources_in(&member.folder).flat_map(|source| &source.paths);
            if !paths.any(|path| path.segments[0] == name) {
                let line = line_of_key(&member.text, &dependency.key);
                let message = format!("no source of `{}` imports `{}`", member.folder, to.folder);
                let manifest = format!("{}/Cargo.toml", member.folder);
                problems.push(Problem::new(&manifest, line, message));
            }
        }
    }
    problems
}

/// `pub use` of another member: what a crate offers is its own.
pub fn re_exports(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (member, source) in members_sources(tree) {
        let names: Vec<String> =
            tree.members.iter().filter(|m| m.folder != member.folder).map(crate_name).collect();
        for window in source.tokens.windows(5) {
            let texts: Vec<&str> = window.iter().map(|token| token.text.as_str()).collect();
            let exported = match texts[..] {
                ["pub", "use", ":", ":", name] | ["pub", "use", name, ..] => name,
                _ => continue,
            };
            if names.iter().any(|name| name == exported) {
                let message =
                    format!("`{exported}` is re-exported; let users import it themselves");
                problems.push(Problem::new(&source.path, window[0].line, message));
            }
        }
    }
    problems
}

fn crate_name(member: &Member) -> String {
    member.package.replace('-', "_")
}

fn members_sources(tree: &Tree) -> impl Iterator<Item = (&Member, &Source)> {
    tree.members
        .iter()
        .flat_map(|member| tree.sources_in(&member.folder).map(move |source| (member, source)))
}
