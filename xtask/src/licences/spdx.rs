//! SPDX licence expressions: `MIT OR (Apache-2.0 WITH LLVM-exception AND ISC)`.
//!
//! `WITH` binds closer than `AND`, `AND` closer than `OR` (SPDX 2.3, annex D). `/` is read as `OR`, as
//! manifests wrote it before expressions came. Words are compared as they stand.

use std::collections::BTreeSet;

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// One licence, with its exception where it has one: `Apache-2.0 WITH LLVM-exception`.
    One(String),
    /// All of them hold.
    All(Vec<Expression>),
    /// The user chooses one.
    Any(Vec<Expression>),
}

impl Expression {
    /// Reads `text`.
    ///
    /// # Errors
    /// What stands where something else was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut reader = Reader { words: words(text), at: 0 };
        let expression = reader.any()?;
        match reader.next() {
            None => Ok(expression),
            Some(word) => Err(format!("`{word}` where the expression should end")),
        }
    }

    /// Whether a user who accepts `allowed` and nothing else may use what is under this expression.
    pub fn is_met_by(&self, allowed: &BTreeSet<String>) -> bool {
        match self {
            Expression::One(licence) => allowed.contains(licence),
            Expression::All(parts) => parts.iter().all(|part| part.is_met_by(allowed)),
            Expression::Any(parts) => parts.iter().any(|part| part.is_met_by(allowed)),
        }
    }

    /// Every licence that it names.
    pub fn licences(&self) -> Vec<&str> {
        match self {
            Expression::One(licence) => vec![licence],
            Expression::All(parts) | Expression::Any(parts) => {
                parts.iter().flat_map(Expression::licences).collect()
            }
        }
    }
}

/// Words, with brackets and `/` as words of their own.
fn words(text: &str) -> Vec<String> {
    let mut spaced = String::new();
    for sign in text.chars() {
        match sign {
            '(' | ')' => spaced.extend([' ', sign, ' ']),
            '/' => spaced += " OR ",
            _ => spaced.push(sign),
        }
    }
    spaced.split_whitespace().map(String::from).collect()
}

struct Reader {
    words: Vec<String>,
    at: usize,
}

impl Reader {
    fn next(&mut self) -> Option<String> {
        let word = self.words.get(self.at).cloned();
        self.at += 1;
        word
    }

    /// Whether `word` comes next; then it is passed.
    fn takes(&mut self, word: &str) -> bool {
        let here = self.words.get(self.at).is_some_and(|next| next == word);
        self.at += usize::from(here);
        here
    }

    fn any(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.all()?];
        while self.takes("OR") {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
    }

    fn all(&mut self) -> Result<Expression, String> {
        let mut parts = vec![self.one()?];
        while self.takes("AND") {
            parts.push(self.one()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
    }

    fn one(&mut self) -> Result<Expression, String> {
        if self.takes("(") {
            let inner = self.any()?;
            return if self.takes(")") { Ok(inner) } else { Err("a `)` is missing".into()) };
        }
        let licence = self.identifier("a licence")?;
        if !self.takes("WITH") {
            return Ok(Expression::One(licence));
        }
        let exception = self.identifier("an exception")?;
        Ok(Expression::One(format!("{licence} WITH {exception}")))
    }

    fn identifier(&mut self, what: &str) -> Result<String, String> {
        let word = self.next().ok_or_else(|| format!("{what} is missing at the end"))?;
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || ".-+:".contains(c));
        if plain && !["AND", "OR", "WITH"].contains(&word.as_str()) {
            Ok(word)
        } else {
            Err(format!("`{word}` where {what} was expected"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(text: &str, allowed: &[&str]) -> bool {
        let allowed = allowed.iter().map(|licence| licence.to_string()).collect();
        Expression::parse(text).unwrap().is_met_by(&allowed)
    }

    #[test]
    fn with_binds_closer_than_and_and_and_closer_than_or() {
        for (text, allowed, right) in [
            ("MIT", &["MIT"][..], true),
            ("MIT", &["ISC"], false),
            ("A OR B", &["B"], true),
            ("A AND B", &["B"], false),
            ("A AND B", &["A", "B"], true),
            // Read from left to right without precedence this would be (A OR B) AND C.
            ("A OR B AND C", &["A"], true),
            ("(A OR B) AND C", &["A"], false),
            ("(A OR B) AND C", &["B", "C"], true),
            ("A WITH X OR B", &["A"], false),
            ("A WITH X OR B", &["A WITH X"], true),
            ("A AND B WITH X", &["A", "B WITH X"], true),
            ("A AND B WITH X", &["A", "B"], false),
            ("MIT/Apache-2.0", &["Apache-2.0"], true),
            ("MIT / Apache-2.0", &["MIT"], true),
            ("((A))", &["A"], true),
            ("GPL-2.0+", &["GPL-2.0"], false),
        ] {
            assert_eq!(met(text, allowed), right, "{text} with {allowed:?}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["", "A B", "A OR", "OR A", "(A", "A)", "A WITH", "A WITH (B)", "A,B", "AND"] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_licence_is_named() {
        let expression = Expression::parse("(A OR B WITH X) AND C").unwrap();
        assert_eq!(expression.licences(), ["A", "B WITH X", "C"]);
    }
}
