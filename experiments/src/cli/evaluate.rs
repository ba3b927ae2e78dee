//! `peftml evaluate`: an encoder's outputs for sequences of tokens.

#[cfg(not(feature = "networks"))]
use super::{Common, Failure};
use clap::Args;
use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Run an encoder, with or without an adapter, on sequences of tokens
#[derive(Args)]
pub struct Arguments {
    /// The model's folder in Hugging Face's layout
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// An adapter's folder, in Hugging Face's format or ours
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
    /// input_ids, attention_mask and perhaps token_type_ids (.npz), sequences x length
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// Where to write logits (where there is a head), last_hidden_state and pooled, the mean over tokens (.npz)
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Sequences at once; bounds memory, changes nothing else
    #[arg(long, value_name = "COUNT", default_value = "16")]
    batch: NonZeroUsize,
}

#[cfg(not(feature = "networks"))]
pub fn run(arguments: &Arguments, _: &Common) -> Result<(), Failure> {
    let Arguments { model: _, adapter: _, inputs: _, out: _, batch: _ } = arguments;
    super::networks::missing()
}

#[cfg(feature = "networks")]
pub use with_networks::run;

#[cfg(feature = "networks")]
mod with_networks {
    use super::super::networks::{Model, failure, in_pool};
    use super::super::{Common, Failure, output, print_json};
    use super::Arguments;
    use faer::MatRef;
    use peftml_data::npz::{self, Archive, ArrayRef};
    use peftml_peft::device::values;
    use peftml_peft::models::masked_mean;
    use serde_json::json;
    use std::path::Path;
    use std::time::Instant;

    pub fn run(arguments: &Arguments, common: &Common) -> Result<(), Failure> {
        output::check_output(&arguments.out, &[("--inputs", &arguments.inputs)])?;
        let inputs = Inputs::read(&arguments.inputs)?;
        in_pool(common, || {
            let model = Model::load(&arguments.model, arguments.adapter.as_deref(), common)?;
            let started = Instant::now();
            let outputs = outputs(&model, &inputs, arguments.batch.get())?;
            let seconds = started.elapsed().as_secs_f64();
            let config = model.pretrained.encoder.config();
            outputs.write(&arguments.out, inputs.shape, [config.width, config.classes])?;
            print_json(&json!({
                "sequences": inputs.shape[0],
                "length": inputs.shape[1],
                "width": config.width,
                "classes": config.classes,
                "family": config.form.family.name(),
                "adapter": model.adapter.as_ref().map(|(adapter, _)| adapter.entry().name),
                "seconds": seconds,
            }))
        })
    }

    struct Inputs {
        shape: [usize; 2],
        ids: Vec<i64>,
        mask: Vec<f64>,
        segments: Option<Vec<i64>>,
    }

    impl Inputs {
        fn read(path: &Path) -> Result<Self, Failure> {
            let mut archive = Archive::open(path, "input_ids=.., attention_mask=..")?;
            let ids = archive.array("input_ids", "numbers of tokens, sequences x length")?;
            let mask = archive.array("attention_mask", "1 for a token, 0 for padding")?;
            let name = "token_type_ids";
            let segments = match archive.contains(name) {
                true => Some(archive.array(name, "numbers of segments, as input_ids")?),
                false => None,
            };
            archive.verify_rest()?;
            let refuse = |text: String| Failure::input(format_args!("{}: {text}", path.display()));
            let &[rows, length] = ids.shape() else {
                let found = ids.shape();
                return Err(refuse(format!("input_ids has shape {found:?}, not (n, length)")));
            };
            if rows == 0 || length == 0 {
                return Err(refuse("input_ids holds no tokens".into()));
            }
            let shape = [rows, length];
            for (name, array) in [("attention_mask", Some(&mask)), (name, segments.as_ref())] {
                if let Some(found) = array.map(npz::Array::shape).filter(|found| *found != shape) {
                    let text = format!("{name} has shape {found:?}, input_ids {shape:?}");
                    return Err(refuse(text));
                }
            }
            let whole = |name: &str, array: &npz::Array| {
                let numbers =
                    array.values().iter().map(|x| (x.fract() == 0.0).then_some(*x as i64));
                let numbers: Option<Vec<i64>> = numbers.collect();
                numbers.ok_or_else(|| refuse(format!("{name} must hold whole numbers")))
            };
            Ok(Self {
                shape,
                ids: whole("input_ids", &ids)?,
                mask: mask.values().to_vec(),
                segments: segments.map(|array| whole(name, &array)).transpose()?,
            })
        }
    }

    #[derive(Default)]
    struct Outputs {
        logits: Vec<f64>,
        states: Vec<f64>,
        pooled: Vec<f64>,
    }

    fn outputs(model: &Model, inputs: &Inputs, batch: usize) -> Result<Outputs, Failure> {
        let [rows, length] = inputs.shape;
        let (encoder, pass) = (&model.pretrained.encoder, model.pass());
        let mut outputs = Outputs::default();
        for first in (0..rows).step_by(batch) {
            let count = batch.min(rows - first);
            let part = first * length..(first + count) * length;
            let segments = inputs.segments.as_ref().map(|all| all[part.clone()].to_vec());
            let (ids, mask) = (inputs.ids[part.clone()].to_vec(), inputs.mask[part].to_vec());
            let shape = [count, length];
            let tokens = model.pretrained.tokens(ids, mask, segments, shape, &model.place);
            let tokens = tokens.map_err(failure)?;
            let (states, added) = encoder.states(&pass, &tokens).map_err(failure)?;
            if let Some(logits) = encoder.head(&pass, states.clone()).map_err(failure)? {
                outputs.logits.extend(values(&logits).map_err(failure)?);
            }
            // Vectors of what an adapter put before the sequence are its own affair.
            let states = states.narrow(1, added, length);
            outputs.pooled.extend(
                values(&masked_mean(states.clone(), tokens.mask.clone())).map_err(failure)?,
            );
            outputs.states.extend(values(&states).map_err(failure)?);
        }
        Ok(outputs)
    }

    impl Outputs {
        fn write(
            &self,
            path: &Path,
            [rows, length]: [usize; 2],
            [width, classes]: [usize; 2],
        ) -> Result<(), Failure> {
            let matrix = |numbers, rows, cols| MatRef::from_row_major_slice(numbers, rows, cols);
            let states = self.states.chunks_exact(length * width);
            let states = states.map(|one| matrix(one, length, width));
            let mut arrays = vec![
                ArrayRef::stack("last_hidden_state", states),
                ArrayRef::matrix("pooled", matrix(&self.pooled, rows, width)),
            ];
            if classes > 0 {
                arrays.push(ArrayRef::matrix("logits", matrix(&self.logits, rows, classes)));
            }
            npz::stage(path, &arrays)?.commit()?;
            Ok(())
        }
    }
}
