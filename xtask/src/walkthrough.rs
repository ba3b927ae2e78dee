//! `cargo xtask walkthrough [NAME..]`: what the walkthroughs tell to type is typed, in a copy of the
//! tree, and what they show is compared with what appears.
//!
//! A walkthrough is a Markdown file below docs/walkthroughs. Its blocks of ```` ```console ```` hold
//! commands (`$ command`, further lines of it `> more`), each followed by what it prints on standard
//! output and standard error, and by a line `exit status N` where it fails. `..` stands for any text
//! within a line, and alone on a line for any lines, also none. A block whose info string holds
//! `file=PATH` is a file that the reader writes. A line `<!-- needs python: MODULES -->` names what
//! Python must have. Where `python3` lacks them, an environment that has them is made below the target
//! folder; where that cannot be, the walkthrough is skipped, and that is said. `<!-- needs built: networks -->`
//! says that dependencies take long to build: those that this workspace has built are copied.

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::{copies, pairs, workspace};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// The verb.
pub const VERB: Verb = Verb {
    name: "walkthrough",
    summary: "Type what the walkthroughs tell to type, in a copy of the tree, and compare.",
    operands: "[NAME..]",
    operand_count: 0..=usize::MAX,
    flags: &[Flag {
        name: "--show",
        value: None,
        help: "print what every command prints, right or wrong",
    }],
    rest: None,
    run,
};

const FOLDER: &str = "docs/walkthroughs";
/// Copies of the tree, their builds, and a Python environment.
const HOME: &str = "target/walkthroughs";

/// One thing that the reader does.
#[derive(Debug, PartialEq)]
enum Step {
    /// Writes a file.
    File { path: String, text: String },
    /// Types a command; `line` is where it stands.
    Command { line: usize, command: String, expected: String },
}

/// A walkthrough: what it needs, and its steps.
#[derive(Debug, PartialEq)]
struct Walkthrough {
    python_modules: Vec<String>,
    /// Whether dependencies that are built already are worth a copy.
    copies_dependencies: bool,
    steps: Vec<Step>,
}

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let root = workspace::root()?;
    let mut wrong = Vec::new();
    for name in chosen(&root, &parsed.operands)? {
        let path = format!("{FOLDER}/{name}.md");
        let walkthrough = parse(&read(&root.join(&path))?)
            .map_err(|(line, problem)| Failure::Work(format!("{path}:{line}: {problem}")))?;
        let modules = &walkthrough.python_modules;
        let Some(programs) = programs(&root.join(HOME), modules) else {
            eprintln!("walkthrough {name}: skipped: no python3 with {} here", modules.join(", "));
            continue;
        };
        let started = Instant::now();
        match walk(&root, &walkthrough, &programs, parsed.has("--show"))? {
            Ok(commands) => {
                let seconds = started.elapsed().as_secs();
                println!("{name}: {commands} commands as shown, {seconds} s");
            }
            Err((line, difference)) => wrong.push(format!("{path}:{line}: {difference}")),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::Work(wrong.join("\n"))) }
}

/// The names that were asked for, or all.
fn chosen(root: &Path, names: &[String]) -> Result<Vec<String>, Failure> {
    let entries = std::fs::read_dir(root.join(FOLDER))
        .map_err(|error| Failure::Work(format!("{FOLDER}: {error}")))?;
    let mut all: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .collect();
    all.sort();
    if let Some(unknown) = names.iter().find(|name| !all.contains(name)) {
        let known = all.join(", ");
        return Err(Failure::Usage(format!("no walkthrough `{unknown}`; there are {known}")));
    }
    Ok(if names.is_empty() { all } else { names.to_vec() })
}

/// Reads the steps of a walkthrough.
///
/// # Errors
/// Line and problem.
fn parse(text: &str) -> Result<Walkthrough, (usize, String)> {
    let mut walkthrough = Walkthrough {
        python_modules: Vec::new(),
        copies_dependencies: text.lines().any(|line| line == "<!-- needs built: networks -->"),
        steps: Vec::new(),
    };
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let needs = line.strip_prefix("<!-- needs python:").and_then(|l| l.strip_suffix("-->"));
        if let Some(modules) = needs {
            walkthrough.python_modules.extend(modules.split_whitespace().map(String::from));
        }
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut body = Vec::new();
        loop {
            match lines.next() {
                Some((_, "```")) => break,
                Some((_, line)) => body.push(line),
                None => return Err((at + 1, "the block has no end".into())),
            }
        }
        if let Some(path) = info.split_whitespace().find_map(|word| word.strip_prefix("file=")) {
            if Path::new(path).is_absolute() || path.split('/').any(|part| part == "..") {
                return Err((at + 1, format!("{path}: files are written inside the tree")));
            }
            walkthrough
                .steps
                .push(Step::File { path: path.to_owned(), text: body.join("\n") + "\n" });
        } else if info == "console" {
            session(at + 2, &body, &mut walkthrough.steps)?;
        }
    }
    Ok(walkthrough)
}

