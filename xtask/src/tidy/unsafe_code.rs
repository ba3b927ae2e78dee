//! Every `unsafe` carries its proof.

use super::Problem;
use super::source::Source;
use super::tree::Tree;

/// `unsafe` without a comment `SAFETY:` (or, for functions and traits, a section `# Safety`) in the
/// comment just above the statement that holds it, or before it on its line.
pub fn without_proof(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for source in &tree.sources {
        for (index, token) in source.tokens.iter().enumerate() {
            if token.text != "unsafe"
                || is_pointer_type(source, index)
                || is_method_of_proved_impl(source, index)
            {
                continue;
            }
            if !proved(source, token.line) {
                let message = "`unsafe` without `// SAFETY:` just above";
                problems.push(Problem::new(&source.path, token.line, message));
            }
        }
    }
    problems
}

/// `unsafe fn(..)` as a type promises nothing and needs no proof.
fn is_pointer_type(source: &Source, index: usize) -> bool {
    let text = |offset: usize| source.tokens.get(index + offset).map(|token| token.text.as_str());
    text(1) == Some("fn") && text(2) == Some("(")
}

/// A method that an `unsafe impl` has to declare so: the proof of the `impl` speaks for it.
fn is_method_of_proved_impl(source: &Source, index: usize) -> bool {
    if source.tokens.get(index + 1).is_none_or(|token| token.text != "fn") {
        return false;
    }
    // Outwards to the brace that opens the block around the method.
    let mut depth = 0;
    for at in (0..index).rev() {
        match source.tokens[at].text.as_str() {
            "}" => depth += 1,
            "{" if depth > 0 => depth -= 1,
            "{" => {
                let head = source.tokens[..at].iter().rev();
                let mut head = head.take_while(|token| ![";", "{", "}"].contains(&&*token.text));
                return head.any(|token| token.text == "unsafe");
            }
            _ => {}
        }
    }
    false
}

fn proved(source: &Source, line: usize) -> bool {
    let has_proof = |index: usize| {
        let comment = &source.comments[index];
        comment.contains("SAFETY:") || comment.contains("# Safety")
    };
    let mut index = line - 1;
    if has_proof(index) {
        return true;
    }
    while index > 0 {
        index -= 1;
        let (comment, code) = (&source.comments[index], source.lines[index].trim());
        if !comment.is_empty() {
            if has_proof(index) {
                return true;
            }
            // Other lines of the same comment are passed over; a comment behind code ends the search.
            if !code.starts_with("//") && !code.starts_with(['*', '/']) {
                return false;
            }
        } else if code.is_empty() || ends_statement(code) {
            return false;
        }
    }
    false
}

/// Whether what follows a line of code begins anew; attributes and broken lines go on.
fn ends_statement(code: &str) -> bool {
    !code.starts_with('#') && code.ends_with([';', '{', '}', ','])
}
