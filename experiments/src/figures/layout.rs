//! Where everything stands, in pixels of the drawn figure (95 mm are 360 px).

use super::text::{Fonts, SLACK};
use super::ticks::Ruler;
use super::{Figure, Scale, Series, Style, heat};

pub(super) const WIDTH: f64 = 360.0;
pub(super) const EDGE: f64 = 6.0;
pub(super) const TITLE_EM: f64 = 10.5;
pub(super) const LABEL_EM: f64 = 10.0;
pub(super) const TICK_EM: f64 = 9.0;
pub(super) const LEGEND_EM: f64 = 9.5;
pub(super) const TICK_LENGTH: f64 = 4.0;
const LINE_HEIGHT: f64 = 1.3;
const PLOT_HEIGHT: f64 = 186.0;
/// Length of a line's sample in the legend.
pub(super) const SAMPLE: f64 = 20.0;
/// Width and height of a sample that stands alone.
pub(super) const SWATCH: (f64, f64) = (SAMPLE, 12.0);
const SAMPLE_GAP: f64 = 5.0;
const ENTRY_GAP: f64 = 14.0;

/// A line of text by its baseline.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub text: String,
    pub x: f64,
    pub baseline: f64,
}

/// Entry of the legend: its series, the sample's left end and middle height, the text beside it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub series: usize,
    pub x: f64,
    pub y: f64,
    pub lines: Vec<Line>,
}

/// All positions of one figure.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub height: f64,
    /// Left, top, right and bottom edge of the plot.
    pub plot: (f64, f64, f64, f64),
    pub title: Vec<Line>,
    pub legend: Vec<Entry>,
    pub x: Ruler,
    pub y: Ruler,
    /// Lines of the labels of the axes; those of `y` are turned, with `x` for the baseline.
    pub x_label: Vec<Line>,
    pub y_label: Vec<Line>,
    dodge_step: f64,
}

impl Layout {
    /// `figure` is clean; a `bare` one has its title and legend elsewhere.
    pub(super) fn new(figure: &Figure, fonts: &Fonts, bare: bool) -> Layout {
        let step = |em: f64| em * LINE_HEIGHT;
        let xs = figure.series.iter().flat_map(|s| s.x.iter().copied());
        let ys = figure.series.iter().flat_map(ordinates);
        let is_heat_map = figure.is_heat_map();
        let (x, y) = if is_heat_map {
            heat::rulers(figure)
        } else {
            let room = if figure.y.scale == Scale::Log { 8 } else { 6 };
            (
                Ruler::new(figure.x.scale, xs, &swept(figure), 6),
                Ruler::new(figure.y.scale, ys, &[], room),
            )
        };
        let plot_height =
            if is_heat_map { heat::ROW * figure.series.len() as f64 } else { PLOT_HEIGHT };

        // Rows of a heat map are named by their labels; nothing else stands beside them.
        let tick_width = widest(&y, fonts).min(0.5 * WIDTH);
        let y_lines = match is_heat_map {
            true => Vec::new(),
            false => fonts.wrap(&figure.y.label, LABEL_EM, false, plot_height + 8.0),
        };
        let left = EDGE
            + y_lines.len() as f64 * step(LABEL_EM)
            + 3.0
            + tick_width * SLACK
            + TICK_LENGTH
            + 3.0;
        let right = WIDTH - EDGE - overhang(&x, fonts, WIDTH - EDGE - left);

        let dodge_step = dodge_step(figure, &x, right - left);
        let mut top = EDGE;
        let (mut title, mut entries) = (Vec::new(), Vec::new());
        if !bare {
            let lines = fonts.wrap(&figure.title, TITLE_EM, true, WIDTH - 2.0 * EDGE);
            title = stack(lines, EDGE, &mut top, TITLE_EM);
            top += if title.is_empty() { 0.0 } else { 4.0 };
            if !is_heat_map {
                entries = legend(figure, fonts, &mut top);
            }
            top += 8.0;
        }
        let bottom = top + plot_height;

        let mut below = bottom + TICK_LENGTH + 3.0 + step(TICK_EM) + 1.0;
        let middle = 0.5 * (left + right);
        let x_label = stack(
            fonts.wrap(&figure.x.label, LABEL_EM, false, right - left),
            middle,
            &mut below,
            LABEL_EM,
        );
        let y_label = y_lines
            .into_iter()
            .enumerate()
            .map(|(i, text)| Line {
                text,
                x: EDGE + LABEL_EM * 0.95 + i as f64 * step(LABEL_EM),
                baseline: 0.5 * (top + bottom),
            })
            .collect();
        Layout {
            height: (below + EDGE - 1.0).ceil(),
            plot: (left, top, right, bottom),
            title,
            legend: entries,
            x,
            y,
            x_label,
            y_label,
            dodge_step,
        }
    }

