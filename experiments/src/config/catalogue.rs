//! The configurations embedded in the binary, by name.

use super::ConfigError;
use std::io::Read;
use std::path::Path;
use toml::Table;

/// Configuration files are a few hundred bytes; whatever is larger than this is something else.
const LARGEST_FILE: u64 = 1 << 20;

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../configs/", $name, ".toml")))),*]
    };
}

/// Every file under `configs/`, in the order in which a suite runs its studies.
const CONFIGS: &[(&str, &str)] = embedded![
    "linear/sweep_n",
    "linear/sweep_t",
    "linear/sweep_d",
    "linear/sweep_samples",
    "linear/sweep_k",
    "linear/sweep_n.authors",
    "linear/sweep_t.authors",
    "linear/sweep_d.authors",
    "linear/sweep_samples.authors",
    "linear/sweep_k.authors",
    "linear/sweep_n.quick",
    "linear/sweep_t.quick",
    "linear/sweep_d.quick",
    "linear/sweep_samples.quick",
    "linear/sweep_k.quick",
    "theory/prevalence",
    "theory/prevalence.quick",
    "theory/standard_norm",
    "theory/standard_norm.quick",
    "theory/finite_samples",
    "theory/finite_samples.quick",
    "theory/stability",
    "theory/stability.quick",
    "theory/wrong_rank",
    "theory/wrong_rank.quick",
    "theory/rates",
    "theory/rates.quick",
    "shallow/sweep_d",
    "shallow/sweep_t",
    "shallow/sweep_n",
    "shallow/sweep_samples",
    "shallow/sweep_k",
    "shallow/sweep_d.authors",
    "shallow/sweep_t.authors",
    "shallow/sweep_n.authors",
    "shallow/sweep_samples.authors",
    "shallow/sweep_k.authors",
    "shallow/sweep_d.quick",
    "shallow/sweep_t.quick",
    "shallow/sweep_n.quick",
    "shallow/sweep_samples.quick",
    "shallow/sweep_k.quick",
    "shallow/optimisers",
    "solvers/compare",
    "solvers/compare.quick",
    "vision/cifar10",
    "vision/cifar10.authors",
    "vision/cifar10.short",
    "vision/cifar10.small",
    "vision/rates_retraining",
    "vision/rates_fine_tuning",
    "vision/quick",
    "language/convai2",
    "language/convai2.small",
    "language/quick",
];

/// A study's name on the command line: `SUITE/STUDY[.PRESET]`, or the path of a TOML file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyName(pub String);

/// The names of all embedded configurations.
pub fn names() -> impl Iterator<Item = &'static str> {
    CONFIGS.iter().map(|(name, _)| *name)
}

/// The table of the embedded configuration `name`, or of the file `name` if it ends in `.toml`.
///
/// # Errors
/// [`ConfigError::UnknownStudy`] with the known names, [`ConfigError::Unreadable`],
/// [`ConfigError::Malformed`].
pub fn load(name: &StudyName) -> Result<Table, ConfigError> {
    let name = name.0.as_str();
    if name.ends_with(".toml") {
        return parse(name, &read(Path::new(name))?);
    }
    let wanted = name.strip_suffix(".paper").unwrap_or(name);
    match CONFIGS.iter().find(|(known, _)| *known == wanted) {
        Some((_, text)) => parse(name, text),
        None => Err(ConfigError::UnknownStudy {
            name: name.to_owned(),
            known: names().collect::<Vec<_>>().join(", "),
        }),
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let unreadable =
        |reason: String| ConfigError::Unreadable { path: path.display().to_string(), reason };
    let file = std::fs::File::open(path).map_err(|e| unreadable(e.to_string()))?;
    let mut text = String::new();
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(|e| unreadable(e.to_string()))?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(unreadable(format!("it is larger than {LARGEST_FILE} bytes")));
    }
    Ok(text)
}

fn parse(name: &str, text: &str) -> Result<Table, ConfigError> {
    let mut table: Table = toml::from_str(text).map_err(|error| ConfigError::Malformed {
        name: name.to_owned(),
        reason: error.to_string().split_whitespace().collect::<Vec<_>>().join(" "),
    })?;
    super::sweep::nest_dotted_keys(&mut table);
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded_and_names_itself() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
        let mut found = Vec::new();
        for suite in std::fs::read_dir(root).unwrap() {
            for file in std::fs::read_dir(suite.unwrap().path()).unwrap() {
                let path = file.unwrap().path();
                let suite = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
                let stem = path.file_stem().unwrap().to_str().unwrap();
                found.push(format!("{suite}/{stem}"));
            }
        }
        found.sort();
        let mut known: Vec<_> = names().map(str::to_owned).collect();
        known.sort();
        assert_eq!(found, known);
        for name in names() {
            let table = load(&StudyName(name.to_owned())).unwrap();
            let text = |key: &str| table[key].as_str().unwrap().to_owned();
            let preset = text("preset");
            let suffix = if preset == "paper" { String::new() } else { format!(".{preset}") };
            assert_eq!(format!("{}/{}{suffix}", text("suite"), text("study")), name);
        }
    }

    #[test]
    fn a_name_that_is_not_there_is_answered_with_those_that_are() {
        let error = load(&StudyName("linear/sweep_x".into())).unwrap_err().to_string();
        assert!(error.contains("linear/sweep_n.quick"), "{error}");
        let missing = load(&StudyName("missing/file.toml".into())).unwrap_err();
        assert!(matches!(missing, ConfigError::Unreadable { .. }));
    }
}
