//! The page around the runs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::html::{escape, prose, words};
use super::run::Run;
use super::section;

const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");
/// Nothing may be fetched from anywhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'";

pub(super) fn render(runs: &[Run]) -> String {
    let title = match runs {
        [run] => run.title(),
        _ => format!("{} studies", runs.len()),
    };
    let level = if runs.len() == 1 { 1 } else { 2 };
    let sections: String =
        runs.iter().enumerate().map(|(i, run)| section::render(run, &anchor(i), level)).collect();
    let index = if runs.len() > 1 { index(runs) + &side_by_side(runs) } else { String::new() };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{} – peftml</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <main>\n{index}{sections}</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        escape(&title)
    )
}

fn anchor(i: usize) -> String {
    format!("study-{}", i + 1)
}

/// What there is, with the answers.
fn index(runs: &[Run]) -> String {
    let mut out = format!("<header class=\"index\">\n<h1>{} studies</h1>\n<ol>\n", runs.len());
    for (i, run) in runs.iter().enumerate() {
        let answer = run.summary.get("answer").and_then(Value::as_str).unwrap_or("");
        out.push_str(&format!(
            "<li><a href=\"#{}\">{}</a> <span class=\"small\">{}</span><br>{}</li>\n",
            anchor(i),
            escape(&run.title()),
            escape(&run.name()),
            prose(answer)
        ));
    }
    out + "</ol>\n</header>\n"
}

/// Headline figures that several runs have, side by side.
fn side_by_side(runs: &[Run]) -> String {
    let mut figures: BTreeMap<&str, Vec<(usize, &Value)>> = BTreeMap::new();
    for (i, run) in runs.iter().enumerate() {
        for (name, value) in
            run.summary.get("figures").and_then(Value::as_object).into_iter().flatten()
        {
            if !section::is_table(value) {
                figures.entry(name).or_default().push((i, value));
            }
        }
    }
    figures.retain(|_, values| values.len() > 1);
    if figures.is_empty() {
        return String::new();
    }
    let used = |i: usize| figures.values().flatten().any(|(run, _)| *run == i);
    let columns: Vec<usize> = (0..runs.len()).filter(|&i| used(i)).collect();
    let head: String = columns
        .iter()
        .map(|&i| {
            format!(
                "<th scope=\"col\" class=\"num\"><a href=\"#{}\">{}</a></th>",
                anchor(i),
                escape(&runs[i].name())
            )
        })
        .collect();
    let mut rows = String::new();
    for (name, values) in &figures {
        rows.push_str(&format!("<tr><th scope=\"row\">{}</th>", words(name)));
        for &i in &columns {
            let value = values
                .iter()
                .find(|(run, _)| *run == i)
                .map_or_else(|| "–".to_owned(), |(_, value)| section::value_html(value));
            rows.push_str(&format!("<td class=\"num\">{value}</td>"));
        }
        rows.push_str("</tr>\n");
    }
    format!(
        "<section class=\"side-by-side\">\n<h2>Side by side</h2>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Headline figures side by side\"><table><thead><tr><th></th>{head}</tr></thead><tbody>\n{rows}</tbody></table></div>\n</section>\n"
    )
}
