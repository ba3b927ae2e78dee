//! Examples, and batches of them.

use crate::ops;
use crate::sequences::{Sequences, Tokens};
use crate::{PeftError, Place};
use burn::tensor::{Int, Tensor};
use peftml_linalg::Seed;

/// What goes into a network.
#[derive(Clone, Debug)]
pub enum Input {
    /// Vectors, batch x features.
    Vectors(Tensor<2>),
    /// Images, batch x channels x height x width.
    Images(Tensor<4>),
    /// Token sequences.
    Tokens(Box<Tokens>),
    /// Token sequences that the network may take in parts of similar length, so that no padding is computed.
    Sequences(Sequences),
}

impl Input {
    /// What kind it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Input::Vectors(_) => "vectors",
            Input::Images(_) => "images",
            Input::Tokens(_) | Input::Sequences(_) => "token sequences",
        }
    }
}

/// What should come out.
#[derive(Clone, Debug)]
pub enum Target {
    /// The number of a class each.
    Classes(Tensor<1, Int>),
    /// Numbers, batch x outputs.
    Values(Tensor<2>),
    /// Rows in groups of one size, an example each: 1 for the group's true row, 0 for the others. Every row is a
    /// decision between two classes; an example is hit where the true row has the largest output of class 1.
    Candidates {
        /// 0 or 1, one a row.
        truth: Tensor<1, Int>,
        /// Rows of a group.
        each: usize,
    },
}

/// Examples that a network sees at once.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What goes in.
    pub input: Input,
    /// What should come out.
    pub target: Target,
}