    /// Sideways shift of a series, for several at few abscissae.
    pub(super) fn dodge(&self, figure: &Figure, series: usize) -> f64 {
        if self.dodge_step == 0.0 || !steps_aside(&figure.series[series]) {
            return 0.0;
        }
        let count = figure.series.iter().filter(|s| steps_aside(s)).count();
        let before = figure.series[..series].iter().filter(|s| steps_aside(s)).count();
        (before as f64 - 0.5 * (count as f64 - 1.0)) * self.dodge_step
    }

    /// Position of a value in the plot.
    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        let (left, top, right, bottom) = self.plot;
        (left + self.x.fraction(x) * (right - left), bottom - self.y.fraction(y) * (bottom - top))
    }
}

/// Whether a series steps aside where several share few abscissae.
fn steps_aside(series: &Series) -> bool {
    matches!(series.style, Style::Line | Style::Points)
}

/// Distance between the markers of neighbouring series at one abscissa: so much that they do not
/// cover each other, so little that each set stays apart from the next.
fn dodge_step(figure: &Figure, x: &Ruler, width: f64) -> f64 {
    const WANTED: f64 = 3.6;
    let count = figure.series.iter().filter(|series| steps_aside(series)).count();
    let places: Vec<f64> = swept(figure).iter().map(|&value| x.fraction(value) * width).collect();
    if count < 2 || places.is_empty() {
        return 0.0;
    }
    let gap = places.windows(2).map(|pair| pair[1] - pair[0]).fold(f64::INFINITY, f64::min);
    WANTED.min(gap / (1.6 * count as f64))
}

fn ordinates(series: &Series) -> impl Iterator<Item = f64> + '_ {
    let ends = |values: &'_ Option<Vec<f64>>| values.clone().unwrap_or_default();
    let own = if series.style == Style::Band { &[][..] } else { &series.y[..] };
    own.iter().copied().chain(ends(&series.low)).chain(ends(&series.high))
}

/// The abscissae where a figure has so few that each deserves a label; else nothing.
fn swept(figure: &Figure) -> Vec<f64> {
    const FEW: usize = 7;
    let mut values: Vec<f64> = Vec::new();
    for &x in figure.series.iter().filter(|s| s.style != Style::Dashed).flat_map(|s| &s.x) {
        if !values.contains(&x) {
            values.push(x);
        }
        if values.len() > FEW {
            return Vec::new();
        }
    }
    values.sort_by(f64::total_cmp);
    values
}

fn widest(ruler: &Ruler, fonts: &Fonts) -> f64 {
    ruler
        .ticks
        .iter()
        .filter_map(|tick| tick.label.as_deref())
        .map(|label| fonts.width(label, TICK_EM, false))
        .fold(0.0, f64::max)
}

/// Space right of the plot, so that the last label of the horizontal axis is not cut.
fn overhang(ruler: &Ruler, fonts: &Fonts, room: f64) -> f64 {
    const LEAST: f64 = 6.0;
    let beyond = |at: f64, label: &str| {
        let half = 0.5 * fonts.width(label, TICK_EM, false) * SLACK;
        half - (ruler.to - at) / (ruler.to - ruler.from) * room
    };
    ruler
        .ticks
        .iter()
        .filter_map(|tick| tick.label.as_deref().map(|label| beyond(tick.at, label)))
        .fold(LEAST, f64::max)
}

fn stack(lines: Vec<String>, x: f64, top: &mut f64, em: f64) -> Vec<Line> {
    lines
        .into_iter()
        .map(|text| {
            let baseline = *top + em;
            *top += em * LINE_HEIGHT;
            Line { text, x, baseline }
        })
        .collect()
}

/// Entries in rows above the plot; they flow like words and hide nothing.
fn legend(figure: &Figure, fonts: &Fonts, top: &mut f64) -> Vec<Entry> {
    let row = LEGEND_EM * 1.38;
    let indent = SAMPLE + SAMPLE_GAP;
    let (mut x, mut rows_here) = (EDGE, 0.0_f64);
    let mut entries = Vec::new();
    for (series, label) in figure
        .series
        .iter()
        .enumerate()
        .filter(|(_, s)| !s.label.trim().is_empty())
        .map(|(i, s)| (i, &s.label))
    {
        let lines = fonts.wrap(label, LEGEND_EM, false, WIDTH - 2.0 * EDGE - indent);
        let width = indent
            + lines.iter().map(|line| fonts.width(line, LEGEND_EM, false)).fold(0.0, f64::max)
                * SLACK;
        if x > EDGE && x + width > WIDTH - EDGE {
            *top += rows_here * row;
            (x, rows_here) = (EDGE, 0.0);
        }
        rows_here = rows_here.max(lines.len() as f64);
        let lines = lines
            .into_iter()
            .enumerate()
            .map(|(i, text)| Line {
                text,
                x: x + indent,
                baseline: *top + LEGEND_EM + i as f64 * row,
            })
            .collect();
        entries.push(Entry { series, x, y: *top + LEGEND_EM * 0.66, lines });
        x += width + ENTRY_GAP;
    }
    *top += rows_here * row;
    entries
}
