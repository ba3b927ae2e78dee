//! LoKr: `W = W0 + s K1 (x) K2`, a Kronecker product, `s = alpha / r`; `K2 = B2 A2` where that is smaller.
//!
//! Shapes: in = m n, out = l k, factors as near to the square root as `decompose_factor` allows; `K1` m x l,
//! `K2` n x k, `B2` n x r, `A2` r x k (Hugging Face's `lokr_w1`, `lokr_w2`, `lokr_w2_b`, `lokr_w2_a`,
//! turned). Start: `K1 = 0`, the others uniform as Kaiming's.
//! The product applies `K2`, then `K1`: nothing of the weight's size is formed.
//! Source: Edalati et al. 2022 (KronA, arXiv:2212.10650); Yeh et al. 2023 (LyCORIS, arXiv:2309.14859).

use super::settings::in_range;
use super::{Configured, Entry, Kind, Note, Patterns, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::exchange::{Description, HuggingFace, Layers, number};
use crate::parameters::{Init, Spec};
use crate::sites::LinearSite;
use burn::tensor::Tensor;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

pub(super) const ENTRY: Entry = Entry {
    name: "lokr",
    summary: "a Kronecker product of two small matrices is added to each weight",
    formula: "m l + min-rank part: r (n + k) if r < max(n, k)/2, else n k; in = m n, out = l k",
    source: "arXiv:2212.10650, arXiv:2309.14859",
    hugging_face: Some(HuggingFace {
        peft_type: "LOKR",
        is_own: HuggingFace::alone,
        import,
        export,
    }),
    examples: &["rank = 2", "rank = 1\ndecompose_factor = 2\ndecompose_both = true"],
    configure,
};

/// Settings, with Hugging Face's defaults; a `decompose_factor` of 0 stands for its -1, the square root.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    rank: usize,
    alpha: f64,
    decompose_both: bool,
    decompose_factor: usize,
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 8.0,
            decompose_both: false,
            decompose_factor: 0,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
        }
    }
}

struct Lokr {
    settings: Settings,
    ranks: Patterns<usize>,
    alphas: Patterns<f64>,
}

/// How a layer's sides are cut: in = m n, out = l k, and which factors are products themselves.
struct Cut {
    m: usize,
    n: usize,
    l: usize,
    k: usize,
    rank: usize,
    split_first: bool,
    split_second: bool,
}

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let settings: Settings = read_settings(ENTRY.name, table)?;
    in_range("rank", settings.rank as f64, settings.rank >= 1, "at least 1")?;
    in_range("alpha", settings.alpha, settings.alpha > 0.0, "more than 0")?;
    let ranks = Patterns::new(&settings.rank_pattern)?;
    let alphas = Patterns::new(&settings.alpha_pattern)?;
    Ok(Configured::new(Kind::Weight(Box::new(Lokr { settings, ranks, alphas }))))
}

fn import(description: &mut Description, layers: &Layers) -> Result<toml::Table, PeftError> {
    description.drop("init_weights");
    let mut table = layers.ranks(description, "alpha", false)?.table;
    let both: bool = description.taken("decompose_both")?.unwrap_or(false);
    let factor: i64 = description.taken("decompose_factor")?.unwrap_or(-1);
    if factor == 0 || factor < -1 {
        return Err(
            description.foreign("decompose_factor", "-1, or 1 and more, is a factor".into())
        );
    }
    table.insert("decompose_both".into(), both.into());
    table.insert("decompose_factor".into(), factor.max(0).into());
    Ok(table)
}

fn export(table: &toml::Table, layers: &Layers) -> Result<Map<String, Value>, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table.clone())?;
    let (ranks, alphas) = (Patterns::new(&s.rank_pattern)?, Patterns::new(&s.alpha_pattern)?);
    let rank = |path: &str| ranks.get(path).unwrap_or(s.rank) as f64;
    let alpha = |path: &str| alphas.get(path).unwrap_or(s.alpha);
    let factor = if s.decompose_factor == 0 { json!(-1) } else { json!(s.decompose_factor) };
    let map = json!({
        "r": s.rank, "alpha": number(s.alpha),
        "decompose_both": s.decompose_both, "decompose_factor": factor,
        "rank_pattern": layers.pattern(s.rank as f64, |site| rank(&site.path)),
        "alpha_pattern": layers.pattern(s.alpha, |site| alpha(&site.path)),
    });
    Ok(map.as_object().cloned().unwrap_or_default())
}

impl Lokr {
    /// A rank too large to save anything leaves the factor whole, so that none needs a cap.
    fn cut(&self, layer: &LinearSite) -> Cut {
        let (m, n) = factors(layer.inputs, self.settings.decompose_factor);
        let (l, k) = factors(layer.outputs, self.settings.decompose_factor);
        let rank = self.ranks.get(&layer.path).unwrap_or(self.settings.rank);
        let split_first = self.settings.decompose_both && 2 * rank < m.max(l);
        Cut { m, n, l, k, rank, split_first, split_second: 2 * rank < n.max(k) }
    }

