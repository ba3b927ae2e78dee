//! Markdown files as the book and `tidy` see them: links, headings, formulas and directives.

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use std::ops::Range;

/// One Markdown text, taken apart. Ranges are bytes of the text.
#[derive(Debug, Default)]
pub struct Page {
    /// Links and images, in order.
    pub links: Vec<Link>,
    /// What `#..` may name: the headings, as GitHub and mdBook call them.
    pub anchors: Vec<String>,
    /// Formulas, where they are read.
    pub formulas: Vec<Formula>,
    /// Code blocks that are `mermaid`, with what they hold.
    pub drawings: Vec<(Range<usize>, String)>,
    /// Comments on a line of their own, `<!-- name: value -->`.
    pub directives: Vec<Directive>,
    /// Lines with a dollar that is no formula's, where formulas are read.
    pub dollars: Vec<usize>,
    /// What is emphasised, by line.
    pub emphasised: Vec<(usize, String)>,
}

/// A link or an image.
#[derive(Debug)]
pub struct Link {
    /// Where its target stands; `None` where it is not written as `[..](target)`.
    pub place: Option<Range<usize>>,
    /// The target.
    pub target: String,
    /// Whether it is an image.
    pub image: bool,
    /// Its line, from 1.
    pub line: usize,
}

impl Link {
    /// Path and anchor, where the target is a place of the same tree.
    pub fn relative(&self) -> Option<(&str, Option<&str>)> {
        let target = self.target.as_str();
        let scheme = target.split(['/', '#']).next().is_some_and(|start| start.contains(':'));
        if scheme || target.starts_with("//") {
            return None;
        }
        match target.split_once('#') {
            Some((path, anchor)) => Some((path, Some(anchor))),
            None => Some((target, None)),
        }
    }
}

/// A formula between `$` or `$$`.
#[derive(Debug)]
pub struct Formula {
    /// With its dollars.
    pub range: Range<usize>,
    /// LaTeX.
    pub latex: String,
    /// Whether it stands on a line of its own.
    pub display: bool,
    /// Its line, from 1.
    pub line: usize,
}

/// A comment that asks for something.
#[derive(Debug)]
pub struct Directive {
    /// The whole comment.
    pub range: Range<usize>,
    /// What is asked.
    pub name: String,
    /// Of what.
    pub value: String,
    /// Its line, from 1.
    pub line: usize,
}

impl Page {
    /// Reads `text`; with `formulas` dollars are dollars no more.
    pub fn parse(text: &str, formulas: bool) -> Self {
        let mut options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH;
        if formulas {
            options |= Options::ENABLE_MATH;
        }
        let line_of = |at: usize| text[..at].matches('\n').count() + 1;
        let mut page = Self::default();
        let mut heading: Option<String> = None;
        let mut drawing: Option<(Range<usize>, String)> = None;
        let mut in_code = false;
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            let line = line_of(range.start);
            let is_text = matches!(event, Event::Text(_)) && !in_code;
            match event {
                Event::Start(Tag::Link { dest_url, .. }) => {
                    page.links.push(link(text, range, &dest_url, false, line));
                }
                Event::Start(Tag::Image { dest_url, .. }) => {
                    page.links.push(link(text, range, &dest_url, true, line));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let slug = slug(&heading.take().unwrap_or_default());
                    page.anchors.push(unique(slug, &page.anchors));
                }
                Event::Start(Tag::CodeBlock(kind)) => {
                    use pulldown_cmark::CodeBlockKind::Fenced;
                    in_code = true;
                    if matches!(&kind, Fenced(info) if info.as_ref() == "mermaid") {
                        drawing = Some((range, String::new()));
                    }
                }
                Event::End(TagEnd::CodeBlock) => {
                    in_code = false;
                    page.drawings.extend(drawing.take());
                }
                Event::Text(words) | Event::Code(words) => {
                    let told = page.dollars.last() == Some(&line);
                    if formulas && is_text && words.contains('$') && !told {
                        page.dollars.push(line);
                    }
                    if let Some(heading) = &mut heading {
                        *heading += &words;
                    }
                    if let Some((_, body)) = &mut drawing {
                        *body += &words;
                    }
                }
                Event::InlineMath(latex) => {
                    page.formulas.push(Formula {
                        range,
                        latex: latex.into(),
                        display: false,
                        line,
                    });
                }
                Event::DisplayMath(latex) => {
                    page.formulas.push(Formula { range, latex: latex.into(), display: true, line });
                }
                Event::Start(Tag::Emphasis | Tag::Strong) => {
                    page.emphasised.push((line, text[range].to_string()));
                }
                Event::Html(html) => page.directives.extend(directive(&html, range, line)),
                _ => {}
            }
        }
        page
    }
}

/// Where the target of the link at `range` stands: behind its last `](`.
fn link(text: &str, range: Range<usize>, target: &str, image: bool, line: usize) -> Link {
    let start = text[range.clone()].rfind("](").map(|at| range.start + at + 2);
    let place = start.filter(|start| text[*start..].starts_with(target));
    let place = place.map(|start| start..start + target.len());
    Link { place, target: target.into(), image, line }
}

