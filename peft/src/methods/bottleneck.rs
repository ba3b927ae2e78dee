//! Bottleneck adapter: `h <- h + gelu(h D + d) U + u` on every sublayer's output.
//!
//! Shapes: `D` width x m, `U` m x width. Start: all weights ~ N(0, 0.01^2), biases 0: near the base, not at
//! it, as in the paper. Source: Houlsby et al. 2019 (arXiv:1902.00751).
//! Limits: cannot be merged, its map is not linear.

use super::settings::in_range;
use super::{ActivationMethod, Configured, Entry, Kind, Theta, read_settings};
use crate::PeftError;
use crate::ops::{self, LinearMap};
use crate::parameters::{Init, Spec};
use crate::sites::BlockSite;
use burn::tensor::Tensor;

pub(super) const ENTRY: Entry = Entry {
    name: "bottleneck",
    summary: "a narrow two-layer network is put behind every sublayer",
    formula: "2 w m + w + m a sublayer of width w, m the adapter's size",
    source: "arXiv:1902.00751",
    hugging_face: None,
    examples: &["size = 3"],
    configure,
};

/// Settings, with the paper's defaults.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    size: usize,
    start_std: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { size: 64, start_std: 0.01 }
    }
}

struct Bottleneck(Settings);

fn configure(table: toml::Table) -> Result<Configured, PeftError> {
    let s: Settings = read_settings(ENTRY.name, table)?;
    in_range("size", s.size as f64, s.size >= 1, "at least 1")?;
    in_range(
        "start_std",
        s.start_std,
        s.start_std > 0.0,
        "more than 0: training starts nowhere else",
    )?;
    Ok(Configured::new(Kind::Activation(Box::new(Bottleneck(s)))).away_from_base())
}

impl ActivationMethod for Bottleneck {
    fn parameters(&self, block: &BlockSite) -> Vec<Spec> {
        let Settings { size, start_std: std } = self.0;
        let zero = Init::Constant(0.0);
        vec![
            Spec::matrix("adapter_down.weight", block.width, size, Init::Normal { std }),
            Spec::new("adapter_down.bias", [size], zero.clone()),
            Spec::matrix("adapter_up.weight", size, block.width, Init::Normal { std }),
            Spec::new("adapter_up.bias", [block.width], zero),
        ]
    }

    fn count(&self, block: &BlockSite) -> usize {
        2 * block.width * self.0.size + block.width + self.0.size
    }

    fn apply(&self, x: Tensor<2>, theta: &Theta<'_>) -> Result<Tensor<2>, PeftError> {
        let down = x.clone().matmul(theta.get("adapter_down.weight")?);
        let middle = ops::bias_gelu_dropout(down, Some(theta.get("adapter_down.bias")?), None);
        let bias = Some(theta.get("adapter_up.bias")?);
        let up = ops::linear(middle, LinearMap::plain(theta.get("adapter_up.weight")?, bias));
        Ok(x + up)
    }
}
