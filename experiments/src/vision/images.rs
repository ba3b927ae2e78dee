//! Images as examples of a binary task: label = class mod 2, normalised by channel; in training cropped
//! and flipped anew in every epoch.
//!
//! A change is a shift by up to [`PADDING`] pixels each way, what comes in from outside being black, and a
//! flip with probability 1/2. It is drawn from the stream (role's seed, epoch, number of the image), so
//! that it depends on nothing else that is drawn. A batch is one allocation whatever it holds.
//! Source of means and deviations: experiments.md, section 3 (those of CIFAR-10's training images).

use peftml_data::Images;
use peftml_linalg::Seed;
use peftml_peft::{Batch, Examples, Input, PeftError, Place, Target};
use std::sync::Arc;

/// Pixels of black around an image before it is cropped.
pub const PADDING: usize = 4;
const MEANS: [f64; 3] = [0.4914, 0.4822, 0.4465];
const DEVIATIONS: [f64; 3] = [0.2023, 0.1994, 0.2010];

/// When images are changed.
#[derive(Clone, Debug)]
pub enum Changes {
    /// Never.
    None,
    /// Anew in every epoch.
    EveryEpoch,
    /// Once an image, below this seed.
    Once(Seed),
}

/// Some images of a set, as examples.
pub struct ImageExamples {
    images: Arc<Images>,
    numbers: Vec<usize>,
    changes: Changes,
    /// The normalised value of every byte, by channel.
    values: [[f32; 256]; 3],
}

/// A crop and a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    down: usize,
    across: usize,
    flip: bool,
}

impl Change {
    /// The image as it is.
    const NONE: Self = Self { down: PADDING, across: PADDING, flip: false };

    fn draw(seed: &Seed) -> Self {
        let mut stream = seed.stream();
        let mut shift = || stream.below(2 * PADDING as u64 + 1) as usize;
        let (down, across) = (shift(), shift());
        Self { down, across, flip: stream.sign() < 0.0 }
    }
}

impl ImageExamples {
    /// The images with these numbers, which `images` of three channels has.
    pub fn new(images: &Arc<Images>, numbers: Vec<usize>, changes: Changes) -> Self {
        let value = |channel: usize, byte: usize| {
            ((byte as f64 / 255.0 - MEANS[channel]) / DEVIATIONS[channel]) as f32
        };
        let values = std::array::from_fn(|c| std::array::from_fn(|byte| value(c, byte)));
        Self { images: Arc::clone(images), numbers, changes, values }
    }

    fn change(&self, number: usize, augmentation: Option<&Seed>) -> Change {
        match (augmentation, &self.changes) {
            (None, _) | (_, Changes::None) => Change::NONE,
            (Some(epoch), Changes::EveryEpoch) => Change::draw(&epoch.child(number)),
            (Some(_), Changes::Once(seed)) => Change::draw(&seed.child(number)),
        }
    }

    /// Writes image `number`, changed, by channel and row.
    fn write(&self, number: usize, change: Change, out: &mut [f32]) {
        let side = self.images.side();
        let pixels = self.images.pixels(self.numbers[number]);
        let planes = pixels.chunks_exact(side * side).zip(out.chunks_exact_mut(side * side));
        for ((plane, out), values) in planes.zip(&self.values) {
            for (y, row) in out.chunks_exact_mut(side).enumerate() {
                let source = (y + change.down).wrapping_sub(PADDING);
                if source >= side {
                    row.fill(values[0]);
                    continue;
                }
                let source = &plane[source * side..(source + 1) * side];
                for (x, value) in row.iter_mut().enumerate() {
                    let x = if change.flip { side - 1 - x } else { x };
                    let byte = source.get((x + change.across).wrapping_sub(PADDING));
                    *value = values[usize::from(byte.copied().unwrap_or(0))];
                }
            }
        }
    }
}

impl Examples for ImageExamples {
    fn len(&self) -> usize {
        self.numbers.len()
    }

