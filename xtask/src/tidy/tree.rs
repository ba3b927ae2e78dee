//! The files of the repository and the manifests of its members.

use super::source::Source;
use crate::failure::Failure;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use toml::{Table, Value};

/// The repository as the checks see it.
pub struct Tree {
    /// Every file that is tracked, or would be with `git add`.
    pub files: Vec<File>,
    /// The root manifest.
    pub workspace: Table,
    /// The members, in the order of the root manifest.
    pub members: Vec<Member>,
    /// Every Rust source.
    pub sources: Vec<Source>,
}

/// One file.
pub struct File {
    /// Path from the root, with `/`.
    pub path: String,
    /// Contents.
    pub bytes: Vec<u8>,
}

impl File {
    /// Contents as text; `None` for binary files.
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok().filter(|text| !text.contains('\0'))
    }
}

/// One member of the workspace.
pub struct Member {
    /// Its folder from the root; members are called by it.
    pub folder: String,
    /// Its package's name.
    pub package: String,
    /// Its manifest.
    pub manifest: Table,
    /// Its manifest's text, for line numbers.
    pub text: String,
}

/// A dependency as a member's manifest states it.
pub struct Dependency {
    /// The key in the manifest.
    pub key: String,
    /// The package behind it.
    pub package: String,
    /// Whether it is for tests and benches only.
    pub dev: bool,
    /// Whether the workspace's entry is used.
    pub inherited: bool,
}

impl Tree {
    /// Reads the repository at `root`.
    ///
    /// # Errors
    /// [`Failure::Work`] for what cannot be read or parsed: then no check means anything.
    pub fn open(root: &Path) -> Result<Self, Failure> {
        let mut files = Vec::new();
        for path in listed(root)? {
            let full = root.join(&path);
            // Deleted but still in the index, or a link: nothing to read.
            if full.symlink_metadata().is_ok_and(|data| data.is_file()) {
                let bytes = std::fs::read(&full).map_err(|e| unreadable(&path, &e))?;
                files.push(File { path, bytes });
            }
        }
        let workspace = manifest(&files, "Cargo.toml")?.0;
        let mut members = Vec::new();
        for folder in member_folders(&workspace, &files) {
            let (manifest, text) = manifest(&files, &format!("{folder}/Cargo.toml"))?;
            let package = manifest
                .get("package")
                .and_then(|package| package.get("name")?.as_str())
                .unwrap_or_default()
                .to_string();
            members.push(Member { folder, package, manifest, text });
        }
        let mut sources = Vec::new();
        for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
            let text = file.text().ok_or_else(|| unreadable(&file.path, &"not UTF-8"))?;
            sources.push(Source::parse(&file.path, text).map_err(|e| unreadable(&file.path, &e))?);
        }
        let test_modules: BTreeSet<String> =
            sources.iter().flat_map(|source| source.test_modules()).collect();
        for source in &mut sources {
            source.mark_test_files(&test_modules);
        }
        Ok(Self { files, workspace, members, sources })
    }

    /// The member whose package is `package`.
    pub fn member(&self, package: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.package == package)
    }

    /// The dependencies of `member`, of every kind and target.
    pub fn dependencies(&self, member: &Member) -> Vec<Dependency> {
        let mut tables = vec![&member.manifest];
        if let Some(targets) = member.manifest.get("target").and_then(Value::as_table) {
            tables.extend(targets.values().filter_map(Value::as_table));
        }
        let mut found = Vec::new();
        for table in tables {
            for kind in ["dependencies", "dev-dependencies", "build-dependencies"] {
                let Some(entries) = table.get(kind).and_then(Value::as_table) else { continue };
                for (key, entry) in entries {
                    let inherited = entry.get("workspace").and_then(Value::as_bool) == Some(true);
                    let shared = inherited.then(|| self.shared_dependencies()?.get(key)).flatten();
                    let renamed = entry.get("package").or(shared.and_then(|e| e.get("package")));
                    let package = renamed.and_then(Value::as_str).unwrap_or(key).to_string();
                    let dev = kind == "dev-dependencies";
                    found.push(Dependency { key: key.clone(), package, dev, inherited });
                }
            }
        }
        found
    }

    /// `[workspace.dependencies]`.
    pub fn shared_dependencies(&self) -> Option<&Table> {
        self.workspace.get("workspace")?.get("dependencies")?.as_table()
    }

    /// The text of the file at `path`.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path)?.text()
    }

    /// The Rust sources in `folder`.
    pub fn sources_in<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a Source> {
        self.sources.iter().filter(move |source| {
            source.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

fn unreadable(path: &str, error: &dyn std::fmt::Display) -> Failure {
    Failure::Work(format!("{path}: {error}"))
}

fn manifest(files: &[File], path: &str) -> Result<(Table, String), Failure> {
    let file = files.iter().find(|file| file.path == path);
    let text = file
        .and_then(File::text)
        .ok_or_else(|| unreadable(path, &"a manifest is expected here"))?;
    let table = text.parse::<Table>().map_err(|error| unreadable(path, &error))?;
    Ok((table, text.to_string()))
}

/// `workspace.members`, with a closing `*` expanded.
fn member_folders(workspace: &Table, files: &[File]) -> Vec<String> {
    let listed = workspace.get("workspace").and_then(|w| w.get("members")?.as_array());
    let mut folders = Vec::new();
    for entry in listed.into_iter().flatten().filter_map(Value::as_str) {
        match entry.strip_suffix('*') {
            None => folders.push(entry.trim_end_matches('/').to_string()),
            Some(prefix) => folders.extend(files.iter().filter_map(|file| {
                let folder = file.path.strip_suffix("/Cargo.toml")?;
                let inside = folder.strip_prefix(prefix)?;
                (!inside.contains('/')).then(|| folder.to_string())
            })),
        }
    }
    folders
}

/// Paths of the repository's files: what git tracks or would; without git, all but build outputs.
fn listed(root: &Path) -> Result<Vec<String>, Failure> {
    if root.join(".git").exists() {
        let output = Command::new("git")
            .current_dir(root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
            .output();
        if let Some(output) = output.ok().filter(|output| output.status.success()) {
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let mut paths: Vec<String> = text.split_terminator('\0').map(String::from).collect();
            paths.sort();
            paths.dedup();
            return Ok(paths);
        }
    }
    let mut paths = Vec::new();
    walk(root, "", &mut paths).map_err(|error| unreadable(&root.display().to_string(), &error))?;
    paths.sort();
    Ok(paths)
}

fn walk(root: &Path, folder: &str, paths: &mut Vec<String>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            if ![".git", "target", "results"].contains(&path.as_str()) {
                walk(root, &path, paths)?;
            }
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

/// The line, from 1, on which `key` stands first in `text`; 0 if on none.
pub fn line_of_key(text: &str, key: &str) -> usize {
    let starts = |line: &str| {
        line.trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with(['=', '.', ']']))
    };
    text.lines().position(starts).map_or(0, |index| index + 1)
}
