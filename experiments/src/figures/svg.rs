//! The SVG document.
//!
//! The plotting library writes each layer with whole numbers; a tenth of a pixel is its unit. The
//! layers are put into groups here, with the title, the description and the figure's own data.

use plotters::prelude::{IntoDrawingArea, SVGBackend};
use serde::Serialize;

use super::clean::clean;
use super::draw::{Layer, Pen, dash};
use super::layout::{self, Layout};
use super::text::{FAMILY, Fonts, RISE, SMALL, superscript};
use super::{Figure, FigureError, Series, Style, heat};

const UNIT: f64 = 10.0;
const OPEN: &str = "<metadata class=\"figure\">";
const CLOSE: &str = "</metadata>";

/// What the script of a page needs: the figure, and where each point is drawn.
#[derive(Serialize)]
struct Metadata<'a> {
    figure: &'a Figure,
    /// Left, top, right and bottom edge of the plot, in units of the view box.
    plot: [i64; 4],
    /// For each series its points' positions, `[x, y]`.
    points: Vec<Vec<[i64; 2]>>,
}

/// A drawing for a page that has title, description, legend and values beside it.
#[derive(Clone, Debug)]
pub(crate) struct Inline {
    /// The `<svg>` element.
    pub svg: String,
    /// An `<svg>` element for each series with its sample for a legend.
    pub swatches: Vec<String>,
    /// Left, top, right and bottom edge of the plot, in units of the view box.
    pub plot: [i64; 4],
    /// Coordinates at the left and right, and at the lower and upper edge: values, or their
    /// decimal logarithms.
    pub range: [f64; 4],
    /// For each series how far its points are shifted sideways, in units of the view box.
    pub shifts: Vec<i64>,
    /// What is drawn: the figure without what had to be dropped.
    pub figure: Figure,
}

pub(super) fn render(figure: &Figure) -> Result<String, FigureError> {
    let figure = &clean(figure);
    let layout = Layout::new(figure, &Fonts::new()?, false);
    let (width, height) = (tenths(layout::WIDTH), tenths(layout.height));

    let id = identifier(&figure.name);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\">\n",
        layout::WIDTH,
        layout.height
    );
    out.push_str(&format!("<title id=\"{id}-title\">{}</title>\n", escape(&figure.title)));
    out.push_str(&format!("<desc id=\"{id}-desc\">{}</desc>\n", escape(&figure.description)));
    out.push_str(&format!("{OPEN}{}{CLOSE}\n", escape(&metadata(figure, &layout)?)));
    out.push_str(&layers(figure, &layout)?);
    for (i, entry) in layout.legend.iter().enumerate() {
        let series = entry.series;
        out.push_str(&format!(
            "<g class=\"legend\" data-series=\"{series}\"{}>\n{}</g>\n",
            dashes(figure, series),
            draw(figure, &layout, Layer::Legend(i))?
        ));
    }
    out.push_str("</svg>\n");
    Ok(out)
}

/// `label` is what a screen reader says.
pub(super) fn inline(figure: &Figure, label: &str) -> Result<Inline, FigureError> {
    let figure = clean(figure);
    let layout = Layout::new(&figure, &Fonts::new()?, true);
    let (width, height) = (tenths(layout::WIDTH), tenths(layout.height));
    let svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n{}</svg>\n",
        escape(label),
        layers(&figure, &layout)?
    );
    let (width, height) = (tenths(layout::SWATCH.0), tenths(layout::SWATCH.1));
    let swatch = |i: usize| -> Result<String, FigureError> {
        Ok(format!(
            "<svg class=\"swatch\" viewBox=\"0 0 {width} {height}\" aria-hidden=\"true\"><g{}>\n{}</g></svg>",
            dashes(&figure, i),
            draw(&figure, &layout, Layer::Swatch(i))?
        ))
    };
    let swatches = (0..figure.series.len()).map(swatch).collect::<Result<_, _>>()?;
    let (left, top, right, bottom) = layout.plot;
    let plot = [left, top, right, bottom].map(tenths);
    let range = [layout.x.from, layout.x.to, layout.y.from, layout.y.to];
    let shifts = (0..figure.series.len()).map(|i| tenths(layout.dodge(&figure, i))).collect();
    Ok(Inline { svg: unstyled(&svg), swatches, plot, range, shifts, figure })
}

/// Without the font families: a page has its own.
fn unstyled(svg: &str) -> String {
    svg.replace(&format!(" font-family=\"{FAMILY}\""), "")
}

