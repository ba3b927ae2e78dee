//! Regular expressions over module paths, and what is near a misspelt name.

use crate::PeftError;
use regex::{Regex, RegexBuilder};
use std::collections::BTreeMap;

/// Values for modules whose path, or whose path's end, matches a regular expression; as the
/// `rank_pattern` of Hugging Face's configurations. The first match in the order of the patterns counts.
#[derive(Clone, Debug)]
pub struct Patterns<T>(Vec<(Regex, T)>);

// A derived one would ask for `T: Default`.
impl<T> Default for Patterns<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy> Patterns<T> {
    /// The patterns of `table`.
    ///
    /// # Errors
    /// [`PeftError::Pattern`].
    pub fn new(table: &BTreeMap<String, T>) -> Result<Self, PeftError> {
        let compile = |(pattern, value): (&String, &T)| {
            Ok((regex(pattern, &format!(r"^(?:.*\.)?(?:{pattern})$"))?, *value))
        };
        table.iter().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// The value for `path`.
    pub fn get(&self, path: &str) -> Option<T> {
        self.0.iter().find(|(regex, _)| regex.is_match(path)).map(|(_, value)| *value)
    }
}

/// A regular expression that must match a path as a whole.
pub(crate) fn whole(pattern: &str) -> Result<Regex, PeftError> {
    regex(pattern, &format!("^(?:{pattern})$"))
}

fn regex(shown: &str, pattern: &str) -> Result<Regex, PeftError> {
    /// Bytes of a compiled pattern: bounded, since patterns come from users' files.
    const LARGEST: usize = 1 << 20;
    RegexBuilder::new(pattern)
        .size_limit(LARGEST)
        .build()
        .map_err(|error| PeftError::Pattern { pattern: shown.into(), problem: error.to_string() })
}

/// `names`, those nearest to `wanted` first (edits of one letter; ties in their order).
pub fn nearest<S: AsRef<str>>(wanted: &str, names: impl IntoIterator<Item = S>) -> Vec<S> {
    let mut names: Vec<(usize, S)> =
        names.into_iter().map(|name| (edits(wanted, name.as_ref()), name)).collect();
    names.sort_by_key(|(distance, _)| *distance);
    names.into_iter().map(|(_, name)| name).collect()
}

/// Levenshtein's distance, by letters; the first 200 of a name decide.
fn edits(a: &str, b: &str) -> usize {
    const MOST: usize = 200;
    let (a, b): (Vec<char>, Vec<char>) =
        (a.chars().take(MOST).collect(), b.chars().take(MOST).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_a_path_or_its_end_and_no_part_of_a_name() {
        let patterns = Patterns::new(&BTreeMap::from([("up".to_owned(), 3usize)])).unwrap();
        assert_eq!(patterns.get("blocks.0.up"), Some(3));
        assert_eq!(patterns.get("up"), Some(3));
        assert_eq!(patterns.get("blocks.0.startup"), None);
        assert_eq!(patterns.get("up.down"), None);
        // An alternative must not escape its anchors.
        assert!(!whole("a|b").unwrap().is_match("ab"));
        assert!(matches!(whole("("), Err(PeftError::Pattern { .. })));
    }

    #[test]
    fn the_nearest_name_comes_first() {
        assert_eq!(nearest("heat", ["embed", "head", "blocks"])[0], "head");
        assert_eq!([edits("kitten", "sitting"), edits("", "abc"), edits("a", "a")], [3, 3, 0]);
    }
}
