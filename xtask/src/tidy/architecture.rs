//! Manifests, toolchain, and what ARCHITECTURE.md says of them.

use super::Problem;
use super::tree::{Tree, line_of_key};
use std::collections::BTreeSet;
use toml::Value;

const ARCHITECTURE: &str = "ARCHITECTURE.md";

/// Members take lints and versions from the workspace.
pub fn manifests(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for member in tree.members.iter().filter(|member| !member.folder.starts_with("vendor/")) {
        let file = format!("{}/Cargo.toml", member.folder);
        let lints = member.manifest.get("lints").and_then(|lints| lints.get("workspace"));
        if lints.and_then(Value::as_bool) != Some(true) {
            problems.push(Problem::new(&file, 0, "`[lints] workspace = true` is missing"));
        }
        for dependency in tree.dependencies(member).iter().filter(|d| !d.inherited) {
            if tree.member(&dependency.package).is_none() {
                let line = line_of_key(&member.text, &dependency.key);
                let message = format!(
                    "`{}` has a version of its own; state it in [workspace.dependencies]",
                    dependency.key
                );
                problems.push(Problem::new(&file, line, message));
            }
        }
    }
    problems
}

/// The toolchain is pinned, agrees with `rust-version`, and the lock file is there.
pub fn toolchain(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let channel = tree
        .text("rust-toolchain.toml")
        .and_then(|text| text.parse::<toml::Table>().ok())
        .and_then(|table| Some(table.get("toolchain")?.get("channel")?.as_str()?.to_string()))
        .unwrap_or_default();
    let stated = tree
        .workspace
        .get("workspace")
        .and_then(|w| w.get("package")?.get("rust-version")?.as_str())
        .unwrap_or_default();
    let pinned = channel.split('.').count() == 3;
    if !pinned || stated.is_empty() || !format!("{channel}.").starts_with(&format!("{stated}.")) {
        let message = format!(
            "channel `{channel}` and rust-version `{stated}`: the channel must be a full version of that series"
        );
        problems.push(Problem::new("rust-toolchain.toml", 0, message));
    }
    if tree.text("Cargo.lock").is_none() {
        problems.push(Problem::new("Cargo.lock", 0, "the lock file must be committed"));
    }
    problems
}

/// Every dependency is used and has a line that says what it earns, and every line a dependency.
pub fn dependencies(tree: &Tree) -> Vec<Problem> {
    let lines: Vec<&str> = tree.text(ARCHITECTURE).unwrap_or_default().lines().collect();
    let Some(start) = lines.iter().position(|line| line.trim() == "## Dependencies") else {
        return vec![Problem::new(ARCHITECTURE, 0, "the section `## Dependencies` is missing")];
    };
    let used: BTreeSet<String> = tree
        .members
        .iter()
        .flat_map(|member| tree.dependencies(member))
        .map(|dependency| dependency.key)
        .collect();
    let ours: BTreeSet<&str> = tree.members.iter().map(|m| m.package.as_str()).collect();
    let expected: BTreeSet<&str> = tree
        .shared_dependencies()
        .into_iter()
        .flat_map(|table| table.keys().map(String::as_str))
        .filter(|key| !ours.contains(key))
        .collect();
    let mut problems = Vec::new();
    let mut explained = BTreeSet::new();
    for (index, line) in lines.iter().enumerate().skip(start + 1) {
        if line.starts_with("## ") {
            break;
        }
        let Some((name, reason)) = dependency_row(line) else { continue };
        explained.insert(name);
        if !expected.contains(name) {
            let message = format!("`{name}` is no dependency of the workspace");
            problems.push(Problem::new(ARCHITECTURE, index + 1, message));
        } else if reason.is_empty() {
            let message = format!("what `{name}` earns is not said");
            problems.push(Problem::new(ARCHITECTURE, index + 1, message));
        }
    }
    let manifest = tree.text("Cargo.toml").unwrap_or_default();
    for name in expected {
        let line = line_of_key(manifest, name);
        if !explained.contains(name) {
            let message = format!("`{name}` has no line under Dependencies in {ARCHITECTURE}");
            problems.push(Problem::new("Cargo.toml", line, message));
        }
        if !used.contains(name) {
            problems.push(Problem::new("Cargo.toml", line, format!("no member uses `{name}`")));
        }
    }
    problems
}

/// ``| `name` | reason |``, taken apart.
fn dependency_row(line: &str) -> Option<(&str, &str)> {
    let (name, reason) = line.trim().strip_prefix('|')?.split_once('|')?;
    let name = name.trim().strip_prefix('`')?.strip_suffix('`')?;
    Some((name, reason.trim_end_matches('|').trim()))
}

/// The picture shows the members and arrows of the manifests, no more and no fewer.
///
/// The picture is the first `mermaid` block: a line `a --> b` an arrow, `a -.-> b` one for tests and
/// benches only, a lone name a member without arrows.
pub fn picture(tree: &Tree) -> Vec<Problem> {
    let mut arrows = BTreeSet::new();
    for member in &tree.members {
        let mut below = BTreeSet::new();
        for dependency in tree.dependencies(member) {
            if let Some(to) = tree.member(&dependency.package) {
                below.insert((dependency.dev, to.folder.clone()));
            }
        }
        if below.is_empty() {
            arrows.insert(member.folder.clone());
        }
        for (dev, to) in &below {
            // A dependency of both kinds is drawn once.
            if !*dev || !below.contains(&(false, to.clone())) {
                arrows.insert(arrow(&member.folder, *dev, to));
            }
        }
    }
    // A name that an arrow points at needs no line of its own.
    let pointed_at: BTreeSet<String> =
        arrows.iter().filter_map(|a| Some(a.rsplit_once("> ")?.1.to_string())).collect();
    arrows.retain(|line| !pointed_at.contains(line));

    let text = tree.text(ARCHITECTURE).unwrap_or_default();
    let mut problems = Vec::new();
    let inside = text
        .lines()
        .enumerate()
        .skip_while(|(_, line)| line.trim() != "```mermaid")
        .skip(1)
        .take_while(|(_, line)| line.trim() != "```");
    for (index, line) in inside {
        let line = line.trim();
        if line.is_empty() || line.starts_with("graph ") || line.starts_with("%%") {
            continue;
        }
        if !arrows.remove(line) {
            let message = format!("`{line}` is drawn, but no manifest says so");
            problems.push(Problem::new(ARCHITECTURE, index + 1, message));
        }
    }
    if problems.is_empty() && !arrows.is_empty() {
        let missing = arrows.into_iter().collect::<Vec<_>>().join(", ");
        problems.push(Problem::new(ARCHITECTURE, 0, format!("not in the picture: {missing}")));
    }
    problems
}

fn arrow(from: &str, dev: bool, to: &str) -> String {
    format!("{from} {} {to}", if dev { "-.->" } else { "-->" })
}
