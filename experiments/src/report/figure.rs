//! A figure of a page: drawn once a scale, with switches and values for the script.

use serde_json::json;

use super::html::{escape, number, script_json, words};
use super::run::Drawn;
use crate::figures::{Figure, FigureError, Inline, Scale};

/// The figure's block; a note where it cannot be drawn.
pub(super) fn render(drawn: &Drawn, id: &str) -> String {
    let file = escape(&format!("figures/{}", drawn.file));
    let block = drawn
        .figure
        .as_ref()
        .map_err(Clone::clone)
        .and_then(|figure| block(figure, id, &file).map_err(|error| error.to_string()));
    block.unwrap_or_else(|reason| {
        format!("<p class=\"note\">{file} cannot be shown: {}.</p>\n", escape(&reason))
    })
}

/// A heat map: its numbers stand in it, so there is nothing for the script.
fn still(figure: &Figure, id: &str, file: &str) -> Result<String, FigureError> {
    let inline = figure.to_inline(&label(figure))?;
    Ok(format!(
        "<figure class=\"figure still\" id=\"{id}\">\n\
         <div class=\"figure-head\"><h4>{}</h4></div>\n\
         <div class=\"plots\">{}</div>\n\
         <figcaption>{} <span class=\"file\">{file}</span></figcaption>\n{}</figure>\n",
        escape(&figure.title),
        inline.svg,
        escape(&inline.figure.description),
        values(&inline.figure),
    ))
}

fn block(figure: &Figure, id: &str, file: &str) -> Result<String, FigureError> {
    if figure.is_heat_map() {
        return still(figure, id, file);
    }
    let (xs, ys) =
        (scales(&figure.x.scale, abscissae(figure)), scales(&figure.y.scale, ordinates(figure)));
    let mut plots = String::new();
    let mut frames = serde_json::Map::new();
    let mut first: Option<Inline> = None;
    for &x in &xs {
        for &y in &ys {
            let mut variant = figure.clone();
            (variant.x.scale, variant.y.scale) = (x, y);
            let inline = variant.to_inline(&label(figure))?;
            let key = format!("{} {}", name(x), name(y));
            let hidden = if first.is_some() { " hidden" } else { "" };
            plots.push_str(&format!(
                "<div class=\"variant\" data-scales=\"{key}\"{hidden}>{}</div>\n",
                inline.svg
            ));
            frames.insert(key, json!({"plot": inline.plot, "range": inline.range}));
            first.get_or_insert(inline);
        }
    }
    let Some(first) = first else { return Ok(String::new()) };
    let title = escape(&figure.title);
    Ok(format!(
        "<figure class=\"figure\" id=\"{id}\">\n\
         <div class=\"figure-head\"><h4>{title}</h4>{switches}</div>\n\
         {legend}\
         <div class=\"plots\" tabindex=\"0\" role=\"group\" aria-label=\"{title}: values, with the arrow keys\">\n{plots}<div class=\"tip\" hidden></div></div>\n\
         <p class=\"said\" aria-live=\"polite\"></p>\n\
         <figcaption>{caption} <span class=\"file\">{file}</span></figcaption>\n\
         {values}\
         <script type=\"application/json\" class=\"figure-data\">{data}</script>\n\
         </figure>\n",
        switches = scale_switches(&xs, &ys),
        legend = legend(&first),
        caption = escape(&first.figure.description),
        values = values(&first.figure),
        data = script_json(&data(&first, frames)),
    ))
}

/// What a screen reader says of the drawing.
fn label(figure: &Figure) -> String {
    let series: Vec<&str> = figure
        .series
        .iter()
        .map(|series| series.label.as_str())
        .filter(|label| !label.is_empty())
        .collect();
    format!(
        "{}. {} over {}. {}: {}. {}",
        figure.title,
        figure.y.label,
        figure.x.label,
        "Series",
        series.join("; "),
        figure.description
    )
}

/// The figure's own scale, and the other where it can show the same values and shows them differently.
fn scales(own: &Scale, values: impl Iterator<Item = f64>) -> Vec<Scale> {
    /// Below this ratio of the values both scales look alike.
    const WIDE: f64 = 5.0;
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for value in values {
        (least, most) = (least.min(value), most.max(value));
    }
    let wide = least > 0.0 && most > WIDE * least;
    match own {
        Scale::Log if wide => vec![Scale::Log, Scale::Linear],
        Scale::Linear if wide => vec![Scale::Linear, Scale::Log],
        &own => vec![own],
    }
}

