//! The claims as a suite, and `peftml verify` as scripts meet it.

use peftml_experiments::claims::{self, EvidenceKind, Fault, Request, STATISTICAL_TESTS};
use serde_json::Value;
use std::process::{Command, Output};

fn verify(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_peftml"))
        .arg("verify")
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn sentence(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_string()
}

#[test]
fn every_claim_is_sound_at_quick_scale_and_controlled() {
    let all = claims::all();
    let verdicts = claims::run(&all, &Request::default(), |_| {}).expect("no settings");
    let unsound: Vec<_> =
        verdicts.iter().filter(|v| !v.outcome.is_sound()).map(|v| v.to_json()).collect();
    assert!(unsound.is_empty(), "{unsound:#?}");
    let mut tests = 0;
    for v in &verdicts {
        assert!(!v.evidence.checks.is_empty() && !v.evidence.controls.is_empty(), "{}", v.id);
        for check in v.evidence.checks.iter().chain(&v.evidence.controls) {
            assert!(check.tolerance >= 0.0 && !check.tolerance_from.is_empty(), "{}", v.id);
        }
        let statistical = |c: &&claims::Check| c.tolerance_from.contains("two-sided error");
        let count = v.evidence.checks.iter().filter(statistical).count();
        assert_eq!(count > 0, v.evidence.kind == EvidenceKind::Statistical, "{}", v.id);
        tests += count;
    }
    assert!(
        tests <= STATISTICAL_TESTS,
        "{tests} comparisons share the error of {STATISTICAL_TESTS}"
    );
}

#[test]
fn the_list_of_claims_in_the_documents_is_the_registry() {
    let text = include_str!("../../docs/claims.md");
    let listed: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "))
        .filter_map(|(id, rest)| Some((id, rest.rsplit_once(" | ")?.0)))
        .collect();
    let claims = claims::all();
    for claim in &claims {
        let (row, id) = (listed.iter().find(|(id, _)| *id == claim.id()), claim.id());
        // Signs that Markdown would read stand behind a backslash there; no statement has one.
        let text = row.map(|(_, text)| text.replace('\\', ""));
        assert_eq!(text.as_deref(), Some(claim.statement()), "{id}");
    }
    assert_eq!(listed.len(), claims.len(), "no more than the registry's");
}

#[test]
fn ids_are_dotted_and_unique_and_every_fault_has_a_name() {
    let ids: Vec<&str> = claims::all().iter().map(|c| c.id()).collect();
    for (i, id) in ids.iter().enumerate() {
        assert!(id.split_once('.').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()), "{id}");
        assert!(!ids[..i].contains(id), "{id} twice");
    }
    for family in 1..=11 {
        assert!(ids.iter().any(|id| id.starts_with(&format!("C{family}."))), "C{family}");
    }
    assert!(Fault::ALL.len() >= 20);
}

#[test]
fn json_lines_hold_the_documented_keys_and_nothing_else_is_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("deep/er");
    let output = verify(&[
        "--claim",
        "C7.space",
        "C1.rank",
        "--json",
        "--out",
        out.to_str().expect("UTF-8"),
    ]);
    assert!(output.status.success(), "{}", sentence(&output));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<Value> =
        text.lines().map(|l| serde_json::from_str(l).expect("a JSON object")).collect();
    assert_eq!(lines.len(), 2);
    let keys = "id verdict kind measured bound tolerance tolerance_from assumptions control instances seconds";
    for line in &lines {
        for key in keys.split(' ') {
            assert!(line.get(key).is_some(), "{key} of {}", line["id"]);
        }
        assert_eq!(line["control"]["outcome"], "caught");
    }
    let stored = std::fs::read_to_string(out.join("verdicts.jsonl")).expect("verdicts");
    assert_eq!(stored.lines().count(), 2);
    let certificate = std::fs::read_to_string(out.join("certificates/C7.space-space.json"))
        .expect("the certificate");
    let certificate =
        peftml_theory::certificate::Certificate::from_json(&certificate).expect("readable");
    peftml_theory::certificate::verify(&certificate).expect("proved anew");
    assert!(std::fs::read_dir(out.join("instances")).expect("instances").count() >= 2);
}

#[test]
fn settings_change_the_problem_and_assumptions_can_be_broken() {
    // Not identifiable, and known not to be.
    let sizes = ["--set", "d=10", "--set", "k=4", "--set", "tasks=3", "--seed", "5"];
    let with = |id: &'static str| [&["--claim", id, "--json"], &sizes[..]].concat();
    assert!(verify(&with("C4.identifiable")).status.success());
    // 3k > d: the proof does not go through, and the line says which assumption is violated.
    let output = verify(&with("C4.recovery"));
    assert_eq!(output.status.code(), Some(1));
    let line: Value = serde_json::from_slice(&output.stdout).expect("one line");
    assert_eq!(line["verdict"], "fails");
    let text = line["assumptions"].to_string();
    assert!(text.contains("violated: 3k <= d"), "{text}");
}

#[test]
fn bad_usage_is_one_sentence_with_what_is_known_and_status_2() {
    for (arguments, known) in [
        (&["--claim", "C2.sandwhich"][..], "C2.sandwich"),
        (&["--claim", "C"], "C1.base"),
        (&["--claim", "C4", "--set", "rank=3"], "tasks"),
        (&["--claim", "C4", "--set", "k"], "key=value"),
        (&["--claim", "C4", "--set", "k=0"], "from 1 to"),
        (&["--claim", "C4", "--set", "k=1.5"], "whole number"),
        (&["--claim", "C4", "--set", "k=nan"], "from 1 to"),
        (&["--claim", "C4.recovery", "--set", "d=2", "--set", "k=3"], "k = 3 is more than d = 2"),
        (&["--claim", "C1.rank", "--set", "d=3", "--set", "k=1"], "k (T+1) <= d"),
        (&["--scale", "medium"], "quick"),
    ] {
        let output = verify(arguments);
        let said = sentence(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{arguments:?}: {said}");
        assert!(said.contains(known), "{arguments:?}: {said}");
    }
}
