//! `cargo xtask verify`: the theory's claims, by the release binary.
//!
//! `--record` writes what came out to docs/results/claims.csv, from which the book takes verdicts: rows of
//! claims that were verified are replaced, the others stay.

use crate::book::claims::{HEADER, LIST, VERDICTS};
use crate::failure::Failure;
use crate::flags::{self, Flag, Parsed, Verb};
use crate::scratch::Scratch;
use crate::workspace;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The verb.
pub const VERB: Verb = Verb {
    name: "verify",
    summary: "Verify the theory's claims.",
    operands: "",
    operand_count: 0..=0,
    flags: &[
        Flag { name: "--scale", value: Some("SCALE"), help: "quick (default) or full" },
        Flag { name: "--claim", value: Some("ID"), help: "only this claim; may be repeated" },
        Flag { name: "--out", value: Some("DIR"), help: "folder for verdicts and certificates" },
        Flag {
            name: "--record",
            value: None,
            help: "write the verdicts to docs/results/claims.csv",
        },
        flags::THREADS,
    ],
    rest: Some("peftml verify"),
    run,
};

fn run(parsed: &Parsed) -> Result<(), Failure> {
    flags::check_threads(parsed)?;
    let scale = parsed.value("--scale").unwrap_or("quick");
    if !["quick", "full"].contains(&scale) {
        return Err(Failure::Usage(format!("unknown scale `{scale}`; known: quick, full")));
    }
    let root = workspace::root()?;
    let mut command = Command::new(workspace::build_peftml(None)?);
    command.current_dir(&root).args(["verify", "--scale", scale]);
    let scratch = Scratch::new(&std::env::temp_dir())?;
    let out = match parsed.value("--out") {
        Some(out) => Some(workspace::absolute(out)?),
        None => parsed.has("--record").then(|| scratch.path().join("verdicts")),
    };
    if let Some(out) = &out {
        command.arg("--out").arg(out);
    }
    let verified = workspace::run(
        command.args(parsed.forwarded(&["--claim", flags::THREADS.name])).args(&parsed.rest),
    );
    if let Some(out) = out.filter(|_| parsed.has("--record")) {
        // Claims that fail are written down as well.
        record(&root, &out, scale)?;
    }
    verified
}

/// Writes the verdicts in `folder` into the table.
fn record(root: &Path, folder: &Path, scale: &str) -> Result<(), Failure> {
    let run: Value = serde_json::from_str(&read(folder.join("run.json"))?)
        .map_err(|error| Failure::Work(format!("run.json: {error}")))?;
    let revision = run["revision"].as_str().unwrap_or("unknown");
    let place = root.join(VERDICTS);
    // There is none yet the first time.
    let before = std::fs::read_to_string(&place).unwrap_or_default();
    let table = table(
        &read(root.join(LIST))?,
        &before,
        &read(folder.join("verdicts.jsonl"))?,
        &format!("{scale},{revision}"),
    )?;
    std::fs::write(&place, table).map_err(|error| Failure::Work(format!("{VERDICTS}: {error}")))
}

fn read(path: PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(&path)
        .map_err(|error| Failure::Work(format!("{}: {error}", path.display())))
}

/// The table `before` with the lines of `verdicts` in it, in the order of `list`.
fn table(list: &str, before: &str, verdicts: &str, origin: &str) -> Result<String, Failure> {
    let id = |row: &str| row.split(',').next().unwrap_or_default().to_string();
    let mut rows: BTreeMap<String, String> =
        before.lines().skip(1).map(|row| (id(row), row.to_string())).collect();
    for line in verdicts.lines() {
        let verdict: Value = serde_json::from_str(line)
            .map_err(|error| Failure::Work(format!("verdicts.jsonl: {error}")))?;
        let cell = |value: &Value| value.as_str().map_or(value.to_string(), String::from);
        let keys = ["id", "verdict", "kind", "measured", "relation", "bound", "tolerance"];
        let mut cells: Vec<String> = keys.iter().map(|key| cell(&verdict[*key])).collect();
        cells.push(cell(&verdict["control"]["outcome"]));
        let decided = decided(&verdict).replace('"', "'");
        let row = format!("{},{origin},\"{decided}\"", cells.join(","));
        rows.insert(id(&row), row);
    }
    let place = |id: &str| list.find(&format!("| `{id}` |")).unwrap_or(usize::MAX);
    let mut ordered: Vec<(usize, String)> =
        rows.into_iter().map(|(id, row)| (place(&id), row)).collect();
    ordered.sort();
    let rows: String = ordered.into_iter().map(|(_, row)| row + "\n").collect();
    Ok(format!("{HEADER}\n{rows}"))
}

/// What was measured in the check that decided: the one whose figures the verdict has.
fn decided(verdict: &Value) -> &str {
    let checks = verdict["checks"].as_array().map_or(&[][..], Vec::as_slice);
    let same = |check: &&Value| {
        ["measured", "bound", "tolerance"].iter().all(|key| check[*key] == verdict[*key])
    };
    checks.iter().find(same).and_then(|check| check["what"].as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_what_was_verified_are_replaced_and_the_order_is_the_lists() {
        let list = "| `C1.b` | x | exact |\n| `C1.a` | x | exact |\n| `C2.a` | x | exact |\n";
        let before = format!("{HEADER}\nC2.a,old\nC1.a,kept\n");
        let line = |id: &str| {
            format!(
                r#"{{"id":"{id}","verdict":"holds","kind":"exact","measured":0.5,"relation":"<=","bound":1.0,"tolerance":1e-12,"control":{{"outcome":"caught"}},"checks":[{{"what":"no","measured":0.1}},{{"what":"a, b","measured":0.5,"bound":1.0,"tolerance":1e-12}}]}}"#
            )
        };
        let verdicts = line("C2.a") + "\n" + &line("C1.b") + "\n";
        let table = table(list, &before, &verdicts, "quick,abc").unwrap();
        let row = "holds,exact,0.5,<=,1.0,1e-12,caught,quick,abc,\"a, b\"";
        assert_eq!(table, format!("{HEADER}\nC1.b,{row}\nC1.a,kept\nC2.a,{row}\n"));
    }
}
