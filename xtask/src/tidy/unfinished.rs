//! Nothing is left unfinished.

use super::Problem;
use super::tree::Tree;

/// Code that is not there yet, and tests that do not run.
pub fn code(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in &tree.sources {
        for name in ["todo", "unimplemented"] {
            for (line, _) in source.macro_calls(name) {
                problems.push(Problem::new(&source.path, line, format!("`{name}!` is a stub")));
            }
        }
        for window in source.tokens.windows(3) {
            if window[0].text == "#" && window[1].text == "[" && window[2].text == "ignore" {
                let message = "an ignored test tests nothing";
                problems.push(Problem::new(&source.path, window[0].line, message));
            }
        }
    }
    problems
}

/// Notes to oneself in comments (of Rust sources) or anywhere (in other text).
pub fn notes(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut search = |path: &str, lines: &mut dyn Iterator<Item = &str>| {
        for (index, line) in lines.enumerate() {
            if let Some(word) = line.split(|c: char| !c.is_alphanumeric() && c != '_').find(is_note)
            {
                let message = format!("`{word}`: do it, or file it where work is planned");
                problems.push(Problem::new(path, index + 1, message));
            }
        }
    };
    for source in &tree.sources {
        search(&source.path, &mut source.comments.iter().map(String::as_str));
    }
    for file in tree.files.iter().filter(|file| !file.path.ends_with(".rs")) {
        search(&file.path, &mut file.text().unwrap_or_default().lines());
    }
    problems
}

fn is_note(word: &&str) -> bool {
    ["TODO", "FIXME", "XXX"].contains(word)
}
