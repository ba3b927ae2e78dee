//! The book's sources, put together from files where they stand.
//!
//! A chapter keeps its path, those of book/ move to the top: so links between chapters stay as they are
//! written. Files that chapters lead to come along, so that the book can be carried elsewhere; a source becomes
//! `..rs.txt`, which every browser shows. Formulas of the book's own chapters become MathML, and two comments
//! are answered: `<!-- claims: C1 -->` by a family's verdicts, `<!-- verdicts: all -->` by their number.

use super::{Files, claims, formulas};
use crate::markdown::{self, Link, Page};
use std::collections::{BTreeMap, BTreeSet};

/// The book's own folder.
pub const FOLDER: &str = "book/";
/// The list of chapters.
pub const SUMMARY: &str = "book/SUMMARY.md";
/// Documents that are no chapters: the front page of the repository, and pages that `cargo xtask new-method`
/// makes for methods of one's own.
const NO_CHAPTERS: &[&str] = &["README.md", "docs/methods/"];

/// A book's sources, by their paths below its `src`.
pub type Sources = BTreeMap<String, Vec<u8>>;

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    /// File, from the root.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub message: String,
}

impl Trouble {
    fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.into(), line, message: message.into() }
    }
}

/// The book of `files`, and what is wrong with it.
pub fn assemble(files: &Files<'_>) -> (Sources, Vec<Trouble>) {
    let mut book =
        Book { files, chapters: BTreeMap::new(), sources: Sources::new(), troubles: vec![] };
    let summary = book.text(SUMMARY);
    let links = Page::parse(summary, false).links;
    for link in &links {
        let Some(path) = chapter_of(link) else { continue };
        if book.chapters.insert(path.clone(), place(&path)).is_some() {
            book.trouble(SUMMARY, link.line, format!("`{path}` is listed twice"));
        }
    }
    book.missing_chapters();
    let chapters: Vec<String> = book.chapters.keys().cloned().collect();
    for path in chapters.iter().map(String::as_str).chain([SUMMARY]) {
        if !files.contains_key(path) {
            let line = links.iter().find(|link| chapter_of(link).as_deref() == Some(path));
            book.trouble(
                SUMMARY,
                line.map_or(0, |link| link.line),
                format!("`{path}` is not here"),
            );
            continue;
        }
        let text = book.chapter(path);
        book.sources.insert(place(path), text.into_bytes());
    }
    let answered: BTreeSet<String> = chapters
        .iter()
        .filter(|path| path.starts_with(FOLDER))
        .flat_map(|path| Page::parse(book.text(path), true).directives)
        .filter(|directive| directive.name == "claims")
        .map(|directive| directive.value)
        .collect();
    for family in claims::families(files).iter().filter(|family| !answered.contains(**family)) {
        book.trouble(SUMMARY, 0, format!("no chapter asks for `<!-- claims: {family} -->`"));
    }
    book.troubles.sort();
    book.troubles.dedup();
    (book.sources, book.troubles)
}

/// The file of a chapter; `None` for one that is still to be written.
fn chapter_of(link: &Link) -> Option<String> {
    let (path, _) = link.relative()?;
    if path.is_empty() { None } else { markdown::resolve(SUMMARY, path) }
}

/// Where a chapter stands in the book.
fn place(path: &str) -> String {
    path.strip_prefix(FOLDER).unwrap_or(path).into()
}

/// The blanks that the last line of `text` starts with.
fn indent(text: &str) -> String {
    let line = text.rsplit('\n').next().unwrap_or_default();
    line.chars().take_while(|c| *c == ' ').collect()
}

struct Book<'f, 'a> {
    files: &'f Files<'a>,
    /// Chapters with their places.
    chapters: BTreeMap<String, String>,
    sources: Sources,
    troubles: Vec<Trouble>,
}

