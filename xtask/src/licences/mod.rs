//! `cargo xtask licences`: every package of Cargo.lock under a licence of xtask/licences.toml.
//!
//! What cargo knows is all that is asked: packages of every platform and feature, tests and benches
//! included. Refused are a package whose licence is not met by the list, one that states none (unless the
//! list names the text that it comes with), and one that comes from git. So is a line of the list that no
//! package needs. No network is used where the packages are at hand, as they are after a build.

mod spdx;

use crate::failure::Failure;
use crate::flags::{Parsed, Verb};
use crate::workspace;
use md5::{Digest, Md5};
use serde_json::Value;
use spdx::Expression;
use std::collections::BTreeSet;
use std::path::Path;

/// The verb.
pub const VERB: Verb = Verb {
    name: "licences",
    summary: "Check the licences of all dependencies against xtask/licences.toml.",
    operands: "",
    operand_count: 0..=0,
    flags: &[],
    rest: None,
    run,
};

const LIST: &str = "xtask/licences.toml";

/// What is allowed.
struct List {
    allowed: BTreeSet<String>,
    read: Vec<ReadText>,
}

/// A licence's text that was read, of a package that names no licence.
struct ReadText {
    package: String,
    licence: String,
    file: String,
    checksum: String,
}

/// A package as cargo describes it.
#[derive(Clone)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    licence: Option<String>,
    manifest: String,
}

fn run(_: &Parsed) -> Result<(), Failure> {
    let root = workspace::root()?;
    let text = std::fs::read_to_string(root.join(LIST))
        .map_err(|error| Failure::Work(format!("{LIST}: {error}")))?;
    let list = List::parse(&text).map_err(|problem| Failure::Work(format!("{LIST}: {problem}")))?;
    let packages = packages(&metadata()?)?;
    let problems = list.problems(&packages, |path| std::fs::read(path));
    for problem in &problems {
        println!("{problem}");
    }
    if !problems.is_empty() {
        return Err(Failure::Work(format!("{} problems with licences", problems.len())));
    }
    println!(
        "licences: {} packages under {} licences that {LIST} allows",
        packages.len(),
        list.allowed.len()
    );
    Ok(())
}

/// What cargo knows of Cargo.lock's packages.
fn metadata() -> Result<Value, Failure> {
    let mut command = workspace::cargo()?;
    command.args(["metadata", "--locked", "--format-version", "1", "--all-features", "--offline"]);
    let output =
        command.output().map_err(|error| Failure::Work(format!("cannot start cargo: {error}")))?;
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        eprintln!("licences: packages of other platforms are not at hand yet: cargo loads them");
        let mut command = workspace::cargo()?;
        command.args(["metadata", "--locked", "--format-version", "1", "--all-features"]);
        let (loaded, outcome) = workspace::capture(&mut command)?;
        outcome?;
        text = loaded;
    }
    serde_json::from_str(&text).map_err(|error| Failure::Work(format!("cargo metadata: {error}")))
}

fn packages(metadata: &Value) -> Result<Vec<Package>, Failure> {
    let listed = metadata["packages"]
        .as_array()
        .ok_or_else(|| Failure::Work("cargo metadata lists no packages".into()))?;
    let text = |package: &Value, key: &str| package[key].as_str().map(String::from);
    let read = listed.iter().map(|package| Package {
        name: text(package, "name").unwrap_or_default(),
        version: text(package, "version").unwrap_or_default(),
        source: text(package, "source"),
        licence: text(package, "license"),
        manifest: text(package, "manifest_path").unwrap_or_default(),
    });
    Ok(read.collect())
}

impl List {
    /// Reads the list.
    ///
    /// # Errors
    /// What a line lacks.
    fn parse(text: &str) -> Result<Self, String> {
        let table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
        let allowed =
            table.get("allowed").and_then(|t| t.as_table()).ok_or("[allowed] is missing")?;
        for (licence, reason) in allowed {
            if reason.as_str().is_none_or(str::is_empty) {
                return Err(format!("why `{licence}` is allowed is not said"));
            }
            match Expression::parse(licence) {
                Ok(Expression::One(one)) if one == *licence => {}
                _ => return Err(format!("`{licence}` is not one licence")),
            }
        }
        let mut read = Vec::new();
        for (package, entry) in table.get("read").and_then(|t| t.as_table()).into_iter().flatten() {
            let field = |key: &str| {
                let value = entry.get(key).and_then(|value| value.as_str());
                value.map(String::from).ok_or(format!("[read.{package}] has no `{key}`"))
            };
            field("reason")?;
            let (licence, file, checksum) = (field("licence")?, field("file")?, field("checksum")?);
            read.push(ReadText { package: package.clone(), licence, file, checksum });
        }
        Ok(Self { allowed: allowed.keys().cloned().collect(), read })
    }

