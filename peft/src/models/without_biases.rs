//! A network whose linear maps have lost their biases: what adapted layers are in the reference code of
//! arXiv:2410.22264.

use crate::parameters::Parameters;
use crate::sites::Sites;
use crate::{Adapter, Input, Network, Pass, PeftError};
use burn::tensor::Tensor;

/// A network without biases at linear maps.
pub struct WithoutBiases {
    network: Box<dyn Network>,
    sites: Sites,
}

impl WithoutBiases {
    /// `network` without its biases.
    pub fn new(network: Box<dyn Network>) -> Self {
        let sites = without_biases(network.sites());
        Self { network, sites }
    }

    /// `parameters` of the whole network without those that this one lacks.
    pub fn kept(&self, parameters: &Parameters) -> Parameters {
        let known = |name: &str| self.sites.parameters().iter().any(|spec| spec.name == name);
        let kept = parameters.iter().filter(|(name, _)| known(name));
        kept.map(|(name, parameter)| (name.to_owned(), parameter.clone())).collect()
    }

    /// Whether `adapter` changes the map of linear layers of `sites`, and not only takes hold of
    /// parameters that are there.
    pub fn concerns(adapter: &Adapter, sites: &Sites) -> bool {
        sites.linears().iter().any(|site| adapter.acts_on(&site.path))
    }
}

impl Network for WithoutBiases {
    fn sites(&self) -> &Sites {
        &self.sites
    }

    fn forward(&self, pass: &Pass<'_>, input: &Input) -> Result<Tensor<2>, PeftError> {
        self.network.forward(pass, input)
    }
}

fn without_biases(sites: &Sites) -> Sites {
    let mut out = Sites::default();
    for spec in sites.parameters() {
        let linear = |ending: &str| {
            let path = spec.name.strip_suffix(ending)?;
            sites.linears().iter().find(|site| site.path == path)
        };
        if let Some(site) = linear(".weight") {
            let shape = [site.inputs, site.outputs];
            out.linear_from(&site.path, shape, spec.init.clone(), None);
            if sites.in_head(&spec.name) {
                out.head(&site.path);
            }
        } else if linear(".bias").is_none() {
            out.parameter(spec.clone());
        }
    }
    for block in sites.blocks() {
        out.block(&block.path, block.width);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::values;
    use crate::models::{Mixer, MixerConfig};
    use crate::{AdapterConfig, Place, Precision};
    use peftml_linalg::Seed;

    fn mixer() -> Box<dyn Network> {
        let config =
            MixerConfig { image_side: 8, width: 6, dropout: 0.0, ..MixerConfig::default() };
        Box::new(Mixer::new(config).unwrap())
    }

    #[test]
    fn it_computes_as_the_network_does_with_biases_of_zero() {
        let (place, seed) = (Place::cpu(Precision::F64), Seed::root(5));
        let network = mixer();
        let base = network.sites().initial(&seed, &place).unwrap();
        let without = WithoutBiases::new(mixer());
        let linear = |name: &str| {
            let path = name.strip_suffix(".bias");
            network.sites().linears().iter().any(|site| Some(site.path.as_str()) == path)
        };
        let zero: Parameters = base
            .iter()
            .map(|(name, p)| {
                let mut p = p.clone();
                if linear(name) {
                    p.value = p.value.mul_scalar(0.0);
                }
                (name.to_owned(), p)
            })
            .collect();
        let numbers = (0..2 * 3 * 64).map(|i| f64::from(i % 17) / 17.0).collect();
        let input = Input::Images(place.tensor(numbers, [2, 3, 8, 8]).unwrap());
        let run = |network: &dyn Network, p: &Parameters| {
            values(&network.forward(&Pass::new(p), &input).unwrap()).unwrap()
        };
        let own = run(&without, &without.kept(&base));
        let distance = |other: Vec<f64>| {
            own.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
        };
        // Operations with and without a bias sum in other orders: some hundred roundings of numbers of
        // order 1 on the way to an output.
        assert!(distance(run(network.as_ref(), &zero)) < 1000.0 * f64::EPSILON);
        // Control: the biases matter.
        assert!(distance(run(network.as_ref(), &base)) > 1e-3);
        let lost: usize = network.sites().linears().iter().map(|site| site.outputs).sum();
        assert_eq!(without.sites().count() + lost, network.sites().count());
    }

    #[test]
    fn methods_that_change_linear_maps_are_told_from_those_that_choose_parameters() {
        let network = mixer();
        let concerned: Vec<&str> = crate::methods::registry()
            .iter()
            .filter_map(|entry| {
                let adapter =
                    Adapter::new(&AdapterConfig::new(entry.name), network.sites()).ok()?;
                WithoutBiases::concerns(&adapter, network.sites()).then_some(entry.name)
            })
            .collect();
        // Every weight method that there is, and none that selects parameters or acts elsewhere.
        for entry in crate::methods::registry() {
            let Ok(adapter) = Adapter::new(&AdapterConfig::new(entry.name), network.sites()) else {
                continue;
            };
            let is_weight = matches!(adapter.kind(), crate::methods::Kind::Weight(_));
            assert_eq!(concerned.contains(&entry.name), is_weight, "{}", entry.name);
        }
    }
}
