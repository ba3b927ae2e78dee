//! A Rust source as tokens, paths and comments.
//!
//! Tokens come from `proc-macro2`, so that strings, raw strings, lifetimes, character literals and
//! nested comments are told apart as the compiler does. What lies between tokens is comment.

use proc_macro2::{Delimiter, Group, Span, TokenStream, TokenTree};
use std::collections::BTreeSet;
use std::iter::Peekable;

/// One Rust file.
pub struct Source {
    /// Path from the repository's root.
    pub path: String,
    /// Its tokens, groups flattened.
    pub tokens: Vec<Token>,
    /// Every path it names, `use` trees expanded.
    pub paths: Vec<NamedPath>,
    /// Its lines, with everything but comments left out.
    pub comments: Vec<String>,
    /// Its lines as they are.
    pub lines: Vec<String>,
}

/// A token; groups appear as their delimiters.
#[derive(Debug)]
pub struct Token {
    /// Its text (`{`, `)`, an identifier without `r#`, ..); literals are empty.
    pub text: String,
    /// Its line, from 1.
    pub line: usize,
    /// Whether only tests compile it.
    pub test: bool,
}

/// A path such as `std::fs::File`.
#[derive(Debug)]
pub struct NamedPath {
    /// Its segments; `*` for everything.
    pub segments: Vec<String>,
    /// The line of its last segment, from 1.
    pub line: usize,
    /// Whether only tests compile it.
    pub test: bool,
    /// Whether it gets another name (`use a::b as c`).
    pub renamed: bool,
}

impl NamedPath {
    /// Whether the path begins with `prefix` (`"std::fs"`), or brings it into scope unseen: a rename
    /// or a glob of a parent.
    pub fn reaches(&self, prefix: &str) -> bool {
        let wanted: Vec<&str> = prefix.split("::").collect();
        let segments: Vec<&str> = self.segments.iter().map(String::as_str).collect();
        if segments.starts_with(&wanted) {
            return true;
        }
        let hidden = self.renamed || segments.last() == Some(&"*");
        let parent = match segments.split_last() {
            Some((&("*" | "self"), parent)) => parent,
            _ => &segments[..],
        };
        hidden && !parent.is_empty() && wanted.starts_with(parent)
    }
}

impl Source {
    /// Reads `text`.
    ///
    /// # Errors
    /// The sentence of the lexer.
    pub fn parse(path: &str, text: &str) -> Result<Self, String> {
        // A byte order mark or a `#!` line is no token.
        let stream: TokenStream = text.parse().map_err(|e| format!("no Rust: {e}"))?;
        let is_test_folder =
            path.split('/').any(|part| ["tests", "benches", "examples"].contains(&part));
        let mut flat = Flat { text, tokens: Vec::new(), code: vec![false; text.len()] };
        flat.stream(stream, is_test_folder);
        let mut paths = Vec::new();
        collect_paths(&flat.tokens, &mut paths);
        let comments = flat.comments();
        let lines = text.lines().map(String::from).collect();
        let tokens = flat.tokens;
        Ok(Self { path: path.into(), tokens, paths, comments, lines })
    }

    /// Paths of the files (without `.rs` or `/mod.rs`) that this file declares for tests only.
    pub fn test_modules(&self) -> Vec<String> {
        let (folder, file) = self.path.rsplit_once('/').unwrap_or(("", &self.path));
        let stem = file.trim_end_matches(".rs");
        let base = match stem {
            "mod" | "lib" | "main" => folder.to_string(),
            _ => format!("{folder}/{stem}"),
        };
        self.tokens
            .windows(3)
            .filter(|w| w[0].text == "mod" && w[2].text == ";" && w[0].test)
            .map(|w| format!("{base}/{}", w[1].text))
            .collect()
    }

    /// Marks all of this file as test code where `modules` (as [`Source::test_modules`] names them)
    /// holds it or a module above it.
    pub fn mark_test_files(&mut self, modules: &BTreeSet<String>) {
        let own = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let inside = |module: &String| {
            own.strip_prefix(module.as_str()).is_some_and(|r| r.is_empty() || r.starts_with('/'))
        };
        if modules.iter().any(inside) {
            self.tokens.iter_mut().for_each(|token| token.test = true);
            self.paths.iter_mut().for_each(|path| path.test = true);
        }
    }

