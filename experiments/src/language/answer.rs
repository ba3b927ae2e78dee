//! What the language suite alone says: accuracies by task, and a test of every comparison clustered by dialogue.
//!
//! Turns of a dialogue are alike, so they count together: for every dialogue the difference of hits, summed over
//! seeds, is one number, and the exact sign-flip test asks how often the sum over dialogues would be as large if
//! each were as likely with either sign. `p_value` is that test's, `corrected` Holm's over all comparisons.
//! It speaks of other dialogues of these personas, not of other personas or seeds.

use super::config::LanguageConfig;
use crate::networks::answer::{Cell, Mean, comparisons};
use crate::report::paired::{holm, sign_flip_whole};
use crate::runs::Summary;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Hits and turns by task and dialogue, summed over seeds.
type Hits = BTreeMap<(usize, usize), (i64, i64)>;

/// Adds both to `summary`.
pub(super) fn complete(config: &LanguageConfig, cells: &[Cell], summary: &mut Summary) {
    let mut by_task = Map::new();
    for cell in cells {
        let seeds: Vec<Hits> = cell.own.iter().map(|own| read(own)).collect();
        let tasks = seeds
            .first()
            .map_or(0, |hits| hits.keys().map(|(task, _)| task + 1).max().unwrap_or(0));
        let means = (0..tasks).map(|task| {
            let accuracies: Vec<f64> = seeds.iter().map(|hits| accuracy(hits, task)).collect();
            Mean::of(&accuracies).map_or(Value::Null, Mean::json)
        });
        by_task.insert(cell.name(), means.collect());
    }
    let pairs = comparisons(cells, &config.baseline);
    let differences: Vec<Vec<(i64, i64)>> =
        pairs.iter().map(|(cell, other)| paired(cell, other)).collect();
    let p: Vec<Option<f64>> = differences
        .iter()
        .map(|all| sign_flip_whole(&all.iter().map(|(hits, _)| *hits).collect::<Vec<_>>()))
        .collect();
    let corrected = holm(&p);
    let mut tests = Map::new();
    let mut sentences = Vec::new();
    for (i, (cell, other)) in pairs.iter().enumerate() {
        let turns: i64 = differences[i].iter().map(|(_, turns)| turns).sum();
        if turns == 0 {
            continue;
        }
        let hits: i64 = differences[i].iter().map(|(hits, _)| hits).sum();
        let difference = hits as f64 / turns as f64;
        let error = clustered_error(&differences[i], difference);
        tests.insert(
            cell.name(),
            json!({
                "against": other.name(), "difference": difference, "standard_error": error,
                "dialogues": differences[i].len(), "turns": turns,
                "p_value": p[i], "corrected": corrected[i],
            }),
        );
        let p = corrected[i].map(|p| format!(", p = {p:.2}")).unwrap_or_default();
        sentences.push(format!("{} {difference:+.3}{p}", cell.name()));
    }
    summary.figures.insert("accuracy_by_task".into(), by_task.into());
    summary.figures.insert("chance".into(), json!(1.0 / config.candidates() as f64));
    summary.figures.insert("test_by_dialogue".into(), tests.into());
    if !sentences.is_empty() {
        summary.answer += &format!(
            " Chance is {:.3}. Clustered by dialogue, of all turns: {}; p: exact sign-flip test over dialogues, \
             Holm-corrected.",
            1.0 / config.candidates() as f64,
            sentences.join("; ")
        );
    }
}

/// What a cell says: `task:dialogue:hits/turns`, with spaces between; anything else is passed over.
fn read(own: &[String]) -> Hits {
    let mut all = Hits::new();
    for word in own.first().map_or("", String::as_str).split(' ') {
        let numbers: Vec<usize> =
            word.split([':', '/']).map_while(|part| part.parse().ok()).collect();
        if let &[task, dialogue, hits, turns] = numbers.as_slice() {
            all.insert((task, dialogue), (hits as i64, turns as i64));
        }
    }
    all
}

fn accuracy(hits: &Hits, task: usize) -> f64 {
    let own = hits.range((task, 0)..(task + 1, 0)).map(|(_, found)| *found);
    let (hits, turns) = own.fold((0, 0), |(h, t), (hits, turns)| (h + hits, t + turns));
    hits as f64 / turns as f64
}

/// For every dialogue the difference of hits and the number of turns, summed over seeds that both cells have.
fn paired(cell: &Cell, other: &Cell) -> Vec<(i64, i64)> {
    let mut sums: BTreeMap<(usize, usize), (i64, i64)> = BTreeMap::new();
    for ((seed, _), own) in cell.values.iter().zip(&cell.own) {
        let partner = other.values.iter().position(|(known, _)| known == seed);
        let Some(partner) = partner.and_then(|at| other.own.get(at)) else { continue };
        let partner = read(partner);
        for (dialogue, (hits, turns)) in read(own) {
            let Some((base, _)) = partner.get(&dialogue) else { continue };
            let sum = sums.entry(dialogue).or_default();
            *sum = (sum.0 + hits - base, sum.1 + turns);
        }
    }
    sums.into_values().collect()
}

/// Standard error of a difference of shares whose dialogues are clusters: `sqrt(c/(c-1) sum (d - m n)^2) / sum n`
/// for c clusters with difference d and n turns each, m the share.
fn clustered_error(all: &[(i64, i64)], share: f64) -> Option<f64> {
    let clusters = all.len() as f64;
    let turns: i64 = all.iter().map(|(_, turns)| turns).sum();
    let squares: f64 = all.iter().map(|(d, n)| (*d as f64 - share * *n as f64).powi(2)).sum();
    (all.len() > 1).then(|| (clusters / (clusters - 1.0) * squares).sqrt() / turns as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(retraining: &str, hits: &[&str]) -> Cell {
        let own = hits.iter().map(|text| vec![(*text).to_owned()]).collect();
        let values = (0..hits.len()).map(|seed| (seed.to_string(), 0.0)).collect();
        let (title, retraining, fine_tuning) = (String::new(), retraining.into(), "lora".into());
        Cell { title, retraining, fine_tuning, values, parameters: 1.0, own }
    }

    #[test]
    fn dialogues_are_clusters_and_seeds_are_summed() {
        let base = cell("standard", &["0:4:1/5 0:9:2/4 1:7:0/6", "0:4:0/5 0:9:2/4 1:7:1/6"]);
        let other = cell("reptile", &["0:4:3/5 0:9:2/4 1:7:1/6", "0:4:1/5 0:9:1/4 1:7:1/6"]);
        assert_eq!(paired(&other, &base), [(3, 10), (-1, 8), (1, 12)]);
        // A seed that one of them lacks has no part, nor has a dialogue.
        let short = cell("reptile", &["0:4:3/5"]);
        assert_eq!(paired(&short, &base), [(2, 5)]);
        let hits = read(&base.own[0]);
        assert_eq!((accuracy(&hits, 0), accuracy(&hits, 1)), (3.0 / 9.0, 0.0));
        // By hand: share 3/30, residuals 2, -1.8, -0.2.
        let error = clustered_error(&[(3, 10), (-1, 8), (1, 12)], 0.1).unwrap();
        assert!((error - (1.5 * (4.0 + 3.24 + 0.04_f64)).sqrt() / 30.0).abs() < 1e-15);
        assert!(read(&["0:x:1/5".to_owned()]).is_empty());
    }
}
