//! The studies that there are: `configs/<suite>/<study>[.<preset>].toml`.

use crate::failure::Failure;
use std::collections::BTreeMap;
use std::path::Path;

/// The presets; `paper` is the file without a preset in its name.
pub const PRESETS: [&str; 3] = ["paper", "authors", "quick"];

/// The suites that have a folder in `configs`.
///
/// # Errors
/// [`Failure::Work`] where `configs` cannot be read.
pub fn suites(root: &Path) -> Result<Vec<String>, Failure> {
    let mut names: Vec<String> = entries(&root.join("configs"))?
        .into_iter()
        .filter(|name| root.join("configs").join(name).is_dir())
        .collect();
    names.sort();
    Ok(names)
}

/// Arguments for `peftml run`, one a study of `suite` that has `preset`, in the order of names; a
/// study whose name is the preset (`vision/quick`) belongs to that preset.
///
/// # Errors
/// [`Failure::Usage`] for an unknown suite or preset, or where no study of the suite has the preset.
pub fn with_preset(root: &Path, suite: &str, preset: &str) -> Result<Vec<String>, Failure> {
    if !PRESETS.contains(&preset) {
        return Err(Failure::Usage(format!(
            "unknown preset `{preset}`; known: {}",
            PRESETS.join(", ")
        )));
    }
    let known = suites(root)?;
    if !known.iter().any(|name| name == suite) {
        return Err(Failure::Usage(format!(
            "unknown suite `{suite}`; known: {}",
            known.join(", ")
        )));
    }
    let mut presets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in entries(&root.join("configs").join(suite))? {
        let Some(stem) = file.strip_suffix(".toml") else { continue };
        let (study, preset) = match stem.split_once('.') {
            Some((study, preset)) => (study, preset),
            None if PRESETS.contains(&stem) => (stem, stem),
            None => (stem, "paper"),
        };
        presets.entry(study.to_string()).or_default().push(preset.to_string());
    }
    let chosen: Vec<String> = presets
        .iter()
        .filter(|(_, has)| has.iter().any(|p| p == preset))
        .map(|(study, _)| match preset == "paper" || study == preset {
            true => format!("{suite}/{study}"),
            false => format!("{suite}/{study}.{preset}"),
        })
        .collect();
    if chosen.is_empty() {
        return Err(Failure::Usage(format!("no study of `{suite}` has the preset `{preset}`")));
    }
    Ok(chosen)
}

fn entries(folder: &Path) -> Result<Vec<String>, Failure> {
    let unreadable =
        |error: std::io::Error| Failure::Work(format!("{}: {error}", folder.display()));
    std::fs::read_dir(folder)
        .map_err(unreadable)?
        .map(|entry| Ok(entry.map_err(unreadable)?.file_name().to_string_lossy().into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn studies_are_found_by_suite_and_preset() {
        let root = tempfile::tempdir().unwrap();
        for file in ["linear/b.toml", "linear/a.toml", "linear/a.quick.toml", "vision/quick.toml"] {
            let path = root.path().join("configs").join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        std::fs::write(root.path().join("configs/linear/notes.md"), "").unwrap();
        let find = |suite, preset| with_preset(root.path(), suite, preset);
        assert_eq!(find("linear", "paper").unwrap(), ["linear/a", "linear/b"]);
        assert_eq!(find("linear", "quick").unwrap(), ["linear/a.quick"]);
        assert_eq!(find("vision", "quick").unwrap(), ["vision/quick"]);
        for (suite, preset, hint) in [
            ("lin", "paper", "linear, vision"),
            ("linear", "fast", "quick"),
            ("linear", "authors", "no study"),
        ] {
            let failure = find(suite, preset).unwrap_err();
            assert!(failure.status() == 2 && failure.message().unwrap().contains(hint));
        }
    }
}
