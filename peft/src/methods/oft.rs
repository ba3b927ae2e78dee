//! OFT: `W = R W0`, `R` block diagonal with orthogonal blocks: a layer's inputs are rotated.
//!
//! Shapes: `W0` in x out, `R` in/b blocks of b x b, each from the b(b-1)/2 numbers above the diagonal of a
//! skew `Q`. `cayley = "exact"`: `R = (I - Q)(I + Q)^-1`. `cayley = "series"`:
//! `R = I + 2Q + .. + 2Q^(p-2) + Q^(p-1)`, `p = terms`, as Hugging Face's peft has it by default (from 0.18;
//! before, the last power was doubled too): the truncated series of the map with the other sign,
//! orthogonal up to powers of the order left out.
//! Start: `Q = 0`. Source: Qiu et al. 2023 (arXiv:2306.07280); Liu et al. 2023 (arXiv:2311.06243).
//! Limits: a block size that does not divide the inputs is replaced by the nearest that does.

use super::settings::in_range;
use super::{Configured, Entry, Kind, Note, Theta, WeightMethod, read_settings};
use crate::PeftError;
use crate::device::values;
use crate::exchange::{Description, HuggingFace, Layers};
use crate::parameters::{Init, Spec};
use crate::sites::LinearSite;
use burn::tensor::{DType, Int, Tensor, TensorData};
use serde_json::{Map, Value, json};

pub(super) const ENTRY: Entry = Entry {
    name: "oft",
    summary: "each layer's inputs are rotated, block by block",
    formula: "(in / b) b (b - 1) / 2 = in (b - 1) / 2 a layer, b its block size",
    source: "arXiv:2306.07280, arXiv:2311.06243",
    hugging_face: Some(HuggingFace {
        peft_type: "OFT",
        is_own: HuggingFace::alone,
        import,
        export,
    }),
    examples: &["block_size = 3\ncayley = 'exact'", "block_size = 4"],
    configure,
};

/// Which map takes a skew matrix to a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cayley {
    Exact,
    Series,
}

/// Settings, with Hugging Face's defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    block_size: usize,
    cayley: Cayley,
    terms: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { block_size: 32, cayley: Cayley::Series, terms: 5 }
    }
}

struct Oft(Settings);

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range("block_size", s.block_size as f64, s.block_size >= 2, "at least 2")?;
    in_range("terms", s.terms as f64, s.terms >= 4, "at least 4: fewer are no rotation nearly")?;
    Ok(Configured::new(Kind::Weight(Box::new(Oft(s)))))
}

fn import(description: &mut Description, layers: &Layers) -> Result<toml::Table, PeftError> {
    let reason = "biases that are trained beside the adapter have no place here; only \"none\" has";
    description.only("bias", &[json!("none")], reason)?;
    for key in ["eps", "fan_in_fan_out", "init_weights"] {
        description.drop(key);
    }
    let size: u32 = description.taken("oft_block_size")?.unwrap_or(32);
    let blocks: u32 = description.taken("r")?.unwrap_or(0);
    let size = match (size, blocks) {
        (size, 0) => size,
        // The number of blocks instead of their size: one size only where all inputs are alike.
        (0, blocks) => {
            let inputs: std::collections::BTreeSet<usize> =
                layers.iter().map(|(site, _)| site.inputs).collect();
            let only = inputs.first().filter(|_| inputs.len() == 1).copied().unwrap_or(0) as u32;
            if only == 0 || !only.is_multiple_of(blocks) {
                let reason =
                    "as a number of blocks it must divide inputs that are as many in all layers";
                return Err(description.foreign("r", reason.into()));
            }
            only / blocks
        }
        _ => return Err(description.foreign("r", "it must be 0 beside an oft_block_size".into())),
    };
    let series: bool = description.taken("use_cayley_neumann")?.unwrap_or(true);
    let terms: u32 = description.taken("num_cayley_neumann_terms")?.unwrap_or(5);
    let mut table = toml::Table::new();
    table.insert("block_size".into(), i64::from(size).into());
    table.insert("cayley".into(), if series { "series" } else { "exact" }.into());
    if series {
        table.insert("terms".into(), i64::from(terms).into());
    }
    Ok(table)
}

fn export(table: &toml::Table, _: &Layers) -> Result<Map<String, Value>, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table.clone())?;
    let map = json!({
        "oft_block_size": s.block_size, "r": 0, "block_share": false, "coft": false, "bias": "none",
        "use_cayley_neumann": s.cayley == Cayley::Series, "num_cayley_neumann_terms": s.terms,
    });
    Ok(map.as_object().cloned().unwrap_or_default())
}

