//! `peftml verify`: the theory's claims, each with its evidence.

use super::{Common, Failure, print_json, print_line};
use crate::claims::{self, Claim, Faults, Outcome, Request, Scale, Verdict};
use crate::runs::{provenance, write_atomically};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::fs;
use std::path::{Path, PathBuf};

/// How much to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ScaleName {
    /// Below a minute
    Quick,
    /// Below an hour
    Full,
}

/// Options of `peftml verify`.
#[derive(Args, Debug)]
pub struct Arguments {
    /// A claim (C2.sandwich) or a family of claims (C2); may be repeated; default: all
    #[arg(long = "claim", value_name = "ID", num_args = 1..)]
    claims: Vec<String>,
    /// How much to spend
    #[arg(long, value_enum, default_value_t = ScaleName::Quick)]
    scale: ScaleName,
    /// A setting of the chosen claims, such as d=10; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder for verdicts.jsonl, certificates/ and instances/
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// List the claims with what is checked and how, and verify nothing
    #[arg(long)]
    list: bool,
}

/// Runs the command.
///
/// # Errors
/// Status 2 for unknown claims or settings, 1 where a claim fails or is inconclusive.
pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
    let all = claims::all();
    let chosen = claims::select(&all, &arguments.claims).map_err(Failure::input)?;
    if arguments.list {
        return list(&chosen, common.json);
    }
    let request = Request {
        scale: match arguments.scale {
            ScaleName::Quick => Scale::Quick,
            ScaleName::Full => Scale::Full,
        },
        seed: common.seed,
        settings: arguments.set.clone(),
        faults: Faults::NONE,
    };
    let mut pool = rayon::ThreadPoolBuilder::new();
    if let Some(threads) = common.threads {
        pool = pool.num_threads(threads.get());
    }
    let pool = pool.build().map_err(Failure::refused)?;
    let progress = ProgressBar::new(chosen.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} claims, {elapsed}") {
        progress.set_style(style);
    }
    let verdicts = pool
        .install(|| claims::run(&chosen, &request, |_| progress.inc(1)))
        .map_err(Failure::input)?;
    progress.finish_and_clear();
    if let Some(folder) = &arguments.out {
        write_folder(folder, &verdicts, request.scale)?;
    }
    if common.json {
        verdicts.iter().try_for_each(|v| print_json(&v.to_json()))?;
    } else {
        table(&verdicts)?;
    }
    let unsound: Vec<&str> =
        verdicts.iter().filter(|v| !v.outcome.is_sound()).map(|v| v.id.as_str()).collect();
    if unsound.is_empty() {
        return Ok(());
    }
    // Where settings of the user cannot be met, nothing was verified: bad usage.
    if let Some(sentence) = verdicts.iter().find_map(|v| v.usage.clone()) {
        return Err(Failure::input(sentence));
    }
    Err(Failure::refused(format_args!(
        "{} of {} claims fail or are inconclusive: {}",
        unsound.len(),
        verdicts.len(),
        unsound.join(", ")
    )))
}

fn list(chosen: &[&dyn Claim], json: bool) -> Result<(), Failure> {
    for claim in chosen {
        if json {
            let settings: Vec<_> = claim.settings().iter().map(|s| s.key).collect();
            print_json(&serde_json::json!({
                "id": claim.id(), "statement": claim.statement(),
                "assumptions": claim.assumptions(), "method": claim.method(),
                "refutation": claim.refutation(), "settings": settings,
                "refuted": claim.is_refuted(),
            }))?;
        } else {
            print_line(&format!("{}: {}", claim.id(), claim.statement()))?;
            for assumption in claim.assumptions() {
                print_line(&format!("    assumes: {assumption}"))?;
            }
            print_line(&format!("    checked by: {}", claim.method()))?;
            print_line(&format!("    refuted by: {}", claim.refutation()))?;
        }
    }
    Ok(())
}

