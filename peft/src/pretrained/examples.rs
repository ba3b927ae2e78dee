//! Tokenised text with classes, as examples to train on.

use crate::sequences::Encoded;
use crate::{Batch, Examples, Input, PeftError, Place, Target};
use peftml_linalg::Seed;

/// Sequences of tokens, each with the number of its class. A batch is padded to its own longest sequence.
#[derive(Clone, Debug)]
pub struct TextExamples {
    encoded: Vec<Encoded>,
    classes: Vec<usize>,
    padding: i64,
}

impl TextExamples {
    /// `encoded` with `classes`; `padding` is the number of the padding token.
    ///
    /// # Errors
    /// [`PeftError::Shape`] where they are not as many.
    pub fn new(
        encoded: Vec<Encoded>,
        classes: Vec<usize>,
        padding: usize,
    ) -> Result<Self, PeftError> {
        if encoded.len() != classes.len() {
            let (expected, found) = (vec![encoded.len()], vec![classes.len()]);
            return Err(PeftError::Shape { name: "classes".into(), expected, found });
        }
        Ok(Self { encoded, classes, padding: padding as i64 })
    }
}

impl Examples for TextExamples {
    fn len(&self) -> usize {
        self.encoded.len()
    }

    fn batch(
        &self,
        numbers: &[usize],
        _: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError> {
        let rows: Vec<&Encoded> = numbers.iter().map(|&number| &self.encoded[number]).collect();
        let tokens = crate::sequences::padded(&rows, self.padding, place)?;
        let classes = numbers.iter().map(|&number| self.classes[number] as i64).collect();
        let target = Target::Classes(place.integers(classes, [numbers.len()])?);
        Ok(Batch { input: Input::Tokens(Box::new(tokens)), target })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Precision, device::values};

    #[test]
    fn a_batch_is_padded_to_its_own_longest_sequence() {
        let place = Place::cpu(Precision::F32);
        let encoded = |ids: &[u32], segments: &[u32]| Encoded {
            ids: ids.to_vec(),
            segments: segments.to_vec(),
        };
        let all = vec![encoded(&[5, 6], &[0, 1]), encoded(&[7], &[0]), encoded(&[8; 9], &[0; 9])];
        let examples = TextExamples::new(all.clone(), vec![1, 0, 1], 3).unwrap();
        let batch = examples.batch(&[1, 0], None, &place).unwrap();
        let Input::Tokens(tokens) = batch.input else { panic!() };
        assert_eq!(tokens.ids.to_data().try_to_vec::<i64>().unwrap(), [7, 3, 5, 6]);
        assert_eq!(values(&tokens.mask).unwrap(), [1.0, 0.0, 1.0, 1.0]);
        let segments = tokens.segments.unwrap().to_data();
        assert_eq!(segments.try_to_vec::<i64>().unwrap(), [0, 0, 0, 1]);
        // Control: with the long one the batch is long, and without pairs no segment is named.
        let batch = examples.batch(&[1, 2], None, &place).unwrap();
        let Input::Tokens(tokens) = batch.input else { panic!() };
        assert_eq!(tokens.ids.dims(), [2, 9]);
        assert!(tokens.segments.is_none());
        assert!(TextExamples::new(all, vec![1], 3).is_err());
    }
}
