//! LaTeX to MathML, which browsers draw without a script, a font or a network.

use pulldown_latex::config::{DisplayMode, RenderConfig};
use pulldown_latex::{Parser, Storage, push_mathml};

/// A formula as MathML that stays whole inside Markdown.
///
/// # Errors
/// What is wrong with the LaTeX.
pub fn mathml(latex: &str, display: bool) -> Result<String, String> {
    let storage = Storage::new();
    let events: Result<Vec<_>, _> = Parser::new(latex, &storage).collect();
    let events = events.map_err(|error| format!("`{}`: {error}", latex.trim()))?;
    let display_mode = if display { DisplayMode::Block } else { DisplayMode::Inline };
    let config = RenderConfig { display_mode, ..RenderConfig::default() };
    let mut text = String::new();
    push_mathml(&mut text, events.into_iter().map(Ok::<_, std::fmt::Error>), config)
        .map_err(|error| format!("`{}`: {error}", latex.trim()))?;
    let text = escaped(&mended(text));
    if let Some(name) = misshapen(&text) {
        return Err(format!("`{}`: a <{name}> with too few or too many parts", latex.trim()));
    }
    Ok(if display { format!("<div class=\"formula\">{text}</div>") } else { text })
}

/// Elements with a fixed number of parts.
const SHAPES: [(&str, usize); 8] = [
    ("msub", 2),
    ("msup", 2),
    ("mfrac", 2),
    ("munder", 2),
    ("mover", 2),
    ("msubsup", 3),
    ("munderover", 3),
    ("mroot", 2),
];

/// Two mistakes of pulldown-latex 0.8 undone: a blank that is missing between attributes, and the space
/// before an operator with a script, put into the script's element instead of before it.
fn mended(mathml: String) -> String {
    let mut text = mathml.replace("\"minsize", "\" minsize");
    for (name, _) in SHAPES {
        let inside = format!("<{name}><mspace");
        while let Some(at) = text.find(&inside) {
            let space = at + name.len() + 2;
            let end = text[space..].find('>').map_or(text.len(), |end| space + end + 1);
            let moved = format!("{}<{name}>", &text[space..end]);
            text.replace_range(at..end, &moved);
        }
    }
    text
}

/// The first element that does not have its parts.
fn misshapen(mathml: &str) -> Option<&str> {
    let mut open: Vec<(&str, usize)> = Vec::new();
    for tag in mathml.split('<').skip(1) {
        let (tag, _) = tag.split_once('>')?;
        if let Some(name) = tag.strip_prefix('/') {
            let (_, parts) = open.pop()?;
            if SHAPES.iter().any(|(shape, count)| *shape == name && *count != parts) {
                return Some(name);
            }
            continue;
        }
        if let Some((_, parts)) = open.last_mut() {
            *parts += 1;
        }
        if !tag.ends_with('/') {
            open.push((tag.split(' ').next()?, 0));
        }
    }
    None
}

/// Signs that Markdown would read, between tags, as numbers; no line ends.
fn escaped(mathml: &str) -> String {
    let (mut text, mut tag) = (String::new(), false);
    for sign in mathml.chars() {
        match sign {
            '<' => tag = true,
            '>' => tag = false,
            '\n' => continue,
            '*' | '_' | '`' | '\\' | '[' | ']' | '~' | '|' | '$' if !tag => {
                text += &format!("&#{};", sign as u32);
                continue;
            }
            _ => {}
        }
        text.push(sign);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_become_mathml_that_markdown_leaves_alone() {
        let text = mathml(r"\| A^* - B_t \|_F^2 \le [x]", false).unwrap();
        assert!(text.starts_with("<math") && text.ends_with("</math>"), "{text}");
        assert!(text.contains("<msubsup>"), "{text}");
        let page = crate::markdown::Page::parse(&format!("*a* {text} and {text}*\n"), true);
        assert!(page.links.is_empty() && page.formulas.is_empty());
        assert!(!text.contains(['*', '|', '[']), "{text}");
        assert!(mathml(r"\bigl( x", false).unwrap().contains("\" minsize"));
        let spaced = mathml(r"\mathbb{E} \operatorname{tail}_k \, \min_A", false).unwrap();
        assert!(!spaced.contains("<msub><mspace") && spaced.contains("/><msub>"), "{spaced}");
        assert!(mathml("x", true).unwrap().contains("<div class=\"formula\">"));
    }

    #[test]
    fn elements_have_their_parts() {
        assert_eq!(misshapen("<math><msub><mi>a</mi><mrow><mi>b</mi></mrow></msub></math>"), None);
        let three = "<math><msub><mspace /><mi>a</mi><mi>b</mi></msub></math>";
        assert_eq!(misshapen(three), Some("msub"));
        assert_eq!(misshapen("<math><mfrac><mi>a</mi></mfrac></math>"), Some("mfrac"));
    }

    #[test]
    fn what_is_no_latex_is_told() {
        for latex in [r"\frac{a}", r"\no_such_command", "{x"] {
            let problem = mathml(latex, false).unwrap_err();
            assert!(problem.contains(latex), "{problem}");
        }
    }
}
