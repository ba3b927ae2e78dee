//! Ranges of axes and where their ticks stand.
//!
//! Positions are in axis coordinates: the value itself on a linear axis, its decimal logarithm on
//! a logarithmic one.

use super::Scale;
use super::text::raised;

/// A tick; one without label is minor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tick {
    pub at: f64,
    pub label: Option<String>,
}

/// Range and ticks of an axis.
#[derive(Clone, Debug)]
pub(super) struct Ruler {
    pub from: f64,
    pub to: f64,
    pub ticks: Vec<Tick>,
    scale: Scale,
}

impl Ruler {
    /// `values` are drawable on `scale`. `swept` are the few abscissae of a sweep, which then
    /// carry the labels themselves; `room` is the number of labels that fit.
    pub(super) fn new(
        scale: Scale,
        values: impl Iterator<Item = f64>,
        swept: &[f64],
        room: usize,
    ) -> Ruler {
        let (mut from, mut to) = (f64::INFINITY, f64::NEG_INFINITY);
        for value in values.map(|value| coordinate(scale, value)) {
            from = from.min(value);
            to = to.max(value);
        }
        if from > to {
            (from, to) = (0.0, 1.0);
        } else if to - from <= 1e-9 * from.abs().max(to.abs()).max(f64::MIN_POSITIVE) {
            let spread = match scale {
                Scale::Log => 0.5,
                Scale::Linear if from == 0.0 => 1.0,
                Scale::Linear => 0.5 * from.abs(),
            };
            (from, to) = (from - spread, to + spread);
        }
        let margin = 0.05 * (to - from);
        let (from, to) = (from - margin, to + margin);
        let ticks = if !swept.is_empty() && !all_powers_of_ten(scale, swept) {
            at_values(scale, swept)
        } else {
            match scale {
                Scale::Linear => linear(from, to, room),
                Scale::Log => logarithmic(from, to, room),
            }
        };
        Ruler { from, to, ticks, scale }
    }

    /// An axis of named places.
    pub(super) fn of_places(from: f64, to: f64, ticks: Vec<Tick>) -> Ruler {
        Ruler { from, to, ticks, scale: Scale::Linear }
    }

    /// Position of `value` between 0 (start of the axis) and 1 (its end).
    pub(super) fn fraction(&self, value: f64) -> f64 {
        (coordinate(self.scale, value) - self.from) / (self.to - self.from)
    }
}

pub(super) fn coordinate(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
    }
}

fn all_powers_of_ten(scale: Scale, values: &[f64]) -> bool {
    scale == Scale::Log
        && values.iter().all(|value| (value.log10() - value.log10().round()).abs() < 1e-9)
}

fn at_values(scale: Scale, values: &[f64]) -> Vec<Tick> {
    values
        .iter()
        .map(|&value| Tick { at: coordinate(scale, value), label: Some(plain(value)) })
        .collect()
}

/// Steps of 1, 2 or 5 times a power of ten, about `room` of them.
fn linear(from: f64, to: f64, room: usize) -> Vec<Tick> {
    let step = nice_step((to - from) / room.max(2) as f64);
    let minor = match (step / 10f64.powf(step.log10().floor())).round() as i32 {
        2 => step / 2.0,
        _ => step / 5.0,
    };
    let largest = from.abs().max(to.abs());
    // Beyond five digits, or below four zeros, a common power of ten goes into each label.
    let exponent = if !(1e-3..1e5).contains(&largest) { largest.log10().floor() as i32 } else { 0 };
    let unit = 10f64.powi(exponent);
    let decimals = (-(step / unit).log10().floor()).clamp(0.0, 12.0) as usize;
    let mut ticks = Vec::new();
    let first = (from / minor).ceil();
    for i in 0..=400 {
        let at = (first + f64::from(i)) * minor;
        if at > to {
            break;
        }
        let ratio = at / step;
        let label = ((ratio - ratio.round()).abs() < 1e-6).then(|| {
            let text = sign(format!("{:.decimals$}", at / unit));
            match text.trim_start_matches(MINUS) {
                zero if zero.trim_matches(['0', '.']).is_empty() => zero.to_owned(),
                _ if exponent == 0 => text,
                _ => format!("{text}×10{}", raised(exponent)),
            }
        });
        ticks.push(Tick { at, label });
    }
    ticks
}

fn nice_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|factor| factor * power >= rough * 0.8)
        .unwrap_or(10.0);
    factor * power
}

