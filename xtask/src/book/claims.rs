//! Claims with their last verdicts: docs/claims.md, docs/results/claims.csv and the sources, put together.

use super::Files;
use crate::markdown;
use std::collections::{BTreeMap, BTreeSet};

/// The list of all claims.
pub const LIST: &str = "docs/claims.md";
/// Their last verdicts, written by `cargo xtask verify --record`.
pub const VERDICTS: &str = "docs/results/claims.csv";
/// The columns of [`VERDICTS`]; `what` is measured, in quotes.
pub const HEADER: &str =
    "claim,verdict,kind,measured,relation,bound,tolerance,control,scale,revision,what";
const SOURCES: &str = "experiments/src/claims/";

/// A claim as it is listed.
struct Listed<'a> {
    line: usize,
    id: &'a str,
    /// As Markdown, fit for a table's cell.
    statement: &'a str,
    evidence: &'a str,
}

/// A row of [`VERDICTS`].
struct Verdict<'a> {
    line: usize,
    cells: Vec<&'a str>,
}

impl<'a> Verdict<'a> {
    fn cell(&self, column: &str) -> &'a str {
        let at = HEADER.split(',').position(|name| name == column);
        at.and_then(|at| self.cells.get(at)).copied().unwrap_or_default()
    }

    /// `3.29e-16 ≤ 0 + 7.11e-11`, to three digits.
    fn comparison(&self) -> String {
        let number = |column: &str| short(self.cell(column));
        let (sign, widening) = match self.cell("relation") {
            "<=" => ("≤", "+"),
            ">=" => ("≥", "-"),
            _ => ("=", "±"),
        };
        let exact = self.cell("tolerance").parse() == Ok(0.0);
        let tolerance =
            if exact { String::new() } else { format!(" {widening} {}", number("tolerance")) };
        format!("{} {sign} {}{tolerance}", number("measured"), number("bound"))
    }
}

/// A number to three digits.
fn short(text: &str) -> String {
    let Ok(number) = text.parse::<f64>() else { return "-".into() };
    let size = number.abs();
    if number == number.trunc() && size < 1e6 {
        format!("{number}")
    } else if (1e-3..1e4).contains(&size) {
        let digits = (2 - size.log10().floor() as i32).max(0) as usize;
        format!("{number:.digits$}")
    } else {
        format!("{number:.2e}")
    }
}

fn text<'a>(files: &Files<'a>, path: &str) -> &'a str {
    files.get(path).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
}

fn listed<'a>(files: &Files<'a>) -> Vec<Listed<'a>> {
    let rows = text(files, LIST).lines().enumerate().filter_map(|(index, row)| {
        let (id, rest) = row.strip_prefix("| `")?.split_once("` | ")?;
        let (statement, evidence) = rest.trim_end().strip_suffix(" |")?.rsplit_once(" | ")?;
        Some(Listed { line: index + 1, id, statement, evidence })
    });
    rows.collect()
}

fn verdicts<'a>(files: &Files<'a>) -> BTreeMap<&'a str, Verdict<'a>> {
    let rows = text(files, VERDICTS).lines().enumerate().skip(1).map(|(index, row)| {
        // The last one may hold commas.
        let columns = HEADER.split(',').count();
        let cells: Vec<&str> =
            row.splitn(columns, ',').map(|cell| cell.trim_matches('"')).collect();
        (cells[0], Verdict { line: index + 1, cells })
    });
    rows.collect()
}

/// `C1` of `C1.rank`.
fn family(id: &str) -> &str {
    id.split('.').next().unwrap_or(id)
}