impl Batch {
    /// How many examples.
    pub fn len(&self) -> usize {
        match &self.target {
            Target::Classes(classes) => classes.dims()[0],
            Target::Values(values) => values.dims()[0],
            Target::Candidates { truth, each } => truth.dims()[0] / (*each).max(1),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Mean loss of `output`: cross-entropy for classes and for candidates' decisions, half the mean squared
    /// distance for values.
    ///
    /// # Errors
    /// [`PeftError::Shape`] where the output has another shape than the target asks for.
    pub fn loss(&self, output: Tensor<2>) -> Result<Tensor<1>, PeftError> {
        let found = output.dims();
        match &self.target {
            Target::Classes(classes) | Target::Candidates { truth: classes, .. }
                if classes.dims()[0] == found[0] =>
            {
                Ok(ops::cross_entropy(output, classes.clone()))
            }
            Target::Values(values) if values.dims() == found => {
                Ok(ops::half_mean_squares(output, values.clone()))
            }
            Target::Classes(classes) | Target::Candidates { truth: classes, .. } => {
                Err(shape(&[classes.dims()[0], found[1]], &found))
            }
            Target::Values(values) => Err(shape(&values.dims(), &found)),
        }
    }

    /// Which examples are hit: the output's largest number at the class, or the true candidate before the others;
    /// `None` for values. Among equal ones the first counts.
    ///
    /// # Errors
    /// [`PeftError::Execution`]; [`PeftError::Shape`] for candidates' outputs of less than two classes.
    pub fn hits(&self, output: &Tensor<2>) -> Result<Option<Vec<bool>>, PeftError> {
        let (classes, each) = match &self.target {
            Target::Values(_) => return Ok(None),
            Target::Classes(classes) => (classes, 0),
            Target::Candidates { truth, each } => (truth, (*each).max(1)),
        };
        let width = output.dims()[1];
        let outputs = crate::device::values(output)?;
        let failed = |error: burn::tensor::TensorReadError| PeftError::Execution {
            what: "classes",
            problem: error.to_string(),
        };
        let classes = classes.clone().try_to_vec_as::<i64>().map_err(failed)?;
        // The first of equal ones, as PyTorch's argmax.
        let largest = |row: &[f64]| {
            (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
        };
        if each == 0 {
            let hit = |(row, class): (&[f64], &i64)| largest(row) as i64 == *class;
            return Ok(Some(outputs.chunks(width).zip(&classes).map(hit).collect()));
        }
        if width < 2 {
            return Err(shape(&[classes.len(), 2], &[classes.len(), width]));
        }
        let scores: Vec<f64> = outputs.chunks(width).map(|row| row[1]).collect();
        let hit = |(scores, truth): (&[f64], &[i64])| truth[largest(scores)] == 1;
        Ok(Some(scores.chunks(each).zip(classes.chunks(each)).map(hit).collect()))
    }

    /// All of `parts`, one after the other; sequences are padded to the longest.
    ///
    /// # Errors
    /// [`PeftError::Tasks`] where their kinds differ or there are none.
    pub fn joined(parts: Vec<Batch>) -> Result<Batch, PeftError> {
        let wrong = |problem| PeftError::Tasks { what: "a pooled batch".into(), problem };
        let mut parts = parts.into_iter();
        let first = parts.next().ok_or_else(|| wrong("there are no examples"))?;
        parts.try_fold(first, |joined, part| {
            let mixed = || wrong("the tasks' inputs or targets are of different kinds");
            Ok(Batch {
                input: join_inputs(joined.input, part.input).ok_or_else(mixed)?,
                target: match (joined.target, part.target) {
                    (Target::Classes(a), Target::Classes(b)) => {
                        Target::Classes(Tensor::cat(vec![a, b], 0))
                    }
                    (
                        Target::Candidates { truth: a, each },
                        Target::Candidates { truth: b, each: other },
                    ) if each == other => {
                        Target::Candidates { truth: Tensor::cat(vec![a, b], 0), each }
                    }
                    (Target::Values(a), Target::Values(b)) if a.dims()[1] == b.dims()[1] => {
                        Target::Values(Tensor::cat(vec![a, b], 0))
                    }
                    _ => return Err(mixed()),
                },
            })
        })
    }
}

fn shape(expected: &[usize], found: &[usize]) -> PeftError {
    let (expected, found) = (expected.to_vec(), found.to_vec());
    PeftError::Shape { name: "output".into(), expected, found }
}

fn join_inputs(a: Input, b: Input) -> Option<Input> {
    match (a, b) {
        (Input::Vectors(a), Input::Vectors(b)) if a.dims()[1] == b.dims()[1] => {
            Some(Input::Vectors(Tensor::cat(vec![a, b], 0)))
        }
        (Input::Images(a), Input::Images(b)) if a.dims()[1..] == b.dims()[1..] => {
            Some(Input::Images(Tensor::cat(vec![a, b], 0)))
        }
        (Input::Sequences(mut a), Input::Sequences(b)) if a.padding == b.padding => {
            a.rows.extend(b.rows);
            Some(Input::Sequences(a))
        }
        (Input::Tokens(a), Input::Tokens(b)) => Some(Input::Tokens(Box::new(join_tokens(*a, *b)))),
        _ => None,
    }
}

fn join_tokens(a: Tokens, b: Tokens) -> Tokens {
    let length = a.ids.dims()[1].max(b.ids.dims()[1]);
    let joined = |a, b| Tensor::cat(vec![padded_ids(a, length), padded_ids(b, length)], 0);
    let segments = match (a.segments, b.segments) {
        (None, None) => None,
        (first, second) => {
            let first = first.unwrap_or_else(|| a.ids.zeros_like());
            Some(joined(first, second.unwrap_or_else(|| b.ids.zeros_like())))
        }
    };
    let mask = Tensor::cat(vec![padded(a.mask, length), padded(b.mask, length)], 0);
    Tokens { ids: joined(a.ids, b.ids), mask, segments }
}

fn padded(x: Tensor<2>, length: usize) -> Tensor<2> {
    let [rows, found] = x.dims();
    if found == length {
        return x;
    }
    let zeros = x.clone().narrow(1, 0, 1).mul_scalar(0.0).expand([rows, length - found]);
    Tensor::cat(vec![x, zeros], 1)
}

fn padded_ids(x: Tensor<2, Int>, length: usize) -> Tensor<2, Int> {
    let [rows, found] = x.dims();
    if found == length {
        return x;
    }
    let zeros = x.clone().narrow(1, 0, 1).mul_scalar(0).expand([rows, length - found]);
    Tensor::cat(vec![x, zeros], 1)
}

/// A source of examples.
pub trait Examples: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many rows of a network's output an example is.
    fn rows(&self) -> usize {
        1
    }

    /// The examples with these numbers, each below [`Examples::len`]. Random changes (crops, flips), where the
    /// source makes any, are drawn below `augmentation`; `None`: the examples as they are.
    ///
    /// # Errors
    /// As [`Place::tensor`].
    fn batch(
        &self,
        numbers: &[usize],
        augmentation: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError>;
}

/// A task: examples to learn from, and others to choose by.
pub struct Task {
    /// Its name.
    pub name: String,
    /// Examples that are trained on.
    pub training: Box<dyn Examples>,
    /// Examples that choices are made by; may be empty.
    pub validation: Box<dyn Examples>,
}

/// Vectors in memory with classes or values.
#[derive(Clone, Debug)]
pub struct VectorExamples {
    features: usize,
    inputs: Vec<f64>,
    answers: Answers,
}

#[derive(Clone, Debug)]
enum Answers {
    Classes(Vec<usize>),
    Values { width: usize, numbers: Vec<f64> },
}

impl VectorExamples {
    /// Vectors of length `features`, one after the other, each with the number of its class.
    ///
    /// # Errors
    /// [`PeftError::Shape`] where the lengths do not fit each other.
    pub fn classes(
        features: usize,
        inputs: Vec<f64>,
        classes: Vec<usize>,
    ) -> Result<Self, PeftError> {
        check("inputs", inputs.len(), classes.len() * features)?;
        Ok(Self { features, inputs, answers: Answers::Classes(classes) })
    }

    /// Vectors of length `features`, one after the other, and of length `width` to come out.
    ///
    /// # Errors
    /// As [`VectorExamples::classes`].
    pub fn values(
        features: usize,
        inputs: Vec<f64>,
        width: usize,
        numbers: Vec<f64>,
    ) -> Result<Self, PeftError> {
        let count = inputs.len() / features.max(1);
        check("inputs", inputs.len(), count * features)?;
        check("values", numbers.len(), count * width)?;
        Ok(Self { features, inputs, answers: Answers::Values { width, numbers } })
    }
}

impl Examples for VectorExamples {
    fn len(&self) -> usize {
        match &self.answers {
            Answers::Classes(classes) => classes.len(),
            Answers::Values { width, numbers } => numbers.len() / (*width).max(1),
        }
    }

    fn batch(
        &self,
        numbers: &[usize],
        _: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError> {
        let gather = |all: &[f64], width: usize| {
            let rows = numbers.iter().flat_map(|&i| &all[i * width..(i + 1) * width]);
            place.tensor(rows.copied().collect(), [numbers.len(), width])
        };
        let target = match &self.answers {
            Answers::Classes(classes) => {
                let chosen = numbers.iter().map(|&i| classes[i] as i64).collect();
                Target::Classes(place.integers(chosen, [numbers.len()])?)
            }
            Answers::Values { width, numbers } => Target::Values(gather(numbers, *width)?),
        };
        Ok(Batch { input: Input::Vectors(gather(&self.inputs, self.features)?), target })
    }
}

fn check(name: &str, found: usize, expected: usize) -> Result<(), PeftError> {
    if found == expected {
        return Ok(());
    }
    let (expected, found) = (vec![expected], vec![found]);
    Err(PeftError::Shape { name: name.into(), expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Precision, device::values};

    #[test]
    fn sequences_are_padded_to_the_longest() {
        let place = Place::cpu(Precision::F32);
        let part = |ids: Vec<i64>, segments: bool| {
            let n = ids.len();
            let ids = place.integers(ids, [1, n]).unwrap();
            let segments = segments.then(|| ids.ones_like());
            let mask = place.tensor(vec![1.0; n], [1, n]).unwrap();
            let target = Target::Classes(place.integers(vec![0], [1]).unwrap());
            Batch { input: Input::Tokens(Box::new(Tokens { ids, mask, segments })), target }
        };
        let joined = Batch::joined(vec![part(vec![5, 6, 7], false), part(vec![8], true)]).unwrap();
        let Input::Tokens(tokens) = joined.input else { panic!() };
        let Tokens { ids, mask, segments } = *tokens;
        assert_eq!(ids.to_data().try_to_vec::<i64>().unwrap(), [5, 6, 7, 8, 0, 0]);
        assert_eq!(values(&mask).unwrap(), [1., 1., 1., 1., 0., 0.]);
        assert_eq!(segments.unwrap().to_data().try_to_vec::<i64>().unwrap(), [0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn lengths_that_do_not_fit_and_kinds_that_differ_are_refused() {
        assert!(VectorExamples::classes(3, vec![0.0; 7], vec![0, 1]).is_err());
        assert!(VectorExamples::values(3, vec![0.0; 6], 2, vec![0.0; 5]).is_err());
        let place = Place::cpu(Precision::F32);
        let classes = VectorExamples::classes(2, vec![0.0; 4], vec![0, 1]).unwrap();
        let values = VectorExamples::values(2, vec![0.0; 4], 1, vec![0.0; 2]).unwrap();
        let [a, b] =
            [&classes as &dyn Examples, &values].map(|e| e.batch(&[0], None, &place).unwrap());
        assert!(matches!(Batch::joined(vec![a, b]), Err(PeftError::Tasks { .. })));
        assert!(matches!(Batch::joined(Vec::new()), Err(PeftError::Tasks { .. })));
    }

    #[test]
    fn hits_are_counted_and_ties_go_to_the_first() {
        let place = Place::cpu(Precision::F64);
        let output = place.tensor(vec![1., 2., 2., 1., 0., 0.], [3, 2]).unwrap();
        let examples = VectorExamples::classes(1, vec![0.0; 3], vec![1, 1, 0]).unwrap();
        let batch = examples.batch(&[0, 1, 2], None, &place).unwrap();
        assert_eq!(batch.hits(&output).unwrap(), Some(vec![true, false, true]));
    }
}
