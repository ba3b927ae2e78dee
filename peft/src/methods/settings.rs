//! What methods' settings have in common.

use super::{Note, Patterns};
use crate::PeftError;
use crate::sites::LinearSite;
use serde::de::DeserializeOwned;

/// The settings in `table` for the method (or algorithm) `of`.
///
/// # Errors
/// [`PeftError::Settings`] for unknown keys and wrong types.
pub fn read_settings<T: DeserializeOwned>(of: &str, table: toml::Table) -> Result<T, PeftError> {
    table
        .try_into()
        .map_err(|source| PeftError::Settings { of: of.into(), source: Box::new(source) })
}

/// `value`, refused where `holds` does not.
pub(crate) fn in_range(
    name: &str,
    value: f64,
    holds: bool,
    expected: &str,
) -> Result<(), PeftError> {
    // A number that is none fails every comparison of the caller's as well.
    if holds && value.is_finite() {
        return Ok(());
    }
    Err(PeftError::Range { name: name.into(), value, expected: expected.into() })
}

/// Ranks and scales of a low-rank method, by layer.
#[derive(Clone, Debug)]
pub struct LowRank {
    rank: usize,
    alpha: f64,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
}

impl LowRank {
    /// `rank` and `alpha` for all layers, but for those in `ranks` and `alphas`.
    ///
    /// # Errors
    /// [`PeftError::Range`] for a rank below 1 or an alpha that is not a positive number.
    pub fn new(
        rank: usize,
        alpha: f64,
        ranks: Patterns<usize>,
        alphas: Patterns<f64>,
    ) -> Result<Self, PeftError> {
        in_range("rank", rank as f64, rank >= 1, "at least 1")?;
        in_range("alpha", alpha, alpha > 0.0, "more than 0")?;
        Ok(Self { rank, alpha, ranks, alphas })
    }

    /// The rank at `layer`: at most the smaller side, which is noted where it was more.
    ///
    /// # Errors
    /// [`PeftError::Rank`] where a pattern named a larger one for this layer.
    pub fn rank(&self, layer: &LinearSite, notes: &mut Vec<Note>) -> Result<usize, PeftError> {
        let most = layer.inputs.min(layer.outputs);
        match self.ranks.get(&layer.path) {
            Some(rank) if rank == 0 || rank > most => Err(PeftError::Rank {
                layer: layer.path.clone(),
                rank,
                inputs: layer.inputs,
                outputs: layer.outputs,
            }),
            Some(rank) => Ok(rank),
            None if self.rank > most => {
                let layer = layer.path.clone();
                notes.push(Note::RankCapped { layer, asked: self.rank, used: most });
                Ok(most)
            }
            None => Ok(self.rank),
        }
    }

    /// The rank at a layer that [`LowRank::rank`] has accepted.
    pub fn fitting(&self, layer: &LinearSite) -> usize {
        let most = layer.inputs.min(layer.outputs);
        self.ranks.get(&layer.path).unwrap_or(self.rank).min(most)
    }

    /// `alpha / rank`.
    pub fn scale(&self, path: &str, rank: usize) -> f64 {
        self.alpha(path) / rank as f64
    }

    /// `alpha`.
    pub fn alpha(&self, path: &str) -> f64 {
        self.alphas.get(path).unwrap_or(self.alpha)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn layer(path: &str) -> LinearSite {
        LinearSite { path: path.into(), inputs: 6, outputs: 2, bias: true }
    }

    #[test]
    fn a_rank_too_large_is_capped_with_a_note_and_refused_where_it_was_named() {
        let ranks = Patterns::new(&BTreeMap::from([("named".to_owned(), 3)])).unwrap();
        let low_rank = LowRank::new(8, 8.0, ranks, Patterns::default()).unwrap();
        let mut notes = Vec::new();
        assert_eq!(low_rank.rank(&layer("head"), &mut notes).unwrap(), 2);
        let expected = Note::RankCapped { layer: "head".into(), asked: 8, used: 2 };
        assert_eq!(notes, [expected]);
        let error = low_rank.rank(&layer("named"), &mut notes).unwrap_err();
        assert!(matches!(error, PeftError::Rank { rank: 3, inputs: 6, outputs: 2, .. }));
    }

    #[test]
    fn ranks_and_scales_outside_their_range_are_refused() {
        let new = |rank, alpha| LowRank::new(rank, alpha, Patterns::default(), Patterns::default());
        assert!(new(1, 1.0).is_ok());
        for (rank, alpha) in [(0, 1.0), (1, 0.0), (1, -1.0), (1, f64::NAN), (1, f64::INFINITY)] {
            assert!(matches!(new(rank, alpha), Err(PeftError::Range { .. })), "{rank} {alpha}");
        }
    }
}