/// A line of a file, with what is wrong there.
pub type Trouble = (&'static str, usize, String);

/// Every claim has a verdict that is as the list says, every verdict a claim, every claim one source.
pub fn problems(files: &Files<'_>) -> Vec<Trouble> {
    let mut problems = Vec::new();
    if !files.contains_key(LIST) && !files.contains_key(VERDICTS) {
        return problems;
    }
    if text(files, VERDICTS).lines().next() != Some(HEADER) {
        problems.push((VERDICTS, 1, format!("the first line must be `{HEADER}`")));
    }
    let (listed, verdicts) = (listed(files), verdicts(files));
    for claim in &listed {
        let id = claim.id;
        if source(files, id).is_none() {
            problems.push((LIST, claim.line, format!("no file below {SOURCES} has `{id}`")));
        }
        let Some(verdict) = verdicts.get(id) else {
            let message = format!(
                "`{id}` has no verdict in {VERDICTS}: `cargo xtask verify --record --claim {id}`"
            );
            problems.push((LIST, claim.line, message));
            continue;
        };
        let expected = if claim.evidence.contains("refuted") { "refuted" } else { "holds" };
        if verdict.cell("verdict") != expected {
            let message =
                format!("`{id}` is `{}`, {LIST} has `{expected}`", verdict.cell("verdict"));
            problems.push((VERDICTS, verdict.line, message));
        }
        if claim.evidence.split(',').next() != Some(verdict.cell("kind")) {
            let message = format!("`{id}`: `{}`, {LIST} has another", verdict.cell("kind"));
            problems.push((VERDICTS, verdict.line, message));
        }
    }
    for (line, words) in markdown::Page::parse(text(files, LIST), false).emphasised {
        let statement = listed.iter().find(|claim| claim.line == line).map(|claim| claim.statement);
        if statement.is_some_and(|statement| statement.contains(&words)) {
            let message = format!("`{words}` is shown emphasised: write `\\_` and `\\*` there");
            problems.push((LIST, line, message));
        }
    }
    let known: BTreeSet<&str> = listed.iter().map(|claim| claim.id).collect();
    for (id, verdict) in verdicts.iter().filter(|(id, _)| !known.contains(**id)) {
        problems.push((VERDICTS, verdict.line, format!("`{id}` is not in {LIST}")));
    }
    problems
}

/// The families of [`LIST`], in their order.
pub fn families<'a>(files: &Files<'a>) -> Vec<&'a str> {
    let mut families: Vec<&str> = listed(files).iter().map(|claim| family(claim.id)).collect();
    families.dedup();
    families
}

/// The file that holds a claim: the one that names it and registers claims.
fn source<'a>(files: &Files<'a>, id: &str) -> Option<&'a str> {
    let (name, registers) = (format!("\"{id}\""), "CLAIMS: &[");
    let mut found =
        files.iter().filter(|(path, _)| path.starts_with(SOURCES)).filter(|(path, _)| {
            let text = text(files, path);
            text.contains(&name) && text.contains(registers)
        });
    found.next().map(|(path, _)| *path)
}

/// A family's claims with their verdicts as a table, for the file at `path`; `None` where the family is
/// unknown.
pub fn table(files: &Files<'_>, path: &str, wanted: &str) -> Option<String> {
    let verdicts = verdicts(files);
    let mut rows = String::new();
    for claim in listed(files).iter().filter(|claim| family(claim.id) == wanted) {
        let way = source(files, claim.id).map(|source| markdown::way(path, source));
        let link = format!("[`{}`]({})", claim.id, way.unwrap_or_default());
        let evidence = claim.evidence.split(',').next().unwrap_or_default();
        let (verdict, measured) = match verdicts.get(claim.id) {
            Some(verdict) => {
                let what = plain(verdict.cell("what"));
                let measured = format!("<br><small>{what}: {}</small>", verdict.comparison());
                (verdict.cell("verdict"), measured)
            }
            None => ("not verified yet", String::new()),
        };
        let statement = claim.statement;
        rows += &format!("| {link}<br>**{verdict}**, {evidence} | {statement}{measured} |\n");
    }
    let head = "| claim, verdict, evidence | statement, and what was measured |\n|---|---|\n";
    (!rows.is_empty()).then(|| format!("{head}{rows}"))
}

/// Text as it stands, in a cell of a table.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for sign in text.chars() {
        match sign {
            '<' => plain += "&lt;",
            '|' | '*' | '_' | '`' | '[' | ']' => plain.extend(['\\', sign]),
            _ => plain.push(sign),
        }
    }
    plain
}

