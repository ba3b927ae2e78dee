//! What the integration tests share: small networks with every kind of module, and tasks for them.
#![allow(dead_code)]

use peftml_linalg::Seed;
use peftml_peft::models::{Encoder, EncoderConfig, EncoderForm};
use peftml_peft::{
    Adapter, AdapterConfig, Batch, Examples, Input, Network, Parameters, Pass, PeftError, Place,
    Precision, Target, Task, Tokens, device,
};

pub fn double() -> Place {
    Place::cpu(Precision::F64)
}

/// An encoder with every kind of site; sides 12, 8 and 2, so that ranks and blocks must fit.
pub fn encoder(dropout: f64) -> Encoder {
    let config = EncoderConfig {
        vocabulary: 11,
        width: 12,
        layers: 2,
        heads: 2,
        hidden: 8,
        positions: 10,
        segments: 2,
        classes: 2,
        dropout,
        form: EncoderForm::default(),
    };
    Encoder::new(config).unwrap()
}

/// Weights at which every part of the encoder matters: its own start is nearly linear.
pub fn weights(network: &dyn Network, place: &Place) -> Parameters {
    let seed = Seed::root(3).child("weights");
    let own = network.sites().initial(&seed, place).unwrap();
    let numbers = |name: &str, count: usize| -> Vec<f64> {
        let mut stream = seed.child("drawn").child(name).stream();
        let norm = name.ends_with("LayerNorm.weight") || name.ends_with("norm.weight");
        (0..count).map(|_| 0.3 * stream.normal() + f64::from(u8::from(norm))).collect()
    };
    own.iter()
        .map(|(name, parameter)| {
            let count = parameter.shape.iter().product();
            let value = place.tensor(numbers(name, count), [count]).unwrap();
            (name.to_owned(), peftml_peft::Parameter { value, ..parameter.clone() })
        })
        .collect()
}

/// Token sequences of two lengths; the class is whether tokens below 5 are the more frequent.
pub struct Sentences {
    seed: Seed,
    count: usize,
}

impl Sentences {
    pub fn new(name: &str, count: usize) -> Self {
        Self { seed: Seed::root(5).child(name), count }
    }

    fn sentence(&self, number: usize) -> (Vec<i64>, i64) {
        let mut stream = self.seed.child(number).stream();
        let length = if number.is_multiple_of(3) { 4 } else { 6 };
        let ids: Vec<i64> = (0..length).map(|_| 1 + stream.below(10) as i64).collect();
        let low = ids.iter().filter(|id| **id < 5).count();
        (ids, i64::from(2 * low > length))
    }
}

impl Examples for Sentences {
    fn len(&self) -> usize {
        self.count
    }

    fn batch(
        &self,
        numbers: &[usize],
        _: Option<&Seed>,
        place: &Place,
    ) -> Result<Batch, PeftError> {
        let (n, length) = (numbers.len(), 6);
        let (mut ids, mut mask, mut classes) = (vec![0; n * length], vec![0.0; n * length], vec![]);
        for (row, &number) in numbers.iter().enumerate() {
            let (sentence, class) = self.sentence(number);
            for (column, id) in sentence.into_iter().enumerate() {
                ids[row * length + column] = id;
                mask[row * length + column] = 1.0;
            }
            classes.push(class);
        }
        let input = Input::Tokens(Box::new(Tokens {
            ids: place.integers(ids, [n, length])?,
            mask: place.tensor(mask, [n, length])?,
            segments: None,
        }));
        Ok(Batch { input, target: Target::Classes(place.integers(classes, [n])?) })
    }
}

pub fn tasks(names: &[&str]) -> Vec<Task> {
    let task = |name: &&str| Task {
        name: (*name).to_owned(),
        training: Box::new(Sentences::new(name, 12)),
        validation: Box::new(Sentences::new(&format!("{name}/validation"), 9)),
    };
    names.iter().map(task).collect()
}

/// A batch that both lengths are in.
pub fn batch(place: &Place) -> Batch {
    Sentences::new("batch", 7).batch(&[0, 1, 2, 3, 4, 5, 6], None, place).unwrap()
}

/// Every method of the registry with each of its examples.
pub fn cases() -> Vec<(String, AdapterConfig)> {
    let mut cases = Vec::new();
    for entry in peftml_peft::methods::registry() {
        for settings in entry.examples {
            let config = AdapterConfig::new(entry.name).with_settings(settings).unwrap();
            cases.push((format!("{} {{{}}}", entry.name, settings.replace('\n', ", ")), config));
        }
    }
    cases
}

/// The first method of the registry that acts on weights, with its first example.
pub fn small_weight_method() -> AdapterConfig {
    cases()
        .into_iter()
        .map(|(_, config)| config)
        .find(|config| {
            let entry = peftml_peft::methods::entry(&config.method).unwrap();
            let method = (entry.configure)(config.settings.clone()).unwrap();
            matches!(method.kind, peftml_peft::methods::Kind::Weight(_))
        })
        .unwrap()
}

/// An adapter on `network`, ready at a fresh start.
pub fn fresh(
    network: &dyn Network,
    config: &AdapterConfig,
    base: &Parameters,
    seed: u64,
    place: &Place,
) -> (Adapter, Parameters) {
    let seed = Seed::root(seed);
    let adapter = Adapter::new(config, network.sites()).unwrap();
    let adapter = adapter.prepared(base, &seed.child("projection"), place).unwrap();
    let theta = adapter.fresh(base, &seed.child("adapter"), place).unwrap();
    (adapter, theta)
}

/// `parameters` plus `size` times normal draws of the stream `name`.
pub fn moved(parameters: &Parameters, name: &str, size: f64) -> Parameters {
    let mut moved = parameters.clone();
    for (key, parameter) in parameters.iter() {
        let mut stream = Seed::root(9).child(name).child(key).stream();
        let values = parameters.values(key).unwrap();
        let numbers: Vec<f64> = values.iter().map(|x| x + size * stream.normal()).collect();
        let count = numbers.len();
        let value = double().tensor(numbers, [count]).unwrap();
        moved.insert(key, peftml_peft::Parameter { value, ..parameter.clone() });
    }
    moved
}

pub fn output(
    network: &dyn Network,
    base: &Parameters,
    adapter: Option<(&Adapter, &Parameters)>,
    batch: &Batch,
) -> Vec<f64> {
    let mut pass = Pass::new(base);
    if let Some((adapter, theta)) = adapter {
        pass = pass.with_adapter(adapter, theta);
    }
    device::values(&network.forward(&pass, &batch.input).unwrap()).unwrap()
}

pub fn loss(
    network: &dyn Network,
    base: &Parameters,
    adapter: Option<(&Adapter, &Parameters)>,
    batch: &Batch,
) -> f64 {
    let mut pass = Pass::new(base);
    if let Some((adapter, theta)) = adapter {
        pass = pass.with_adapter(adapter, theta);
    }
    let output = network.forward(&pass, &batch.input).unwrap();
    device::scalar(&batch.loss(output).unwrap()).unwrap()
}

pub fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(x, y)| (x - y).abs()).fold(0.0, f64::max)
}