    /// What is wrong with `packages`, one sentence each; `open` reads a file.
    fn problems(
        &self,
        packages: &[Package],
        open: impl Fn(&Path) -> std::io::Result<Vec<u8>>,
    ) -> Vec<String> {
        let mut problems = Vec::new();
        let mut unused = self.allowed.clone();
        let mut unread: BTreeSet<&str> = self.read.iter().map(|r| r.package.as_str()).collect();
        for package in packages {
            let name = format!("{} {}", package.name, package.version);
            if package.source.as_deref().is_some_and(|source| source.starts_with("git+")) {
                problems.push(format!("{name}: it comes from git; take a published version"));
            }
            let stated = match (&package.licence, self.read_of(package)) {
                (Some(licence), _) => licence.clone(),
                (None, Some(read)) => {
                    unread.remove(read.package.as_str());
                    match read.holds_for(package, &open) {
                        Ok(()) => read.licence.clone(),
                        Err(problem) => {
                            problems.push(format!("{name}: {problem}"));
                            continue;
                        }
                    }
                }
                (None, None) => {
                    problems.push(format!(
                        "{name}: it states no licence; read what it comes with, and add [read.{}] to {LIST}",
                        package.name
                    ));
                    continue;
                }
            };
            match Expression::parse(&stated) {
                Err(problem) => problems.push(format!("{name}: `{stated}`: {problem}")),
                Ok(expression) => {
                    if !expression.is_met_by(&self.allowed) {
                        problems
                            .push(format!("{name}: `{stated}` is not met by what {LIST} allows"));
                    }
                    expression.licences().iter().for_each(|licence| {
                        unused.remove(*licence);
                    });
                }
            }
        }
        problems.extend(unused.iter().map(|l| format!("{LIST}: no package is under `{l}`")));
        problems.extend(unread.iter().map(|p| format!("{LIST}: [read.{p}] is not needed")));
        problems
    }

    fn read_of(&self, package: &Package) -> Option<&ReadText> {
        self.read.iter().find(|read| read.package == package.name)
    }
}

impl ReadText {
    /// Whether `package` still comes with the text that was read.
    fn holds_for(
        &self,
        package: &Package,
        open: impl Fn(&Path) -> std::io::Result<Vec<u8>>,
    ) -> Result<(), String> {
        let path = Path::new(&package.manifest).with_file_name(&self.file);
        let bytes = open(&path).map_err(|error| format!("{}: {error}", self.file))?;
        let found: String = Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.checksum {
            return Ok(());
        }
        Err(format!("{} has the checksum {found}: it is not the text that was read", self.file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[allowed]\nMIT = \"ours\"\nISC = \"as MIT\"\n[read.odd]\nlicence = \"MIT\"\nfile = \"L\"\nchecksum = \"900150983cd24fb0d6963f7d28e17f72\"\nreason = \"r\"\n";

    fn package(name: &str, licence: Option<&str>) -> Package {
        Package {
            name: name.into(),
            version: "1.0.0".into(),
            source: Some("registry+x".into()),
            licence: licence.map(String::from),
            manifest: "p/Cargo.toml".into(),
        }
    }

    fn problems(packages: &[Package]) -> Vec<String> {
        // The checksum above is that of these three bytes.
        List::parse(TEXT).unwrap().problems(packages, |_| Ok(b"abc".to_vec()))
    }

    fn clean() -> Vec<Package> {
        vec![package("a", Some("MIT OR GPL-3.0")), package("b", Some("ISC")), package("odd", None)]
    }

    #[test]
    fn what_the_list_allows_passes() {
        assert_eq!(problems(&clean()), [] as [String; 0]);
    }

    #[test]
    fn each_kind_of_trouble_names_its_package() {
        let with = |package: Package| problems(&[clean(), vec![package]].concat());
        for (package, word) in [
            (package("bad", Some("GPL-3.0-only")), "not met"),
            (package("bad", Some("MIT AND GPL-3.0-only")), "not met"),
            (package("bad", Some("MIT, ISC")), "expected"),
            (package("bad", None), "states no licence"),
            (
                Package { source: Some("git+https://x".into()), ..package("bad", Some("MIT")) },
                "git",
            ),
        ] {
            let found = with(package);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with("bad 1.0.0: ") && found[0].contains(word), "{found:?}");
        }
    }

    #[test]
    fn a_text_that_changed_and_a_line_that_nothing_needs_are_told() {
        let list = List::parse(TEXT).unwrap();
        let changed = list.problems(&clean(), |_| Ok(b"abd".to_vec()));
        assert!(changed[0].contains("not the text that was read"), "{changed:?}");
        let fewer = problems(&clean()[..1]);
        assert_eq!(fewer.len(), 2, "{fewer:?}");
        assert!(fewer[0].contains("`ISC`") && fewer[1].contains("[read.odd]"), "{fewer:?}");
    }

    #[test]
    fn a_list_says_why() {
        for text in [
            "",
            "[allowed]\nMIT = \"\"\n",
            "[allowed]\n\"MIT OR ISC\" = \"x\"\n",
            "[allowed]\n[read.a]\nlicence = \"MIT\"\n",
        ] {
            assert!(List::parse(text).is_err(), "{text}");
        }
        let root = workspace::root().unwrap();
        assert!(List::parse(&std::fs::read_to_string(root.join(LIST)).unwrap()).is_ok());
    }
}