impl<'a> Book<'_, 'a> {
    fn text(&self, path: &str) -> &'a str {
        let bytes = self.files.get(path).copied().unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    fn trouble(&mut self, file: &str, line: usize, message: impl Into<String>) {
        self.troubles.push(Trouble::new(file, line, message));
    }

    /// Documents that nobody would find in the book.
    fn missing_chapters(&mut self) {
        let is_document = |path: &str| {
            let place =
                !path.contains('/') || path.starts_with("docs/") || path.starts_with(FOLDER);
            path.ends_with(".md")
                && place
                && path != SUMMARY
                && !NO_CHAPTERS.iter().any(|start| path.starts_with(start))
        };
        let missing: Vec<&str> =
            self.files.keys().copied().filter(|path| is_document(path)).collect();
        for path in missing.into_iter().filter(|path| !self.chapters.contains_key(*path)) {
            self.troubles.push(Trouble::new(path, 0, format!("it is no chapter of {SUMMARY}")));
        }
    }

    /// The text of the chapter at `path` as it stands in the book.
    fn chapter(&mut self, path: &str) -> String {
        let own = path.starts_with(FOLDER) && path != SUMMARY;
        let text = if own { self.answered(path) } else { self.text(path).to_string() };
        let page = Page::parse(&text, own);
        let mut edits = Vec::new();
        for link in &page.links {
            if let (Some(range), Some(new)) = (link.place.clone(), self.moved(path, link)) {
                edits.push((range, new));
            }
        }
        for line in page.dollars {
            let message =
                "a `$` that begins or ends no formula; does a line of it start like a list?";
            self.trouble(path, line, message);
        }
        for formula in page.formulas {
            match formulas::mathml(&formula.latex, formula.display) {
                Ok(mathml) if formula.display => {
                    // A block of its own, inside a list where the formula is.
                    let indent = indent(&text[..formula.range.start]);
                    let block = format!("\n\n{indent}{mathml}\n\n{indent}");
                    edits.push((formula.range, block));
                }
                Ok(mathml) => edits.push((formula.range, mathml)),
                Err(problem) => self.trouble(path, formula.line, problem),
            }
        }
        for (range, _) in page.drawings {
            // What mdBook cannot draw is shown as it is written.
            let info = range.start + "```".len();
            edits.push((info..info + "mermaid".len(), "text".into()));
        }
        edits.sort_by_key(|(range, _)| range.start);
        let mut text = text;
        for (range, new) in edits.into_iter().rev() {
            text.replace_range(range, &new);
        }
        text
    }

    /// A chapter of the book's own, its comments answered.
    fn answered(&mut self, path: &str) -> String {
        let mut text = self.text(path).to_string();
        for directive in Page::parse(&text, true).directives.into_iter().rev() {
            let answer = match (directive.name.as_str(), directive.value.as_str()) {
                ("claims", family) => claims::table(self.files, path, family),
                ("verdicts", "all") => Some(claims::summary(self.files)),
                _ => None,
            };
            match answer {
                Some(answer) => text.replace_range(directive.range, &answer),
                None => {
                    let message =
                        format!("nothing answers `{}: {}`", directive.name, directive.value);
                    self.trouble(path, directive.line, message);
                }
            }
        }
        text
    }

    /// Where a link of the file at `path` leads in the book; `None` where it stays as it is.
    fn moved(&mut self, path: &str, link: &Link) -> Option<String> {
        let (target, anchor) = link.relative()?;
        if link.target.is_empty() || target.is_empty() {
            return None;
        }
        let target = markdown::resolve(path, target)?;
        let new = match self.chapters.get(&target) {
            Some(place) => place.clone(),
            None => self.carried(path, link, &target)?,
        };
        let anchor = anchor.map_or(String::new(), |anchor| format!("#{anchor}"));
        Some(markdown::way(&place(path), &new) + &anchor)
    }

    /// Takes a file along that is no chapter: its place in the book.
    fn carried(&mut self, path: &str, link: &Link, target: &str) -> Option<String> {
        const SHOWN: [&str; 6] = ["svg", "png", "csv", "json", "toml", "txt"];
        let Some(bytes) = self.files.get(target) else {
            self.trouble(path, link.line, format!("`{target}` is no file: name a file of it"));
            return None;
        };
        let shown = SHOWN.iter().any(|extension| target.ends_with(&format!(".{extension}")));
        let place = if shown { target.to_string() } else { format!("{target}.txt") };
        self.sources.insert(place.clone(), bytes.to_vec());
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: &[(&str, &str)] = &[
        (
            SUMMARY,
            "# Summary\n\n[Start](start.md)\n- [A](../docs/a.md)\n- [Later]()\n- [Top](../TOP.md)\n",
        ),
        (
            "book/start.md",
            "# Start\n\n[a](../docs/a.md#a) [code](../m/src/x.rs) $x^2$\n\n<!-- verdicts: all -->\n",
        ),
        (
            "docs/a.md",
            "# A\n![f](figures/f.svg) [top](../TOP.md) [web](https://x.y) $no$\n```mermaid\nx --> y\n```\n",
        ),
        ("TOP.md", "[s](book/start.md) [r](README.md)\n"),
        ("README.md", "Hello.\n"),
        ("docs/figures/f.svg", "<svg/>"),
        ("m/src/x.rs", "fn main() {}\n"),
    ];

    fn files<'a>(changes: &[(&'a str, &'a str)]) -> Files<'a> {
        let mut files: Files<'a> = FILES.iter().map(|(p, text)| (*p, text.as_bytes())).collect();
        files.extend(changes.iter().map(|(path, text)| (*path, text.as_bytes())));
        files
    }

    #[test]
    fn chapters_keep_their_places_and_what_they_lead_to_comes_along() {
        let (sources, troubles) = assemble(&files(&[]));
        assert_eq!(troubles, []);
        let text = |path: &str| String::from_utf8(sources[path].clone()).unwrap();
        assert!(
            text("SUMMARY.md")
                .contains("[Start](start.md)\n- [A](docs/a.md)\n- [Later]()\n- [Top](TOP.md)")
        );
        let start = text("start.md");
        assert!(start.contains("[a](docs/a.md#a) [code](m/src/x.rs.txt) <math"), "{start}");
        assert!(start.contains("Of 0 claims"), "{start}");
        let a = text("docs/a.md");
        assert!(a.contains("![f](figures/f.svg) [top](../TOP.md) [web](https://x.y) $no$"), "{a}");
        assert!(a.contains("```text\nx --> y"), "{a}");
        assert_eq!(text("TOP.md"), "[s](start.md) [r](README.md.txt)\n");
        for path in ["docs/figures/f.svg", "m/src/x.rs.txt", "README.md.txt"] {
            assert!(sources.contains_key(path), "{path}");
        }
    }

    #[test]
    fn each_kind_of_trouble_is_told_with_its_place() {
        for (file, text, line, word) in [
            ("docs/b.md", "# B\n", 0, "no chapter"),
            ("book/start.md", "\n[folder](../docs)\n", 2, "name a file"),
            ("book/start.md", "a\n\n$\\frac{a}$\n", 3, "frac"),
            ("book/start.md", "a\n\n<!-- claims: C9 -->\n", 3, "nothing answers"),
            ("book/start.md", "costs 3 $ a day\n", 1, "no formula"),
            (
                SUMMARY,
                "- [S](start.md)\n- [A](../docs/a.md)\n- [A](../docs/a.md)\n- [T](../TOP.md)\n",
                3,
                "twice",
            ),
            (
                SUMMARY,
                "- [S](start.md)\n- [A](../docs/a.md)\n- [B](b.md)\n- [T](../TOP.md)\n",
                3,
                "not here",
            ),
        ] {
            let (_, troubles) = assemble(&files(&[(file, text)]));
            assert_eq!(troubles.len(), 1, "{troubles:?}");
            let trouble = &troubles[0];
            assert!(trouble.file == file && trouble.line == line, "{trouble:?}");
            assert!(trouble.message.contains(word), "{trouble:?}");
        }
        let claims = [(claims::LIST, "| `C1.a` | x | exact |\n")];
        let (_, troubles) = assemble(&files(&claims));
        assert!(troubles.iter().any(|t| t.message.contains("claims: C1")), "{troubles:?}");
    }
}
