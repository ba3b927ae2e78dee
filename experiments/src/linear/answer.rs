//! The answer of a linear study in one sentence, from trials.csv alone.

use super::LinearStudy;
use super::methods::RETRAINING;
use super::stats::{Band, log_slope, profiles};
use crate::runs::csv::Table;
use crate::runs::{Summary, Tables};
use serde_json::{Map, Value, json};

/// Means over seeds along the swept quantity, for one pair of methods.
struct Line {
    retraining: &'static str,
    fine_tuning: &'static str,
    measured: Band,
    theory: Band,
}

/// The summary.
pub(super) fn summary(study: &LinearStudy, tables: &Tables<'_>) -> Summary {
    let table = &tables.trials;
    let path = study.frame.resolved.swept.first().map_or("test_samples", String::as_str);
    let lines = lines(study, table, path);
    let mut figures = Map::new();
    for line in &lines {
        let name = format!("{} + {}", line.retraining, line.fine_tuning);
        figures.insert(name, figures_of(line, path));
    }
    let wins = wins(table);
    if let Some((won, pairs)) = wins {
        figures.insert("lora_ml_below_standard".into(), json!({"pairs": pairs, "lower": won}));
    }
    let answer = answer(&lines, path, wins).unwrap_or_else(|| "No trial is finished yet.".into());
    Summary { answer, figures }
}

fn lines(study: &LinearStudy, table: &Table<'_>, path: &str) -> Vec<Line> {
    let (retraining, solver) = (table.column("retraining"), table.column("solver"));
    let (fine_tuning, tasks) = (table.column("fine_tuning"), table.column("tasks"));
    let swept = table.column(path);
    let mut lines = Vec::new();
    for first in &study.retraining {
        for second in &study.fine_tuning {
            let label = |row: usize| {
                let of_tasks = table.number(row, tasks)? as usize;
                (table.text(row, retraining) == first.retraining
                    && table.text(row, solver) == (first.solver)(of_tasks)
                    && table.text(row, fine_tuning) == second.name)
                    .then(String::new)
            };
            let band = |column: &str| {
                let found = profiles(table, column, label, |row| table.number(row, swept));
                found.first().map(|(_, profile)| profile.band()).unwrap_or_default()
            };
            lines.push(Line {
                retraining: first.name,
                fine_tuning: second.name,
                measured: band("excess_risk"),
                theory: band("predicted_excess_risk"),
            });
        }
    }
    lines
}

fn figures_of(line: &Line, path: &str) -> Value {
    let Band { x, mean, low, high } = &line.measured;
    let mut found = json!({
        path: x,
        "excess_risk": mean,
        "smallest": low,
        "largest": high,
        "predicted_excess_risk": line.theory.mean,
    });
    if let (Some(slope), Some(object)) = (log_slope(x, mean), found.as_object_mut()) {
        object.insert("log_log_slope".into(), slope.into());
    }
    found
}

/// In how many pairs (point, seed) with T >= 3 meta-learning by the global solver leaves less excess
/// risk than standard retraining, after the same fine-tuning: (lower, pairs).
fn wins(table: &Table<'_>) -> Option<(usize, usize)> {
    let column = |name: &str| table.column(name);
    let name_of = |row: usize| {
        format!("{}/{}", table.text(row, column("retraining")), table.text(row, column("solver")))
    };
    let risk = column("excess_risk");
    let tuned = |row: usize| table.text(row, column("fine_tuning")) == "reduced-rank-regression";
    let point = |row: usize| -> Vec<&str> {
        let keys = ["dimension", "rank", "tasks", "samples_per_task", "test_samples", "seed"];
        keys.iter().map(|key| table.text(row, column(key))).collect()
    };
    let rows: Vec<usize> = (0..table.len()).filter(|row| tuned(*row)).collect();
    let mut pairs = (0, 0);
    for standard in rows.iter().filter(|row| name_of(**row) == "standard/closed-form") {
        let meta = rows
            .iter()
            .find(|row| name_of(**row) == "lora-ml/global" && point(**row) == point(*standard));
        let meta = meta.and_then(|row| table.number(*row, risk));
        if let (Some(standard), Some(meta)) = (table.number(*standard, risk), meta) {
            pairs.1 += 1;
            pairs.0 += usize::from(meta < standard);
        }
    }
    (pairs.1 > 0).then_some(pairs)
}

/// Words from the lines of meta-learning and of standard retraining that say most: after
/// reduced-rank regression where that was run.
fn answer(lines: &[Line], path: &str, wins: Option<(usize, usize)>) -> Option<String> {
    let find = |names: &[&str]| {
        let measured = |line: &&Line| !line.measured.x.is_empty();
        let best = |line: &&Line| line.fine_tuning == "reduced-rank-regression";
        names.iter().find_map(|name| {
            let of_name = || lines.iter().filter(|line| line.retraining == *name).filter(measured);
            of_name().find(best).or_else(|| of_name().next())
        })
    };
    let meta = find(&["lora-ml/global", "lora-ml/exact", "lora-ml/authors"]);
    let standard = find(&["standard/closed-form", "standard/authors"]);
    let first = meta.or(standard)?;
    let x = &first.measured.x;
    let mut text = format!("From {} {} to {}, ", words(path), x.first()?, x.last()?);
    text += "the mean excess risk after fine-tuning goes";
    let courses: Vec<String> = [meta, standard].into_iter().flatten().map(course).collect();
    text += &courses.join(" and");
    if let Some((won, pairs)) = wins {
        text += &format!("; LoRA-ML is lower in {won} of {pairs} pairs with T >= 3");
    }
    if path == "test_samples"
        && let Some(slope) = log_slope(x, &first.measured.mean)
    {
        text += &format!("; the first log-log slope is {slope:.2}");
    }
    Some(text + ".")
}

fn words(path: &str) -> String {
    path.replace(['_', '.'], " ")
}

/// ` from 1.2e-3 to 3.4e-5 (theory: 1.1e-3 to 3.5e-5) from the base of LoRA-ML, global solver`.
fn course(line: &Line) -> String {
    let ends =
        |band: &Band| Some(format!("{:.2e} to {:.2e}", band.mean.first()?, band.mean.last()?));
    let theory = ends(&line.theory).map(|ends| format!(" (theory: {ends})")).unwrap_or_default();
    let method = RETRAINING.iter().find(|method| method.name == line.retraining);
    format!(
        " from {}{theory} from the base of {}",
        ends(&line.measured).unwrap_or_default(),
        method.map_or(line.retraining, |method| method.label)
    )
}