/// The commands of a block of `console` whose first line has the number `first`.
fn session(first: usize, body: &[&str], steps: &mut Vec<Step>) -> Result<(), (usize, String)> {
    let before = steps.len();
    for (offset, text) in body.iter().enumerate() {
        let line = first + offset;
        if let Some(command) = text.strip_prefix("$ ") {
            let command = command.to_owned();
            steps.push(Step::Command { line, command, expected: String::new() });
            continue;
        }
        let Some(Step::Command { command, expected, .. }) = steps[before..].last_mut() else {
            return Err((line, "a session starts with a command, `$ ..`".into()));
        };
        match text.strip_prefix("> ") {
            Some(more) if expected.is_empty() => *command += &format!("\n{more}"),
            _ => *expected += &format!("{text}\n"),
        }
    }
    Ok(())
}

/// Takes the steps in a copy of the tree: the number of commands, or the line and the difference of
/// the first that printed something else.
fn walk(
    root: &Path,
    walkthrough: &Walkthrough,
    programs: &OsStr,
    show: bool,
) -> Result<Result<usize, (usize, String)>, Failure> {
    // Always the same place, and times that stay: what has been built is not built again.
    let tree = &root.join(HOME).join("tree");
    if tree.exists() {
        std::fs::remove_dir_all(tree)
            .map_err(|error| Failure::Work(format!("{}: {error}", tree.display())))?;
    }
    copy_tree(root, tree)?;
    if walkthrough.copies_dependencies {
        copy_dependencies(&pairs::target(root), &tree.join("target"))?;
    }
    let mut commands = 0;
    for step in &walkthrough.steps {
        match step {
            Step::File { path, text } => write(&tree.join(path), text)?,
            Step::Command { line, command, expected } => {
                let printed = type_in(tree, programs, command)?;
                if show {
                    eprintln!("$ {command}\n{printed}");
                }
                if !agrees(expected, &printed) {
                    let difference = format!(
                        "`{command}` prints something else\n--- shown\n{expected}--- printed\n{printed}---"
                    );
                    return Ok(Err((*line, difference)));
                }
                commands += 1;
            }
        }
    }
    Ok(Ok(commands))
}

/// What `command` prints in a shell, both streams in the order in which they come.
fn type_in(tree: &Path, programs: &OsStr, command: &str) -> Result<String, Failure> {
    let output = Command::new("bash")
        .args(["-c", &format!("exec 2>&1; {command}")])
        .current_dir(tree)
        .env("PATH", programs)
        .env("CARGO_TARGET_DIR", tree.join("target"))
        .env("CARGO_TERM_QUIET", "true")
        .env_remove("CARGO_MANIFEST_DIR")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::Work(format!("cannot start bash: {error}")))?;
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !printed.is_empty() && !printed.ends_with('\n') {
        printed.push('\n');
    }
    if !output.status.success() {
        let status = output.status.code().map_or("none".into(), |code| code.to_string());
        printed += &format!("exit status {status}\n");
    }
    Ok(printed)
}

/// Whether `printed` is what `expected` shows, ends of lines apart.
fn agrees(expected: &str, printed: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.trim_end().to_owned()).collect()
    };
    lines_agree(&lines(expected), &lines(printed))
}

fn lines_agree(expected: &[String], printed: &[String]) -> bool {
    let Some((first, rest)) = expected.split_first() else { return printed.is_empty() };
    if first.trim() == ".." {
        return (0..=printed.len()).any(|skipped| lines_agree(rest, &printed[skipped..]));
    }
    match printed.split_first() {
        Some((line, others)) => line_agrees(first, line) && lines_agree(rest, others),
        None => false,
    }
}

/// Whether `line` is `pattern`, in which `..` stands for any text.
fn line_agrees(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("..");
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A copy of the tree, with `target` standing for the walkthroughs' own.
fn copy_tree(root: &Path, tree: &Path) -> Result<(), Failure> {
    copies::copy(root, &copies::tracked(root)?, tree)?;
    let target = root.join(HOME).join("target");
    make_folder(&target)?;
    #[cfg(unix)]
    std::os::unix::fs::symlink(&target, tree.join("target"))
        .map_err(|error| Failure::Work(format!("target: {error}")))?;
    Ok(())
}

/// Copies what has been built of dependencies in the `dev` profile. The workspace's own crates are not among
/// it: a copy of the tree changes them.
fn copy_dependencies(from: &Path, to: &Path) -> Result<(), Failure> {
    let own = |name: &str| ["peftml", "libpeftml", "xtask"].iter().any(|own| name.starts_with(own));
    // In `deps`, what is no library is a test's or a program's.
    let needless = |folder: &str, name: &str| {
        own(name) || folder.ends_with("deps") && !name.starts_with("lib")
    };
    for folder in ["debug/.fingerprint", "debug/build", "debug/deps"] {
        let Ok(entries) = std::fs::read_dir(from.join(folder)) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let target = to.join(folder).join(&name);
            if !needless(folder, &name.to_string_lossy()) && !target.exists() {
                copy_all(&entry.path(), &target)?;
            }
        }
    }
    Ok(())
}

