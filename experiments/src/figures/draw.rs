//! Strokes of a figure on any back end of the plotting library.
//!
//! A figure is drawn in layers (frame, one of each series, one of each legend entry), so that the
//! SVG can group what belongs to a series.

use plotters::coord::Shift;
use plotters::element::{Circle, DashedPathElement, PathElement, Polygon};
use plotters::prelude::{Color, DrawingArea, DrawingBackend, Rectangle};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, FontTransform, IntoFont, RGBColor, ShapeStyle, TextStyle};

use super::layout::{self, Entry, Layout};
use super::palette::{self, GRID, INK, Marker, PAPER, SOFT};
use super::text::FAMILY;
use super::{Figure, FigureError, Series, Style, heat};

/// The SVG back end writes a font of size `s` as `s / 1.24` pixels.
pub(super) const EM_PER_SIZE: f64 = 1.24;
/// The SVG back end puts the baseline of text that hangs from its top at this many em.
pub(super) const BASELINE: f64 = 0.76;

const LINE_WIDTH: f64 = 1.5;
const AXIS_WIDTH: f64 = 0.8;
const MARKER_RADIUS: f64 = 2.7;
/// A series of more points carries only [`SPARSE`] markers.
const MARK_ALL: usize = 14;
const SPARSE: usize = 6;

/// What one pass draws.
#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    Frame,
    /// The shaded interval of a series, if it has one.
    Band(usize),
    Series(usize),
    Legend(usize),
    /// A legend's sample of a series alone, in a box of [`layout::SWATCH`].
    Swatch(usize),
}

/// A drawing area and the number of its units in one pixel of the figure.
pub(super) struct Pen<'a, DB: DrawingBackend> {
    pub area: &'a DrawingArea<DB, Shift>,
    pub unit: f64,
    /// False where the surrounding format dashes lines itself.
    pub dashes: bool,
    pub figure: &'a Figure,
    pub layout: &'a Layout,
}

