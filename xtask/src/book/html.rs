//! The built pages: every link and anchor of theirs resolves, and nothing is loaded from elsewhere.

use crate::markdown;
use std::collections::{BTreeMap, BTreeSet};

/// What a page has and asks for.
#[derive(Debug, Default)]
struct Asked {
    anchors: BTreeSet<String>,
    /// Targets of links, and of what the page loads.
    links: Vec<(String, bool)>,
}

/// What is wrong with the pages among `files`, one sentence each. Paths are from the book's top.
pub fn problems(files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    // Shown for addresses that are not there, from any depth: its links start at a server's top.
    let pages: BTreeMap<&String, Asked> = files
        .iter()
        .filter(|(path, _)| path.ends_with(".html") && *path != "404.html")
        .map(|(path, bytes)| (path, asked(&String::from_utf8_lossy(bytes))))
        .collect();
    let mut problems = Vec::new();
    for (path, page) in &pages {
        for (target, loaded) in &page.links {
            let scheme = target.split(['/', '#']).next().is_some_and(|start| start.contains(':'));
            if scheme || target.starts_with("//") {
                if *loaded && !target.starts_with("data:") {
                    problems.push(format!(
                        "{path}: loads {target}: the book must open without a network"
                    ));
                }
                continue;
            }
            let (place, anchor) = target.split_once('#').unwrap_or((target, ""));
            let place = place.split('?').next().unwrap_or_default();
            let there = markdown::resolve(path, place).unwrap_or_default();
            if !files.contains_key(&there) {
                problems.push(format!("{path}: {target} is not here"));
            } else if !anchor.is_empty()
                && !pages.get(&there).is_some_and(|page| page.anchors.contains(anchor))
            {
                problems.push(format!("{path}: {target} has no such anchor"));
            }
        }
    }
    problems.sort();
    problems.dedup();
    problems
}

/// Reads tags; what stands in a script is no tag.
fn asked(html: &str) -> Asked {
    let mut page = Asked::default();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        rest = &rest[start + 1..];
        if let Some(comment) = rest.strip_prefix("!--") {
            rest = comment.split_once("-->").map_or("", |(_, rest)| rest);
            continue;
        }
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            continue;
        }
        let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
        rest = &rest[name.len()..];
        while let Some((attribute, value)) = attribute(&mut rest) {
            match (name.as_str(), attribute) {
                (_, "id") | ("a", "name") => {
                    page.anchors.insert(value);
                }
                ("a", "href") => page.links.push((value, false)),
                ("link", "href") | (_, "src") => page.links.push((value, true)),
                _ => {}
            }
        }
        if name == "script" || name == "style" {
            rest = rest.find(&format!("</{name}")).map_or("", |end| &rest[end..]);
        }
    }
    page
}

/// The next attribute of a tag; `None` at its end.
fn attribute<'a>(rest: &mut &'a str) -> Option<(&'a str, String)> {
    let text = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '/');
    let end = text.find(|c: char| c.is_whitespace() || "=>/".contains(c)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    if name.is_empty() {
        *rest = after;
        return None;
    }
    let Some(value) = after.strip_prefix('=') else {
        *rest = after;
        return Some((name, String::new()));
    };
    let (value, after) = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or((value, "")),
        _ => value
            .split_at(value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len())),
    };
    *rest = after;
    Some((name, value.replace("&amp;", "&")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(pages: &[(&str, &str)]) -> Vec<String> {
        let file = |(path, text): &(&str, &str)| (path.to_string(), text.as_bytes().to_vec());
        problems(&pages.iter().map(file).collect())
    }

    #[test]
    fn links_of_pages_resolve_or_are_told() {
        let b = ("d/b.html", "<h1 id=\"one\">B</h1><a href='../a.html'>a</a>");
        let css = ("x.css", "");
        let right = "<link rel=\"stylesheet\" href=\"x.css\"><a class=\"k\" href=\"d/b.html#one\">b</a>\
             <a href=https://x.y/z#w>w</a><img src=\"data:x\"><script>if (a<b) \"<a href='no'>\"</script>\
             <!-- <a href=\"no\"> --><math><mo>&lt;</mo></math>";
        assert_eq!(told(&[("a.html", right), b, css]), [] as [String; 0]);
        for (text, word) in [
            ("<a href=\"c.html\">", "not here"),
            ("<a href=\"d/b.html#two\">", "no such anchor"),
            ("<a href=\"#here\">", "no such anchor"),
            ("<img alt=\"a > b\" src=\"f.svg\">", "not here"),
            ("<script src=\"https://x.y/m.js\"></script>", "without a network"),
            ("<link href=\"//x.y/f.css\">", "without a network"),
        ] {
            let found = told(&[("a.html", text), b, css]);
            assert!(found.len() == 1 && found[0].contains(word), "{text}: {found:?}");
        }
    }
}
