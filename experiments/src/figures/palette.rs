//! Colours, dashes and markers of the colour groups.
//!
//! Colours of Okabe and Ito (2008), which stay apart for every common kind of colour blindness;
//! markers and dashes tell the groups apart in grey print.

use plotters::style::RGBColor;

/// Ink of axes and text.
pub(super) const INK: RGBColor = RGBColor(0x26, 0x26, 0x26);
/// Secondary text and ticks.
pub(super) const SOFT: RGBColor = RGBColor(0x59, 0x59, 0x59);
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xE7, 0xE7, 0xE7);
/// Paper, also the rim of markers.
pub(super) const PAPER: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);

const COLOURS: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    RGBColor(0x4D, 0x4D, 0x4D),
    RGBColor(0x7A, 0x5C, 0x1E),
];

/// Dash and gap of theory lines, px.
const DASHES: [(f64, f64); 4] = [(5.5, 2.8), (2.0, 2.0), (9.0, 3.0), (3.6, 3.6)];

/// Shape of a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    TriangleUp,
    Diamond,
    TriangleDown,
    Pentagon,
    Plus,
}

const MARKERS: [Marker; 7] = [
    Marker::Circle,
    Marker::Square,
    Marker::TriangleUp,
    Marker::Diamond,
    Marker::TriangleDown,
    Marker::Pentagon,
    Marker::Plus,
];

pub(super) fn colour(group: usize) -> RGBColor {
    COLOURS[group % COLOURS.len()]
}

/// Colour of a heat map's cell, `share` from 0 (least) to 1: one hue from light to dark, which every
/// kind of colour vision and grey print keep in order.
pub(super) fn heat(share: f64) -> RGBColor {
    const LIGHT: [f64; 3] = [243.0, 247.0, 250.0];
    const DARK: [f64; 3] = [0.0, 66.0, 118.0];
    let share = share.clamp(0.0, 1.0);
    let mix = |i: usize| (LIGHT[i] + share * (DARK[i] - LIGHT[i])).round() as u8;
    RGBColor(mix(0), mix(1), mix(2))
}

/// Ink that can be read on a cell of that share: contrast above 4.5 : 1 everywhere.
pub(super) fn ink_on(share: f64) -> RGBColor {
    if share > 0.695 { PAPER } else { RGBColor(0, 0, 0) }
}

pub(super) fn dash(group: usize) -> (f64, f64) {
    DASHES[group % DASHES.len()]
}

pub(super) fn marker(group: usize) -> Marker {
    MARKERS[group % MARKERS.len()]
}

impl Marker {
    /// Corners around the origin for a marker of radius 1; empty for the circle.
    pub(super) fn corners(self) -> Vec<(f64, f64)> {
        let polygon = |n: usize, turn: f64, radius: f64| -> Vec<(f64, f64)> {
            (0..n)
                .map(|i| {
                    let angle = std::f64::consts::TAU * (i as f64 / n as f64) + turn;
                    (radius * angle.sin(), -radius * angle.cos())
                })
                .collect()
        };
        let half_turn = std::f64::consts::PI;
        match self {
            Marker::Circle => Vec::new(),
            Marker::Square => polygon(4, half_turn / 4.0, 1.25),
            Marker::TriangleUp => polygon(3, 0.0, 1.35),
            Marker::Diamond => polygon(4, 0.0, 1.35),
            Marker::TriangleDown => polygon(3, half_turn, 1.35),
            Marker::Pentagon => polygon(5, 0.0, 1.2),
            Marker::Plus => {
                let (a, b) = (0.42, 1.25);
                vec![
                    (-a, -b),
                    (a, -b),
                    (a, -a),
                    (b, -a),
                    (b, a),
                    (a, a),
                    (a, b),
                    (-a, b),
                    (-a, a),
                    (-b, a),
                    (-b, -a),
                    (-a, -a),
                ]
            }
        }
    }
}
