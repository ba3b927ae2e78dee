//! What a network is made of, as far as methods need to know: the modules that an adapter can act on.

use crate::parameters::{Init, Parameters, Spec};
use crate::{PeftError, Place};
use peftml_linalg::Seed;

/// A linear map `x W + b`, `W` inputs x outputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinearSite {
    /// Its module path.
    pub path: String,
    /// Length of an input.
    pub inputs: usize,
    /// Length of an output.
    pub outputs: usize,
    /// Whether it adds a bias.
    pub bias: bool,
}

/// The output of a sublayer, before it is added to the residual stream (where there is one).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockSite {
    /// Its module path.
    pub path: String,
    /// Length of a vector there.
    pub width: usize,
}

/// The sequence of embedded tokens at a network's entry; its length may vary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSite {
    /// Length of an embedding.
    pub width: usize,
    /// How many positions the network can take.
    pub longest: usize,
}

/// A network's parameters and sites, in the order of its forward pass.
#[derive(Clone, Debug, Default)]
pub struct Sites {
    parameters: Vec<Spec>,
    linears: Vec<LinearSite>,
    blocks: Vec<BlockSite>,
    heads: Vec<String>,
    tokens: Option<TokenSite>,
    attentions: Vec<BlockSite>,
}

impl Sites {
    /// Adds the linear map `path` with PyTorch's default start, uniform within `1/sqrt(inputs)`.
    pub fn linear(&mut self, path: &str, inputs: usize, outputs: usize, bias: bool) {
        let uniform = Init::Uniform { bound: 1.0 / (inputs as f64).sqrt() };
        self.linear_from(path, [inputs, outputs], uniform.clone(), bias.then_some(uniform));
    }

    /// Adds the linear map `path` from inputs to outputs; without a start for it, no bias.
    pub fn linear_from(
        &mut self,
        path: &str,
        [inputs, outputs]: [usize; 2],
        weight: Init,
        bias: Option<Init>,
    ) {
        self.parameters.push(Spec::matrix(format!("{path}.weight"), inputs, outputs, weight));
        let site = LinearSite { path: path.into(), inputs, outputs, bias: bias.is_some() };
        if let Some(init) = bias {
            self.parameters.push(Spec::new(format!("{path}.bias"), [outputs], init));
        }
        self.linears.push(site);
    }

    /// Adds the layer norm `path`: weight 1, bias 0.
    pub fn layer_norm(&mut self, path: &str, width: usize) {
        let spec =
            |name: &str, value| Spec::new(format!("{path}.{name}"), [width], Init::Constant(value));
        self.parameters.push(spec("weight", 1.0));
        self.parameters.push(spec("bias", 0.0));
    }

    /// Adds any other parameter.
    pub fn parameter(&mut self, spec: Spec) {
        self.parameters.push(spec);
    }

    /// Adds the output of a sublayer.
    pub fn block(&mut self, path: &str, width: usize) {
        self.blocks.push(BlockSite { path: path.into(), width });
    }

    /// Says that the modules at and below `path` are the head.
    pub fn head(&mut self, path: &str) {
        self.heads.push(path.into());
    }

    /// Says that the network embeds tokens.
    pub fn token_sequence(&mut self, width: usize, longest: usize) {
        self.tokens = Some(TokenSite { width, longest });
    }

    /// Adds an attention with keys and values of length `width`.
    pub fn attention(&mut self, path: &str, width: usize) {
        self.attentions.push(BlockSite { path: path.into(), width });
    }

    /// Forgets the parameters for which `keep` does not hold.
    pub(crate) fn keep_parameters(&mut self, keep: impl Fn(&str) -> bool) {
        self.parameters.retain(|spec| keep(&spec.name));
    }

    /// All parameters.
    pub fn parameters(&self) -> &[Spec] {
        &self.parameters
    }

    /// All linear maps.
    pub fn linears(&self) -> &[LinearSite] {
        &self.linears
    }

    /// All sublayers' outputs.
    pub fn blocks(&self) -> &[BlockSite] {
        &self.blocks
    }

    /// The token sequence, where there is one.
    pub fn tokens(&self) -> Option<&TokenSite> {
        self.tokens.as_ref()
    }

    /// All attentions.
    pub fn attentions(&self) -> &[BlockSite] {
        &self.attentions
    }

    /// Whether the parameter `name` belongs to the head.
    pub fn in_head(&self, name: &str) -> bool {
        self.heads.iter().any(|head| is_within(name, head))
    }

    /// How many numbers the network's parameters are.
    pub fn count(&self) -> usize {
        self.parameters.iter().map(Spec::count).sum()
    }

    /// Every parameter at its start; each draws from the child of `seed` of its own name.
    ///
    /// # Errors
    /// As [`Place::tensor`].
    pub fn initial(&self, seed: &Seed, place: &Place) -> Result<Parameters, PeftError> {
        let start = |spec: &Spec| {
            let mut stream = seed.child(spec.name.as_str()).stream();
            Ok((spec.name.clone(), spec.start(&mut stream, None, place)?))
        };
        self.parameters.iter().map(start).collect()
    }
}

/// Whether `name` is `module` or lies below it.
pub(crate) fn is_within(name: &str, module: &str) -> bool {
    name.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_holds_what_is_below_it_and_not_what_begins_alike() {
        assert!(is_within("head.weight", "head"));
        assert!(is_within("head", "head"));
        assert!(!is_within("header.weight", "head"));
    }

    #[test]
    fn starts_do_not_depend_on_the_other_parameters() {
        let place = Place::cpu(crate::Precision::F64);
        let (mut small, mut large) = (Sites::default(), Sites::default());
        small.linear("b", 3, 2, true);
        large.linear("a", 4, 3, true);
        large.linear("b", 3, 2, true);
        let seed = Seed::root(2);
        let [small, large] = [small, large].map(|sites| sites.initial(&seed, &place).unwrap());
        assert_eq!(small.values("b.weight").unwrap(), large.values("b.weight").unwrap());
        // Control: another seed draws other numbers.
        let mut other = Sites::default();
        other.linear("b", 3, 2, true);
        let other = other.initial(&Seed::root(3), &place).unwrap();
        assert_ne!(small.values("b.weight").unwrap(), other.values("b.weight").unwrap());
    }
}
