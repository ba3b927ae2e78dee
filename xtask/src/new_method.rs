//! `cargo xtask new-method NAME`: the file, the registry's line and a page for a new method.

use crate::failure::Failure;
use crate::flags::{Parsed, Verb};
use crate::workspace;
use std::path::Path;

/// The verb.
pub const VERB: Verb = Verb {
    name: "new-method",
    summary: "Make the file, the registry's line and a page for a new method, ready to be tested.",
    operands: "NAME",
    operand_count: 1..=1,
    flags: &[],
    rest: None,
    run,
};

/// The method of docs/adding-a-method.md, under its name there.
const TUTORIAL: &str = include_str!("../../docs/adding-a-method.md");
const TUTORIAL_NAME: &str = "output-gain";
const REGISTRY: &str = "peft/src/methods/mod.rs";
const REGISTRY_START: &str = "methods! {\n";

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let name = parsed.operands.first().map_or("", String::as_str);
    for path in create(&workspace::root()?, name)? {
        println!("{path}");
    }
    Ok(())
}

/// Makes the files below `root`; returns their paths.
///
/// # Errors
/// [`Failure::Usage`] for a name that is none or is taken, [`Failure::Work`].
pub fn create(root: &Path, name: &str) -> Result<[String; 3], Failure> {
    let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(letters) {
        let message = format!("`{name}`: a method's name has small letters, digits and dashes");
        return Err(Failure::Usage(message));
    }
    let module = name.replace('-', "_");
    let file = format!("peft/src/methods/{module}.rs");
    let page = format!("docs/methods/{name}.md");
    let registry = read(root, REGISTRY)?;
    let line = format!("    {module},\n");
    if root.join(&file).exists() || registry.contains(&line) {
        return Err(Failure::Usage(format!("there is a method `{name}` already")));
    }
    let start = registry.find(REGISTRY_START).map(|at| at + REGISTRY_START.len());
    let end = start.and_then(|start| registry[start..].find("}\n").map(|at| start + at));
    let Some(end) = end else {
        return Err(Failure::Work(format!("{REGISTRY} has no list of methods")));
    };
    let registry = format!("{}{line}{}", &registry[..end], &registry[end..]);
    write(root, &file, &template().replace(TUTORIAL_NAME, name))?;
    write(root, &page, &stub(name))?;
    write(root, REGISTRY, &registry)?;
    Ok([file, page, REGISTRY.to_owned()])
}

/// The first block of Rust in the tutorial.
fn template() -> &'static str {
    let block = TUTORIAL.split_once("```rust\n").and_then(|(_, rest)| rest.split_once("```"));
    block.map_or("", |(block, _)| block)
}

fn stub(name: &str) -> String {
    format!(
        "# {name}\n\nFormula, shapes, start and source stand at the head of \
         `peft/src/methods/{}.rs`. Here: when to use it, what its settings do, and what was measured.\n",
        name.replace('-', "_")
    )
}

fn read(root: &Path, path: &str) -> Result<String, Failure> {
    std::fs::read_to_string(root.join(path))
        .map_err(|error| Failure::Work(format!("{path}: {error}")))
}

fn write(root: &Path, path: &str, text: &str) -> Result<(), Failure> {
    let whole = root.join(path);
    let made = whole.parent().map_or(Ok(()), std::fs::create_dir_all);
    made.and_then(|()| std::fs::write(&whole, text))
        .map_err(|error| Failure::Work(format!("{path}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copied() -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        let registry = read(&workspace::root().unwrap(), REGISTRY).unwrap();
        write(copy.path(), REGISTRY, &registry).unwrap();
        copy
    }

    #[test]
    fn a_method_is_one_file_and_one_line() {
        let copy = copied();
        let before = read(copy.path(), REGISTRY).unwrap();
        let [file, page, _] = create(copy.path(), "my-method").unwrap();
        let after = read(copy.path(), REGISTRY).unwrap();
        assert_eq!(after.replace("    my_method,\n", ""), before);
        let text = read(copy.path(), &file).unwrap();
        assert!(text.contains("name: \"my-method\"") && !text.contains(TUTORIAL_NAME));
        assert!(read(copy.path(), &page).unwrap().starts_with("# my-method\n"));
        let error = create(copy.path(), "my-method").unwrap_err();
        assert!(error.message().unwrap().contains("already"));
    }

    #[test]
    fn names_that_are_no_module_are_refused() {
        for name in ["", "My", "1st", "a b", "../x", "a_b"] {
            assert!(matches!(create(copied().path(), name), Err(Failure::Usage(_))), "{name}");
        }
    }

    #[test]
    fn the_tutorials_method_is_below_sixty_lines() {
        let lines = template().lines().count();
        assert!((20..60).contains(&lines), "{lines}");
    }
}
