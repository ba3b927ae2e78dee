//! The picture of each crate's modules in ARCHITECTURE.md equals what their imports draw.
//!
//! It is the first code block behind `## Modules`: a crate's folder on a line of its own, below it, indented,
//! each module at its top with the modules that it imports. A module imports from those above it only; where
//! two need each other, the import of the one below is marked, `^module`, so that every cycle is seen and
//! every other order is right. Tests may import what they like.

use super::Problem;
use super::source::Source;
use super::tree::{Member, Tree};
use std::collections::{BTreeMap, BTreeSet};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const SECTION: &str = "## Modules";

/// Modules with what each imports.
type Imports = BTreeMap<String, BTreeSet<String>>;

/// What is drawn of each folder, and on which line it begins.
type Picture = BTreeMap<String, (usize, Vec<Drawn>)>;

/// A module as it is drawn.
struct Drawn {
    line: usize,
    name: String,
    imports: BTreeSet<String>,
    /// Those of `imports` that are marked as standing below.
    marked: BTreeSet<String>,
}

/// Compares the picture with the imports.
pub fn picture(tree: &Tree) -> Vec<Problem> {
    let drawn = match read(tree.text(ARCHITECTURE).unwrap_or_default()) {
        Ok(drawn) => drawn,
        Err((line, message)) => return vec![Problem::new(ARCHITECTURE, line, message)],
    };
    let mut problems = Vec::new();
    for (folder, (line, _)) in &drawn {
        if tree.members.iter().all(|member| member.folder != *folder) {
            problems.push(Problem::new(ARCHITECTURE, *line, format!("`{folder}` is no member")));
        }
    }
    for member in &tree.members {
        let found = imports(tree, member);
        match drawn.get(&member.folder) {
            // A crate of one or two modules has no order worth a picture.
            None if found.len() <= 2 => {}
            None => {
                let message =
                    format!("`{}` is not under `{SECTION}`:\n{}", member.folder, ordered(&found));
                problems.push(Problem::new(ARCHITECTURE, 0, message));
            }
            Some((line, modules)) => problems.extend(compare(*line, modules, &found)),
        }
    }
    problems
}

fn compare(line: usize, modules: &[Drawn], found: &Imports) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut report = |line, message: String| {
        problems.push(Problem::new(ARCHITECTURE, line, message));
    };
    let mut above = BTreeSet::new();
    for module in modules {
        let name = &module.name;
        let Some(imports) = found.get(name) else {
            report(module.line, format!("`{name}` is no module at the top of this crate"));
            continue;
        };
        if *imports != module.imports {
            let right = imports.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
            report(module.line, format!("`{name}` imports: {right}"));
        }
        for import in imports {
            let (is_above, marked) = (above.contains(import), module.marked.contains(import));
            if is_above && marked {
                report(module.line, format!("`{import}` stands above; it needs no mark"));
            } else if !is_above && !reaches(found, import, name) {
                report(module.line, format!("`{import}` must stand above `{name}`"));
            } else if !is_above && !marked {
                let message =
                    format!("`{name}` and `{import}` need each other: name it, ^{import}");
                report(module.line, message);
            }
        }
        above.insert(name.clone());
    }
    for missing in found.keys().filter(|name| !above.contains(*name)) {
        report(line, format!("the module `{missing}` is not drawn"));
    }
    problems
}

/// Whether imports lead from `from` to `to`.
fn reaches(found: &Imports, from: &str, to: &str) -> bool {
    let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(name) = next.pop() {
        if name == to {
            return true;
        }
        if seen.insert(name) {
            next.extend(found.get(name).into_iter().flatten().map(String::as_str));
        }
    }
    false
}

/// The picture's lines in an order that imports allow, for whoever has to write them.
fn ordered(found: &Imports) -> String {
    let mut lines = String::new();
    let mut above: BTreeSet<&str> = BTreeSet::new();
    while above.len() < found.len() {
        let left = || found.iter().filter(|(name, _)| !above.contains(name.as_str()));
        let missing = |imports: &BTreeSet<String>| {
            imports.iter().filter(|import| !above.contains(import.as_str())).count()
        };
        // In a cycle the module that lacks fewest comes first.
        let Some((name, imports)) = left().min_by_key(|(_, imports)| missing(imports)) else {
            break;
        };
        let words = imports.iter().map(|import| {
            format!(" {}{import}", if above.contains(import.as_str()) { "" } else { "^" })
        });
        lines += &format!("  {name:<17}{}\n", words.collect::<String>());
        above.insert(name);
    }
    lines
}

