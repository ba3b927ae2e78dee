//! Token sequences of any lengths, and the parts of similar length in which a network sees them.

use crate::{PeftError, Place};
use burn::tensor::{Int, Tensor};

/// Padding that a part may hold, in tokens: less would make parts too small for fast products.
const SPARE: usize = 128;

/// A text, or a pair of texts, as tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Numbers of the tokens, special ones included.
    pub ids: Vec<u32>,
    /// Numbers of the segments.
    pub segments: Vec<u32>,
}

/// Token sequences of one length.
#[derive(Clone, Debug)]
pub struct Tokens {
    /// Numbers of the tokens, batch x length.
    pub ids: Tensor<2, Int>,
    /// 1 for a token, 0 for padding, batch x length.
    pub mask: Tensor<2>,
    /// Numbers of the segments, batch x length; all 0 where nothing is said.
    pub segments: Option<Tensor<2, Int>>,
}

/// Token sequences of any lengths, in the order of a network's outputs.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// The sequences.
    pub rows: Vec<Encoded>,
    /// Number of the padding token.
    pub padding: i64,
    /// Where tensors are made.
    pub place: Place,
}

impl Sequences {
    /// Numbers of the rows, cut into parts: longest first, each part with at most so much padding as costs
    /// less than another part. The parts depend on the lengths alone.
    pub fn parts(&self) -> Vec<Vec<usize>> {
        let length = |row: usize| self.rows[row].ids.len();
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        // Stable: equal lengths keep their order.
        order.sort_by_key(|&row| std::cmp::Reverse(length(row)));
        let mut parts: Vec<Vec<usize>> = Vec::new();
        let (mut longest, mut spent) = (0, 0);
        for row in order {
            let lost = longest - length(row).min(longest);
            match parts.last_mut() {
                Some(part) if spent + lost <= SPARE => {
                    spent += lost;
                    part.push(row);
                }
                _ => {
                    (longest, spent) = (length(row), 0);
                    parts.push(vec![row]);
                }
            }
        }
        parts
    }

    /// The rows of these numbers, padded to the longest of them.
    ///
    /// # Errors
    /// As [`Place::tensor`].
    pub fn padded(&self, numbers: &[usize]) -> Result<Tokens, PeftError> {
        let rows: Vec<&Encoded> = numbers.iter().map(|&number| &self.rows[number]).collect();
        padded(&rows, self.padding, &self.place)
    }
}

/// `rows` in one tensor, padded to the longest. Segments are named only where there is a second one: RoBERTa
/// has none.
pub(crate) fn padded(rows: &[&Encoded], padding: i64, place: &Place) -> Result<Tokens, PeftError> {
    let length = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let shape = [rows.len(), length];
    let filled = |part: fn(&Encoded) -> &[u32], fill: i64| {
        let row = |row: &&Encoded| {
            let own = part(row).iter().map(|&id| i64::from(id));
            own.chain(std::iter::repeat(fill)).take(length).collect::<Vec<_>>()
        };
        rows.iter().flat_map(row).collect::<Vec<i64>>()
    };
    let mask = rows.iter().flat_map(|row| {
        (0..length).map(|at| f64::from(u8::from(at < row.ids.len()))).collect::<Vec<_>>()
    });
    let paired = rows.iter().any(|row| row.segments.iter().any(|&segment| segment != 0));
    let segments = paired.then(|| place.integers(filled(|row| &row.segments, 0), shape));
    Ok(Tokens {
        ids: place.integers(filled(|row| &row.ids, padding), shape)?,
        mask: place.tensor(mask.collect(), shape)?,
        segments: segments.transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Precision;

    #[test]
    fn parts_hold_every_row_once_and_little_padding() {
        let place = Place::cpu(Precision::F32);
        let mut stream = peftml_linalg::Seed::root(5).stream();
        let mut row = || {
            let ids = vec![7; 1 + stream.below(60) as usize];
            Encoded { segments: vec![0; ids.len()], ids }
        };
        let rows: Vec<Encoded> = (0..200).map(|_| row()).collect();
        let sequences = Sequences { rows, padding: 0, place };
        let parts = sequences.parts();
        let mut all: Vec<usize> = parts.iter().flatten().copied().collect();
        all.sort_unstable();
        assert_eq!(all, (0..200).collect::<Vec<_>>());
        let length = |row: &usize| sequences.rows[*row].ids.len();
        for part in &parts {
            let longest = part.iter().map(length).max().unwrap();
            let lost: usize = part.iter().map(|row| longest - length(row)).sum();
            assert!(lost <= SPARE, "{lost}");
        }
        // Control: in one piece most of it would be padding, and rows of one length are one part.
        let tokens: usize = (0..200).map(|row| length(&row)).sum();
        assert!(200 * 60 - tokens > 20 * SPARE && parts.len() > 5);
        let alike = vec![sequences.rows[0].clone(); 9];
        assert_eq!(Sequences { rows: alike, ..sequences }.parts().len(), 1);
    }
}
