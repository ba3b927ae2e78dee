//! Loss and accuracy on a set of examples.

use crate::adapter::Adapter;
use crate::batch::Examples;
use crate::parameters::Parameters;
use crate::{Network, Pass, PeftError, Place, device};

/// Rows in one pass of an evaluation: bounds memory, changes nothing else.
const AT_ONCE: usize = 256;

/// Loss and accuracy.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Evaluation {
    /// Mean loss.
    pub loss: f64,
    /// Share of examples whose largest output is at their class; none for values.
    pub accuracy: Option<f64>,
    /// How many examples.
    pub examples: usize,
}

impl Evaluation {
    /// What a choice is made by, larger is better: accuracy, else the loss with its sign turned.
    pub fn score(&self) -> f64 {
        self.accuracy.unwrap_or(-self.loss)
    }

    /// The mean of `all`, every set counting alike; `None` for none.
    pub fn mean(all: &[Evaluation]) -> Option<Evaluation> {
        let count = all.len() as f64;
        let sum = |f: fn(&Evaluation) -> f64| all.iter().map(f).sum::<f64>() / count;
        let accuracy = all.iter().all(|e| e.accuracy.is_some());
        (!all.is_empty()).then(|| Evaluation {
            loss: sum(|e| e.loss),
            accuracy: accuracy.then(|| sum(|e| e.accuracy.unwrap_or(0.0))),
            examples: all.iter().map(|e| e.examples).sum(),
        })
    }
}

/// `network` on all of `examples`, without masks or random changes; `None` where there are none.
///
/// # Errors
/// As [`Network::forward`] and [`crate::Batch::loss`].
pub fn evaluate(
    network: &dyn Network,
    base: &Parameters,
    adapter: Option<(&Adapter, &Parameters)>,
    examples: &dyn Examples,
    place: &Place,
) -> Result<Option<Evaluation>, PeftError> {
    Ok(evaluate_each(network, base, adapter, examples, place)?.map(|(all, _)| all))
}

/// As [`evaluate`], and which of the examples are hit, in their order; none for values.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_each(
    network: &dyn Network,
    base: &Parameters,
    adapter: Option<(&Adapter, &Parameters)>,
    examples: &dyn Examples,
    place: &Place,
) -> Result<Option<(Evaluation, Vec<bool>)>, PeftError> {
    let at_once = (AT_ONCE / examples.rows().max(1)).max(1);
    let count = examples.len();
    let (mut loss, mut hits) = (0.0, Some(Vec::new()));
    let mut pass = Pass::new(base);
    if let Some((adapter, theta)) = adapter {
        pass = pass.with_adapter(adapter, theta);
    }
    for start in (0..count).step_by(at_once) {
        let numbers: Vec<usize> = (start..(start + at_once).min(count)).collect();
        let batch = examples.batch(&numbers, None, place)?;
        let output = network.forward(&pass, &batch.input)?;
        let found = batch.hits(&output)?;
        hits = hits.zip(found).map(|(a, b)| [a, b].concat());
        loss += device::scalar(&batch.loss(output)?)? * numbers.len() as f64;
    }
    let share = |hits: &Vec<bool>| hits.iter().filter(|hit| **hit).count() as f64 / count as f64;
    let all = Evaluation {
        loss: loss / count as f64,
        accuracy: hits.as_ref().map(share),
        examples: count,
    };
    Ok((count > 0).then(|| (all, hits.unwrap_or_default())))
}
