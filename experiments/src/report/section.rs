//! The part of a page that shows one run.

use serde_json::{Map, Value};

use super::html::{data, escape, prose, words};
use super::run::Run;
use super::{figure, tables};

/// The section of `run`; `id` is its anchor, `level` that of its heading.
pub(super) fn render(run: &Run, id: &str, level: usize) -> String {
    let mut notes = run.notes.clone();
    let tables = tables::render(run, id, &mut notes);
    let figures: String = run
        .figures
        .iter()
        .enumerate()
        .map(|(i, drawn)| figure::render(drawn, &format!("{id}-figure-{}", i + 1)))
        .collect();
    let mut out = format!(
        "<article class=\"study\" id=\"{id}\">\n<header>\n<p class=\"kicker\">{}</p>\n<h{level}>{}</h{level}>\n",
        kicker(run),
        escape(&run.title())
    );
    if !run.about("question").is_empty() {
        out.push_str(&format!("<p class=\"question\">{}</p>\n", escape(run.about("question"))));
    }
    out.push_str("</header>\n");
    if let Some(answer) =
        run.summary.get("answer").and_then(Value::as_str).filter(|answer| !answer.is_empty())
    {
        out.push_str(&format!("<p class=\"answer\">{}</p>\n", prose(answer)));
    }
    notes.extend(troubles(run));
    notes.extend(unfaithful(run));
    for note in &notes {
        out.push_str(&format!("<p class=\"note\">{}</p>\n", escape(note)));
    }
    out.push_str(&headline(run));
    if !figures.is_empty() {
        out.push_str(&format!(
            "<section>\n<h3>Figures</h3>\n<div class=\"figures\">\n{figures}</div>\n</section>\n"
        ));
    }
    out.push_str(&tables);
    out.push_str(&verdicts(run));
    out.push_str(&configuration(run));
    out.push_str(&provenance(run));
    out + "</article>\n"
}

fn kicker(run: &Run) -> String {
    let mut parts = vec![escape(&run.name())];
    if let Some(seeds) = run.run.get("seeds").and_then(Value::as_str) {
        parts.push(format!("seeds {}", escape(seeds)));
    }
    if let Some(status) = run.run.get("status").and_then(Value::as_str) {
        parts.push(format!("<span class=\"status\">{}</span>", escape(status)));
    }
    parts.retain(|part| !part.is_empty());
    parts.join(" · ")
}

/// Missing, failed and refused trials, in words.
fn troubles(run: &Run) -> Vec<String> {
    let mut notes = Vec::new();
    let trials = |key: &str| {
        run.run.get("trials").and_then(|trials| trials.get(key)).and_then(Value::as_u64)
    };
    if let (Some(total), Some(finished)) = (trials("total"), trials("finished"))
        && finished < total
    {
        notes.push(format!(
            "{finished} of {total} trials are finished: everything below speaks of those alone."
        ));
    }
    for (key, what) in [("failed", "failed"), ("refused", "refused by a method")] {
        let list = run.run.get(key).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if let Some(first) = list.first() {
            let text = |key: &str| first.get(key).and_then(Value::as_str).unwrap_or("?");
            notes.push(format!(
                "{} {what}; the first is {}: {}.",
                trials_of(list.len()),
                text("trial"),
                text("reason")
            ));
        }
    }
    notes
}

/// Drawings that are not what the data inside them draw.
fn unfaithful(run: &Run) -> Option<String> {
    let files: Vec<&str> =
        run.figures.iter().filter(|drawn| !drawn.faithful).map(|d| d.file.as_str()).collect();
    if files.is_empty() {
        return None;
    }
    Some(format!(
        "Not what the data inside draw, because another revision wrote it or it was edited: {}. Shown is what the data draw.",
        files.join(", ")
    ))
}

fn trials_of(count: usize) -> String {
    format!("{count} {}", if count == 1 { "trial" } else { "trials" })
}

/// Headline figures of summary.json: single ones large, tables of them folded.
fn headline(run: &Run) -> String {
    let figures = run.summary.get("figures").and_then(Value::as_object);
    let (tables, single): (Vec<_>, Vec<_>) =
        figures.into_iter().flatten().partition(|(_, value)| is_table(value));
    let mut out = String::new();
    if !single.is_empty() {
        let items: String =
            single.iter().map(|(name, value)| fact(name, &value_html(value))).collect();
        out.push_str(&format!("<dl class=\"headline\">\n{items}</dl>\n"));
    }
    out + &folded(&tables)
}

/// Whether a headline figure is a list, or has one.
pub(super) fn is_table(value: &Value) -> bool {
    match value {
        Value::Array(_) => true,
        Value::Object(map) => map.values().any(|value| value.is_array() || value.is_object()),
        _ => false,
    }
}