/// Decades, with 2 to 9 as minor ticks; 2 and 5 carry labels where decades alone are too few.
fn logarithmic(from: f64, to: f64, room: usize) -> Vec<Tick> {
    let span = to - from;
    if span < 0.35 {
        // Within a factor of two: equal steps of the values themselves.
        let (low, high) = (10f64.powf(from), 10f64.powf(to));
        return linear(low, high, room)
            .into_iter()
            .filter(|tick| tick.at > 0.0)
            .map(|tick| Tick { at: tick.at.log10(), label: tick.label })
            .collect();
    }
    let (first, last) = (from.floor() as i32, to.ceil() as i32);
    let decades = (from.ceil() as i32..=to.floor() as i32).count();
    let stride = (decades.div_ceil(room.max(2))).max(1) as i32;
    let labelled: &[i32] = match decades {
        0 | 1 if span < 1.0 => &[1, 2, 3, 5],
        0..=2 if span < 1.7 => &[1, 2, 5],
        _ => &[1],
    };
    let mut ticks = Vec::new();
    for decade in first..=last {
        for digit in 1..=9 {
            let at = f64::from(decade) + f64::from(digit).log10();
            if at < from || at > to || (digit > 1 && (stride > 1 || span > 9.0)) {
                continue;
            }
            let wanted = labelled.contains(&digit) && decade.rem_euclid(stride) == 0;
            ticks.push(Tick {
                at,
                label: wanted.then(|| scientific(digit, decade, labelled.len() > 1)),
            });
        }
    }
    ticks
}

/// `digit` times ten to `decade`; `as_decimal` where neighbours are not all powers of ten.
fn scientific(digit: i32, decade: i32, as_decimal: bool) -> String {
    if as_decimal && (-4..0).contains(&decade) {
        return format!("{:.*}", -decade as usize, f64::from(digit) * 10f64.powi(decade));
    }
    if as_decimal && (0..5).contains(&decade) {
        return (digit * 10i32.pow(decade as u32)).to_string();
    }
    match (digit, decade) {
        (digit, 0..=1) => (digit * 10i32.pow(decade as u32)).to_string(),
        (1, decade) => format!("10{}", raised(decade)),
        (digit, decade) => format!("{digit}×10{}", raised(decade)),
    }
}

/// A value of a sweep as a person writes it.
pub(super) fn plain(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".to_owned()
    } else if (1e-4..1e6).contains(&size) {
        sign(format!("{value}"))
    } else {
        let exponent = size.log10().floor() as i32;
        let digits = sign(format!("{:.3}", value / 10f64.powi(exponent)));
        format!("{}×10{}", digits.trim_end_matches('0').trim_end_matches('.'), raised(exponent))
    }
}

const MINUS: char = '\u{2212}';

fn sign(text: String) -> String {
    text.replace('-', &MINUS.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(ruler: &Ruler) -> Vec<&str> {
        ruler.ticks.iter().filter_map(|tick| tick.label.as_deref()).collect()
    }

    #[test]
    fn decades_carry_labels_and_their_digits_are_minor() {
        let ruler = Ruler::new(Scale::Log, [0.5, 2e4].into_iter(), &[], 8);
        assert_eq!(labels(&ruler), ["1", "10", "10²", "10³", "10⁴"]);
        // Minor ticks stand at 2 to 9 times a decade and nowhere else.
        for tick in &ruler.ticks {
            let digit = 10f64.powf(tick.at - tick.at.floor());
            assert!((digit - digit.round()).abs() < 1e-9 || digit > 9.999_999);
        }
        assert!(ruler.ticks.len() > 30);
    }

    #[test]
    fn many_decades_are_thinned_and_few_are_filled() {
        let many = Ruler::new(Scale::Log, [1e-30, 1.0].into_iter(), &[], 8);
        assert!((4..=9).contains(&labels(&many).len()), "{:?}", labels(&many));
        let few = Ruler::new(Scale::Log, [0.02, 0.2].into_iter(), &[], 8);
        assert_eq!(labels(&few), ["0.02", "0.05", "0.1", "0.2"]);
        let narrow = Ruler::new(Scale::Log, [1.1, 1.6].into_iter(), &[], 8);
        assert_eq!(labels(&narrow), ["1.1", "1.2", "1.3", "1.4", "1.5", "1.6"]);
    }

    #[test]
    fn linear_labels_are_round_numbers() {
        let ruler = Ruler::new(Scale::Linear, [-1.0, 1.0].into_iter(), &[], 6);
        assert_eq!(labels(&ruler), ["−1.0", "−0.5", "0.0", "0.5", "1.0"]);
        let large = Ruler::new(Scale::Linear, [0.0, 3e6].into_iter(), &[], 6);
        assert!(labels(&large).contains(&"3.0×10⁶"), "{:?}", labels(&large));
    }

    #[test]
    fn the_few_values_of_a_sweep_are_the_labels() {
        let swept = [5.0, 10.0, 20.0];
        let ruler = Ruler::new(Scale::Log, swept.into_iter(), &swept, 6);
        assert_eq!(labels(&ruler), ["5", "10", "20"]);
        // Powers of ten on a logarithmic axis keep their minor ticks.
        let powers = [100.0, 1000.0];
        let ruler = Ruler::new(Scale::Log, powers.into_iter(), &powers, 6);
        assert_eq!(labels(&ruler), ["100", "200", "500", "1000"]);
    }
}
