//! A strict non-global minimum that a run ended at, kept as text and written as files.
//!
//! The text is a JSON object of strings: numbers are in the shortest form that reads back to the same
//! bits. Its folder holds what `peftml check` reads: `tasks.npz` (`A`, with `U_true`), `point.npz` (`A`,
//! `U`) and, where the point is proved, `certificate.json`. The common truth is left out (`A* = 0`): it
//! cancels from the objective.

use super::TheoryConfig;
use faer::Mat;
use peftml_data::DataError;
use peftml_data::npz::{ArrayRef, stage, stage_text};
use peftml_linalg::{Blocks, kernel};
use peftml_theory::certificate::Certificate;
use peftml_theory::linear::{Kind, LinearError, ProfileObjective, Tasks};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The text of an instance.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    dimension: usize,
    rank: usize,
    /// `U*_t`, tasks one after the other, rows last but one, columns last; spaces between.
    offsets: String,
    /// `U_t`, alike.
    adapters: String,
    /// A certificate's own text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
}

/// The text of the point `adapters` for tasks with offsets of factors `offsets`.
pub(super) fn text(
    config: &TheoryConfig,
    offsets: &[Mat<f64>],
    adapters: &Blocks,
    certificate: Option<&Certificate>,
) -> String {
    let numbers = |matrices: &[Mat<f64>]| -> String {
        let rows = |m: &Mat<f64>| -> Vec<String> {
            (0..m.nrows())
                .flat_map(|i| (0..m.ncols()).map(move |j| (i, j)))
                .map(|at| m[at].to_string())
                .collect()
        };
        matrices.iter().flat_map(rows).collect::<Vec<_>>().join(" ")
    };
    let text = Text {
        dimension: config.dimension,
        rank: config.rank,
        offsets: numbers(offsets),
        adapters: numbers(&adapters.to_matrices(0..adapters.count())),
        certificate: certificate.map(Certificate::to_json),
    };
    // Strings and whole numbers alone: this cannot fail.
    serde_json::to_string(&text).unwrap_or_default()
}

/// Writes the files of an instance.
pub(super) fn write(text: &str, folder: &Path) -> Result<(), String> {
    let text: Text = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let offsets = text.matrices(&text.offsets)?;
    let adapters = text.matrices(&text.adapters)?;
    if offsets.len() != adapters.len() {
        return Err(format!("{} offsets, {} adapters", offsets.len(), adapters.len()));
    }
    let base = base(&offsets, &adapters, text.rank).map_err(|error| error.to_string())?;
    let truths: Vec<Mat<f64>> = offsets.iter().map(gram).collect();
    let save = || -> Result<(), DataError> {
        let tasks = [
            ArrayRef::stack("A", truths.iter().map(Mat::as_ref)),
            ArrayRef::stack("U_true", offsets.iter().map(Mat::as_ref)),
        ];
        stage(&folder.join("tasks.npz"), &tasks)?.commit()?;
        let point = [
            ArrayRef::matrix("A", base.as_ref()),
            ArrayRef::stack("U", adapters.iter().map(Mat::as_ref)),
        ];
        stage(&folder.join("point.npz"), &point)?.commit()?;
        if let Some(certificate) = &text.certificate {
            let text = format!("{certificate}\n");
            stage_text(&folder.join("certificate.json"), &text)?.commit()?;
        }
        Ok(())
    };
    save().map_err(|error| error.to_string())
}

/// `A` on the profile.
fn base(offsets: &[Mat<f64>], adapters: &[Mat<f64>], rank: usize) -> Result<Mat<f64>, LinearError> {
    let tasks = Tasks::exact(offsets.iter().map(gram))?;
    let objective = ProfileObjective::new(&tasks, Kind::Symmetric, rank)?;
    Ok(objective.base(&Blocks::from_matrices("U", adapters.iter().map(Mat::as_ref))))
}

fn gram(u: &Mat<f64>) -> Mat<f64> {
    let mut r = Mat::zeros(u.nrows(), u.nrows());
    kernel::mul(r.as_mut(), u.as_ref(), u.transpose(), 1.0);
    r
}

impl Text {
    fn matrices(&self, text: &str) -> Result<Vec<Mat<f64>>, String> {
        let numbers: Result<Vec<f64>, _> = text.split(' ').map(str::parse).collect();
        let numbers = numbers.map_err(|error| error.to_string())?;
        let (d, k) = (self.dimension, self.rank);
        let size = d.saturating_mul(k);
        if size == 0 || numbers.is_empty() || numbers.len() % size != 0 {
            return Err(format!("{} numbers are no matrices {d} x {k}", numbers.len()));
        }
        let matrix = |task: &[f64]| Mat::from_fn(d, k, |i, j| task[i * k + j]);
        Ok(numbers.chunks(size).map(matrix).collect())
    }
}
