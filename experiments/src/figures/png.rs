//! The PNG: drawn at twice the size, halved, so that every edge is smooth.

use ab_glyph::{Font, point};
use plotters::prelude::BitMapBackend;
use plotters::prelude::{DrawingBackend, IntoDrawingArea};
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind,
};

use super::clean::clean;
use super::draw::{BASELINE, EM_PER_SIZE, Layer, Pen};
use super::layout::{self, Layout};
use super::text::Fonts;
use super::{Figure, FigureError};

/// Dots per pixel of the figure: 300 dots an inch.
const DOTS: f64 = 3.125;
const DOTS_PER_METRE: u32 = 11_811;

pub(super) fn render(figure: &Figure) -> Result<Vec<u8>, FigureError> {
    let figure = &clean(figure);
    let fonts = Fonts::new()?;
    let layout = Layout::new(figure, &fonts, false);
    let (width, height) = ((layout::WIDTH * DOTS) as u32, (layout.height * DOTS).ceil() as u32);
    let mut canvas = vec![255_u8; (4 * width * height * 3) as usize];
    {
        let inner = BitMapBackend::with_buffer(&mut canvas, (2 * width, 2 * height));
        let area = Raster { inner, fonts: &fonts }.into_drawing_area();
        let pen = Pen { area: &area, unit: 2.0 * DOTS, dashes: true, figure, layout: &layout };
        pen.draw(Layer::Frame)?;
        (0..figure.series.len()).try_for_each(|i| pen.draw(Layer::Band(i)))?;
        (0..figure.series.len()).try_for_each(|i| pen.draw(Layer::Series(i)))?;
        (0..layout.legend.len()).try_for_each(|i| pen.draw(Layer::Legend(i)))?;
        area.present().map_err(|error| FigureError::Drawing {
            figure: figure.name.clone(),
            reason: error.to_string(),
        })?;
    }
    let pixels = halve(&canvas, width as usize, height as usize);
    encode(figure, &pixels, width, height)
        .map_err(|source| FigureError::Png { figure: figure.name.clone(), source })
}

/// Mean of each block of two by two dots.
fn halve(canvas: &[u8], width: usize, height: usize) -> Vec<u8> {
    let stride = 2 * width * 3;
    let mut out = Vec::with_capacity(width * height * 3);
    let mut sums = vec![0_u16; stride];
    for rows in canvas.chunks_exact(2 * stride) {
        let (upper, lower) = rows.split_at(stride);
        for (sum, (a, b)) in sums.iter_mut().zip(upper.iter().zip(lower)) {
            *sum = u16::from(*a) + u16::from(*b) + 1;
        }
        for dots in sums.chunks_exact(6) {
            // Two ones were added above: the sum is rounded to the nearest quarter.
            out.extend([0, 1, 2].map(|i| ((dots[i] + dots[i + 3]) / 4) as u8));
        }
    }
    out
}

fn encode(
    figure: &Figure,
    pixels: &[u8],
    width: u32,
    height: u32,
) -> Result<Vec<u8>, ::png::EncodingError> {
    let mut out = Vec::new();
    let mut encoder = ::png::Encoder::new(&mut out, width, height);
    encoder.set_color(::png::ColorType::Rgb);
    encoder.set_depth(::png::BitDepth::Eight);
    encoder.set_compression(::png::Compression::Fast);
    encoder.set_pixel_dims(Some(::png::PixelDimensions {
        xppu: DOTS_PER_METRE,
        yppu: DOTS_PER_METRE,
        unit: ::png::Unit::Meter,
    }));
    encoder.add_itxt_chunk("Title".to_owned(), figure.title.clone())?;
    encoder.add_itxt_chunk("Description".to_owned(), figure.description.clone())?;
    let mut writer = encoder.write_header()?;
    writer.write_image_data(pixels)?;
    writer.finish()?;
    Ok(out)
}

/// The bitmap back end with letters from the embedded font.
///
/// The library's own text drops the space in front of each glyph and asks a global table for
/// fonts; here a glyph stands where the font says, at the conventions of the SVG back end.
struct Raster<'a> {
    inner: BitMapBackend<'a>,
    fonts: &'a Fonts,
}

impl<'a> DrawingBackend for Raster<'a> {
    type ErrorType = <BitMapBackend<'a> as DrawingBackend>::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        self.inner.get_size()
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.ensure_prepared()
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.present()
    }

    fn draw_pixel(
        &mut self,
        point: BackendCoord,
        color: BackendColor,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.draw_pixel(point, color)
    }

    fn draw_line<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.draw_line(from, to, style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        from: BackendCoord,
        to: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        self.inner.draw_rect(from, to, style, fill)
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        at: BackendCoord,
    ) -> Result<(), DrawingErrorKind<Self::ErrorType>> {
        let em = style.size() / EM_PER_SIZE;
        let bold = matches!(style.style(), FontStyle::Bold);
        let (glyphs, length) = self.fonts.place(text, em, bold);
        let shift = match style.anchor().h_pos {
            HPos::Left => 0.0,
            HPos::Center => -0.5,
            HPos::Right => -1.0,
        } * length;
        let baseline = match style.anchor().v_pos {
            VPos::Top => BASELINE,
            VPos::Center => 0.25,
            VPos::Bottom => -0.25,
        } * em;
        let (width, height) = self.get_size();
        let (color, turn) = (style.color(), style.transform());
        let inner = &mut self.inner;
        let mut result = Ok(());
        for mut glyph in glyphs {
            glyph.position += point(shift as f32, baseline as f32);
            let Some(outline) = self.fonts.face(bold).outline_glyph(glyph) else { continue };
            let bounds = outline.px_bounds();
            outline.draw(|column, row, coverage| {
                let (dx, dy) = turn.transform(
                    bounds.min.x as i32 + column as i32,
                    bounds.min.y as i32 + row as i32,
                );
                let (x, y) = (at.0 + dx, at.1 + dy);
                if result.is_ok()
                    && coverage > 0.0
                    && (0..width as i32).contains(&x)
                    && (0..height as i32).contains(&y)
                {
                    result = inner.draw_pixel(
                        (x, y),
                        BackendColor { alpha: color.alpha * f64::from(coverage.min(1.0)), ..color },
                    );
                }
            });
        }
        result
    }
}
