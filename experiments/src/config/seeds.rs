//! Seed ranges: `0..20`, `7`, `0..5,10..12`.

use super::ConfigError;

/// More seeds than this in one run are a slip of the finger.
const MOST_SEEDS: u64 = 1_000_000;

/// A set of seeds, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds(Vec<u64>);

impl Seeds {
    /// Parses half-open ranges and single seeds, separated by commas.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for anything else, for an empty set and for more than a million.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let wrong = |expected: &str| ConfigError::value("seeds", format!("\"{text}\""), expected);
        let form = "a range such as \"0..5\" is needed, or several with commas between";
        let mut seeds = Vec::new();
        for part in text.split(',') {
            let number = |s: &str| s.trim().parse::<u64>().map_err(|_| wrong(form));
            let (start, end) = match part.split_once("..") {
                Some((start, end)) => (number(start)?, number(end)?),
                None => {
                    let seed = number(part)?;
                    (seed, seed.checked_add(1).ok_or_else(|| wrong(form))?)
                }
            };
            if end.saturating_sub(start).saturating_add(seeds.len() as u64) > MOST_SEEDS {
                return Err(wrong("at most a million seeds"));
            }
            seeds.extend(start..end);
        }
        seeds.sort_unstable();
        seeds.dedup();
        if seeds.is_empty() { Err(wrong("at least one seed is needed")) } else { Ok(Self(seeds)) }
    }

    /// The seeds, ascending.
    pub fn values(&self) -> &[u64] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_singles_and_lists_are_read_and_nonsense_is_not() {
        let values = |text: &str| Seeds::parse(text).unwrap().values().to_vec();
        assert_eq!(values("0..3"), [0, 1, 2]);
        assert_eq!(values("7"), [7]);
        assert_eq!(values("4..6, 0..2, 5"), [0, 1, 4, 5]);
        for text in ["", "3..3", "5..2", "a", "-1", "0..", "0..18446744073709551615", "1.5"] {
            assert!(Seeds::parse(text).is_err(), "{text}");
        }
    }
}