/// Frame, bands and series. All bands lie below all lines.
fn layers(figure: &Figure, layout: &Layout) -> Result<String, FigureError> {
    let mut out = format!("<g class=\"frame\">\n{}</g>\n", draw(figure, layout, Layer::Frame)?);
    for (i, series) in figure.series.iter().enumerate().filter(|(_, s)| s.has_band()) {
        out.push_str(&format!(
            "<g class=\"series colour-{}\" data-series=\"{i}\">\n{}</g>\n",
            series.colour,
            draw(figure, layout, Layer::Band(i))?
        ));
    }
    for (i, series) in figure.series.iter().enumerate() {
        out.push_str(&format!(
            "<g class=\"series colour-{}\" data-series=\"{i}\" data-label=\"{}\" stroke-linejoin=\"round\"{}>\n{}</g>\n",
            series.colour,
            escape(&series.label),
            dashes(figure, i),
            draw(figure, layout, Layer::Series(i))?
        ));
    }
    Ok(out)
}

pub(super) fn read(document: &str) -> Result<Figure, FigureError> {
    #[derive(serde::Deserialize)]
    struct Read {
        figure: Figure,
    }
    let start = document.find(OPEN).ok_or(FigureError::NoMetadata)? + OPEN.len();
    let length = document[start..].find(CLOSE).ok_or(FigureError::NoMetadata)?;
    let text = document[start..start + length]
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&");
    Ok(serde_json::from_str::<Read>(&text)?.figure)
}

fn draw(figure: &Figure, layout: &Layout, layer: Layer) -> Result<String, FigureError> {
    let size = (tenths(layout::WIDTH) as u32, tenths(layout.height) as u32);
    let mut buffer = String::new();
    {
        let area = SVGBackend::with_string(&mut buffer, size).into_drawing_area();
        Pen { area: &area, unit: UNIT, dashes: false, figure, layout }.draw(layer)?;
        area.present().map_err(|error| FigureError::Drawing {
            figure: figure.name.clone(),
            reason: error.to_string(),
        })?;
    }
    let inner = buffer.lines().filter(|line| !line.starts_with("<svg ") && *line != "</svg>");
    let mut out = String::with_capacity(buffer.len());
    for line in inner {
        if line.starts_with('<') {
            out.push_str(&line.replace(" opacity=\"1\"", "").replace(" \"/>", "\"/>"));
            // The text of an element stands on a line of its own.
            if !line.starts_with("<text") {
                out.push('\n');
            }
        } else {
            out.push_str(&raise(line));
        }
    }
    Ok(out)
}

/// Superscript characters as smaller, raised digits: not every font has the characters.
fn raise(text: &str) -> String {
    let mut out = String::new();
    let mut raised = false;
    for c in text.chars() {
        match (superscript(c), raised) {
            (Some(digit), false) => {
                out.push_str(&format!(
                    "<tspan dy=\"-{:.2}em\" font-size=\"{:.0}%\">",
                    RISE / SMALL,
                    100.0 * SMALL
                ));
                out.push(digit);
                raised = true;
            }
            (Some(digit), true) => out.push(digit),
            (None, true) => {
                out.push_str(&format!("</tspan><tspan dy=\"{RISE}em\">"));
                out.push(c);
                out.push_str("</tspan>");
                raised = false;
            }
            (None, false) => out.push(c),
        }
    }
    if raised {
        out.push_str("</tspan>");
    }
    out
}

fn dashes(figure: &Figure, series: usize) -> String {
    if figure.series[series].style != Style::Dashed {
        return String::new();
    }
    let (dash, gap) = dash(figure, series);
    format!(" stroke-dasharray=\"{} {}\"", tenths(dash), tenths(gap))
}

fn metadata(figure: &Figure, layout: &Layout) -> Result<String, FigureError> {
    let (left, top, right, bottom) = layout.plot;
    let plot = [left, top, right, bottom].map(tenths);
    Ok(serde_json::to_string(&Metadata { figure, plot, points: positions(figure, layout) })?)
}

fn positions(figure: &Figure, layout: &Layout) -> Vec<Vec<[i64; 2]>> {
    let of = |(i, series): (usize, &Series)| {
        if figure.is_heat_map() {
            let middles = heat::cells(figure, layout, i).into_iter().map(|cell| cell.middle());
            return middles.map(|(x, y)| [tenths(x), tenths(y)]).collect();
        }
        let shift = layout.dodge(figure, i);
        let at = |(&x, &y): (&f64, &f64)| {
            let (x, y) = layout.at(x, y);
            [tenths(x + shift), tenths(y)]
        };
        series.x.iter().zip(&series.y).map(at).collect()
    };
    figure.series.iter().enumerate().map(of).collect()
}

fn tenths(length: f64) -> i64 {
    (length * UNIT).round() as i64
}

fn identifier(name: &str) -> String {
    let id: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("figure-{id}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