impl<DB: DrawingBackend> Pen<'_, DB> {
    pub(super) fn draw(&self, layer: Layer) -> Result<(), FigureError> {
        match layer {
            Layer::Frame => self.frame(),
            Layer::Band(i) => self.interval(i),
            Layer::Series(i) => self.series(i),
            Layer::Legend(i) => self.entry(&self.layout.legend[i]),
            Layer::Swatch(series) => {
                let y = 0.5 * layout::SWATCH.1;
                self.entry(&Entry { series, x: 0.0, y, lines: Vec::new() })
            }
        }
    }

    fn frame(&self) -> Result<(), FigureError> {
        let (left, top, right, bottom) = self.layout.plot;
        self.rectangle((0.0, 0.0), (layout::WIDTH, self.layout.height), PAPER)?;
        for line in &self.layout.title {
            self.text(
                &line.text,
                (line.x, line.baseline),
                layout::TITLE_EM,
                HPos::Left,
                INK,
                FontStyle::Bold,
            )?;
        }
        self.y_axis()?;
        self.x_axis()?;
        if self.figure.is_heat_map() {
            return Ok(());
        }
        self.line(&[(left, top), (left, bottom), (right, bottom)], SOFT, AXIS_WIDTH)?;
        if self.figure.series.iter().all(|series| series.x.is_empty()) {
            let middle = (0.5 * (left + right), 0.5 * (top + bottom));
            self.text("no data", middle, layout::LABEL_EM, HPos::Center, SOFT, FontStyle::Normal)?;
        }
        Ok(())
    }

    fn y_axis(&self) -> Result<(), FigureError> {
        let (left, top, right, bottom) = self.layout.plot;
        let ruler = &self.layout.y;
        for tick in &ruler.ticks {
            let y = bottom - (tick.at - ruler.from) / (ruler.to - ruler.from) * (bottom - top);
            let Some(label) = &tick.label else {
                self.line(&[(left - 0.5 * layout::TICK_LENGTH, y), (left, y)], SOFT, 0.5)?;
                continue;
            };
            if !self.figure.is_heat_map() {
                self.line(&[(left, y), (right, y)], GRID, 0.6)?;
                self.line(&[(left - layout::TICK_LENGTH, y), (left, y)], SOFT, AXIS_WIDTH)?;
            }
            let at = (left - layout::TICK_LENGTH - 3.0, y + 0.36 * layout::TICK_EM);
            self.text(label, at, layout::TICK_EM, HPos::Right, INK, FontStyle::Normal)?;
        }
        for line in &self.layout.y_label {
            self.turned(&line.text, (line.x, line.baseline), layout::LABEL_EM)?;
        }
        Ok(())
    }

    fn x_axis(&self) -> Result<(), FigureError> {
        let (left, _, right, bottom) = self.layout.plot;
        let ruler = &self.layout.x;
        let mut free_from = f64::NEG_INFINITY;
        for tick in &ruler.ticks {
            let x = left + (tick.at - ruler.from) / (ruler.to - ruler.from) * (right - left);
            let Some(label) = &tick.label else {
                self.line(&[(x, bottom), (x, bottom + 0.5 * layout::TICK_LENGTH)], SOFT, 0.5)?;
                continue;
            };
            self.line(&[(x, bottom), (x, bottom + layout::TICK_LENGTH)], SOFT, AXIS_WIDTH)?;
            // About 0.58 em a character: wide enough for every digit and sign of the families.
            let half = 0.29 * layout::TICK_EM * label.chars().count() as f64;
            if x - half < free_from {
                continue;
            }
            free_from = x + half + 3.0;
            let at = (x, bottom + layout::TICK_LENGTH + 3.0 + 0.95 * layout::TICK_EM);
            self.text(label, at, layout::TICK_EM, HPos::Center, INK, FontStyle::Normal)?;
        }
        for line in &self.layout.x_label {
            self.text(
                &line.text,
                (line.x, line.baseline),
                layout::LABEL_EM,
                HPos::Center,
                INK,
                FontStyle::Normal,
            )?;
        }
        Ok(())
    }

    fn interval(&self, index: usize) -> Result<(), FigureError> {
        let series = &self.figure.series[index];
        match (&series.low, &series.high) {
            (Some(low), Some(high)) if series.has_band() => {
                let (low, high) = (self.place(index, low), self.place(index, high));
                self.band(low, high, palette::colour(series.colour))
            }
            _ => Ok(()),
        }
    }

    fn series(&self, index: usize) -> Result<(), FigureError> {
        let series = &self.figure.series[index];
        if self.figure.is_heat_map() {
            return self.cells(index);
        }
        let colour = palette::colour(series.colour);
        let points = self.place(index, &series.y);
        match series.style {
            Style::Line => self.line(&points, colour, LINE_WIDTH)?,
            Style::Dashed => self.dashed(&points, index, colour)?,
            Style::Points => {
                if let (Some(low), Some(high)) = (&series.low, &series.high) {
                    self.error_bars(&self.place(index, low), &self.place(index, high), colour)?;
                }
            }
            Style::Band | Style::Cells => {}
        }
        self.markers(series, &points)
    }

    /// A row of a heat map.
    fn cells(&self, index: usize) -> Result<(), FigureError> {
        // Cells keep a thin line of paper between them.
        const GAP: f64 = 0.6;
        for cell in heat::cells(self.figure, self.layout, index) {
            let (from, to) = (cell.from, cell.to);
            self.rectangle(
                (from.0 + GAP, from.1 + GAP),
                (to.0 - GAP, to.1 - GAP),
                palette::heat(cell.share),
            )?;
            let (x, y) = cell.middle();
            let at = (x, y + 0.36 * heat::NUMBER_EM);
            let ink = palette::ink_on(cell.share);
            self.text(&cell.number, at, heat::NUMBER_EM, HPos::Center, ink, FontStyle::Normal)?;
        }
        Ok(())
    }

    /// Positions of `values` over the abscissae of a series.
    fn place(&self, index: usize, values: &[f64]) -> Vec<(f64, f64)> {
        let shift = self.layout.dodge(self.figure, index);
        let at = |(&x, &y): (&f64, &f64)| {
            let (x, y) = self.layout.at(x, y);
            (x + shift, y)
        };
        self.figure.series[index].x.iter().zip(values).map(at).collect()
    }

    fn markers(&self, series: &Series, points: &[(f64, f64)]) -> Result<(), FigureError> {
        match series.style {
            Style::Band | Style::Dashed => return Ok(()),
            Style::Points | Style::Cells => {}
            Style::Line if points.len() > MARK_ALL => {
                for point in sparse(points, series.colour) {
                    self.marker(point, series.colour)?;
                }
                return Ok(());
            }
            Style::Line => {}
        }
        points.iter().try_for_each(|&point| self.marker(point, series.colour))
    }

    fn entry(&self, entry: &Entry) -> Result<(), FigureError> {
        let series = &self.figure.series[entry.series];
        let colour = palette::colour(series.colour);
        let (from, to) = ((entry.x, entry.y), (entry.x + layout::SAMPLE, entry.y));
        let middle = (entry.x + 0.5 * layout::SAMPLE, entry.y);
        if series.style == Style::Band {
            let (low, high) = (
                vec![(from.0, from.1 + 3.0), (to.0, to.1 + 3.0)],
                vec![(from.0, from.1 - 3.0), (to.0, to.1 - 3.0)],
            );
            self.band(low, high, colour)?;
        }
        match series.style {
            Style::Line => self.line(&[from, to], colour, LINE_WIDTH)?,
            Style::Dashed => self.dashed(&[from, to], entry.series, colour)?,
            Style::Points if series.low.is_some() => {
                self.line(&[(middle.0, middle.1 - 5.6), (middle.0, middle.1 + 5.6)], colour, 1.0)?
            }
            Style::Points | Style::Band | Style::Cells => {}
        }
        if matches!(series.style, Style::Line | Style::Points | Style::Cells) {
            self.marker(middle, series.colour)?;
        }
        for line in &entry.lines {
            self.text(
                &line.text,
                (line.x, line.baseline),
                layout::LEGEND_EM,
                HPos::Left,
                INK,
                FontStyle::Normal,
            )?;
        }
        Ok(())
    }

    fn error_bars(
        &self,
        low: &[(f64, f64)],
        high: &[(f64, f64)],
        colour: RGBColor,
    ) -> Result<(), FigureError> {
        const CAP: f64 = 2.2;
        for (&(x, from), &(_, to)) in low.iter().zip(high) {
            self.line(&[(x, from), (x, to)], colour, 1.0)?;
            for y in [from, to] {
                self.line(&[(x - CAP, y), (x + CAP, y)], colour, 1.0)?;
            }
        }
        Ok(())
    }

    fn band(
        &self,
        low: Vec<(f64, f64)>,
        high: Vec<(f64, f64)>,
        colour: RGBColor,
    ) -> Result<(), FigureError> {
        if low.len() < 2 {
            // A band of one point has no area; its ends are still worth showing.
            return self.error_bars(&low, &high, colour);
        }
        let outline: Vec<(i32, i32)> =
            low.into_iter().chain(high.into_iter().rev()).map(|point| self.at(point)).collect();
        self.paint(&Polygon::new(outline, colour.mix(0.17)))
    }

    fn marker(&self, at: (f64, f64), group: usize) -> Result<(), FigureError> {
        let shape = palette::marker(group);
        // A rim of paper sets a marker off from lines that cross it.
        self.marker_shape(shape, at, MARKER_RADIUS + 0.9, PAPER)?;
        self.marker_shape(shape, at, MARKER_RADIUS, palette::colour(group))
    }

    fn marker_shape(
        &self,
        shape: Marker,
        (x, y): (f64, f64),
        radius: f64,
        colour: RGBColor,
    ) -> Result<(), FigureError> {
        if shape == Marker::Circle {
            return self.paint(&Circle::new(
                self.at((x, y)),
                self.length(radius) as i32,
                colour.filled(),
            ));
        }
        let corners: Vec<(i32, i32)> = shape
            .corners()
            .into_iter()
            .map(|(dx, dy)| self.at((x + radius * dx, y + radius * dy)))
            .collect();
        self.paint(&Polygon::new(corners, colour))
    }

    fn dashed(
        &self,
        points: &[(f64, f64)],
        series: usize,
        colour: RGBColor,
    ) -> Result<(), FigureError> {
        if !self.dashes {
            return self.line(points, colour, LINE_WIDTH);
        }
        let (dash, gap) = dash(self.figure, series);
        let points: Vec<(i32, i32)> = points.iter().map(|&point| self.at(point)).collect();
        self.paint(&DashedPathElement::new(
            points,
            self.length(dash) as i32,
            self.length(gap) as i32,
            self.stroke(colour, LINE_WIDTH),
        ))
    }

    fn line(&self, points: &[(f64, f64)], colour: RGBColor, width: f64) -> Result<(), FigureError> {
        if points.len() < 2 {
            return Ok(());
        }
        let points: Vec<(i32, i32)> = points.iter().map(|&point| self.at(point)).collect();
        self.paint(&PathElement::new(points, self.stroke(colour, width)))
    }

    fn rectangle(
        &self,
        from: (f64, f64),
        to: (f64, f64),
        colour: RGBColor,
    ) -> Result<(), FigureError> {
        self.paint(&Rectangle::new([self.at(from), self.at(to)], colour.filled()))
    }

    fn text(
        &self,
        text: &str,
        at: (f64, f64),
        em: f64,
        anchor: HPos,
        colour: RGBColor,
        weight: FontStyle,
    ) -> Result<(), FigureError> {
        let font = (FAMILY, em * self.unit * EM_PER_SIZE).into_font().style(weight);
        let style = TextStyle::from(font).color(&colour).pos(Pos::new(anchor, VPos::Top));
        let at = self.at((at.0, at.1 - BASELINE * em));
        self.area.draw_text(text, &style, at).map_err(|error| self.failed(&error))
    }

    /// Text that runs upwards, centred at `y`, with its baseline at `x`.
    fn turned(&self, text: &str, (x, y): (f64, f64), em: f64) -> Result<(), FigureError> {
        let font =
            (FAMILY, em * self.unit * EM_PER_SIZE).into_font().transform(FontTransform::Rotate270);
        let style = TextStyle::from(font).color(&INK).pos(Pos::new(HPos::Center, VPos::Top));
        let at = self.at((x - BASELINE * em, y));
        self.area.draw_text(text, &style, at).map_err(|error| self.failed(&error))
    }

    fn paint<E>(&self, element: &E) -> Result<(), FigureError>
    where
        for<'e> &'e E: plotters::element::PointCollection<'e, (i32, i32)>,
        E: plotters::element::Drawable<DB>,
    {
        self.area.draw(element).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> FigureError {
        FigureError::Drawing { figure: self.figure.name.clone(), reason: error.to_string() }
    }

    fn stroke(&self, colour: RGBColor, width: f64) -> ShapeStyle {
        colour.stroke_width(self.length(width))
    }

    fn length(&self, length: f64) -> u32 {
        (length * self.unit).round().max(1.0) as u32
    }

    fn at(&self, (x, y): (f64, f64)) -> (i32, i32) {
        ((x * self.unit).round() as i32, (y * self.unit).round() as i32)
    }
}

/// Dash and gap of a dashed series: several of one colour group have different ones.
pub(super) fn dash(figure: &Figure, series: usize) -> (f64, f64) {
    let group = figure.series[series].colour;
    let alike = |s: &&Series| s.style == Style::Dashed && s.colour == group;
    let before = figure.series[..series].iter().filter(alike).count();
    palette::dash(group % DASH_CYCLE + before)
}

/// Keeps the sum of group and count from overflowing.
const DASH_CYCLE: usize = 64;

/// Places on a curve at equal distances along `x`, each group a little later than the one before,
/// so that the markers of curves that coincide stand side by side.
fn sparse(points: &[(f64, f64)], group: usize) -> Vec<(f64, f64)> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let start = 0.05 + 0.027 * (group % 6) as f64;
    let places = (0..SPARSE).map(|i| first.0 + (last.0 - first.0) * (start + 0.155 * i as f64));
    let between = |x: f64| {
        let pair = points.windows(2).find(|pair| pair[0].0 <= x && x <= pair[1].0)?;
        let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
        Some((x, if x1 > x0 { y0 + (y1 - y0) * (x - x0) / (x1 - x0) } else { y0 }))
    };
    places.filter_map(between).collect()
}