/// Headline figures with lists: a row each, a column for each of their keys.
fn folded(tables: &[(&String, &Value)]) -> String {
    if tables.is_empty() {
        return String::new();
    }
    let mut keys: Vec<&str> = Vec::new();
    for key in tables.iter().filter_map(|(_, value)| value.as_object()).flat_map(Map::keys) {
        if !keys.contains(&key.as_str()) {
            keys.push(key);
        }
    }
    let lines = |value: &Value| match value {
        Value::Array(items) => items.iter().map(value_html).collect::<Vec<_>>().join("<br>"),
        value => value_html(value),
    };
    let head: String = keys
        .iter()
        .map(|key| format!("<th scope=\"col\" class=\"num\">{}</th>", words(key)))
        .collect();
    let mut rows = String::new();
    for (name, value) in tables {
        rows.push_str(&format!("<tr><th scope=\"row\">{}</th>", words(name)));
        if keys.is_empty() || !value.is_object() {
            rows.push_str(&format!("<td class=\"num\">{}</td>", lines(value)));
        } else {
            for key in &keys {
                let cell = value.get(key).map(lines).unwrap_or_default();
                rows.push_str(&format!("<td class=\"num\">{cell}</td>"));
            }
        }
        rows.push_str("</tr>\n");
    }
    format!(
        "<details class=\"folded\"><summary>Figures behind the answer</summary><div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Figures behind the answer\"><table><thead><tr><th></th>{head}</tr></thead><tbody>\n{rows}</tbody></table></div></details>\n"
    )
}

fn fact(name: &str, value: &str) -> String {
    format!("<div><dt>{}</dt><dd>{value}</dd></div>\n", words(name))
}

/// Any JSON value in short.
pub(super) fn value_html(value: &Value) -> String {
    match value {
        Value::Null => "–".to_owned(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::Number(value) => {
            let raw = value.to_string();
            value.as_f64().map_or_else(|| escape(&raw), |value| data(value, &raw))
        }
        Value::String(text) => escape(text),
        Value::Array(items) => items.iter().map(value_html).collect::<Vec<_>>().join(", "),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| format!("{} {}", words(key), value_html(value)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

fn verdicts(run: &Run) -> String {
    if run.verdicts.is_empty() {
        return String::new();
    }
    let text = |verdict: &Map<String, Value>, keys: &[&str]| {
        keys.iter().find_map(|key| verdict.get(*key)).map(value_html).unwrap_or_default()
    };
    let (ids, outcomes, statements) =
        (["id", "claim", "name"], ["verdict", "outcome", "status"], ["statement"]);
    let known =
        |key: &String| ids.iter().chain(&outcomes).chain(&statements).any(|name| name == key);
    let rows: String = run
        .verdicts
        .iter()
        .map(|verdict| {
            let rest: String = verdict
                .iter()
                .filter(|(key, _)| !known(key))
                .map(|(key, value)| fact(key, &value_html(value)))
                .collect();
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}<dl class=\"facts\">{rest}</dl></td></tr>\n",
                text(verdict, &ids), text(verdict, &outcomes), text(verdict, &statements)
            )
        })
        .collect();
    format!(
        "<section>\n<h3>Claims</h3>\n<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"Claims\"><table class=\"claims\"><thead><tr><th scope=\"col\">claim</th><th scope=\"col\">verdict</th><th scope=\"col\">statement and evidence</th></tr></thead><tbody>\n{rows}</tbody></table></div>\n</section>\n"
    )
}

fn configuration(run: &Run) -> String {
    let Some(config) = &run.config else { return String::new() };
    format!(
        "<details class=\"config\"><summary>Configuration</summary>\n<pre tabindex=\"0\">{}</pre>\n</details>\n",
        escape(config)
    )
}

fn provenance(run: &Run) -> String {
    if run.run.is_empty() {
        return String::new();
    }
    let shown_elsewhere = ["study", "failed", "refused"];
    let mut items = String::new();
    for (key, value) in run.run.iter().filter(|(key, _)| !shown_elsewhere.contains(&key.as_str())) {
        let value = match (key.as_str(), value) {
            ("command", Value::String(command)) => format!("<code>{}</code>", escape(command)),
            (_, value) => value_html(value),
        };
        items.push_str(&fact(key, &value));
    }
    items.push_str(&fact("folder", &escape(&run.folder())));
    format!(
        "<section class=\"provenance\">\n<h3>Provenance</h3>\n<dl class=\"facts\">\n{items}</dl>\n</section>\n"
    )
}
