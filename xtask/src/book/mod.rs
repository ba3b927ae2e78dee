//! `cargo xtask book`: the documents of the repository as one book that opens without a network.
//!
//! The sources are put together below target/book, built by mdBook, and every link of the pages is followed.
//! `--check` does all but mdBook's part, as `tidy` does.

pub mod assemble;
pub mod claims;
mod formulas;
mod html;
mod tool;

use crate::failure::Failure;
use crate::flags::{Flag, Parsed, Verb};
use crate::{copies, workspace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "book",
    summary: "Build the book of all documents with mdBook, and follow its links.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag { name: "--out", value: Some("DIR"), help: "copy the pages there" },
        Flag { name: "--open", value: None, help: "show it in a browser" },
        Flag { name: "--check", value: None, help: "only put it together and check its links" },
    ],
    rest: None,
    run,
};

/// Files of the repository by their paths from its root.
pub type Files<'a> = BTreeMap<&'a str, &'a [u8]>;

const HOME: &str = "target/book";

fn run(parsed: &Parsed) -> Result<(), Failure> {
    let root = workspace::root()?;
    // A link's files stand in their own place.
    let mut tracked = copies::tracked(&root)?;
    tracked.retain(|file| root.join(file).symlink_metadata().is_ok_and(|data| data.is_file()));
    let read = read(&root, &tracked)?;
    let files: Files<'_> = read.iter().map(|(path, bytes)| (path.as_str(), &bytes[..])).collect();
    let (sources, troubles) = assemble::assemble(&files);
    for assemble::Trouble { file, line, message } in &troubles {
        println!("{file}:{line}: {message}");
    }
    if !troubles.is_empty() {
        return Err(Failure::Work(format!("{} problems with the book", troubles.len())));
    }
    let chapters = sources.keys().filter(|path| path.ends_with(".md")).count() - 1;
    if parsed.has("--check") {
        println!("book: {chapters} chapters fit together");
        return Ok(());
    }
    let Some(mdbook) = tool::find(&root)? else {
        eprintln!(
            "book: skipped: its {chapters} chapters fit together, but mdBook {} is neither at hand nor to be \
             had without a network; right would be `mdbook` of that version on the search path, or a \
             network for one run",
            tool::VERSION
        );
        return Ok(());
    };
    let home = root.join(HOME);
    write_sources(&root, &home, &sources)?;
    let mut build = Command::new(mdbook);
    build.arg("build").arg(&home).env("MDBOOK_LOG", "warn");
    if parsed.has("--open") {
        build.arg("--open");
    }
    workspace::run(&mut build)?;
    let pages = home.join("html");
    follow(&pages)?;
    let place = match parsed.value("--out") {
        None => pages,
        Some(out) => {
            let out = workspace::absolute(out)?;
            copies::copy(&pages, &below(&pages)?, &out)?;
            out
        }
    };
    println!("{}", place.join("index.html").display());
    Ok(())
}

/// Follows every link of the built pages.
fn follow(pages: &Path) -> Result<(), Failure> {
    let problems = html::problems(&read(pages, &below(pages)?)?);
    for problem in &problems {
        println!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => Err(Failure::Work(format!("{count} problems with the pages"))),
    }
}

/// The book's folder anew: configuration, style and `src`.
fn write_sources(root: &Path, home: &Path, sources: &assemble::Sources) -> Result<(), Failure> {
    let failed =
        |path: &Path, error: std::io::Error| Failure::Work(format!("{}: {error}", path.display()));
    if home.exists() {
        std::fs::remove_dir_all(home).map_err(|error| failed(home, error))?;
    }
    for (path, bytes) in sources {
        let path = home.join("src").join(path);
        let folder = path.parent().unwrap_or(home);
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        std::fs::write(&path, bytes).map_err(|error| failed(&path, error))?;
    }
    for name in ["book.toml", "book.css"] {
        let (from, to) = (root.join(assemble::FOLDER).join(name), home.join(name));
        std::fs::copy(&from, &to).map_err(|error| failed(&from, error))?;
    }
    Ok(())
}

/// The contents of `files` below `root`.
fn read(root: &Path, files: &[PathBuf]) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let read = files.iter().map(|file| {
        let bytes = std::fs::read(root.join(file))
            .map_err(|error| Failure::Work(format!("{}: {error}", file.display())))?;
        Ok((file.to_string_lossy().replace('\\', "/"), bytes))
    });
    read.collect()
}

/// Every file below `folder`, by its path from there.
fn below(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::Work(format!("{}: {error}", folder.display()));
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(&next).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(inside) = path.strip_prefix(folder) {
                files.push(inside.to_path_buf());
            }
        }
    }
    Ok(files)
}