    /// Lines on which the macro `name` is called, with whether only tests compile the call.
    pub fn macro_calls<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (usize, bool)> + 'a {
        self.tokens
            .windows(3)
            .filter(move |w| {
                w[0].text == name
                    && w[1].text == "!"
                    && ["(", "[", "{"].contains(&w[2].text.as_str())
            })
            .map(|w| (w[0].line, w[0].test))
    }

    /// The tokens that are the identifier `name`.
    pub fn identifiers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Token> {
        self.tokens.iter().filter(move |token| token.text == name)
    }
}

struct Flat<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    code: Vec<bool>,
}

impl Flat<'_> {
    fn push(&mut self, text: &str, span: Span, test: bool) {
        let range = span.byte_range();
        self.code[range].fill(true);
        self.tokens.push(Token { text: text.into(), line: span.start().line, test });
    }

    /// Appends a stream; items behind `#[test]` or `#[cfg(test)]` are test code up to their body or
    /// semicolon.
    fn stream(&mut self, stream: TokenStream, mut test: bool) {
        let mut item_is_test = false;
        let mut trees = stream.into_iter().peekable();
        while let Some(tree) = trees.next() {
            let here = test || item_is_test;
            match tree {
                TokenTree::Punct(punct) if punct.as_char() == '#' => {
                    let inner = take_punct(&mut trees, '!');
                    if let Some(TokenTree::Group(group)) = trees.peek() {
                        if is_doc_comment(group, self.text) {
                            // The lexer makes `#[doc = ..]` of it; it stays a comment.
                            trees.next();
                            continue;
                        }
                        match inner {
                            Some(_) => test |= marks_test(group),
                            None => item_is_test |= marks_test(group),
                        }
                    }
                    let here = test || item_is_test;
                    self.push("#", punct.span(), here);
                    if let Some(span) = inner {
                        self.push("!", span, here);
                    }
                }
                TokenTree::Punct(punct) => {
                    let sign = punct.as_char().to_string();
                    self.push(&sign, punct.span(), here);
                    if sign == ";" {
                        item_is_test = false;
                    }
                }
                TokenTree::Ident(ident) => {
                    let text = ident.to_string();
                    self.push(text.trim_start_matches("r#"), ident.span(), here);
                }
                TokenTree::Literal(literal) => self.push("", literal.span(), here),
                TokenTree::Group(group) => {
                    self.group(&group, here);
                    if group.delimiter() == Delimiter::Brace {
                        item_is_test = false;
                    }
                }
            }
        }
    }

    fn group(&mut self, group: &Group, test: bool) {
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => ("", ""),
        };
        self.push(open, group.span_open(), test);
        self.stream(group.stream(), test);
        self.push(close, group.span_close(), test);
    }

    /// The text's lines with all code blanked.
    fn comments(&self) -> Vec<String> {
        let kept: String = self
            .text
            .char_indices()
            .map(|(at, c)| if self.code[at] && c != '\n' { ' ' } else { c })
            .collect();
        kept.lines().map(|line| line.trim().to_string()).collect()
    }
}

fn take_punct(trees: &mut Peekable<impl Iterator<Item = TokenTree>>, sign: char) -> Option<Span> {
    let span = match trees.peek() {
        Some(TokenTree::Punct(punct)) if punct.as_char() == sign => punct.span(),
        _ => return None,
    };
    trees.next();
    Some(span)
}

fn is_doc_comment(attribute: &Group, text: &str) -> bool {
    let at = attribute.span().byte_range().start;
    text.get(at..).is_some_and(|rest| rest.starts_with("//") || rest.starts_with("/*"))
}