/// A file, or a folder with all that is in it, with the times that cargo compares.
fn copy_all(from: &Path, to: &Path) -> Result<(), Failure> {
    let trouble = |error: std::io::Error| Failure::Work(format!("{}: {error}", from.display()));
    if !from.is_dir() {
        return copies::copy_file(from, to).map_err(trouble);
    }
    for entry in std::fs::read_dir(from).map_err(trouble)? {
        let entry = entry.map_err(trouble)?;
        copy_all(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// The search path on which `python3` has `modules`, made where it can be.
fn programs(home: &Path, modules: &[String]) -> Option<OsString> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    let environment = home.join("python");
    let with = |python: &Path| {
        let imports: Vec<_> = modules.iter().map(|module| format!("import {module}")).collect();
        quietly(Command::new(python).args(["-c", &imports.join(";")]))
    };
    if modules.is_empty() || with(Path::new("python3")) {
        return Some(inherited);
    }
    let python = environment.join("bin/python3");
    let made = with(&python)
        || quietly(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            && quietly(Command::new(&python).args(["-m", "pip", "install"]).args(modules));
    let folders = std::iter::once(environment.join("bin"));
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&inherited)));
    if made { path.ok() } else { None }
}

/// Whether `command` succeeds; what it prints is nobody's.
fn quietly(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|error| Failure::Work(format!("{}: {error}", path.display())))
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    std::fs::write(path, text)
        .map_err(|error| Failure::Work(format!("{}: {error}", path.display())))
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(path)
        .map_err(|error| Failure::Work(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# Title\n<!-- needs python: numpy -->\n```rust file=a/b.rs\nfn f() {}\n```\nWords.\n```console\n$ echo one &&\n> echo two\none\n..\n$ false\nexit status 1\n```\n```text\n$ not a command\n```\n";

    #[test]
    fn files_and_commands_are_read_with_what_they_show() {
        let walkthrough = parse(TEXT).unwrap();
        assert_eq!(walkthrough.python_modules, ["numpy"]);
        assert!(!walkthrough.copies_dependencies);
        assert!(parse("<!-- needs built: networks -->\n").unwrap().copies_dependencies);
        let command = |line, command: &str, expected: &str| Step::Command {
            line,
            command: command.into(),
            expected: expected.into(),
        };
        let file = Step::File { path: "a/b.rs".into(), text: "fn f() {}\n".into() };
        let expected = [
            file,
            command(8, "echo one &&\necho two", "one\n..\n"),
            command(12, "false", "exit status 1\n"),
        ];
        assert_eq!(walkthrough.steps, expected);
    }

    #[test]
    fn what_is_no_walkthrough_is_refused_with_its_line() {
        for (text, line) in [
            ("```console\n$ ls\n", 1),
            ("\n```console\nls\n```\n", 3),
            ("```rust file=../x\n```\n", 1),
            ("```rust file=/x\n```\n", 1),
        ] {
            assert_eq!(parse(text).unwrap_err().0, line, "{text}");
        }
    }

    #[test]
    fn dots_stand_for_any_text_and_nothing_else_does() {
        for (expected, printed, right) in [
            ("", "", true),
            ("", "x\n", false),
            ("a\n", "a  \n", true),
            ("a\n", "b\n", false),
            ("a\n", "a\nb\n", false),
            ("a\n..\n", "a\nb\nc\n", true),
            ("..\nc\n", "a\nb\nc\n", true),
            ("..\nd\n", "a\nb\nc\n", false),
            ("a .. c .. e\n", "a b c d e\n", true),
            ("a .. c\n", "a b\n", false),
            ("0.. s\n", "0.31 s\n", true),
            ("0.. s\n", "1.31 s\n", false),
            ("a..a\n", "a\n", false),
        ] {
            assert_eq!(agrees(expected, printed), right, "{expected:?} {printed:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_command_that_prints_something_else_is_told_with_its_line() {
        let root = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let status = Command::new("git").args(arguments).current_dir(root.path()).status();
            assert!(status.unwrap().success());
        };
        git(&["init", "-q"]);
        std::fs::write(root.path().join("kept.txt"), "kept\n").unwrap();
        let path = std::env::var_os("PATH").unwrap();
        let walked = |text: &str| walk(root.path(), &parse(text).unwrap(), &path, false).unwrap();
        let right = "```text file=new.txt\nnew\n```\n```console\n$ cat kept.txt new.txt\nkept\nnew\n$ exit 3\nexit status 3\n```\n";
        assert_eq!(walked(right), Ok(2));
        assert!(!root.path().join("new.txt").exists(), "the tree itself stays as it is");
        let (line, difference) = walked(&right.replace("kept\nnew", "kept\nold")).unwrap_err();
        assert_eq!(line, 5);
        assert!(difference.contains("old") && difference.contains("new"), "{difference}");
    }
}
