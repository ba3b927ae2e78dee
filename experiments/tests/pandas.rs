//! The tables of a run as pandas reads them: every column's type is the one that `export` describes.
//!
//! Needs a Python with pandas (`PEFTML_PYTHON`, else `python3`), and pyarrow for Parquet; says so and
//! passes where there is none.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Reads every table of an exported folder and compares pandas' types with those of the description.
const CHECK: &str = r#"
import json, pathlib, sys
import pandas as pd
folder = pathlib.Path(sys.argv[1])
package = json.loads((folder / "datapackage.json").read_text())
kinds = {"integer": "i", "number": "f", "string": "OTU"}
for resource in package["resources"]:
    path = folder / resource["path"]
    parquet = resource["format"] == "parquet"
    frame = pd.read_parquet(path) if parquet else pd.read_csv(path)
    fields = resource["schema"]["fields"]
    assert list(frame.columns) == [field["name"] for field in fields], path
    assert len(frame) == resource["rows"], path
    for field in fields:
        column = frame[field["name"]]
        if column.isna().all() or (field["type"] == "integer" and column.isna().any()):
            continue  # pandas makes floats of whole numbers with gaps
        kind = getattr(column.dtype, "kind", "O")
        assert kind in kinds[field["type"]], (str(path), field, str(column.dtype))
trials = next(r for r in package["resources"] if r["name"] == "trials")
path = folder / trials["path"]
frame = pd.read_parquet(path) if trials["format"] == "parquet" else pd.read_csv(path)
best = frame.groupby(["retraining", "solver"])["excess_risk"].median()
assert best["lora-ml", "global"] < best["standard", "closed-form"]
print("read", len(frame), "trials")
"#;

fn python() -> Option<PathBuf> {
    let python = std::env::var_os("PEFTML_PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let output = Command::new(&python).args(["-c", "import pandas"]).output().ok()?;
    output.status.success().then_some(python)
}

fn peftml(arguments: &[&str], more: &[&Path]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peftml"));
    let output = command.args(arguments).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn check(python: &Path, folder: &Path) -> std::process::Output {
    Command::new(python).args(["-c", CHECK]).arg(folder).output().unwrap()
}

#[test]
fn pandas_reads_the_types_that_the_description_states() {
    let Some(python) = python() else {
        println!("skipped: no Python with pandas (PEFTML_PYTHON names one)");
        return;
    };
    let home = tempfile::tempdir().unwrap();
    let study = ["run", "linear/sweep_t.quick", "--seeds", "0..3", "--out"];
    let printed = peftml(&study, &[home.path()]);
    let folder = PathBuf::from(printed.lines().last().unwrap());
    let formats = if cfg!(feature = "parquet") { &["csv", "parquet"][..] } else { &["csv"] };
    for format in formats {
        let out = home.path().join(format);
        let arguments = ["export", folder.to_str().unwrap(), "--format", format, "--out"];
        peftml(&arguments, &[&out]);
        let output = check(&python, &out);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Control: a description that calls a column of floats whole is found out.
        let package = out.join("datapackage.json");
        let text = std::fs::read_to_string(&package).unwrap();
        std::fs::write(&package, text.replace("\"number\"", "\"integer\"")).unwrap();
        assert!(!check(&python, &out).status.success(), "{format}: a wrong type passed");
    }
}