impl Oft {
    /// The divisor of `inputs` nearest to the block size; the smaller of two equally near ones.
    fn block(&self, inputs: usize) -> usize {
        let asked = self.0.block_size;
        (1..=inputs)
            .filter(|b| inputs.is_multiple_of(*b))
            .min_by_key(|b| b.abs_diff(asked))
            .unwrap_or(1)
    }

    /// The blocks of `R`, in/b x b x b.
    fn rotations(&self, inputs: usize, theta: &Theta<'_>) -> Result<Tensor<3>, PeftError> {
        let entries = theta.get::<2>("oft_R.weight")?;
        let blocks = entries.dims()[0].max(1);
        let skew = skew(entries, inputs / blocks);
        match self.0.cayley {
            Cayley::Exact => cayley(skew),
            Cayley::Series => Ok(series(skew, self.0.terms)),
        }
    }
}

impl WeightMethod for Oft {
    fn parameters(
        &self,
        layer: &LinearSite,
        notes: &mut Vec<Note>,
    ) -> Result<Vec<Spec>, PeftError> {
        let block = self.block(layer.inputs);
        let path = layer.path.clone();
        if block < 2 {
            let reason = "its inputs have no divisor near the block size but 1";
            notes.push(Note::Skipped { layer: path, reason });
            return Ok(Vec::new());
        }
        if block != self.0.block_size {
            notes.push(Note::BlockSize { layer: path, asked: self.0.block_size, used: block });
        }
        let shape = [layer.inputs / block, block * (block - 1) / 2];
        Ok(vec![Spec::new("oft_R.weight", shape, Init::Constant(0.0))])
    }

    fn count(&self, layer: &LinearSite) -> usize {
        layer.inputs * (self.block(layer.inputs) - 1) / 2
    }

    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        let [inputs, outputs] = base.dims();
        let rotations = self.rotations(inputs, theta)?;
        let [blocks, block, _] = rotations.dims();
        Ok(rotations.matmul(base.reshape([blocks, block, outputs])).reshape([inputs, outputs]))
    }

    fn product(
        &self,
        x: Tensor<2>,
        base: Tensor<2>,
        theta: &Theta<'_>,
    ) -> Result<Tensor<2>, PeftError> {
        let [rows, inputs] = x.dims();
        let rotations = self.rotations(inputs, theta)?;
        let [blocks, block, _] = rotations.dims();
        let cut = x.reshape([rows, blocks, block]).swap_dims(0, 1);
        let turned = cut.matmul(rotations).swap_dims(0, 1).reshape([rows, inputs]);
        Ok(turned.matmul(base))
    }
}

/// Skew matrices, blocks x b x b, from the entries above their diagonals, row by row.
fn skew(entries: Tensor<2>, b: usize) -> Tensor<3> {
    let [blocks, count] = entries.dims();
    // Where entry (i, j) is found among those above the diagonal; the diagonal points anywhere.
    let (mut places, mut signs) = (Vec::with_capacity(b * b), Vec::with_capacity(b * b));
    for i in 0..b {
        for j in 0..b {
            let (low, high) = (i.min(j), i.max(j));
            let place = low * (2 * b - low - 1) / 2 + high.saturating_sub(low + 1);
            places.push(place.min(count.saturating_sub(1)) as i64);
            signs.push((j as f64 - i as f64).signum() * f64::from(u8::from(i != j)));
        }
    }
    let device = entries.clone().inner().device();
    let places =
        Tensor::<1, Int>::from_data(TensorData::new(places, [b * b]), (&device, DType::I64));
    let signs = Tensor::<1>::from_data(TensorData::new(signs, [b * b]), (&device, entries.dtype()));
    (entries.select(1, places) * signs.unsqueeze::<2>()).reshape([blocks, b, b])
}

/// `I + 2Q + .. + 2Q^(terms - 2) + Q^(terms - 1)`.
fn series(q: Tensor<3>, terms: usize) -> Tensor<3> {
    let mut sum = identity(&q);
    let mut power = q.clone();
    for _ in 2..terms {
        sum = sum + power.clone().mul_scalar(2.0);
        power = power.matmul(q.clone());
    }
    sum + power
}

