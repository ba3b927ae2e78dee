//! Letters: their widths, line breaks, and superscripts.
//!
//! Widths come from the embedded font in both formats. An SVG is shown with what the reader's
//! machine has of [`FAMILY`], some of it wider: the layout leaves room ([`SLACK`]).

use ab_glyph::{Font, FontRef, Glyph, PxScale, ScaleFont, point};

use super::FigureError;

/// Font families of the SVG, in order of preference.
pub(super) const FAMILY: &str =
    "Noto Sans, Open Sans, Segoe UI, Helvetica Neue, Arial, DejaVu Sans, sans-serif";
/// How much wider than Noto Sans a fallback may be.
pub(super) const SLACK: f64 = 1.06;

/// Size of superscripts, and their height above the baseline, em of the surrounding text.
pub(super) const SMALL: f64 = 0.72;
pub(super) const RISE: f64 = 0.36;

/// The embedded font in its two weights.
pub(super) struct Fonts {
    regular: FontRef<'static>,
    bold: FontRef<'static>,
}

impl Fonts {
    pub(super) fn new() -> Result<Fonts, FigureError> {
        Ok(Fonts {
            regular: FontRef::try_from_slice(notosans::REGULAR_TTF)?,
            bold: FontRef::try_from_slice(notosans::BOLD_TTF)?,
        })
    }

    pub(super) fn face(&self, bold: bool) -> &FontRef<'static> {
        if bold { &self.bold } else { &self.regular }
    }

    /// Scale at which one em is `em` pixels: the font library counts from ascent to descent.
    pub(super) fn scale(&self, bold: bool, em: f64) -> PxScale {
        let face = self.face(bold);
        let units = face.units_per_em().unwrap_or(1000.0);
        PxScale::from(em as f32 * face.height_unscaled() / units)
    }

    /// Width of one line of text, in the unit of `em`.
    pub(super) fn width(&self, text: &str, em: f64, bold: bool) -> f64 {
        // Measured at a large size, so that no rounding enters.
        let glyphs = self.place(text, 1000.0, bold);
        glyphs.1 * em / 1000.0
    }

    /// The glyphs of a line of text from the origin on, and the width of the line.
    pub(super) fn place(&self, text: &str, em: f64, bold: bool) -> (Vec<Glyph>, f64) {
        let face = self.face(bold);
        let (full, small) = (self.scale(bold, em), self.scale(bold, SMALL * em));
        let mut x = 0.0;
        let mut previous = None;
        let mut placed = Vec::new();
        for c in text.chars() {
            let digit = superscript(c);
            let scale = if digit.is_some() { small } else { full };
            let rise = if digit.is_some() { RISE * em } else { 0.0 };
            let id = face.glyph_id(digit.unwrap_or(c));
            let face = face.as_scaled(scale);
            if let Some((before, size)) = previous
                && size == scale
            {
                x += face.kern(before, id);
            }
            placed.push(id.with_scale_and_position(scale, point(x, -rise as f32)));
            x += face.h_advance(id);
            previous = Some((id, scale));
        }
        (placed, f64::from(x))
    }

    /// Breaks `text` at spaces into as few lines no wider than `room` as it takes, of about equal
    /// width; a word that alone exceeds the room is cut.
    pub(super) fn wrap(&self, text: &str, em: f64, bold: bool, room: f64) -> Vec<String> {
        let fewest = self.fill(text, em, bold, room);
        let even = self.width(text, em, bold) * SLACK / fewest.len().max(1) as f64;
        (0..20)
            .map(|i| even + (room - even) * f64::from(i) / 20.0)
            .map(|narrower| self.fill(text, em, bold, narrower))
            .find(|lines| lines.len() == fewest.len())
            .unwrap_or(fewest)
    }

    /// Each line as full as it goes.
    fn fill(&self, text: &str, em: f64, bold: bool, room: f64) -> Vec<String> {
        let fits = |line: &str| self.width(line, em, bold) * SLACK <= room;
        let mut lines: Vec<String> = Vec::new();
        let mut line = String::new();
        for word in text.split_whitespace() {
            let longer = if line.is_empty() { word.to_owned() } else { format!("{line} {word}") };
            if fits(&longer) {
                line = longer;
                continue;
            }
            if !line.is_empty() {
                lines.push(std::mem::take(&mut line));
            }
            for c in word.chars() {
                line.push(c);
                if !fits(&line) && line.chars().count() > 1 {
                    line.pop();
                    lines.push(std::mem::replace(&mut line, c.to_string()));
                }
            }
        }
        if !line.is_empty() {
            lines.push(line);
        }
        lines
    }
}

/// Digit or sign that a superscript character stands for.
pub(super) fn superscript(c: char) -> Option<char> {
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    if c == '⁻' {
        return Some('\u{2212}');
    }
    RAISED.iter().position(|&raised| raised == c).and_then(|i| char::from_digit(i as u32, 10))
}

/// `number` as superscript characters.
pub(super) fn raised(number: i32) -> String {
    number
        .to_string()
        .chars()
        .map(|c| {
            ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹']
                .get(c.to_digit(10).unwrap_or(10) as usize)
                .copied()
                .unwrap_or('⁻')
        })
        .collect()
}