/// Whether the attribute makes its item test code: `test`, or a `cfg` that implies `test`.
fn marks_test(attribute: &Group) -> bool {
    let mut trees = attribute.stream().into_iter();
    match (trees.next(), trees.next()) {
        (Some(TokenTree::Ident(name)), None) => name == "test",
        (Some(TokenTree::Ident(name)), Some(TokenTree::Group(group))) => {
            name == "cfg" && predicates(group.stream()).iter().any(|part| implies_test(part))
        }
        _ => false,
    }
}

fn predicates(stream: TokenStream) -> Vec<Vec<TokenTree>> {
    let trees: Vec<TokenTree> = stream.into_iter().collect();
    trees
        .split(|tree| matches!(tree, TokenTree::Punct(p) if p.as_char() == ','))
        .filter(|part| !part.is_empty())
        .map(<[TokenTree]>::to_vec)
        .collect()
}

fn implies_test(predicate: &[TokenTree]) -> bool {
    match predicate {
        [TokenTree::Ident(name)] => name == "test",
        [TokenTree::Ident(name), TokenTree::Group(group)] => {
            let parts = predicates(group.stream());
            (name == "all" && parts.iter().any(|part| implies_test(part)))
                || (name == "any"
                    && !parts.is_empty()
                    && parts.iter().all(|part| implies_test(part)))
        }
        _ => false,
    }
}

/// Appends every path that `tokens` name.
fn collect_paths(tokens: &[Token], paths: &mut Vec<NamedPath>) {
    let mut at = 0;
    while at < tokens.len() {
        if is_name(&tokens[at].text) && starts_path(tokens, at) {
            // Behind a `use` tree its branches must not be read again as paths of their own.
            at = path_from(tokens, at, &mut Vec::new(), paths).max(at + 1);
        } else {
            at += 1;
        }
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

fn is_colons(tokens: &[Token], at: usize) -> bool {
    tokens.get(at).is_some_and(|t| t.text == ":")
        && tokens.get(at + 1).is_some_and(|t| t.text == ":")
}

const KEYWORDS_BEFORE_PATHS: [&str; 14] = [
    "use", "pub", "in", "return", "as", "impl", "for", "if", "else", "match", "mut", "dyn", "move",
    "where",
];

/// Whether the name at `at` is a first segment: behind neither `.` nor `segment::`.
fn starts_path(tokens: &[Token], at: usize) -> bool {
    if at >= 1 && tokens[at - 1].text == "." {
        return false;
    }
    if at >= 2 && is_colons(tokens, at - 2) {
        let before = at.checked_sub(3).map(|i| tokens[i].text.as_str()).unwrap_or("");
        // `::std` begins a path where nothing that can own a path stands before it.
        return (!is_name(before) || KEYWORDS_BEFORE_PATHS.contains(&before)) && before != ">";
    }
    true
}

/// Reads the path at `at` behind the segments `prefix`; returns where it ends.
fn path_from(
    tokens: &[Token],
    at: usize,
    prefix: &mut Vec<String>,
    paths: &mut Vec<NamedPath>,
) -> usize {
    let depth = prefix.len();
    let mut at = at;
    let mut last = at;
    while let Some(token) = tokens.get(at) {
        let text = token.text.as_str();
        if text == "{" {
            // Only a `use` tree has a brace behind `::`.
            at = tree_from(tokens, at + 1, prefix, paths);
            prefix.truncate(depth);
            return at;
        }
        if !is_name(text) && text != "*" {
            break;
        }
        prefix.push(text.to_string());
        last = at;
        at += 1;
        if !is_colons(tokens, at) {
            break;
        }
        at += 2;
    }
    let renamed = tokens.get(at).is_some_and(|token| token.text == "as");
    let Token { line, test, .. } = tokens[last];
    paths.push(NamedPath { segments: prefix.clone(), line, test, renamed });
    prefix.truncate(depth);
    if renamed { at + 2 } else { at }
}

/// Reads the branches of a `use` tree up to its closing brace; returns the place behind it.
fn tree_from(
    tokens: &[Token],
    mut at: usize,
    prefix: &mut Vec<String>,
    paths: &mut Vec<NamedPath>,
) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "}" => return at + 1,
            text if is_name(text) || text == "*" => at = path_from(tokens, at, prefix, paths),
            _ => at += 1,
        }
    }
    at
}