fn directive(html: &str, range: Range<usize>, line: usize) -> Option<Directive> {
    let comment = html.trim_end();
    let (name, value) = comment.strip_prefix("<!-- ")?.strip_suffix(" -->")?.split_once(": ")?;
    let range = range.start..range.start + comment.len();
    Some(Directive { range, name: name.into(), value: value.into(), line })
}

/// A heading as an anchor: letters, digits, `-` and `_` in lower case, blanks as `-`.
fn slug(heading: &str) -> String {
    let kept = heading.trim().chars().filter_map(|c| match c {
        ' ' => Some('-'),
        '-' | '_' => Some(c),
        _ => c.is_alphanumeric().then_some(c),
    });
    kept.collect::<String>().to_lowercase()
}

/// The second of two equal anchors is called `..-1`.
fn unique(slug: String, taken: &[String]) -> String {
    let numbered = (1..).map(|n| format!("{slug}-{n}"));
    let mut names = std::iter::once(slug.clone()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or(slug)
}

/// `path` as it stands in the file `from`, from the root; `None` where it leaves the root.
pub fn resolve(from: &str, path: &str) -> Option<String> {
    if path.is_empty() {
        return Some(from.into());
    }
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The way from the file `from` to `to`, both from the root.
pub fn way(from: &str, to: &str) -> String {
    let from: Vec<&str> = from.split('/').collect();
    let to: Vec<&str> = to.split('/').collect();
    let folders = from.len().min(to.len()) - 1;
    let shared = (0..folders).take_while(|i| from[*i] == to[*i]).count();
    "../".repeat(from.len() - 1 - shared) + &to[shared..].join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_where_readers_see_them() {
        let text = "# A `b`, c\n[one](a.md#x) ![two](b.svg)\n`[no](c.md)`\n```\n[no](d.md)\n```\n\n| [t](e.md) |\n|---|\n\n[![in](f.svg)](g.md)\n\n<!-- claims: C1 -->\n\n[web](https://x.y/z)\n";
        let page = Page::parse(text, false);
        let targets: Vec<&str> = page.links.iter().map(|link| link.target.as_str()).collect();
        assert_eq!(targets, ["a.md#x", "b.svg", "e.md", "g.md", "f.svg", "https://x.y/z"]);
        for link in &page.links {
            assert_eq!(text[link.place.clone().unwrap()], link.target);
        }
        assert_eq!(page.links[0].relative(), Some(("a.md", Some("x"))));
        assert_eq!(page.links[5].relative(), None);
        assert_eq!(page.links[2].line, 8);
        assert_eq!(page.anchors, ["a-b-c"]);
        let directive = &page.directives[0];
        assert_eq!((directive.name.as_str(), directive.value.as_str()), ("claims", "C1"));
        assert_eq!(&text[directive.range.clone()], "<!-- claims: C1 -->");
    }

    #[test]
    fn formulas_are_read_where_they_are_asked_for() {
        let text = "A $x_1$ and\n\n$$\ny^2\n$$\n";
        let page = Page::parse(text, true);
        let found: Vec<_> = page.formulas.iter().map(|f| (f.latex.trim(), f.display)).collect();
        assert_eq!(found, [("x_1", false), ("y^2", true)]);
        assert_eq!(&text[page.formulas[0].range.clone()], "$x_1$");
        assert!(Page::parse(text, false).formulas.is_empty());
        assert_eq!(page.dollars, [] as [usize; 0]);
        // A line that starts as a list's entry does ends the formula before its end.
        let page = Page::parse("`$`\n```\n$ ls\n```\n$$\nx\n+ y\n$$\n", true);
        assert_eq!(page.dollars, [5, 8]);
    }

    #[test]
    fn drawings_are_code_blocks_of_their_kind() {
        let page = Page::parse("```mermaid\na --> b\n```\n```text\nc --> d\n```\n", false);
        assert_eq!(page.drawings.len(), 1);
        assert_eq!(page.drawings[0].1, "a --> b\n");
    }

    #[test]
    fn equal_headings_have_numbers() {
        let page = Page::parse("# A\n## A\n## A-1\n## A\n", false);
        assert_eq!(page.anchors, ["a", "a-1", "a-1-1", "a-2"]);
    }

    #[test]
    fn ways_lead_there_and_back() {
        for (from, path, to) in [
            ("docs/a.md", "b.md", Some("docs/b.md")),
            ("docs/a.md", "../c.md", Some("c.md")),
            ("docs/x/a.md", "../../c/d.md", Some("c/d.md")),
            ("a.md", "docs/b.md", Some("docs/b.md")),
            ("a.md", "../b.md", None),
        ] {
            assert_eq!(resolve(from, path).as_deref(), to, "{from} {path}");
            if let Some(to) = to {
                assert_eq!(way(from, to), path, "{from} {to}");
            }
        }
    }
}