fn abscissae(figure: &Figure) -> impl Iterator<Item = f64> + '_ {
    figure.series.iter().flat_map(|series| series.x.iter().copied())
}

fn ordinates(figure: &Figure) -> impl Iterator<Item = f64> + '_ {
    figure.series.iter().flat_map(|s| {
        s.y.iter().chain(s.low.iter().flatten()).chain(s.high.iter().flatten()).copied()
    })
}

fn name(scale: Scale) -> &'static str {
    match scale {
        Scale::Linear => "linear",
        Scale::Log => "log",
    }
}

fn scale_switches(xs: &[Scale], ys: &[Scale]) -> String {
    let mut out = String::new();
    for (axis, scales) in [("x", xs), ("y", ys)] {
        let [own, other] = scales else {
            out.push_str(&format!(
                "<span hidden data-axis=\"{axis}\" data-scale=\"{}\"></span>",
                name(scales[0])
            ));
            continue;
        };
        out.push_str(&format!(
            "<button type=\"button\" class=\"scale\" data-axis=\"{axis}\" data-scale=\"{0}\" data-other=\"{1}\" title=\"Change the scale of the {axis} axis\"><i>{axis}</i> <span>{0}</span></button>",
            name(*own), name(*other)
        ));
    }
    format!("<div class=\"scales\" role=\"group\" aria-label=\"Scales\">{out}</div>")
}

fn legend(inline: &Inline) -> String {
    let mut out = String::from("<ul class=\"legend\" aria-label=\"Series\">\n");
    for (i, series) in inline.figure.series.iter().enumerate() {
        if series.label.trim().is_empty() {
            continue;
        }
        out.push_str(&format!(
            "<li><button type=\"button\" class=\"switch\" aria-pressed=\"true\" data-series=\"{i}\">{}<span>{}</span></button></li>\n",
            inline.swatches[i],
            escape(&series.label)
        ));
    }
    out + "</ul>\n"
}

/// The drawn values as text, for those who do not see the figure.
fn values(figure: &Figure) -> String {
    /// Curves have more points than anyone listens to.
    const MOST: usize = 12;
    let few = figure.series.iter().all(|series| series.x.len() <= MOST);
    if !few || figure.series.is_empty() {
        return String::new();
    }
    let mut rows = String::new();
    for series in &figure.series {
        for (i, (x, y)) in series.x.iter().zip(&series.y).enumerate() {
            let range = match (&series.low, &series.high) {
                (Some(low), Some(high)) => format!("{} to {}", number(low[i]), number(high[i])),
                _ => String::new(),
            };
            rows.push_str(&format!(
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{range}</td></tr>\n",
                escape(&series.label),
                number(*x),
                number(*y)
            ));
        }
    }
    format!(
        "<details class=\"values\"><summary>Values drawn</summary><div class=\"wide\" tabindex=\"0\"><table><thead><tr><th>series</th><th>{}</th><th>{}</th><th>range</th></tr></thead><tbody>\n{rows}</tbody></table></div></details>\n",
        words(&figure.x.label),
        words(&figure.y.label)
    )
}

/// Values for the script, and what places them in each drawing.
fn data(inline: &Inline, frames: serde_json::Map<String, serde_json::Value>) -> serde_json::Value {
    let series = inline.figure.series.iter().zip(&inline.shifts).map(|(s, shift)| {
        json!({
            "label": s.label, "shift": shift, "x": brief(&s.x), "y": brief(&s.y),
            "low": s.low.as_deref().map(brief), "high": s.high.as_deref().map(brief),
        })
    });
    let series: Vec<serde_json::Value> = series.collect();
    json!({"x": inline.figure.x.label, "y": inline.figure.y.label, "series": series, "frames": frames})
}

/// Six significant digits are more than a person reads off a figure; the files have them all.
fn brief(values: &[f64]) -> Vec<serde_json::Value> {
    values
        .iter()
        .map(|value| {
            format!("{value:.5e}")
                .parse::<f64>()
                .map_or(serde_json::Value::Null, |short| json!(short))
        })
        .collect()
}
