//! Figures as plain data, drawn as SVG and PNG.
//!
//! A [`Figure`] holds labels and numbers and nothing of how they are drawn; [`Figure::to_svg`]
//! and [`Figure::to_png`] draw it, both through the same layout and the same strokes. The SVG
//! carries `<title>` and `<desc>` for screen readers, one `<g class="series" data-series="i">`
//! for each series and one `<metadata>` element whose JSON holds the figure itself with the
//! drawn coordinates, so that a page can show values under the pointer and
//! [`Figure::from_svg`] can read the figure back.
//!
//! What cannot be drawn is dropped and said in the description, never an error: points that are
//! not finite, zero or negative values on a logarithmic axis, columns of unequal length. Equal
//! figures give equal bytes, whatever fonts the machine has: letters of the PNG are drawn from
//! Noto Sans (SIL Open Font License), which comes with the crate `notosans`.
//!
//! A figure whose series all are [`Style::Cells`] is a heat map: a row a series, a column a value of
//! `x`, numbers in the cells, colours from light to dark in one hue.
//!
//! Lines and points that share at most seven abscissae step aside by a few pixels, so that series
//! which coincide are all seen; the dashed lines of theory stay where they are.
//!
//! Limits: labels beyond 400 characters are cut; values beyond 1e300 in size count as infinite; eight colour groups, then the colours
//! repeat with other markers.

mod clean;
mod draw;
mod heat;
mod layout;
mod palette;
mod png;
mod svg;
mod text;
mod ticks;

pub(crate) use svg::Inline;

use serde::{Deserialize, Deserializer, Serialize};

/// Why a figure could not be drawn or read.
#[derive(Debug, thiserror::Error)]
pub enum FigureError {
    /// A drawing call failed.
    #[error("figure \"{figure}\": drawing failed: {reason}")]
    Drawing {
        /// Name of the figure.
        figure: String,
        /// What the drawing library said.
        reason: String,
    },
    /// The PNG could not be encoded.
    #[error("figure \"{figure}\": the PNG could not be encoded: {source}")]
    Png {
        /// Name of the figure.
        figure: String,
        /// The encoder's error.
        source: ::png::EncodingError,
    },
    /// The embedded font could not be parsed.
    #[error("the embedded font could not be read: {0}")]
    Font(#[from] ab_glyph::InvalidFont),
    /// An SVG without the metadata of a figure.
    #[error(
        "no figure data: expected an SVG written by this project, with one <metadata class=\"figure\">"
    )]
    NoMetadata,
    /// Metadata of an SVG that are not a figure.
    #[error("figure data of the SVG are malformed: {0}")]
    Metadata(#[from] serde_json::Error),
}

/// Scale of an axis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// Equal steps for equal differences.
    #[default]
    Linear,
    /// Equal steps for equal ratios; only positive values can be shown.
    Log,
}

/// An axis: what it measures, and its scale. The range follows from the data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Axis {
    /// Quantity with unit, as printed.
    pub label: String,
    /// Linear or logarithmic.
    pub scale: Scale,
}

impl Axis {
    /// A linear axis.
    pub fn linear(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), scale: Scale::Linear }
    }

    /// A logarithmic axis.
    pub fn log(label: impl Into<String>) -> Axis {
        Axis { label: label.into(), scale: Scale::Log }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// A line through the points with markers; `low..high` as a shaded band.
    #[default]
    Line,
    /// The shaded band `low..high` alone.
    Band,
    /// Markers that no line joins; `low..high` as error bars.
    Points,
    /// A dashed line without markers, for theory.
    Dashed,
    /// A row of a heat map: a cell for each `x`, with `y` as its colour and as a number. A figure is
    /// a heat map where every series is of this style; its rows are named by their labels.
    Cells,
}