/// `(I - Q)(I + Q)^-1`.
///
/// The inverse `X` is computed outside the graph; `X (2I - M X)` is then `X` again in value, and its
/// derivative `-X dM X` is the inverse's.
fn cayley(q: Tensor<3>) -> Result<Tensor<3>, PeftError> {
    let [blocks, b, _] = q.dims();
    let identity = identity(&q);
    let sum = identity.clone() + q.clone();
    let mut inverses = values(&sum)?;
    for block in inverses.chunks_mut(b * b) {
        invert(block, b);
    }
    let data = TensorData::new(inverses, [blocks, b, b]);
    let x = Tensor::<3>::from_data(data, (&q.clone().inner().device(), q.dtype()));
    let inverse = x.clone().mul_scalar(2.0) - x.clone().matmul(sum).matmul(x);
    Ok((identity - q).matmul(inverse))
}

fn identity(like: &Tensor<3>) -> Tensor<3> {
    let b = like.dims()[1];
    let data = TensorData::new(
        (0..b * b).map(|i| f64::from(u8::from(i % (b + 1) == 0))).collect(),
        [1, b, b],
    );
    Tensor::from_data(data, (&like.clone().inner().device(), like.dtype()))
}

/// Inverts a row-major b x b matrix in place by Gauss-Jordan steps. No pivots are needed: `I + Q` has the
/// identity as its symmetric part, so every leading minor, and every pivot, is at least 1.
fn invert(m: &mut [f64], b: usize) {
    for p in 0..b {
        let pivot = 1.0 / m[p * b + p];
        m[p * b + p] = 1.0;
        m[p * b..(p + 1) * b].iter_mut().for_each(|x| *x *= pivot);
        for i in (0..b).filter(|&i| i != p) {
            let factor = std::mem::replace(&mut m[i * b + p], 0.0);
            for j in 0..b {
                m[i * b + j] -= factor * m[p * b + j];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Place, Precision};

    fn random(blocks: usize, b: usize, std: f64) -> Tensor<3> {
        let mut stream = peftml_linalg::Seed::root(6).child("skew").stream();
        let count = b * (b - 1) / 2;
        let numbers = (0..blocks * count).map(|_| std * stream.normal()).collect();
        let place = Place::cpu(Precision::F64);
        skew(place.tensor(numbers, [blocks, count]).unwrap(), b)
    }

    fn departure(r: Tensor<3>) -> f64 {
        let gap = r.clone().matmul(r.clone().swap_dims(1, 2)) - identity(&r);
        values(&gap).unwrap().into_iter().fold(0.0, |most, x| x.abs().max(most))
    }

    #[test]
    fn entries_fill_the_upper_triangle_row_by_row() {
        let place = Place::cpu(Precision::F64);
        let q = skew(place.tensor(vec![1.0, 2.0, 3.0], [1, 3]).unwrap(), 3);
        assert_eq!(values(&q).unwrap(), [0., 1., 2., -1., 0., 3., -2., -3., 0.]);
    }

    #[test]
    fn the_exact_map_gives_rotations_and_the_series_nearly() {
        // I + Q is well conditioned: errors of b sums of b products of numbers of order 1.
        assert!(departure(cayley(random(3, 5, 0.4)).unwrap()) < 100.0 * f64::EPSILON);
        // R R^T of the truncated series is I up to powers of order terms - 1 and more, their
        // coefficients below 4; ||Q|| is below 5 * 0.01 * 4.
        let gap = departure(series(random(3, 5, 0.01), 5));
        assert!(gap > 1e-14 && gap < 4.0 * 0.2f64.powi(4), "{gap}");
    }

    #[test]
    fn the_inverse_has_the_derivative_of_an_inverse() {
        let q = random(1, 4, 0.3);
        let direction = random(2, 4, 1.0).narrow(0, 1, 1);
        let at = |t: f64| cayley(q.clone() + direction.clone().mul_scalar(t)).unwrap();
        let weights = q.clone().powi_scalar(2).add_scalar(0.3);
        let x = q.clone().autodiff().require_grad();
        let loss = (cayley(x.clone()).unwrap() * weights.clone()).sum();
        let gradient = x.grad(&loss.backward()).unwrap();
        let slope = values(&(gradient * direction.clone()).sum()).unwrap()[0];
        let value = |t: f64| values(&(at(t) * weights.clone()).sum()).unwrap()[0];
        let h = 1e-5;
        let expected = (value(h) - value(-h)) / (2.0 * h);
        // Central differences: h^2 = 1e-10 times third derivatives of order 10, and rounding 1e-16 / h.
        assert!((slope - expected).abs() < 1e-8, "{slope} {expected}");
        assert!(slope.abs() > 1e-3);
    }
}
