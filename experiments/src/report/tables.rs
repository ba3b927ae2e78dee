//! Tables of trials.csv and timings.csv, taken together over seeds.

use super::aggregate::{Aggregate, Group, Statistics, aggregate};
use super::html::{escape, number, words};
use super::paired::EXACT;
use super::run::Run;
use crate::runs::csv::Table;

/// The tables of a run, one a measure; a note where they cannot be made.
pub(super) fn render(run: &Run, id: &str, notes: &mut Vec<String>) -> String {
    let (swept, keys) = (run.columns("swept"), run.columns("keys"));
    let mut all: Vec<Aggregate> = Vec::new();
    let seconds = vec!["seconds".to_owned()];
    for (name, text, measures) in [
        ("trials.csv", &run.trials, run.columns("measures")),
        ("timings.csv", &run.timings, seconds),
    ] {
        let Some(text) = text else { continue };
        match Table::parse(text) {
            Ok(table) if table.is_empty() => {
                if name == "trials.csv" {
                    notes.push("trials.csv has no rows yet.".to_owned());
                }
            }
            Ok(table) => all.push(aggregate(&table, &swept, &keys, &measures)),
            Err((line, reason)) => notes.push(format!("{name}, line {line}: {reason}.")),
        }
    }
    let count: usize = all.iter().map(|aggregate| aggregate.measures.len()).sum();
    if count == 0 {
        return String::new();
    }
    let mut options = String::new();
    let mut tables = String::new();
    for aggregate in &all {
        for (i, measure) in aggregate.measures.iter().enumerate() {
            options.push_str(&format!("<option>{}</option>", words(measure)));
            tables.push_str(&table(aggregate, i, measure));
        }
    }
    format!(
        "<section class=\"tables\" id=\"{id}-table\">\n<h3>Table</h3>\n\
         <div class=\"tools\"><label>Measure <select>{options}</select></label> <button type=\"button\" class=\"copy\">Copy as CSV</button> <span class=\"copied\" role=\"status\"></span></div>\n\
         {tables}{}</section>\n",
        legend(&all[0])
    )
}

fn table(aggregate: &Aggregate, measure: usize, name: &str) -> String {
    let paired = aggregate
        .groups
        .iter()
        .any(|group| group.statistics[measure].is_some_and(|s| s.p.is_some()));
    let mut head = String::new();
    let mut heading = |text: &str, numeric: bool, title: &str| {
        let class = if numeric { " class=\"num\"" } else { "" };
        let title = if title.is_empty() { String::new() } else { format!(" title=\"{title}\"") };
        head.push_str(&format!("<th scope=\"col\"{class}{title}><button type=\"button\" class=\"sort\">{text}</button></th>"));
    };
    for (i, column) in aggregate.columns.iter().enumerate() {
        heading(&words(column), is_numeric(aggregate, i), "");
    }
    for (text, title) in [
        ("seeds", "rows with a number"),
        ("mean", ""),
        ("std. error", "of the mean"),
        ("min", ""),
        ("max", ""),
    ] {
        heading(text, true, title);
    }
    if paired {
        heading("p", true, "paired with the first method of the sweep point");
    }
    let mut rows = String::new();
    for (i, group) in aggregate.groups.iter().enumerate() {
        let starts = i > 0 && group.is_baseline;
        rows.push_str(if starts { "<tr class=\"starts\">" } else { "<tr>" });
        for (column, cell) in group.cells.iter().enumerate() {
            let class = if is_numeric(aggregate, column) { " class=\"num\"" } else { "" };
            rows.push_str(&format!("<td{class} data-value=\"{0}\">{0}</td>", escape(cell)));
        }
        rows.push_str(&statistics(group, group.statistics[measure].as_ref(), paired));
        rows.push_str("</tr>\n");
    }
    format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Table of {0}\" data-measure=\"{0}\"><table><caption>{0}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}</tbody></table></div>\n",
        words(name)
    )
}

/// Whether all cells of a naming column are numbers.
fn is_numeric(aggregate: &Aggregate, column: usize) -> bool {
    aggregate.groups.iter().all(|group| group.cells[column].parse::<f64>().is_ok())
}

fn statistics(group: &Group, statistics: Option<&Statistics>, paired: bool) -> String {
    let refused = group.refused.as_ref().map_or(String::new(), |(count, reason)| {
        format!(" <abbr title=\"{}\">({count} refused)</abbr>", escape(reason))
    });
    let count = statistics.map_or(0, |s| s.count);
    let mut out = format!("<td class=\"num\" data-value=\"{count}\">{count}{refused}</td>");
    let mut cell = |value: Option<f64>| match value {
        Some(value) => out.push_str(&format!(
            "<td class=\"num\" data-value=\"{value:?}\">{}</td>",
            number(value)
        )),
        None => out.push_str("<td class=\"num\" data-value=\"\">–</td>"),
    };
    cell(statistics.map(|s| s.mean));
    cell(statistics.and_then(|s| s.standard_error));
    cell(statistics.map(|s| s.least));
    cell(statistics.map(|s| s.most));
    if paired {
        if group.is_baseline {
            out.push_str("<td class=\"num\" data-value=\"\"><abbr title=\"the others at this sweep point are compared with this method\">base</abbr></td>");
        } else {
            cell(statistics.and_then(|s| s.p));
        }
    }
    out
}

fn legend(aggregate: &Aggregate) -> String {
    let constants: Vec<String> = aggregate
        .constants
        .iter()
        .map(|(name, value)| format!("{} {}", words(name), escape(value)))
        .collect();
    let same = if constants.is_empty() {
        String::new()
    } else {
        format!(" The same in every row: {}.", constants.join(", "))
    };
    format!(
        "<p class=\"small\">Mean, standard error, least and largest value over seeds. p: two-sided sign-flip test of the differences, seed by seed, from the method marked <i>base</i>; \
         exact up to {EXACT} seeds, normal beyond; corrected after Holm for all comparisons of a table.{same}</p>\n"
    )
}