/// What the modules at the top of `member` import from each other.
fn imports(tree: &Tree, member: &Member) -> Imports {
    let root = |name: &str| {
        let path = format!("{}/src/{name}", member.folder);
        tree.sources.iter().find(|source| source.path == path)
    };
    let Some(root) = root("lib.rs").or_else(|| root("main.rs")) else { return Imports::new() };
    let declared = root.tokens.windows(3).filter(|w| !w[0].test);
    let mut found: Imports = declared
        .filter(|w| w[0].text == "mod" && [";", "{"].contains(&w[2].text.as_str()))
        .map(|w| (w[1].text.clone(), BTreeSet::new()))
        .collect();
    let offered = offered(root, &found);
    let prefix = format!("{}/src/", member.folder);
    for source in &tree.sources {
        let Some(inside) = source.path.strip_prefix(&prefix) else { continue };
        let modules: Vec<&str> = modules_of(inside);
        let Some(own) = modules.first().filter(|name| found.contains_key(**name)) else { continue };
        let used: BTreeSet<String> = source
            .paths
            .iter()
            .filter(|path| !path.test)
            .filter_map(|path| below_root(&path.segments, modules.len()))
            .filter_map(|name| offered.get(name).cloned())
            .filter(|module| module != own)
            .collect();
        if let Some(imports) = found.get_mut(*own) {
            imports.extend(used);
        }
    }
    found
}

/// Names at the crate's root, each with the module that it comes from: modules, and what the root takes out
/// of them.
fn offered(root: &Source, modules: &Imports) -> BTreeMap<String, String> {
    let mut offered: BTreeMap<String, String> =
        modules.keys().map(|name| (name.clone(), name.clone())).collect();
    for path in root.paths.iter().filter(|path| !path.test) {
        let segments = match path.segments.first().map(String::as_str) {
            Some("crate" | "self") => &path.segments[1..],
            _ => &path.segments[..],
        };
        if let [module, .., name] = segments
            && modules.contains_key(module)
        {
            offered.entry(name.clone()).or_insert_with(|| module.clone());
        }
    }
    offered
}

/// `a/b.rs` and `a/b/mod.rs` as `[a, b]`.
fn modules_of(inside: &str) -> Vec<&str> {
    let path = inside.trim_end_matches(".rs");
    path.trim_end_matches("/mod").split('/').collect()
}

/// The name that a path takes from the crate's root, read in a module `depth` below it.
fn below_root(segments: &[String], depth: usize) -> Option<&str> {
    let ups = segments.iter().take_while(|segment| *segment == "super").count();
    match segments.first()?.as_str() {
        "crate" => segments.get(1).map(String::as_str),
        "super" if ups == depth => segments.get(ups).map(String::as_str),
        _ => None,
    }
}

