//! Means and ranges over seeds, read off a merged table.

use crate::runs::csv::Table;
use std::collections::BTreeMap;

/// Values of one quantity by abscissa.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// Values over seeds, by the bits of a non-negative abscissa (whose order is that of the numbers).
    values: BTreeMap<u64, Vec<f64>>,
}

/// Abscissae with mean, smallest and largest value.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Band {
    /// Abscissae, ascending.
    pub x: Vec<f64>,
    /// Means.
    pub mean: Vec<f64>,
    /// Smallest values.
    pub low: Vec<f64>,
    /// Largest values.
    pub high: Vec<f64>,
}

impl Profile {
    /// Adds a value; negative abscissae have no place here.
    pub fn add(&mut self, x: f64, value: f64) {
        if x >= 0.0 {
            self.values.entry((x + 0.0).to_bits()).or_default().push(value);
        }
    }

    /// Mean and range over seeds at every abscissa.
    pub fn band(&self) -> Band {
        let mut band = Band::default();
        for (x, values) in &self.values {
            band.x.push(f64::from_bits(*x));
            band.mean.push(values.iter().sum::<f64>() / values.len() as f64);
            band.low.push(values.iter().copied().fold(f64::INFINITY, f64::min));
            band.high.push(values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
        band
    }
}

/// Profiles by label, in the order in which labels first occur.
pub type Profiles = Vec<(String, Profile)>;

/// Collects a profile a label: `label` and `x` are asked for each row, which is left out where one of
/// them, or the value in `column`, is missing.
pub fn profiles(
    table: &Table<'_>,
    column: &str,
    label: impl Fn(usize) -> Option<String>,
    x: impl Fn(usize) -> Option<f64>,
) -> Profiles {
    let column = table.column(column);
    let mut found: Profiles = Vec::new();
    for row in 0..table.len() {
        let (Some(label), Some(x)) = (label(row), x(row)) else { continue };
        let Some(value) = table.number(row, column) else { continue };
        let at = match found.iter().position(|(known, _)| *known == label) {
            Some(at) => at,
            None => {
                found.push((label, Profile::default()));
                found.len() - 1
            }
        };
        found[at].1.add(x, value);
    }
    found
}

/// Least-squares slope of log y against log x over positive finite pairs; `None` for fewer than two.
pub fn log_slope(x: &[f64], y: &[f64]) -> Option<f64> {
    let logs: Vec<(f64, f64)> = x
        .iter()
        .zip(y)
        .filter(|(x, y)| **x > 0.0 && **y > 0.0 && x.is_finite() && y.is_finite())
        .map(|(x, y)| (x.ln(), y.ln()))
        .collect();
    let n = logs.len() as f64;
    let mean_x = logs.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_y = logs.iter().map(|p| p.1).sum::<f64>() / n;
    let spread: f64 = logs.iter().map(|p| (p.0 - mean_x).powi(2)).sum();
    let common: f64 = logs.iter().map(|p| (p.0 - mean_x) * (p.1 - mean_y)).sum();
    (logs.len() >= 2 && spread > 0.0).then(|| common / spread)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_are_means_and_ranges_in_ascending_order() {
        let text = "m,x,y\na,10,1\na,9,5\na,10,3\nb,1,\nb,2,7\n,1,1\n";
        let table = Table::parse(text).unwrap();
        let label = |row| Some(table.text(row, Some(0)).to_owned()).filter(|l| !l.is_empty());
        let found = profiles(&table, "y", label, |row| table.number(row, Some(1)));
        assert_eq!(found.len(), 2);
        let band = found[0].1.band();
        assert_eq!(band.x, [9.0, 10.0]);
        assert_eq!((band.mean[1], band.low[1], band.high[1]), (2.0, 1.0, 3.0));
        assert_eq!(found[1].1.band().x, [2.0], "an empty cell is no value");
    }

    #[test]
    fn the_slope_of_a_power_is_its_exponent() {
        let x = [10.0, 100.0, 1000.0];
        let y = x.map(|x: f64| 3.0 / x);
        assert!((log_slope(&x, &y).unwrap() + 1.0).abs() < 1e-14);
        assert_eq!(log_slope(&x[..1], &y[..1]), None);
        assert_eq!(log_slope(&[1.0, 1.0], &[1.0, 2.0]), None);
    }
}