/// A table for people.
fn table(verdicts: &[Verdict]) -> Result<(), Failure> {
    print_line(&format!(
        "{:<24} {:<13} {:<14} {:>12}    {:>12} {:>10} {:<8} {:>8}",
        "claim", "verdict", "kind", "measured", "bound", "tolerance", "control", "seconds"
    ))?;
    for v in verdicts {
        let number = |x: Option<f64>| x.map_or("-".to_string(), short);
        let check = v.deciding();
        let control =
            v.deciding_control().map_or("-", |c| if c.fails() { "caught" } else { "PASSED" });
        print_line(&format!(
            "{:<24} {:<13} {:<14} {:>12} {:<2} {:>12} {:>10} {:<8} {:>8.2}",
            v.id,
            v.outcome.name(),
            v.evidence.kind.name(),
            number(check.map(|c| c.measured)),
            check.map_or("", |c| c.relation.sign()),
            number(check.map(|c| c.bound)),
            number(check.map(|c| c.tolerance)),
            control,
            v.seconds
        ))?;
        if let Some(error) = &v.error {
            print_line(&format!("    {error}"))?;
        } else if !v.outcome.is_sound() {
            if let Some(check) = check.filter(|c| !c.holds()) {
                print_line(&format!("    does not hold: {}", check.what))?;
            }
            if let Some(control) = v.deciding_control().filter(|c| !c.fails()) {
                print_line(&format!("    control passed: {}", control.what))?;
            }
            for violated in &v.evidence.violated {
                print_line(&format!("    assumption violated: {violated}"))?;
            }
        }
    }
    let count = |outcome: Outcome| verdicts.iter().filter(|v| v.outcome == outcome).count();
    print_line(&format!(
        "{} claims: {} hold, {} refuted with their counterexamples replayed, {} fail, {} inconclusive",
        verdicts.len(),
        count(Outcome::Holds),
        count(Outcome::Refuted),
        count(Outcome::Fails),
        count(Outcome::Inconclusive)
    ))
}

/// At most twelve characters.
fn short(x: f64) -> String {
    let plain = format!("{x}");
    if plain.len() <= 9 { plain } else { format!("{x:.4e}") }
}

/// `verdicts.jsonl`, `certificates/NAME.json`, `instances/ID-n.json`; `run.json` and `summary.json`, so
/// that a report takes the folder like that of a study.
fn write_folder(folder: &Path, verdicts: &[Verdict], scale: Scale) -> Result<(), Failure> {
    for v in verdicts {
        for (name, text) in &v.evidence.certificates {
            write(&folder.join("certificates"), &format!("{name}.json"), text.as_bytes())?;
        }
        for (n, instance) in v.evidence.instances.iter().enumerate() {
            let text = serde_json::json!({"claim": v.id, "instance": instance}).to_string() + "\n";
            write(&folder.join("instances"), &format!("{}-{n}.json", v.id), text.as_bytes())?;
        }
    }
    let lines: String = verdicts.iter().map(|v| v.to_json().to_string() + "\n").collect();
    write(folder, "verdicts.jsonl", lines.as_bytes())?;
    let sound = verdicts.iter().filter(|v| v.outcome.is_sound()).count();
    let answer = format!(
        "{sound} of {} claims hold, or are refuted with their counterexamples replayed.",
        verdicts.len()
    );
    let summary = serde_json::json!({ "answer": answer });
    write(folder, "summary.json", (format!("{summary:#}\n")).as_bytes())?;
    let seconds: f64 = verdicts.iter().map(|v| v.seconds).sum();
    let run = serde_json::json!({
        "study": {
            "suite": "theory",
            "name": match scale { Scale::Quick => "verify-quick", Scale::Full => "verify-full" },
            "title": "Claims of the theory",
            "question": "Which statements of the theory hold, by which kind of evidence, and can their checks fail?",
            "swept": [], "keys": [], "measures": [],
        },
        "status": if sound == verdicts.len() { "complete" } else { "claims fail or are inconclusive" },
        "revision": provenance::revision(),
        "versions": { "peftml": env!("CARGO_PKG_VERSION") },
        "cpu": provenance::cpu_name(),
        "cpu_features": provenance::cpu_features(),
        "command": std::env::args().collect::<Vec<_>>().join(" "),
        "finished": provenance::timestamp(provenance::unix_time()),
        "claim_seconds": seconds,
    });
    write(folder, "run.json", (format!("{run:#}\n")).as_bytes())
}

/// Beside the place, then renamed.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    fs::create_dir_all(folder)
        .map_err(|e| Failure::refused(format_args!("{} cannot be made: {e}", folder.display())))?;
    write_atomically(&folder.join(name), bytes).map_err(Failure::refused)
}