/// The picture, by folder; a problem with its line.
fn read(text: &str) -> Result<Picture, (usize, String)> {
    let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    if !lines.any(|(_, line)| line.trim() == SECTION) {
        return Err((0, format!("the section `{SECTION}` is missing")));
    }
    let inside = lines
        .skip_while(|(_, line)| !line.starts_with("```"))
        .skip(1)
        .take_while(|(_, line)| !line.starts_with("```"));
    let mut drawn = Picture::new();
    let mut folder = None;
    for (line, text) in inside {
        let mut words = text.split_whitespace().map(String::from);
        let Some(name) = words.next() else { continue };
        if !text.starts_with(' ') {
            drawn.insert(name.clone(), (line, Vec::new()));
            folder = Some(name);
            continue;
        }
        let crate_drawn = folder.as_ref().and_then(|folder| drawn.get_mut(folder));
        let Some((_, modules)) = crate_drawn else {
            return Err((line, "a crate's folder comes first, not indented".into()));
        };
        let words: Vec<String> = words.collect();
        let marked = words.iter().filter_map(|word| word.strip_prefix('^'));
        modules.push(Drawn {
            line,
            name,
            imports: words.iter().map(|word| word.trim_start_matches('^').to_string()).collect(),
            marked: marked.map(String::from).collect(),
        });
    }
    Ok(drawn)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(lines: &[(&str, &[&str])]) -> Imports {
        let imports = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        lines.iter().map(|(name, names)| (name.to_string(), imports(names))).collect()
    }

    fn messages(picture: &str, found: &Imports) -> Vec<(usize, String)> {
        let text = format!("# A\n{SECTION}\n```text\nc\n{picture}```\n");
        let drawn = read(&text).unwrap();
        let (line, modules) = &drawn["c"];
        compare(*line, modules, found).into_iter().map(|p| (p.line, p.message)).collect()
    }

    #[test]
    fn the_picture_is_the_imports_in_order() {
        let imports = found(&[("a", &[]), ("b", &["a"]), ("c", &["a", "b"])]);
        assert_eq!(messages("  a\n  b a\n  c a b\n", &imports), []);
        for (picture, line, word) in [
            ("  a\n  b a\n  c a\n", 7, "imports: a b"),
            ("  a\n  b a c\n  c a b\n", 6, "imports: a"),
            ("  b a\n  a\n  c a b\n", 5, "must stand above"),
            ("  a\n  b a\n", 4, "`c` is not drawn"),
            ("  a\n  b a\n  c a b\n  d\n", 8, "no module"),
            ("  a\n  b ^a\n  c a b\n", 6, "no mark"),
        ] {
            let found = messages(picture, &imports);
            assert_eq!(found.len(), 1, "{picture}: {found:?}");
            assert!(found[0].0 == line && found[0].1.contains(word), "{picture}: {found:?}");
        }
    }

    #[test]
    fn a_cycle_is_named_or_a_problem() {
        let imports = found(&[("a", &["b"]), ("b", &["a"]), ("c", &["a"])]);
        assert_eq!(messages("  a ^b\n  b a\n  c a\n", &imports), []);
        let unnamed = messages("  a b\n  b a\n  c a\n", &imports);
        assert!(unnamed.len() == 1 && unnamed[0].1.contains("^b"), "{unnamed:?}");
        // A mark is no way round: what is no cycle can stand in order.
        let marked = messages("  c ^a\n  a ^b\n  b a\n", &imports);
        assert!(marked.len() == 1 && marked[0].1.contains("must stand above"), "{marked:?}");
    }

    /// A member of four modules whose sources draw what `expected` says.
    #[test]
    fn imports_are_read_from_every_spelling() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("Cargo.toml", "[workspace]\nmembers = [\"m\"]\n"),
            ("m/Cargo.toml", "[package]\nname = \"m\"\n"),
            (
                "m/src/lib.rs",
                "mod a;\nmod b;\npub mod c;\nmod d;\npub use a::{Name, Other as Else};\n",
            ),
            ("m/src/a.rs", "//! See `crate::b`.\n#[cfg(test)]\nmod tests { use crate::d; }\n"),
            ("m/src/b.rs", "use super::a;\n"),
            (
                "m/src/c/mod.rs",
                "mod inner;\nuse super::c as own;\nfn f() -> crate::Name { todo() }\n",
            ),
            ("m/src/c/inner.rs", "use super::super::b::{x, y};\nuse super::d;\n"),
            ("m/src/d.rs", "use crate::{b, c::inner};\n"),
        ] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let tree = Tree::open(root.path()).unwrap();
        let expected = [("a", &[][..]), ("b", &["a"]), ("c", &["a", "b"]), ("d", &["b", "c"])];
        assert_eq!(imports(&tree, &tree.members[0]), found(&expected));
    }

    #[test]
    fn what_is_proposed_passes() {
        let imports = found(&[("a", &["b"]), ("b", &["a"]), ("c", &["a", "d"]), ("d", &[])]);
        assert_eq!(messages(&ordered(&imports), &imports), []);
    }
}
