//! Links and figures of Markdown files lead somewhere.

use super::Problem;
use super::tree::Tree;
use crate::markdown::{self, Page};
use std::collections::{BTreeMap, BTreeSet};

/// Every relative link names a file or folder of the repository, every anchor a heading of its file.
pub fn relative(tree: &Tree) -> Vec<Problem> {
    let files: BTreeSet<&str> = tree.files.iter().map(|file| file.path.as_str()).collect();
    let pages: BTreeMap<&str, Page> = tree
        .files
        .iter()
        .filter(|file| file.path.ends_with(".md"))
        .filter_map(|file| Some((file.path.as_str(), Page::parse(file.text()?, false))))
        .collect();
    let is_folder = |path: &str| files.iter().any(|file| file.starts_with(&format!("{path}/")));
    let mut problems = Vec::new();
    for (file, page) in &pages {
        for link in &page.links {
            let Some((path, anchor)) = link.relative() else { continue };
            let mut report = |message: String| {
                problems.push(Problem::new(file, link.line, message));
            };
            // mdBook's list may name a chapter that is still to be written.
            if link.target.is_empty() && file.ends_with("SUMMARY.md") {
                continue;
            }
            let target = markdown::resolve(file, path).unwrap_or_default();
            if link.place.is_none() {
                report(format!("`{}`: write it as `[..]({})`", link.target, link.target));
            } else if !files.contains(target.as_str()) && (link.image || !is_folder(&target)) {
                report(format!("`{path}` is not here"));
            } else if let Some(anchor) = anchor {
                let there = pages.get(target.as_str());
                if !there.is_some_and(|page| page.anchors.iter().any(|a| a == anchor)) {
                    report(format!("`{target}` has no heading `#{anchor}`"));
                }
            }
        }
    }
    problems
}