    /// `s K1`, `K2`.
    fn factors(&self, theta: &Theta<'_>) -> Result<(Tensor<2>, Tensor<2>), PeftError> {
        let factor = |whole: &str| -> Result<Tensor<2>, PeftError> {
            if theta.has(whole) {
                return theta.get(whole);
            }
            let (b, a) = (format!("{whole}_b"), format!("{whole}_a"));
            Ok(theta.get::<2>(&b)?.matmul(theta.get::<2>(&a)?))
        };
        let rank = self.ranks.get(theta.path()).unwrap_or(self.settings.rank);
        let alpha = self.alphas.get(theta.path()).unwrap_or(self.settings.alpha);
        Ok((factor("lokr_w1")?.mul_scalar(alpha / rank as f64), factor("lokr_w2")?))
    }
}

impl WeightMethod for Lokr {
    fn parameters(&self, layer: &LinearSite, _: &mut Vec<Note>) -> Result<Vec<Spec>, PeftError> {
        let named = self.ranks.get(&layer.path);
        if let Some(rank) = named.filter(|&r| r == 0 || r > layer.inputs.min(layer.outputs)) {
            let (layer, inputs, outputs) = (layer.path.clone(), layer.inputs, layer.outputs);
            return Err(PeftError::Rank { layer, rank, inputs, outputs });
        }
        let Cut { m, n, l, k, rank, split_first, split_second } = self.cut(layer);
        let uniform = |fan: usize| Init::Uniform { bound: 1.0 / (fan as f64).sqrt() };
        let zero = Init::Constant(0.0);
        let mut specs = if split_first {
            vec![
                Spec::matrix("lokr_w1_a", rank, l, zero),
                Spec::matrix("lokr_w1_b", m, rank, uniform(m)),
            ]
        } else {
            vec![Spec::matrix("lokr_w1", m, l, zero)]
        };
        if split_second {
            specs.push(Spec::matrix("lokr_w2_a", rank, k, uniform(rank)));
            specs.push(Spec::matrix("lokr_w2_b", n, rank, uniform(n)));
        } else {
            specs.push(Spec::matrix("lokr_w2", n, k, uniform(n)));
        }
        Ok(specs)
    }

    fn count(&self, layer: &LinearSite) -> usize {
        let Cut { m, n, l, k, rank, split_first, split_second } = self.cut(layer);
        let first = if split_first { rank * (m + l) } else { m * l };
        first + if split_second { rank * (n + k) } else { n * k }
    }

    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        let (first, second) = self.factors(theta)?;
        let ([m, l], [n, k]) = (first.dims(), second.dims());
        let change = first.reshape([m, 1, l, 1]) * second.reshape([1, n, 1, k]);
        Ok(base + change.reshape([m * n, l * k]))
    }

    fn product(
        &self,
        x: Tensor<2>,
        base: Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        let (first, second) = self.factors(theta)?;
        let ([m, l], [n, k]) = (first.dims(), second.dims());
        let rows = x.dims()[0];
        let inner = x.clone().reshape([rows * m, n]).matmul(second);
        let turned = inner.reshape([rows, m, k]).swap_dims(1, 2).reshape([rows * k, m]);
        let outer = turned.matmul(first).reshape([rows, k, l]).swap_dims(1, 2);
        Ok(x.matmul(base) + outer.reshape([rows, l * k]))
    }
}

/// `dimension = a b`, `a <= b`, as Hugging Face's peft cuts it: `a = factor` where that divides, else the
/// divisor nearest below the square root, or below `factor`.
fn factors(dimension: usize, factor: usize) -> (usize, usize) {
    if factor > 0 && dimension.is_multiple_of(factor) {
        return (factor, dimension / factor);
    }
    let most = if factor == 0 { dimension } else { factor };
    let below = |a: &usize| *a <= most && a * a <= dimension && dimension.is_multiple_of(*a);
    let a = (1..=dimension.isqrt()).rev().find(below).unwrap_or(1);
    (a, dimension / a)
}

#[cfg(test)]
mod tests {
    use super::factors;

    #[test]
    fn a_side_is_cut_as_peft_cuts_it() {
        // The examples of its documentation.
        let cases = [(256, 0, (16, 16)), (128, 0, (8, 16)), (127, 0, (1, 127)), (128, 4, (4, 32))];
        for (dimension, factor, expected) in cases {
            assert_eq!(factors(dimension, factor), expected);
        }
        assert_eq!(factors(12, 5), (3, 4));
    }
}
