//! Every method that answers "which base", by name.
//!
//! A method is one file with an [`Entry`] and one line in [`registry`]; command line, comparison and
//! the contract tests iterate over the list. Nothing else branches on a method's name.

use crate::{BaseSolver, Limits, SolveError, adamw, first_order, low_rank, second_order};

/// Highest derivative that a method uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Gradients.
    First,
    /// Hessian or Gauss-Newton products.
    Second,
    /// No iteration over the landscape.
    Direct,
}

impl Order {
    /// `"first"`, `"second"` or `"direct"`.
    pub fn name(self) -> &'static str {
        match self {
            Order::First => "first",
            Order::Second => "second",
            Order::Direct => "direct",
        }
    }
}

/// A number that can be set on a method.
#[derive(Clone, Copy, Debug)]
pub struct SettingInfo {
    /// Its name.
    pub name: &'static str,
    /// Its default, as text.
    pub default: &'static str,
    /// What it means, with its range.
    pub meaning: &'static str,
}

/// A method of the registry.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Its name on the command line.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Highest derivative used.
    pub order: Order,
    /// Floating-point numbers held beside the tasks: d, k, T, n = T d k (2 T d k where asymmetric).
    pub memory: &'static str,
    /// What is known of where it ends.
    pub guarantees: &'static str,
    /// Whether it needs a start.
    pub needs_start: bool,
    /// What can be set, beside iterations and tolerance.
    pub settings: &'static [SettingInfo],
    /// Makes the method from settings.
    pub build: fn(&Settings) -> Result<Box<dyn BaseSolver>, SolveError>,
}

/// All methods.
pub fn registry() -> &'static [Entry] {
    &[
        first_order::authors::ENTRY,
        first_order::gradient_descent::ENTRY,
        first_order::gradient_flow::ENTRY,
        first_order::alternating::ENTRY,
        adamw::ENTRY,
        first_order::lbfgs::ENTRY,
        first_order::scaled_gradient::ENTRY,
        second_order::trust_region::ENTRY,
        second_order::damped_gauss_newton::ENTRY,
        low_rank::global::ENTRY,
        low_rank::two_task::ENTRY,
    ]
}

/// The method called `name`.
pub fn entry(name: &str) -> Option<&'static Entry> {
    registry().iter().find(|entry| entry.name == name)
}

impl Entry {
    /// The method with `settings`, which must all be its own.
    ///
    /// # Errors
    /// [`SolveError::UnknownSetting`], [`SolveError::SettingText`], [`SolveError::Setting`].
    pub fn build(&self, settings: &Settings) -> Result<Box<dyn BaseSolver>, SolveError> {
        for (name, _) in &settings.table {
            if !self.settings.iter().any(|known| known.name == name) {
                let names: Vec<_> = self.settings.iter().map(|known| known.name).collect();
                let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                let name = name.clone();
                return Err(SolveError::UnknownSetting { method: self.name, name, known });
            }
        }
        if let Some(tolerance) = settings.tolerance
            && !(tolerance >= 0.0 && tolerance.is_finite())
        {
            let expected = "a finite number, 0 or more";
            return Err(SolveError::Setting { name: "tolerance", value: tolerance, expected });
        }
        (self.build)(settings)
    }
}

/// What a user set: nothing means the method's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Most iterations.
    pub max_iterations: Option<usize>,
    /// Tolerance of the scaled gradient test.
    pub tolerance: Option<f64>,
    /// Names and values of the method's own settings, as text; a later one wins.
    pub table: Vec<(String, String)>,
}

impl Settings {
    /// Iterations and tolerance, with these defaults.
    pub fn limits(&self, default: Limits) -> Limits {
        Limits {
            max_iterations: self.max_iterations.unwrap_or(default.max_iterations),
            tolerance: self.tolerance.unwrap_or(default.tolerance),
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.table.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The number called `name`, which must lie in `range`.
    ///
    /// # Errors
    /// [`SolveError::SettingText`] for what is no number, [`SolveError::Setting`] out of range.
    pub fn number(
        &self,
        name: &'static str,
        default: f64,
        range: std::ops::RangeInclusive<f64>,
        expected: &'static str,
    ) -> Result<f64, SolveError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let unreadable =
            |_| SolveError::SettingText { name: name.into(), value: text.into(), expected };
        let value: f64 = text.trim().parse().map_err(unreadable)?;
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(SolveError::Setting { name, value, expected })
        }
    }

    /// The whole number called `name`, at least `least`.
    ///
    /// # Errors
    /// As [`Settings::number`].
    pub fn count(
        &self,
        name: &'static str,
        default: usize,
        least: usize,
        expected: &'static str,
    ) -> Result<usize, SolveError> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let unreadable =
            |_| SolveError::SettingText { name: name.into(), value: text.into(), expected };
        let value: usize = text.trim().parse().map_err(unreadable)?;
        if value < least {
            return Err(SolveError::Setting { name, value: value as f64, expected });
        }
        Ok(value)
    }
}