/// One sentence on all verdicts.
pub fn summary(files: &Files<'_>) -> String {
    let verdicts = verdicts(files);
    let count = |column: &str, value: &str| {
        verdicts.values().filter(|verdict| verdict.cell(column) == value).count()
    };
    let all = |column: &str| {
        let values: BTreeSet<&str> =
            verdicts.values().map(|verdict| verdict.cell(column)).collect();
        values.into_iter().collect::<Vec<_>>().join(", ")
    };
    let caught = count("control", "caught");
    format!(
        "Of {} claims {} hold and {} are refuted with their counterexamples replayed; {caught} controls of {} \
         failed as they must. By evidence: {} exact, {} interval, {} deterministic, {} statistical. \
         Scale: {}; revision: {}.",
        verdicts.len(),
        count("verdict", "holds"),
        count("verdict", "refuted"),
        verdicts.len(),
        count("kind", "exact"),
        count("kind", "interval"),
        count("kind", "deterministic"),
        count("kind", "statistical"),
        all("scale"),
        all("revision")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIMS: &str = "# Claims\n| claim | statement | evidence |\n|---|---|---|\n| `C1.a` | \\|x\\| = 1 | exact |\n| `C1.b` | y | statistical, *refuted* |\n| `C2.a` | z | interval |\n";
    const SOURCE: &str = "const CLAIMS: &[&dyn Claim] = &[];\n\"C1.a\" \"C1.b\" \"C2.a\"";

    fn verdicts_text() -> String {
        format!(
            "{HEADER}\nC1.a,holds,exact,0.0,=,0.0,0.0,caught,quick,r,\"a, b\"\nC1.b,refuted,statistical,0.25,<=,0.2,0.01,caught,quick,r,\"A_t|*\"\nC2.a,holds,interval,0.299735755852,>=,0.0,1e-12,caught,quick,r,\"c\"\n"
        )
    }

    fn files<'a>(claims: &'a str, verdicts: &'a str) -> Files<'a> {
        [
            (LIST, claims),
            (VERDICTS, verdicts),
            ("experiments/src/claims/one.rs", SOURCE),
            ("experiments/src/claims/run.rs", "\"C1.a\""),
        ]
        .map(|(path, text)| (path, text.as_bytes()))
        .into()
    }

    #[test]
    fn a_table_has_statement_verdict_and_way_to_the_code() {
        let verdicts = verdicts_text();
        let files = files(CLAIMS, &verdicts);
        assert_eq!(problems(&files), []);
        assert_eq!(families(&files), ["C1", "C2"]);
        let table = table(&files, "book/theory.md", "C1").unwrap();
        for row in [
            "| [`C1.a`](../experiments/src/claims/one.rs)<br>**holds**, exact | \\|x\\| = 1<br><small>a, b: 0 = 0</small> |",
            "<br>**refuted**, statistical | y<br><small>A\\_t\\|\\*: 0.250 ≤ 0.200 + 0.0100</small> |",
        ] {
            assert!(table.contains(row), "{table}");
        }
        assert_eq!(super::table(&files, "book/theory.md", "C3"), None);
        assert!(summary(&files).contains("3 claims 2 hold and 1 are refuted"));
    }

    #[test]
    fn list_and_verdicts_must_agree() {
        let right = verdicts_text();
        for (claims, verdicts, place, word) in [
            (CLAIMS.to_string(), right.replace("C2.a,", "C2.b,"), LIST, "no verdict"),
            (
                CLAIMS.to_string(),
                right.replace("a,holds,exact", "a,fails,exact"),
                VERDICTS,
                "fails",
            ),
            (CLAIMS.to_string(), right.replace("interval", "exact"), VERDICTS, "another"),
            (CLAIMS.replace("z | interval", "z | exact"), right.clone(), VERDICTS, "another"),
            (CLAIMS.to_string(), right.replace("claim,", "id,"), VERDICTS, "first line"),
            (CLAIMS.replace("C2.a", "C2.c"), right.clone(), LIST, "no file"),
            (CLAIMS.replace("| z", "| U*_1 .. U*_{2}"), right.clone(), LIST, "emphasised"),
        ] {
            let found = problems(&files(&claims, &verdicts));
            let hit = found.iter().any(|(file, _, text)| *file == place && text.contains(word));
            assert!(hit, "{word}: {found:?}");
        }
    }

    #[test]
    fn numbers_have_three_digits() {
        for (text, expected) in [
            ("3.286144299270522e-16", "3.29e-16"),
            ("0.299735755852", "0.300"),
            ("18.2345", "18.2"),
            ("226.2", "226"),
            ("12.0", "12"),
            ("", "-"),
        ] {
            assert_eq!(short(text), expected);
        }
    }
}