    fn batch(
        &self,
        numbers: &[usize],
        augmentation: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError> {
        let side = self.images.side();
        let size = 3 * side * side;
        let mut values = vec![0.0; numbers.len() * size];
        for (out, &number) in values.chunks_exact_mut(size).zip(numbers) {
            self.write(number, self.change(number, augmentation), out);
        }
        let label = |&number: &usize| i64::from(self.images.labels()[self.numbers[number]] % 2);
        let labels = numbers.iter().map(label).collect();
        Ok(Batch {
            input: Input::Images(place.tensor_f32(values, [numbers.len(), 3, side, side])?),
            target: Target::Classes(place.integers(labels, [numbers.len()])?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIDE: usize = 12;

    fn examples(changes: Changes) -> ImageExamples {
        let mut images = Images::empty(3, SIDE);
        for label in 0..20u8 {
            let pixel = |i: usize| (i * 7 + usize::from(label) * 31) as u8 | 1;
            images.push(label % 10, &(0..3 * SIDE * SIDE).map(pixel).collect::<Vec<_>>());
        }
        ImageExamples::new(&Arc::new(images), (5..15).collect(), changes)
    }

    fn written(examples: &ImageExamples, number: usize, change: Change) -> Vec<f32> {
        let mut out = vec![f32::NAN; 3 * SIDE * SIDE];
        examples.write(number, change, &mut out);
        out
    }

    /// Pixel by pixel, by the definition: pad, crop, flip.
    fn by_definition(examples: &ImageExamples, number: usize, change: Change) -> Vec<f32> {
        let pixels = examples.images.pixels(examples.numbers[number]);
        let mut out = Vec::new();
        for c in 0..3 {
            for y in 0..SIDE {
                for x in 0..SIDE {
                    let x = if change.flip { SIDE - 1 - x } else { x };
                    let (row, column) = (y + change.down, x + change.across);
                    let inside = |i: usize| (PADDING..PADDING + SIDE).contains(&i);
                    let byte = match inside(row) && inside(column) {
                        true => pixels[(c * SIDE + row - PADDING) * SIDE + column - PADDING],
                        false => 0,
                    };
                    let scaled = f64::from(byte) / 255.0;
                    out.push(((scaled - MEANS[c]) / DEVIATIONS[c]) as f32);
                }
            }
        }
        out
    }

    #[test]
    fn images_are_padded_cropped_and_flipped_as_defined() {
        let examples = examples(Changes::EveryEpoch);
        for down in 0..=2 * PADDING {
            for across in [0, 3, PADDING, 2 * PADDING] {
                for flip in [false, true] {
                    let change = Change { down, across, flip };
                    assert_eq!(written(&examples, 2, change), by_definition(&examples, 2, change));
                }
            }
        }
        // Control: changes do change.
        let moved = Change { down: PADDING + 1, ..Change::NONE };
        assert_ne!(written(&examples, 2, moved), written(&examples, 2, Change::NONE));
    }

    #[test]
    fn every_epoch_draws_anew_and_the_flaw_once() {
        let (one, two) = (Seed::root(1).child(0u64), Seed::root(1).child(1u64));
        let changes = |examples: &ImageExamples, seed: Option<&Seed>| -> Vec<Change> {
            (0..10).map(|number| examples.change(number, seed)).collect()
        };
        let anew = examples(Changes::EveryEpoch);
        assert_ne!(changes(&anew, Some(&one)), changes(&anew, Some(&two)));
        assert_eq!(changes(&anew, Some(&one)), changes(&anew, Some(&one)));
        assert!(changes(&anew, None).iter().all(|change| *change == Change::NONE));
        let once = examples(Changes::Once(Seed::root(3)));
        assert_eq!(changes(&once, Some(&one)), changes(&once, Some(&two)));
        assert!(changes(&once, Some(&one)).iter().any(|change| *change != Change::NONE));
        let never = examples(Changes::None);
        assert!(changes(&never, Some(&one)).iter().all(|change| *change == Change::NONE));
    }

    #[test]
    fn shifts_are_uniform_and_half_of_the_images_are_flipped() {
        let n = 9_000u64;
        let draws: Vec<Change> = (0..n).map(|i| Change::draw(&Seed::root(4).child(i))).collect();
        // Six standard errors of a share p among n.
        let near = |count: usize, p: f64| {
            (count as f64 / n as f64 - p).abs() < 6.0 * (p * (1.0 - p) / n as f64).sqrt()
        };
        assert!(near(draws.iter().filter(|change| change.flip).count(), 0.5));
        for shift in 0..=2 * PADDING {
            assert!(near(draws.iter().filter(|c| c.down == shift).count(), 1.0 / 9.0));
            assert!(near(draws.iter().filter(|c| c.across == shift).count(), 1.0 / 9.0));
        }
    }

    #[test]
    fn a_batch_holds_the_classes_parity() {
        let examples = examples(Changes::None);
        let place = Place::cpu(peftml_peft::Precision::F32);
        let batch = examples.batch(&[0, 1, 9], None, &place).unwrap();
        let Target::Classes(classes) = batch.target else { panic!("no classes") };
        // Images 5, 6 and 14, of classes 5, 6 and 4.
        let expected = place.integers(vec![1, 0, 0], [3]).unwrap();
        assert_eq!(classes.to_data(), expected.to_data());
        let Input::Images(images) = batch.input else { panic!("no images") };
        let first = peftml_peft::device::values(&images).unwrap();
        let expected = written(&examples, 0, Change::NONE);
        assert!(first.iter().zip(&expected).all(|(a, b)| *a == f64::from(*b)));
    }
}