/// One series of a figure: `y` over `x`, and optionally an interval around each `y`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Text of the legend; a series with an empty label has no entry there.
    pub label: String,
    /// How it is drawn.
    pub style: Style,
    /// Abscissae.
    #[serde(deserialize_with = "numbers")]
    pub x: Vec<f64>,
    /// Ordinates, one for each abscissa.
    #[serde(deserialize_with = "numbers")]
    pub y: Vec<f64>,
    /// Lower ends of the intervals.
    #[serde(
        default,
        deserialize_with = "optional_numbers",
        skip_serializing_if = "Option::is_none"
    )]
    pub low: Option<Vec<f64>>,
    /// Upper ends of the intervals.
    #[serde(
        default,
        deserialize_with = "optional_numbers",
        skip_serializing_if = "Option::is_none"
    )]
    pub high: Option<Vec<f64>>,
    /// Colour group: series of one group share colour and marker, as a measured line and its
    /// theory do.
    pub colour: usize,
}

impl Series {
    /// A line through `(x, y)`.
    pub fn line(label: impl Into<String>, colour: usize, x: Vec<f64>, y: Vec<f64>) -> Series {
        Series { label: label.into(), colour, x, y, ..Series::default() }
    }

    /// A dashed line through `(x, y)`.
    pub fn dashed(label: impl Into<String>, colour: usize, x: Vec<f64>, y: Vec<f64>) -> Series {
        Series { style: Style::Dashed, ..Series::line(label, colour, x, y) }
    }

    /// Markers at `(x, y)`.
    pub fn points(label: impl Into<String>, colour: usize, x: Vec<f64>, y: Vec<f64>) -> Series {
        Series { style: Style::Points, ..Series::line(label, colour, x, y) }
    }

    /// Whether intervals are drawn as a shaded band.
    fn has_band(&self) -> bool {
        self.style != Style::Points && self.low.is_some() && self.high.is_some()
    }

    /// The same series with the intervals `low..high`.
    pub fn with_interval(self, low: Vec<f64>, high: Vec<f64>) -> Series {
        Series { low: Some(low), high: Some(high), ..self }
    }
}

/// A figure with one pair of axes, as plain data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// File name without ending, such as `excess_risk`.
    pub name: String,
    /// Title above the plot.
    pub title: String,
    /// Horizontal axis.
    pub x: Axis,
    /// Vertical axis.
    pub y: Axis,
    /// What is drawn, in this order.
    pub series: Vec<Series>,
    /// One or two sentences for those who do not see the figure.
    pub description: String,
}

impl Figure {
    /// Whether it is drawn as a heat map.
    pub fn is_heat_map(&self) -> bool {
        !self.series.is_empty() && self.series.iter().all(|s| s.style == Style::Cells)
    }

    /// The figure as an SVG document of a paper column's width (360 px = 95 mm).
    ///
    /// # Errors
    /// [`FigureError::Drawing`] where the drawing library fails, [`FigureError::Font`].
    pub fn to_svg(&self) -> Result<String, FigureError> {
        svg::render(self)
    }

    /// The figure as a PNG of a paper column's width at 300 dots per inch.
    ///
    /// # Errors
    /// As [`Figure::to_svg`], and [`FigureError::Png`].
    pub fn to_png(&self) -> Result<Vec<u8>, FigureError> {
        png::render(self)
    }

    /// The figure for a page that has title, legend and values beside it.
    pub(crate) fn to_inline(&self, label: &str) -> Result<Inline, FigureError> {
        svg::inline(self, label)
    }

    /// The figure that an SVG of [`Figure::to_svg`] shows (without what was dropped).
    ///
    /// # Errors
    /// [`FigureError::NoMetadata`], [`FigureError::Metadata`].
    pub fn from_svg(document: &str) -> Result<Figure, FigureError> {
        svg::read(document)
    }
}

/// JSON has no NaN: `null` stands for it, and reads as NaN.
fn numbers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let values = Vec::<Option<f64>>::deserialize(deserializer)?;
    Ok(values.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect())
}

fn optional_numbers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<f64>>, D::Error> {
    let values = Option::<Vec<Option<f64>>>::deserialize(deserializer)?;
    Ok(values.map(|v| v.into_iter().map(|value| value.unwrap_or(f64::NAN)).collect()))
}

#[cfg(test)]
mod tests;
